/* Writes JSON: literals, numbers, and strings of any octets.
 *
 * Every function takes the place to write at and returns the place behind what it
 * wrote, so that the place stays in a register. There is one bound, `end`, with
 * JSON_SLACK octets of the caller's room behind it:
 *
 * - strings and numbers start before `end`, or else return `end` itself: a record
 *   that ends at `end` or behind it did not fit and is given up;
 * - literals ask nothing: between two strings or numbers there are far fewer than
 *   JSON_SLACK octets of them.
 *
 * Strings are copied JSON_STEP octets at a time, and each step finds what needs an
 * escape. A step writes and reads whole vectors: up to JSON_STEP octets behind a
 * string are read, and never used.
 *
 * This file and those that build on it (json_sip.h, json_sdp.h, json_record.h) are
 * compiled once for each vector unit: see json_form.h. */
#ifndef OTUS_JSON_WRITER_H
#define OTUS_JSON_WRITER_H

#include <stdbool.h>

#include "json_form.h"
#include "text.h"

#if defined(JSON_AVX512)
#include <immintrin.h>
enum { JSON_STEP = 64, JSON_BITS = 1 };
typedef uint64_t json_mask;
#elif defined(JSON_AVX2)
#include <immintrin.h>
enum { JSON_STEP = 32, JSON_BITS = 1 };
typedef uint32_t json_mask;
#elif defined(__SSE2__) && !defined(JSON_PORTABLE)
#include <emmintrin.h>
#define JSON_SSE2 1
enum { JSON_STEP = 16, JSON_BITS = 1 };
typedef uint32_t json_mask;
#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(JSON_PORTABLE)
#include <arm_neon.h>
#define JSON_NEON 1
enum { JSON_STEP = 16, JSON_BITS = 4 };
typedef uint64_t json_mask;
#else
enum { JSON_STEP = 8, JSON_BITS = 8 };
typedef uint64_t json_mask;
#endif

/* Copies JSON_STEP octets and returns which of them can't stand in a JSON string as they are:
 * those below 0x20, '"', '\\' and all above 0x7f, whose UTF-8 is to be checked. Each has one
 * bit, JSON_BITS * its index plus a constant below JSON_BITS. */
static inline json_mask json_copy(uint8_t *out, const uint8_t *at);

#if defined(JSON_AVX512)
static inline json_mask json_copy(uint8_t *out, const uint8_t *at)
{
    __m512i octets = _mm512_loadu_si512(at);
    _mm512_storeu_si512(out, octets);
    /* One look-up of the low seven bits; the sign tells the octets above 0x7f. */
    __m512i low = _mm512_load_si512(json_vectors.escaped);
    __m512i high = _mm512_load_si512(json_vectors.escaped + 64);
    __m512i bad = _mm512_permutex2var_epi8(low, octets, high);
    return _mm512_movepi8_mask(_mm512_or_si512(bad, octets));
}
#elif defined(JSON_AVX2)
static inline json_mask json_copy(uint8_t *out, const uint8_t *at)
{
    __m256i octets, allowed, quote, backslash;
    memcpy(&octets, at, sizeof octets);
    memcpy(out, &octets, sizeof octets);
    /* From memory each is an operand; as constants they were made anew for each string. */
    memcpy(&allowed, json_vectors.allowed, sizeof allowed);
    memcpy(&quote, json_vectors.quote, sizeof quote);
    memcpy(&backslash, json_vectors.backslash, sizeof backslash);
    /* Signed: octets above 0x7f are below 0x20 as well. The sign tells. */
    __m256i bad = _mm256_subs_epi8(octets, allowed);
    bad = _mm256_or_si256(bad, _mm256_cmpeq_epi8(octets, quote));
    bad = _mm256_or_si256(bad, _mm256_cmpeq_epi8(octets, backslash));
    return (uint32_t)_mm256_movemask_epi8(bad);
}
#elif defined(JSON_SSE2)
static inline json_mask json_copy(uint8_t *out, const uint8_t *at)
{
    __m128i octets;
    memcpy(&octets, at, sizeof octets);
    memcpy(out, &octets, sizeof octets);
    /* Signed: octets above 0x7f are below 0x20 as well. */
    __m128i bad = _mm_cmplt_epi8(octets, _mm_set1_epi8(0x20));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(octets, _mm_set1_epi8('"')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(octets, _mm_set1_epi8('\\')));
    return (uint32_t)_mm_movemask_epi8(bad);
}
#elif defined(JSON_NEON)
static inline json_mask json_copy(uint8_t *out, const uint8_t *at)
{
    uint8x16_t octets = vld1q_u8(at);
    vst1q_u8(out, octets);
    uint8x16_t bad = vcltq_s8(vreinterpretq_s8_u8(octets), vdupq_n_s8(0x20));
    bad = vorrq_u8(bad, vceqq_u8(octets, vdupq_n_u8('"')));
    bad = vorrq_u8(bad, vceqq_u8(octets, vdupq_n_u8('\\')));
    /* Four bits an octet: the nearest thing to a movemask. */
    uint8x8_t nibbles = vshrn_n_u16(vreinterpretq_u16_u8(bad), 4);
    return vget_lane_u64(vreinterpret_u64_u8(nibbles), 0) & 0x1111111111111111u;
}
#else
static inline json_mask json_copy(uint8_t *out, const uint8_t *at)
{
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t tops = 0x8080808080808080u;
    uint64_t octets;
    memcpy(&octets, at, sizeof octets);
    memcpy(out, &octets, sizeof octets);
    uint64_t low = octets & ~tops; /* so that no carry crosses an octet */
    uint64_t not_quote = (low ^ (ones * '"')) + ~tops;
    uint64_t not_backslash = (low ^ (ones * '\\')) + ~tops;
    uint64_t not_control = low + ones * (0x80 - 0x20);
    uint64_t bad = (octets | ~(not_quote & not_backslash & not_control)) & tops;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    bad = __builtin_bswap64(bad);
#endif
    return bad;
}
#endif

