/* The bounds check that every decoder is built on.
 *
 * A cursor is a window onto octets that somebody else owns. Reading moves its
 * start; a read past the end fails and moves nothing. Raw pointer arithmetic
 * on packet octets lives in this header alone. */
#ifndef OTUS_CURSOR_H
#define OTUS_CURSOR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "otus/status.h"

struct otus_cursor {
    const uint8_t *at;
    const uint8_t *end;
};

/* Octets inside a buffer that the context names: (offset, length), no pointer. */
struct otus_span {
    uint32_t off;
    uint32_t len;
};

/* Octets by address; borrowed, the lifetime is the owner's. */
struct otus_slice {
    const uint8_t *at;
    uint32_t len;
};

static inline struct otus_cursor otus_cursor_of(const uint8_t *octets, size_t len)
{
    struct otus_cursor cursor = {octets, octets + len};
    return cursor;
}

static inline size_t otus_cursor_left(const struct otus_cursor *cursor)
{
    return (size_t)(cursor->end - cursor->at);
}

OTUS_MUST_CHECK static inline bool otus_cursor_skip(struct otus_cursor *cursor, size_t len)
{
    if (OTUS_UNLIKELY(otus_cursor_left(cursor) < len))
        return false;
    cursor->at += len;
    return true;
}

/* Takes the next len octets as a cursor of their own. */
OTUS_MUST_CHECK static inline bool otus_cursor_take(struct otus_cursor *cursor,
                                                    struct otus_cursor *out_part, size_t len)
{
    if (OTUS_UNLIKELY(otus_cursor_left(cursor) < len))
        return false;
    *out_part = otus_cursor_of(cursor->at, len);
    cursor->at += len;
    return true;
}

OTUS_MUST_CHECK static inline bool otus_cursor_copy(struct otus_cursor *cursor, void *out_octets,
                                                    size_t len)
{
    if (OTUS_UNLIKELY(otus_cursor_left(cursor) < len))
        return false;
    memcpy(out_octets, cursor->at, len);
    cursor->at += len;
    return true;
}

/* Drops what lies behind the next len octets; keeps a shorter window as it is. */
static inline void otus_cursor_cut(struct otus_cursor *cursor, size_t len)
{
    if (otus_cursor_left(cursor) > len)
        cursor->end = cursor->at + len;
}

OTUS_MUST_CHECK static inline bool otus_cursor_u8(struct otus_cursor *cursor, uint8_t *out_value)
{
    return otus_cursor_copy(cursor, out_value, 1);
}

OTUS_MUST_CHECK static inline bool otus_cursor_be16(struct otus_cursor *cursor, uint16_t *out_value)
{
    uint16_t value;
    if (!otus_cursor_copy(cursor, &value, sizeof value))
        return false;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap16(value);
#endif
    *out_value = value;
    return true;
}

OTUS_MUST_CHECK static inline bool otus_cursor_be32(struct otus_cursor *cursor, uint32_t *out_value)
{
    uint32_t value;
    if (!otus_cursor_copy(cursor, &value, sizeof value))
        return false;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    *out_value = value;
    return true;
}

OTUS_MUST_CHECK static inline bool otus_cursor_be64(struct otus_cursor *cursor, uint64_t *out_value)
{
    uint64_t value;
    if (!otus_cursor_copy(cursor, &value, sizeof value))
        return false;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    *out_value = value;
    return true;
}

static inline uint16_t otus_load_be16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t otus_load_be24(const uint8_t *at)
{
    return (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
}

static inline uint32_t otus_load_be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | otus_load_be24(at + 1);
}

static inline void otus_store_be16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* A header of fixed length: checks its bounds once, so that its fields can be
 * loaded at constant offsets. NULL when fewer than len octets are left; moves nothing. */
OTUS_MUST_CHECK static inline const uint8_t *otus_cursor_peek(const struct otus_cursor *cursor,
                                                              size_t len)
{
    return OTUS_LIKELY(otus_cursor_left(cursor) >= len) ? cursor->at : NULL;
}

/* The same, and moves past it. */
OTUS_MUST_CHECK static inline const uint8_t *otus_cursor_header(struct otus_cursor *cursor,
                                                                size_t len)
{
    const uint8_t *header = otus_cursor_peek(cursor, len);
    if (header != NULL)
        cursor->at += len;
    return header;
}

/* Tells the cache that the octets at off will be read soon; nothing past the end. */
static inline void otus_cursor_prefetch(const struct otus_cursor *cursor, size_t off)
{
    if (OTUS_LIKELY(otus_cursor_left(cursor) > off))
        __builtin_prefetch(cursor->at + off);
}

/* Reads without moving. */
OTUS_MUST_CHECK static inline bool otus_cursor_peek_u8(const struct otus_cursor *cursor, size_t off,
                                                       uint8_t *out_value)
{
    if (OTUS_UNLIKELY(otus_cursor_left(cursor) <= off))
        return false;
    *out_value = cursor->at[off];
    return true;
}

OTUS_MUST_CHECK static inline bool otus_cursor_peek_be16(const struct otus_cursor *cursor,
                                                         size_t off, uint16_t *out_value)
{
    struct otus_cursor ahead = *cursor;
    return otus_cursor_skip(&ahead, off) && otus_cursor_be16(&ahead, out_value);
}

#endif
