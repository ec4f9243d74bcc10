/* Writes JSON into a caller's room: literals, numbers and strings of any octets.
 *
 * Nothing is written past the end: what does not fit sets `full`, and the whole
 * record is then given up. Strings are copied 16 octets at a step until one
 * needs an escape. */
#ifndef OTUS_JSON_WRITER_H
#define OTUS_JSON_WRITER_H

#include <stdbool.h>

#include "otus/arena.h"
#include "text.h"

#if defined(__SSE2__) && !defined(OTUS_PORTABLE)
#include <emmintrin.h>
#define OTUS_JSON_SSE2 1
#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(OTUS_PORTABLE)
#include <arm_neon.h>
#define OTUS_JSON_NEON 1
#endif

enum {
    JSON_STEP = 16,      /* octets copied at once */
    JSON_STEP_ROOM = 32, /* that a step may touch: a copy, or a copy and an escape */
};

struct json_writer {
    uint8_t *at;
    uint8_t *end;
    bool full;
};

/* Octets with what may be read behind them: the message that they lie in. */
struct json_text {
    const uint8_t *at;
    uint32_t len;
    uint32_t readable; /* at least len */
};

static inline struct json_text json_text_of(struct otus_slice slice)
{
    struct json_text text = {slice.at, slice.len, slice.len};
    return text;
}

/* A span of octets; empty where it does not lie within them. */
static inline struct json_text json_text_in(const uint8_t *octets, uint32_t len,
                                            struct otus_span span)
{
    bool within = span.off <= len && span.len <= len - span.off;
    struct json_text text = {octets + span.off, span.len, len - span.off};
    struct json_text none = {octets, 0, len};
    return OTUS_LIKELY(within) ? text : none;
}

/* Copies eight octets; bit i of the result is set where octet i can't stand in
 * a JSON string as it is: below 0x20, '"', '\\', above 0x7f. */
static inline uint32_t json_copy8_portable(uint8_t *out, const uint8_t *at)
{
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t tops = 0x8080808080808080u;
    uint64_t octets;
    memcpy(&octets, at, sizeof octets);
    memcpy(out, &octets, sizeof octets);
    uint64_t low = octets & ~tops; /* so that no borrow crosses an octet */
    uint64_t not_quote = (low ^ (ones * '"')) + ~tops;
    uint64_t not_backslash = (low ^ (ones * '\\')) + ~tops;
    uint64_t not_control = low + ones * (0x80 - 0x20);
    uint64_t bad = (octets | ~(not_quote & not_backslash & not_control)) & tops;
    /* The top bits of eight octets, gathered in the order of memory. */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    bad = __builtin_bswap64(bad);
#endif
    return (uint32_t)(((bad >> 7) * 0x0102040810204080u) >> 56);
}

static inline uint32_t json_copy16_portable(uint8_t *out, const uint8_t *at)
{
    uint32_t first = json_copy8_portable(out, at);
    return first | json_copy8_portable(out + 8, at + 8) << 8;
}

#if defined(OTUS_JSON_SSE2)
static inline uint32_t json_copy16(uint8_t *out, const uint8_t *at)
{
    __m128i octets = _mm_loadu_si128((const __m128i *)(const void *)at);
    _mm_storeu_si128((__m128i *)(void *)out, octets);
    /* Signed: octets above 0x7f are below 0x20 as well. */
    __m128i bad = _mm_cmplt_epi8(octets, _mm_set1_epi8(0x20));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(octets, _mm_set1_epi8('"')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(octets, _mm_set1_epi8('\\')));
    return (uint32_t)_mm_movemask_epi8(bad);
}
#elif defined(OTUS_JSON_NEON)
static inline uint32_t json_copy16(uint8_t *out, const uint8_t *at)
{
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t octets = vld1q_u8(at);
    vst1q_u8(out, octets);
    uint8x16_t bad = vreinterpretq_u8_s8(
        vreinterpretq_s8_u8(vcltq_s8(vreinterpretq_s8_u8(octets), vdupq_n_s8(0x20))));
    bad = vorrq_u8(bad, vceqq_u8(octets, vdupq_n_u8('"')));
    bad = vorrq_u8(bad, vceqq_u8(octets, vdupq_n_u8('\\')));
    bad = vandq_u8(bad, vld1q_u8(bits));
    return (uint32_t)vaddv_u8(vget_low_u8(bad)) | (uint32_t)vaddv_u8(vget_high_u8(bad)) << 8;
}
#else
static inline uint32_t json_copy16(uint8_t *out, const uint8_t *at)
{
    return json_copy16_portable(out, at);
}
#endif

