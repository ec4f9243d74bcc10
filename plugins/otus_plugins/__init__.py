"""The plugins that come with Otus; they use the same contracts as anybody's."""
