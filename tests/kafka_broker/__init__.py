"""A Kafka broker for tests: a real one where Java and Maven are, else librdkafka's mock."""