/* How many octets there are before the first marked one: JSON_STEP where none is. */
static inline uint32_t json_clean(json_mask bad)
{
#if defined(JSON_AVX512)
    return (uint32_t)_tzcnt_u64(bad);
#elif defined(JSON_AVX2)
    return _tzcnt_u32(bad);
#else
    return bad == 0 ? JSON_STEP : (uint32_t)__builtin_ctzll(bad) / JSON_BITS;
#endif
}

/* The bits of the first len octets of a step, 1 to JSON_STEP. */
static inline json_mask json_below(uint32_t len)
{
    return (json_mask)-1 >> (8 * sizeof(json_mask) - len * JSON_BITS);
}

static_assert((int)JSON_STEP <= (int)OTUS_ENCODE_BEHIND,
              "what callers keep readable behind a string");

static inline void json_move32(uint8_t *out, const void *from)
{
#if defined(JSON_AVX2) || defined(JSON_AVX512)
    __m256i octets; /* memcpy() would take halves */
    memcpy(&octets, from, sizeof octets);
    memcpy(out, &octets, sizeof octets);
#else
    memcpy(out, from, 32);
#endif
}

/* JSON_STEP octets as they are. */
static inline void json_move(uint8_t *out, const uint8_t *from)
{
    if (JSON_STEP == 32)
        json_move32(out, from);
    else
        memcpy(out, from, JSON_STEP);
}

/* One step of len octets with bad ones among them, which are given. What is between them is
 * copied without a look at it, so that nothing waits for what was found before. Moves *from on
 * by len, or to an octet that is for json_escape_one(). */
static inline uint8_t *json_escape_step(uint8_t *at, const uint8_t **from, uint32_t len,
                                        json_mask bad)
{
    const uint8_t *octets = *from;
    uint32_t done = 0;
    do {
        uint32_t next = json_clean(bad);
        bad &= bad - 1;
        json_move(at, octets + done);
        at += next - done;
        done = next + 1;
        uint8_t octet = octets[next];
        if (octet == '\r' && done < len && octets[done] == '\n') {
            /* Line ends come in pairs, and bodies are full of them. */
            memcpy(at, "\\r\\n", 4);
            at += 4;
            done++;
            bad &= bad - 1;
        } else if (octet == '"' || octet == '\\') {
            at[0] = '\\';
            at[1] = octet;
            at += 2;
        } else {
            *from = octets + next;
            return at;
        }
    } while (bad != 0);
    json_move(at, octets + done);
    *from = octets + len;
    return at + (len - done);
}

/* A string that needs escapes or more than its first steps. */
static __attribute__((noinline)) uint8_t *json_escape(uint8_t *at, uint8_t *end,
                                                      const uint8_t *from, uint32_t len)
{
    const uint8_t *stop = from + len;
    while (OTUS_LIKELY(at < end)) {
        json_mask bad = json_copy(at, from);
        uint32_t left = (uint32_t)(stop - from);
        uint32_t step = JSON_STEP;
        if (left <= JSON_STEP) {
            if (left <= json_clean(bad))
                return at + left;
            step = left;
            bad &= json_below(left);
        } else if (bad == 0) {
            at += JSON_STEP;
            from += JSON_STEP;
            continue;
        }
        const uint8_t *step_end = from + step;
        at = json_escape_step(at, &from, step, bad);
        if (OTUS_UNLIKELY(from < step_end)) {
            do { /* text of another script is a run of such octets */
                at = json_escape_one(at, &from, stop);
            } while (from < stop && *from >= 0x80 && at < end);
        }
        if (from == stop)
            return at;
    }
    return end;
}

enum { JSON_AHEAD = 8192 };

/* Asks for the octets that are written soon. A batch's arena is larger than the
 * second-level cache, and stores that wait for memory were a seventh of a packet's
 * whole time. */
static inline void json_ask(const uint8_t *at)
{
    __builtin_prefetch((const void *)((uintptr_t)at + JSON_AHEAD), 1);
}