static inline size_t json_room(const struct json_writer *writer)
{
    return (size_t)(writer->end - writer->at);
}

static inline void json_put(struct json_writer *writer, const void *octets, size_t len)
{
    if (OTUS_UNLIKELY(json_room(writer) < len)) {
        writer->full = true;
        return;
    }
    memcpy(writer->at, octets, len);
    writer->at += len;
}

#define JSON_LITERAL(writer, literal) json_put((writer), (literal), sizeof(literal) - 1)

/* Any octets as the inside of a JSON string: escapes, and U+FFFD where they are
 * not UTF-8. The general form; json_string() is the way in. */
void json_escape(struct json_writer *writer, const uint8_t *at, const uint8_t *end,
                 const uint8_t *readable_end);

static inline void json_string(struct json_writer *writer, struct json_text text)
{
    if (OTUS_UNLIKELY(text.len == 0))
        return;
    const uint8_t *at = text.at;
    const uint8_t *end = at + text.len;
    const uint8_t *readable_end = at + text.readable;
    while (OTUS_LIKELY(readable_end - at >= JSON_STEP && json_room(writer) >= JSON_STEP)) {
        uint32_t bad = json_copy16(writer->at, at);
        size_t left = (size_t)(end - at);
        if (left <= JSON_STEP) {
            /* What lies behind the text is none of its business. */
            if (OTUS_UNLIKELY((bad & ((1u << left) - 1)) != 0))
                break;
            writer->at += left;
            return;
        }
        if (OTUS_UNLIKELY(bad != 0))
            break;
        at += JSON_STEP;
        writer->at += JSON_STEP;
    }
    if (at < end)
        json_escape(writer, at, end, readable_end);
}

/* before, the text as a string's inside, after: `"uri":"` ... `",`. */
static inline __attribute__((always_inline)) void json_put_text(struct json_writer *writer,
                                                                const char *before,
                                                                size_t before_len,
                                                                struct json_text text,
                                                                const char *after, size_t after_len)
{
    json_put(writer, before, before_len);
    json_string(writer, text);
    json_put(writer, after, after_len);
}

/* A string member, with its comma behind it. */
#define JSON_MEMBER(writer, name, text)                                                            \
    json_put_text((writer), "\"" name "\":\"", sizeof("\"" name "\":\"") - 1, (text), "\",", 2)
/* The same where the text is not empty. */
#define JSON_OPTIONAL(writer, name, text)                                                          \
    do {                                                                                           \
        struct json_text json_optional_text = (text);                                              \
        if (json_optional_text.len != 0)                                                           \
            JSON_MEMBER((writer), name, json_optional_text);                                       \
    } while (0)

static inline __attribute__((always_inline)) void json_put_number(struct json_writer *writer,
                                                                  const char *before,
                                                                  size_t before_len, uint32_t value)
{
    if (OTUS_UNLIKELY(json_room(writer) < before_len + OTUS_TEXT_U32 + 1)) {
        writer->full = true;
        return;
    }
    memcpy(writer->at, before, before_len);
    writer->at += before_len;
    writer->at += otus_text_u16(writer->at, value);
    *writer->at++ = ',';
}

/* A number member, with its comma behind it. */
#define JSON_NUMBER(writer, name, value)                                                           \
    json_put_number((writer), "\"" name "\":", sizeof("\"" name "\":") - 1, (value))

/* Turns the comma behind the last member into the closing bracket. Once the
 * writer is full, the octet in front of it may be another's. */
static inline void json_close(struct json_writer *writer, char bracket)
{
    if (OTUS_UNLIKELY(writer->full))
        return;
    if (writer->at[-1] == ',')
        writer->at[-1] = (uint8_t)bracket;
    else
        json_put(writer, &bracket, 1);
}

#endif
