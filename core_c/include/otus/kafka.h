/* Records as Kafka stores them: format v2 (KIP-98), grouped by partition.
 *
 * What is made here are sections: the uncompressed records of one batch. The
 * batch's header, its compression and its CRC belong to whoever sends it. */
#ifndef OTUS_KAFKA_H
#define OTUS_KAFKA_H

#include "otus/batch.h"

enum {
    /* In place of a section's number: the record has none, being too large or damaged. */
    OTUS_KAFKA_NO_SECTION = 0xffffffff,
};

/* One batch; all borrowed. Records and arena are as Python keeps them. */
struct otus_kafka_input {
    const uint8_t *records; /* struct otus_record[num_records], of any alignment */
    uint32_t num_records;
    const uint8_t *arena;
    uint32_t arena_len;
    const uint32_t *indices; /* the records that are meant, in this order */
    uint32_t num_indices;
    /* Headers that every record has, as they are stored: names and values, each
     * after its length. */
    struct otus_slice fixed_headers;
    uint32_t num_fixed_headers;
    /* By label id, each after its length; a label whose name is empty becomes no header. */
    const struct otus_slice *label_names;
    uint32_t num_label_names;
};

/* What a record's value is. */
enum otus_kafka_value {
    OTUS_KAFKA_JSON = 0,
    OTUS_KAFKA_PROTOBUF = 1, /* otus.v1.Record */
    OTUS_KAFKA_RAW = 2,      /* the payload as captured; addresses and ports are headers then */
};

/* Several batches whose records go to one topic. */
struct otus_kafka_inputs {
    const struct otus_kafka_input *inputs;
    uint32_t num_inputs;
    uint32_t num_partitions;     /* 1 or more */
    uint32_t max_section_octets; /* of one section, unless a single record is larger */
    uint32_t max_message_octets; /* of key, value and headers of one record */
    uint32_t value;              /* enum otus_kafka_value */
    uint32_t is_exact;           /* plan by what labels hold, not by what records say of them */
};

/* The records of one partition that go into one batch. */
struct otus_kafka_section {
    uint32_t partition;
    uint32_t num_records;
    int64_t base_ts_ms; /* of its first record: what the others are relative to */
    int64_t max_ts_ms;
    uint32_t off;  /* in the output */
    uint32_t room; /* octets at most */
    uint32_t len;  /* octets as written */
    uint32_t reserved;
};

/* The partition of a key: murmur2 as the Java client's default partitioner has it. */
uint32_t otus_kafka_partition(struct otus_slice key, uint32_t num_partitions);

/* Plans the sections: which record goes to which, and how large each may become.
 *
 * out_places has room for the indices of all inputs, one input after the other, and
 * tells each one's section or OTUS_KAFKA_NO_SECTION. out_sections has as much (a section
 * is planned for one record at least), scratch room for num_partitions. Of the sections,
 * partition, off and room are set; out_octets is what all may come to. Returns
 * OTUS_E_INVALID for indices beyond the records, and OTUS_E_LIMIT where all of it is more
 * than an output can hold. */
OTUS_MUST_CHECK enum otus_status otus_kafka_plan(uint32_t *out_places,
                                                 struct otus_kafka_section *out_sections,
                                                 uint32_t *out_num_sections, uint32_t *out_octets,
                                                 uint32_t *scratch,
                                                 const struct otus_kafka_inputs *from);

/* Writes what was planned for the same inputs, and completes the sections; one whose
 * records are all left out has none. places of records that turn out to be damaged or too
 * large become OTUS_KAFKA_NO_SECTION. Returns OTUS_E_LIMIT where out is smaller than
 * planned, and OTUS_E_PARTIAL where a section is, because labels that are no UTF-8 grow:
 * then plan again with is_exact, which does not happen to. */
OTUS_MUST_CHECK enum otus_status otus_kafka_write(uint8_t *out, uint32_t out_len,
                                                  struct otus_kafka_section *sections,
                                                  uint32_t num_sections, uint32_t *places,
                                                  const struct otus_kafka_inputs *from);

#endif
