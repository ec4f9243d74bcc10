/* CRC-32C (Castagnoli), RFC 3720 B.4: what Kafka guards record batches with. */
#ifndef OTUS_CRC32C_H
#define OTUS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* By the processor's own instruction where it has one. */
uint32_t otus_crc32c(const uint8_t *octets, size_t len);

/* The same on any processor. */
uint32_t otus_crc32c_portable(const uint8_t *octets, size_t len);

#endif
