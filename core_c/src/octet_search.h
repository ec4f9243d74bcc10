/* Finding one of a few octets in a stretch of a message, sixteen at a time.
 *
 * Every search runs over octets[from, to) of a buffer that is `len` octets long
 * in all: a vector is loaded only where it lies inside the buffer, so nothing
 * behind the buffer's end is touched (guard-page tests), while reading past
 * `to` but inside the buffer is free. Result: the offset, or `to`.
 *
 * The one place beside cursor.h where packet octets are read by address. */
#ifndef OTUS_OCTET_SEARCH_H
#define OTUS_OCTET_SEARCH_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "otus/cursor.h"

#if defined(__SSE2__) && !defined(OTUS_PORTABLE)
#define OTUS_SEARCH_SSE2 1
#include <emmintrin.h>
#elif defined(__aarch64__) && !defined(OTUS_PORTABLE)
#define OTUS_SEARCH_NEON 1
#include <arm_neon.h>
#endif

enum { OTUS_VECTOR_OCTETS = 16 };

#if OTUS_SEARCH_SSE2
typedef __m128i otus_vector;

static inline otus_vector otus_vector_load(const uint8_t *at)
{
    otus_vector vector;
    memcpy(&vector, at, sizeof vector); /* one unaligned load */
    return vector;
}

static inline otus_vector otus_vector_equal(otus_vector vector, uint8_t octet)
{
    return _mm_cmpeq_epi8(vector, _mm_set1_epi8((char)octet));
}

static inline otus_vector otus_vector_or(otus_vector a, otus_vector b)
{
    return _mm_or_si128(a, b);
}

/* Index of the first octet that compared equal; 16 or more where none did. */
static inline uint32_t otus_vector_first(otus_vector matches)
{
    uint32_t mask = (uint32_t)_mm_movemask_epi8(matches);
    return (uint32_t)__builtin_ctz(mask | 0x10000u);
}
#elif OTUS_SEARCH_NEON
typedef uint8x16_t otus_vector;

static inline otus_vector otus_vector_load(const uint8_t *at)
{
    return vld1q_u8(at);
}

static inline otus_vector otus_vector_equal(otus_vector vector, uint8_t octet)
{
    return vceqq_u8(vector, vdupq_n_u8(octet));
}

static inline otus_vector otus_vector_or(otus_vector a, otus_vector b)
{
    return vorrq_u8(a, b);
}

/* NEON has no movemask: narrowing each pair by four bits leaves a nibble an octet. */
static inline uint32_t otus_vector_first(otus_vector matches)
{
    uint8x8_t nibbles = vshrn_n_u16(vreinterpretq_u16_u8(matches), 4);
    uint64_t mask = vget_lane_u64(vreinterpret_u64_u8(nibbles), 0);
    return mask == 0 ? 16 : (uint32_t)__builtin_ctzll(mask) >> 2;
}
#endif

/* The offset of `octet` among the sixteen octets from `at` on, all of which can be read; 16
 * where it is not one of them. */
static inline size_t otus_find_in16(const uint8_t *at, uint8_t octet)
{
#if OTUS_SEARCH_SSE2 || OTUS_SEARCH_NEON
    return otus_vector_first(otus_vector_equal(otus_vector_load(at), octet));
#else
    size_t i = 0;
    while (i < OTUS_VECTOR_OCTETS && at[i] != octet)
        i++;
    return i;
#endif
}

/* The first of up to four octets; give one twice to look for fewer. */
static inline uint32_t otus_find4(const uint8_t *octets, uint32_t len, uint32_t from, uint32_t to,
                                  uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
#if OTUS_SEARCH_SSE2 || OTUS_SEARCH_NEON
    while (from < to && len - from >= OTUS_VECTOR_OCTETS) {
        otus_vector vector = otus_vector_load(octets + from);
        otus_vector matches = otus_vector_equal(vector, a);
        if (b != a)
            matches = otus_vector_or(matches, otus_vector_equal(vector, b));
        if (c != a)
            matches = otus_vector_or(matches, otus_vector_equal(vector, c));
        if (d != a)
            matches = otus_vector_or(matches, otus_vector_equal(vector, d));
        uint32_t first = otus_vector_first(matches);
        if (first < OTUS_VECTOR_OCTETS)
            return from + first < to ? from + first : to;
        from += OTUS_VECTOR_OCTETS;
    }
    if (from >= to)
        return to;
#else
    (void)len;
#endif
    for (; from < to; from++) {
        uint8_t octet = octets[from];
        if (octet == a || octet == b || octet == c || octet == d)
            break;
    }
    return from;
}

