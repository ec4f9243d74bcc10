/* Strings of any octets as JSON holds them: JSON_STEP octets are copied at a time, and each step
 * finds what needs an escape. A step writes and reads whole vectors: up to JSON_STEP octets behind
 * a string are read, and never used.
 *
 * Compiled once for each vector unit, as json_writer.h is. */
#ifndef OTUS_JSON_STRING_H
#define OTUS_JSON_STRING_H

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
    /* From memory each is an operand. As constants, which a compiler that sees the whole program
     * knows them to be, they were made anew for each string. */
    const struct json_vectors *vectors = &json_vectors;
    __asm__("" : "+r"(vectors));
    memcpy(&allowed, vectors->allowed, sizeof allowed);
    memcpy(&quote, vectors->quote, sizeof quote);
    memcpy(&backslash, vectors->backslash, sizeof backslash);
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
static __attribute__((noinline)) uint8_t *json_escape_any(uint8_t *at, uint8_t *end,
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

#if defined(JSON_AVX512)
/* Half a step of len octets with a backslash in front of each bad one. No branch asks how many
 * there are: each octet is paired with a backslash, and those that are not wanted are left out. */
static inline uint8_t *json_expand(uint8_t *at, __m256i octets, uint32_t bad, uint32_t len)
{
    const uint64_t seconds = 0xaaaaaaaaaaaaaaaau;
    __m512i pairs = _mm512_slli_epi16(_mm512_cvtepu8_epi16(octets), 8);
    pairs = _mm512_or_si512(pairs, _mm512_set1_epi16('\\'));
    uint64_t wanted = _pdep_u64(bad, seconds >> 1) | seconds;
    _mm512_storeu_si512(at, _mm512_maskz_compress_epi8(wanted, pairs));
    return at + len + (uint32_t)_mm_popcnt_u32(bad);
}

/* As json_escape_any(), which goes on from the step that has an octet above 0x7f or one that
 * takes six. */
static __attribute__((noinline)) uint8_t *json_escape(uint8_t *at, uint8_t *end,
                                                      const uint8_t *from, uint32_t len)
{
    const uint8_t *stop = from + len;
    const __m512i low = _mm512_load_si512(json_vectors.escaped);
    const __m512i high = _mm512_load_si512(json_vectors.escaped + 64);
    const __m512i six = _mm512_set1_epi8((char)JSON_TAKES_SIX);
    for (; OTUS_LIKELY(at < end); from += JSON_STEP) {
        __m512i octets = _mm512_loadu_si512(from);
        __m512i change = _mm512_permutex2var_epi8(low, octets, high);
        uint32_t left = (uint32_t)(stop - from);
        uint32_t num = left < JSON_STEP ? left : JSON_STEP;
        uint64_t hard = _mm512_movepi8_mask(octets) | _mm512_cmpeq_epi8_mask(change, six);
        if (OTUS_UNLIKELY(_bzhi_u64(hard, num) != 0))
            return json_escape_any(at, end, from, left);
        uint64_t bad = _bzhi_u64(_mm512_movepi8_mask(change), num);
        if (bad == 0) {
            _mm512_storeu_si512(at, octets);
            at += num;
        } else {
            /* octets ^ (change & 0x7f) */
            octets = _mm512_ternarylogic_epi64(octets, change, _mm512_set1_epi8(0x7f), 0x78);
            at =
                json_expand(at, _mm512_castsi512_si256(octets), (uint32_t)bad, num < 32 ? num : 32);
            if (num > 32)
                at = json_expand(at, _mm512_extracti64x4_epi64(octets, 1), (uint32_t)(bad >> 32),
                                 num - 32);
        }
        if (left <= JSON_STEP)
            return at;
    }
    return end;
}
#else
#define json_escape json_escape_any
#endif

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

#endif
