/* Capture files put together octet by octet, for the capture tests. */
#ifndef OTUS_TEST_CAPTURE_BYTES_H
#define OTUS_TEST_CAPTURE_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct file_bytes {
    uint8_t octets[8192];
    size_t len;
    bool big; /* octet order of what is put */
};

static inline void put8(struct file_bytes *file, uint8_t value)
{
    if (file->len < sizeof file->octets)
        file->octets[file->len++] = value;
}

static inline void put16(struct file_bytes *file, uint16_t value)
{
    put8(file, (uint8_t)(file->big ? value >> 8 : value));
    put8(file, (uint8_t)(file->big ? value : value >> 8));
}

static inline void put32(struct file_bytes *file, uint32_t value)
{
    put16(file, (uint16_t)(file->big ? value >> 16 : value));
    put16(file, (uint16_t)(file->big ? value : value >> 16));
}

static inline void put_octets(struct file_bytes *file, const void *octets, size_t len)
{
    const uint8_t *at = octets;
    for (size_t i = 0; i < len; i++)
        put8(file, at[i]);
}

static inline void put_pcap_header(struct file_bytes *file, uint32_t magic, uint32_t link_type)
{
    put32(file, magic);
    put16(file, 2);
    put16(file, 4);
    put32(file, 0);
    put32(file, 0);
    put32(file, 65535);
    put32(file, link_type);
}

static inline void put_pcap_record(struct file_bytes *file, uint32_t seconds, uint32_t fraction,
                                   uint32_t caplen, uint32_t wirelen)
{
    put32(file, seconds);
    put32(file, fraction);
    put32(file, caplen);
    put32(file, wirelen);
    for (uint32_t i = 0; i < caplen; i++)
        put8(file, (uint8_t)i);
}

/* A pcapng block around a body, padded to 32 bits. */
static inline void put_block(struct file_bytes *file, uint32_t type, const struct file_bytes *body)
{
    uint32_t padded = (uint32_t)(body->len + 3) / 4 * 4;
    put32(file, type);
    put32(file, padded + 12);
    put_octets(file, body->octets, body->len);
    for (size_t i = body->len; i < padded; i++)
        put8(file, 0);
    put32(file, padded + 12);
}

static inline void put_section(struct file_bytes *file)
{
    struct file_bytes body = {.big = file->big};
    put32(&body, 0x1A2B3C4D);
    put16(&body, 1);
    put16(&body, 0);
    put32(&body, 0xffffffff);
    put32(&body, 0xffffffff);
    put_block(file, 0x0A0D0D0A, &body);
}

/* tsresol 0xff leaves the option out (microseconds). */
static inline void put_interface(struct file_bytes *file, uint16_t link_type, uint32_t snap_len,
                                 uint8_t tsresol, int64_t tsoffset)
{
    struct file_bytes body = {.big = file->big};
    put16(&body, link_type);
    put16(&body, 0);
    put32(&body, snap_len);
    put16(&body, 2); /* if_name, to be skipped, with padding */
    put16(&body, 5);
    put_octets(&body, "eth00\0\0\0", 8);
    if (tsresol != 0xff) {
        put16(&body, 9);
        put16(&body, 1);
        put8(&body, tsresol);
        put_octets(&body, "\0\0\0", 3);
    }
    if (tsoffset != 0) {
        put16(&body, 14);
        put16(&body, 8);
        put32(&body, (uint32_t)((uint64_t)tsoffset >> (file->big ? 32 : 0)));
        put32(&body, (uint32_t)((uint64_t)tsoffset >> (file->big ? 0 : 32)));
    }
    put32(&body, 0);
    put_block(file, 1, &body);
}

static inline void put_enhanced(struct file_bytes *file, uint32_t interface_id, uint64_t ticks,
                                uint32_t caplen, uint32_t wirelen, bool outbound)
{
    struct file_bytes body = {.big = file->big};
    put32(&body, interface_id);
    put32(&body, (uint32_t)(ticks >> 32));
    put32(&body, (uint32_t)ticks);
    put32(&body, caplen);
    put32(&body, wirelen);
    for (uint32_t i = 0; i < caplen; i++)
        put8(&body, (uint8_t)i);
    while (body.len % 4 != 0)
        put8(&body, 0);
    if (outbound) {
        put16(&body, 1); /* a comment first */
        put16(&body, 2);
        put_octets(&body, "hi\0\0", 4);
        put16(&body, 2);
        put16(&body, 4);
        put32(&body, 2);
        put32(&body, 0);
    }
    put_block(file, 6, &body);
}

#endif