static inline uint32_t otus_find3(const uint8_t *octets, uint32_t len, uint32_t from, uint32_t to,
                                  uint8_t a, uint8_t b, uint8_t c)
{
    return otus_find4(octets, len, from, to, a, b, c, a);
}

static inline uint32_t otus_find2(const uint8_t *octets, uint32_t len, uint32_t from, uint32_t to,
                                  uint8_t a, uint8_t b)
{
    return otus_find4(octets, len, from, to, a, b, a, a);
}

static inline uint32_t otus_find(const uint8_t *octets, uint32_t len, uint32_t from, uint32_t to,
                                 uint8_t a)
{
    return otus_find4(octets, len, from, to, a, a, a, a);
}

/* Eight or four octets as a little-endian number; the caller has checked that they are there. */
static inline uint32_t otus_load4(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    return value;
}

static inline uint64_t otus_load8(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

/* Whether the sixteen octets at `at`, which can be read, are those of text once the bits of
 * fold are set in them. */
static inline bool otus_equals16(const uint8_t *at, const uint8_t *fold, const uint8_t *text)
{
#if OTUS_SEARCH_SSE2
    otus_vector folded = otus_vector_or(otus_vector_load(at), otus_vector_load(fold));
    return _mm_movemask_epi8(_mm_cmpeq_epi8(folded, otus_vector_load(text))) == 0xffff;
#else
    uint64_t differs = (otus_load8(at) | otus_load8(fold)) ^ otus_load8(text);
    differs |= (otus_load8(at + 8) | otus_load8(fold + 8)) ^ otus_load8(text + 8);
    return differs == 0;
#endif
}

/* LWS of RFC 3261 25.1 as it stands in a value whose lines are already joined. */
static inline bool otus_is_space(uint8_t octet)
{
    return OTUS_UNLIKELY(octet <= ' ') &&
           (octet == ' ' || octet == '\t' || octet == '\r' || octet == '\n');
}

static inline uint32_t otus_skip_space(const uint8_t *octets, uint32_t from, uint32_t to)
{
    while (from < to && otus_is_space(octets[from]))
        from++;
    return from;
}

static inline uint32_t otus_trim_space(const uint8_t *octets, uint32_t from, uint32_t to)
{
    while (to > from && otus_is_space(octets[to - 1]))
        to--;
    return to;
}

/* Whether the four octets at `at` are "sip:", in whichever case. */
static inline bool otus_is_sip_scheme(const uint8_t *at)
{
    return (otus_load4(at) | 0x00202020) == (uint32_t)('s' | 'i' << 8 | 'p' << 16 | ':' << 24);
}

/* ASCII letters without case; other octets as they are. */
static inline uint8_t otus_lower(uint8_t octet)
{
    return octet >= 'A' && octet <= 'Z' ? (uint8_t)(octet | 0x20) : octet;
}

static inline bool otus_is_digit(uint8_t octet)
{
    return octet >= '0' && octet <= '9';
}

/* Whether len octets at `at` spell `text` (given in lower case) without case. */
static inline bool otus_equals_nocase(const uint8_t *at, uint32_t len, const char *text,
                                      uint32_t text_len)
{
    if (len != text_len)
        return false;
    uint32_t differs = 0;
    for (uint32_t i = 0; i < text_len; i++) {
        uint8_t want = (uint8_t)text[i];
        uint8_t fold = want >= 'a' && want <= 'z' ? 0x20 : 0;
        differs |= (uint32_t)(at[i] | fold) ^ want;
    }
    return differs == 0;
}

#endif
