/* CRC-32C (Castagnoli), RFC 3720 B.4: what Kafka guards record batches with. */
#ifndef OTUS_CRC32C_H
#define OTUS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t (*otus_crc32c)(const uint8_t *octets, size_t len);

/* The quickest for this processor: by its own instruction where it has one. To be asked once: where
 * a hypervisor answers for the processor, it takes microseconds. */
otus_crc32c otus_crc32c_best(void);

/* The same sum on any processor. */
uint32_t otus_crc32c_portable(const uint8_t *octets, size_t len);

#endif