/* The inside of a string. Most end within the first 32 octets, nearly all within 64. */
static inline __attribute__((always_inline)) uint8_t *json_string(uint8_t *at, uint8_t *end,
                                                                  struct otus_slice text)
{
    if (OTUS_UNLIKELY(at >= end))
        return end;
    json_ask(at);
    uint32_t clean = json_clean(json_copy(at, text.at));
    if (OTUS_LIKELY(text.len <= clean))
        return at + text.len;
    if (JSON_STEP < 64 && clean == JSON_STEP) {
        clean += json_clean(json_copy(at + JSON_STEP, text.at + JSON_STEP));
        if (OTUS_LIKELY(text.len <= clean))
            return at + text.len;
    }
    uint32_t done = clean / JSON_STEP * JSON_STEP;
    return json_escape(at + done, end, text.at + done, text.len - done);
}

/* len octets of a literal that goes on for JSON_PADDING more, so that whole words
 * are stored and `at` alone tells where it ended. */
static inline __attribute__((always_inline)) uint8_t *json_put(uint8_t *at, const char *padded,
                                                               size_t len)
{
    if (len <= 16)
        memcpy(at, padded, len <= 4 ? 4 : len <= 8 ? 8 : 16);
    else
        json_move32(at, padded);
    return at + len;
}

#define JSON_PADDING "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define JSON_LITERAL(at, literal) json_put((at), literal JSON_PADDING, sizeof(literal) - 1)

/* A text of ours: nothing to escape, nothing readable behind it. */
static inline uint8_t *json_text(uint8_t *at, uint8_t *end, const void *text, size_t len)
{
    if (OTUS_UNLIKELY(end - at <= (ptrdiff_t)len))
        return end;
    memcpy(at, text, len);
    return at + len;
}

static inline __attribute__((always_inline)) uint8_t *json_member(uint8_t *at, uint8_t *end,
                                                                  const char *head, size_t head_len,
                                                                  struct otus_slice text)
{
    at = json_put(at, head, head_len);
    at = json_string(at, end, text);
    return JSON_LITERAL(at, "\",");
}

/* A string member, with its comma behind it. */
#define JSON_MEMBER(at, end, name, text)                                                           \
    json_member((at), (end), "\"" name "\":\"" JSON_PADDING, sizeof("\"" name "\":\"") - 1, (text))

/* The same where the text is not empty. */
static inline __attribute__((always_inline)) uint8_t *json_optional(uint8_t *at, uint8_t *end,
                                                                    const char *head,
                                                                    size_t head_len,
                                                                    struct otus_slice text)
{
    return text.len == 0 ? at : json_member(at, end, head, head_len, text);
}

#define JSON_OPTIONAL(at, end, name, text)                                                         \
    json_optional((at), (end), "\"" name "\":\"" JSON_PADDING, sizeof("\"" name "\":\"") - 1,      \
                  (text))

/* A string in a list. */
#define JSON_ITEM(at, end, text) json_member((at), (end), "\"" JSON_PADDING, 1, (text))

/* A member whose text is a name of ours. */
static inline __attribute__((always_inline)) uint8_t *json_name(uint8_t *at, uint8_t *end,
                                                                const char *head, size_t head_len,
                                                                const char *text)
{
    at = json_put(at, head, head_len);
    at = json_text(at, end, text, strlen(text));
    return JSON_LITERAL(at, "\",");
}

#define JSON_NAME(at, end, name, text)                                                             \
    json_name((at), (end), "\"" name "\":\"" JSON_PADDING, sizeof("\"" name "\":\"") - 1, (text))

#define JSON_NAME_ITEM(at, end, text) json_name((at), (end), "\"" JSON_PADDING, 1, (text))

/* Aside: in every member it made the record's code twice as long. */
static __attribute__((noinline)) uint8_t *json_digits(uint8_t *at, uint32_t value)
{
    return at + otus_text_u16(at, value);
}

static inline __attribute__((always_inline)) uint8_t *json_number(uint8_t *at, uint8_t *end,
                                                                  const char *head, size_t head_len,
                                                                  uint32_t value)
{
    at = at < end ? at : end;
    at = json_put(at, head, head_len);
    if (value < 10)
        *at++ = (uint8_t)('0' + value);
    else
        at = json_digits(at, value);
    *at = ',';
    return at + 1;
}

/* A number member, with its comma behind it. */
#define JSON_NUMBER(at, end, name, value)                                                          \
    json_number((at), (end), "\"" name "\":" JSON_PADDING, sizeof("\"" name "\":") - 1, (value))

/* Closes what has members: the last one's comma becomes the bracket. */
#define JSON_CLOSE(at, brackets) JSON_LITERAL((at)-1, brackets)

/* Closes what may be empty. */
static inline uint8_t *json_close_any(uint8_t *at, char bracket)
{
    at -= at[-1] == ',';
    *at = (uint8_t)bracket;
    return at + 1;
}

#endif
