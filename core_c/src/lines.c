/* The first pass over a message: see lines.h. */
#include "lines.h"

#include <string.h>

#include "octet_search.h"
#include "processor.h"

#if defined(__x86_64__) && !defined(OTUS_PORTABLE)
#include <immintrin.h>
#endif

/* What one block of 64 octets holds, one bit an octet. */
struct block_masks {
    uint64_t lf;
    uint64_t control; /* every octet below 0x20, line ends and tabs included */
    uint64_t marks;   /* see struct otus_lines */
};

/* Writes the offsets of the set bits. Four are written whatever the mask holds: most blocks
 * have fewer lines, and a loop over them mispredicts. */
static inline void list_lf(uint32_t *lf, uint64_t mask, uint32_t base)
{
    const uint64_t stop = (uint64_t)1 << 63; /* keeps ctz defined once the mask is empty */
    for (uint32_t i = 0; i < 4; i++) {
        lf[i] = base + (uint32_t)__builtin_ctzll(mask | stop);
        mask &= mask - 1;
    }
    for (uint32_t i = 4; OTUS_UNLIKELY(mask != 0); i++) {
        lf[i] = base + (uint32_t)__builtin_ctzll(mask);
        mask &= mask - 1;
    }
}

/* Looks closer at a block whose control octets are not all explained by CRLF. */
static void note_control(struct otus_lines *lines, uint32_t base, uint64_t control)
{
    for (; control != 0; control &= control - 1) {
        uint32_t at = base + (uint32_t)__builtin_ctzll(control);
        uint8_t octet = lines->octets[at];
        bool is_line_end = octet == '\n' ||
                           (octet == '\r' && at + 1 < lines->len && lines->octets[at + 1] == '\n');
        /* RFC 3261 25.1: a quoted-pair may hold any ASCII octet but CR and LF. */
        bool is_escaped = at > 0 && lines->octets[at - 1] == '\\' && octet != '\r';
        if (octet != '\t' && !is_line_end && !is_escaped) {
            if (at < lines->first_control)
                lines->first_control = at;
            return;
        }
    }
}

#define INLINE inline __attribute__((always_inline))

/* What the scan of a vector unit is made of; all of it is inlined into one loop. */
typedef struct block_masks (*masks_of)(const uint8_t *at); /* of 64 octets */
typedef void (*list_of)(uint32_t *lf, uint64_t mask, uint32_t base);

/* Takes what a block holds: line ends are listed, control octets judged. */
static INLINE uint32_t take_block(struct otus_lines *lines, uint32_t num, uint32_t base,
                                  struct block_masks masks, list_of list)
{
    /* In a block of whole CRLF lines each control octet is an LF or stands before one. A CR
     * at the very end is explained by the next block, which note_control() looks into. */
    uint64_t explained = masks.lf | (masks.lf >> 1);
    uint64_t rest = masks.control & ~explained;
    if (OTUS_UNLIKELY(rest != 0) && lines->first_control == UINT32_MAX)
        note_control(lines, base, rest);
    list(lines->lf + num, masks.lf, base);
    return num + (uint32_t)__builtin_popcountll(masks.lf);
}

/* The masks of a last block that is not whole: of the 64 octets that end where the buffer
 * ends, those in front shifted out, so that nothing behind the end is read. */
static INLINE struct block_masks last_masks(const struct otus_lines *lines, uint32_t base,
                                            masks_of masks_at)
{
    uint8_t padded[OTUS_LINES_BLOCK];
    uint32_t left = lines->len - base;
    struct block_masks masks;
    if (OTUS_UNLIKELY(lines->len < OTUS_LINES_BLOCK)) {
        memset(padded, 'a', OTUS_LINES_BLOCK);
        memcpy(padded, lines->octets + base, left);
        return masks_at(padded);
    }
    masks = masks_at(lines->octets + lines->len - OTUS_LINES_BLOCK);
    masks.lf >>= OTUS_LINES_BLOCK - left;
    masks.control >>= OTUS_LINES_BLOCK - left;
    masks.marks >>= OTUS_LINES_BLOCK - left;
    return masks;
}

/* The scan, the same for every vector unit. */
static INLINE void scan_window(struct otus_lines *lines, masks_of masks_at, list_of list)
{
    uint32_t num = 0;
    uint32_t base = lines->scanned;
    uint32_t left = lines->len - base;
    uint32_t end = base + (left < OTUS_LINES_WINDOW ? left : OTUS_LINES_WINDOW);
    uint64_t *marks =
        lines->marks + (base < OTUS_LINES_MARKED ? base : OTUS_LINES_MARKED) / OTUS_LINES_BLOCK;
    for (; end - base >= OTUS_LINES_BLOCK; base += OTUS_LINES_BLOCK) {
        struct block_masks masks = masks_at(lines->octets + base);
        *marks++ = masks.marks;
        num = take_block(lines, num, base, masks, list);
    }
    if (base != end) {
        struct block_masks masks = last_masks(lines, base, masks_at);
        *marks = masks.marks;
        num = take_block(lines, num, base, masks, list);
    }
    lines->num = num;
    lines->next = 0;
    lines->scanned = end;
}

static inline bool is_mark(uint8_t octet)
{
    return octet <= ' ' || octet == '"' || octet == ',' || octet == ';' || octet == '<' ||
           octet == '>';
}

static struct block_masks portable_masks(const uint8_t *at)
{
    struct block_masks masks = {0, 0, 0};
    for (uint32_t i = 0; i < OTUS_LINES_BLOCK; i++) {
        masks.lf |= (uint64_t)(at[i] == '\n') << i;
        masks.control |= (uint64_t)(at[i] < 0x20) << i;
        masks.marks |= (uint64_t)is_mark(at[i]) << i;
    }
    return masks;
}

void otus_lines_scan_portable(struct otus_lines *lines)
{
    scan_window(lines, portable_masks, list_lf);
}

void otus_lines_scan_lone_cr(struct otus_lines *lines)
{
    const uint8_t *octets = lines->octets;
    uint32_t base = lines->scanned;
    uint32_t run_end = base; /* of CRs in a row: before LF they belong to its line end */
    uint32_t num = 0;
    otus_lines_scan_portable(lines);
    for (uint32_t at = base; at < lines->scanned; at++) {
        bool is_end = octets[at] == '\n';
        if (octets[at] == '\r') {
            if (at >= run_end)
                for (run_end = at; run_end < lines->len && octets[run_end] == '\r';)
                    run_end++;
            is_end = run_end == lines->len || octets[run_end] != '\n';
        }
        if (is_end)
            lines->lf[num++] = at;
    }
    lines->num = num;
}

#if defined(__x86_64__) && !defined(OTUS_PORTABLE)

static inline struct block_masks sse2_masks(const uint8_t *at)
{
    struct block_masks masks = {0, 0, 0};
    const __m128i lf = _mm_set1_epi8('\n');
    const __m128i top = _mm_set1_epi8(0x20);
    for (uint32_t i = 0; i < 4; i++) {
        __m128i v = otus_vector_load(at + 16 * i);
        __m128i is_lf = _mm_cmpeq_epi8(v, lf);
        __m128i is_low = _mm_cmpeq_epi8(_mm_min_epu8(v, top), v);
        __m128i is_space = _mm_cmpeq_epi8(v, top);
        __m128i is_mark = _mm_cmpeq_epi8(v, _mm_set1_epi8('"'));
        is_mark = _mm_or_si128(is_mark, _mm_cmpeq_epi8(v, _mm_set1_epi8(',')));
        is_mark = _mm_or_si128(is_mark, _mm_cmpeq_epi8(v, _mm_set1_epi8(';')));
        is_mark = _mm_or_si128(is_mark, _mm_cmpeq_epi8(v, _mm_set1_epi8('<')));
        is_mark = _mm_or_si128(is_mark, _mm_cmpeq_epi8(v, _mm_set1_epi8('>')));
        is_mark = _mm_or_si128(is_mark, is_low);
        is_low = _mm_andnot_si128(is_space, is_low);
        masks.lf |= (uint64_t)(uint32_t)_mm_movemask_epi8(is_lf) << (16 * i);
        masks.control |= (uint64_t)(uint32_t)_mm_movemask_epi8(is_low) << (16 * i);
        masks.marks |= (uint64_t)(uint32_t)_mm_movemask_epi8(is_mark) << (16 * i);
    }
    return masks;
}

static void scan_sse2(struct otus_lines *lines)
{
    scan_window(lines, sse2_masks, list_lf);
}

/* Two vectors of comparisons to one bit an octet. */
__attribute__((target("avx2"))) static inline uint64_t avx2_mask(__m256i low, __m256i high)
{
    return (uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high)
                                                     << 32;
}

/* Marks but for control octets and the comma: no two of them have the same low four bits,
 * so that those bits say which one an octet would have to be. */
__attribute__((target("avx2"))) static inline __m256i avx2_marks(__m256i v, __m256i is_control)
{
    const __m256i by_low_bits = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(' ', 0, '"', 0, 0, 0, 0, 0, 0, 0, 0, ';', '<', 0, '>', 0));
    __m256i is_mark = _mm256_cmpeq_epi8(_mm256_shuffle_epi8(by_low_bits, v), v);
    is_mark = _mm256_or_si256(is_mark, _mm256_cmpeq_epi8(v, _mm256_set1_epi8(',')));
    return _mm256_or_si256(is_mark, is_control);
}

__attribute__((target("avx2,bmi,popcnt"))) static inline struct block_masks avx2_masks(
    const uint8_t *at)
{
    __m256i low, high;
    memcpy(&low, at, sizeof low);
    memcpy(&high, at + 32, sizeof high);
    const __m256i lf = _mm256_set1_epi8('\n');
    const __m256i top = _mm256_set1_epi8(0x1f);
    __m256i control_low = _mm256_cmpeq_epi8(_mm256_min_epu8(low, top), low);
    __m256i control_high = _mm256_cmpeq_epi8(_mm256_min_epu8(high, top), high);
    return (struct block_masks){
        avx2_mask(_mm256_cmpeq_epi8(low, lf), _mm256_cmpeq_epi8(high, lf)),
        avx2_mask(control_low, control_high),
        avx2_mask(avx2_marks(low, control_low), avx2_marks(high, control_high)),
    };
}

/* As list_lf(), whose stop tzcnt does without. */
__attribute__((target("avx2,bmi,popcnt"))) static INLINE void avx2_list(uint32_t *lf, uint64_t mask,
                                                                        uint32_t base)
{
    volatile uint32_t *at = lf; /* or the four are gathered in a vector, at twice the price */
    uint32_t i = 0;
    for (; i < 4; mask = _blsr_u64(mask))
        at[i++] = base + (uint32_t)_tzcnt_u64(mask);
    for (; OTUS_UNLIKELY(mask != 0); mask = _blsr_u64(mask))
        at[i++] = base + (uint32_t)_tzcnt_u64(mask);
}

__attribute__((target("avx2,bmi,popcnt"))) static void scan_avx2(struct otus_lines *lines)
{
    scan_window(lines, avx2_masks, avx2_list);
}

#define TARGET_AVX512 "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi,popcnt"

/* Every mark is below 0x40, so that its low six bits say which mark an octet would have to be. */
static const uint8_t marks_by_low_bits[64] __attribute__((aligned(64))) = {
    0,    1,    2,    3,    4,    5,    6,    7,    8,    9,    10,   11,   12,  13,   14,   15,
    16,   17,   18,   19,   20,   21,   22,   23,   24,   25,   26,   27,   28,  29,   30,   31,
    ' ',  0xff, '"',  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ',', 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ';',  '<', 0xff, '>',  0,
};

__attribute__((target(TARGET_AVX512))) static inline struct block_masks avx512_masks(
    const uint8_t *at)
{
    __m512i v = _mm512_loadu_si512(at);
    __m512i mark = _mm512_permutexvar_epi8(v, _mm512_load_si512(marks_by_low_bits));
    struct block_masks masks = {
        _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('\n')),
        _mm512_cmplt_epu8_mask(v, _mm512_set1_epi8(0x20)),
        _mm512_cmpeq_epi8_mask(v, mark),
    };
    /* Or masks are shifted where they are, in registers that take four cycles for it. */
    __asm__("" : "+r"(masks.lf), "+r"(masks.control));
    return masks;
}

static const uint8_t block_offsets[64] __attribute__((aligned(64))) = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
};

/* As list_lf(): eight are written at least. */
__attribute__((target(TARGET_AVX512))) static INLINE void avx512_list(uint32_t *lf, uint64_t mask,
                                                                      uint32_t base)
{
    __m512i found = _mm512_maskz_compress_epi8(mask, _mm512_load_si512(block_offsets));
    uint32_t num = (uint32_t)_mm_popcnt_u64(mask);
    for (uint32_t i = 0;;) {
        __m256i eight = _mm256_cvtepu8_epi32(_mm512_castsi512_si128(found));
        _mm256_storeu_si256((__m256i *)(void *)(lf + i),
                            _mm256_add_epi32(eight, _mm256_set1_epi32((int)base)));
        i += 8;
        if (OTUS_LIKELY(i >= num))
            return;
        found = _mm512_alignr_epi64(_mm512_setzero_si512(), found, 1);
    }
}

__attribute__((target(TARGET_AVX512))) static void scan_avx512(struct otus_lines *lines)
{
    scan_window(lines, avx512_masks, avx512_list);
}

uint32_t otus_lines_scans(otus_lines_scan out_scans[OTUS_LINES_MAX_SCANS])
{
    uint32_t num = 0;
    if (otus_has_avx512())
        out_scans[num++] = scan_avx512;
    if (otus_has_avx2())
        out_scans[num++] = scan_avx2;
    out_scans[num++] = scan_sse2;
    out_scans[num++] = otus_lines_scan_portable;
    return num;
}

#elif OTUS_SEARCH_NEON

/* Sixty-four comparison octets to one bit each: weigh them, then add neighbours thrice. */
static inline uint64_t neon_mask(const uint8x16_t is_set[4])
{
    static const uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t weight = vld1q_u8(weights);
    uint8x16_t ab = vpaddq_u8(vandq_u8(is_set[0], weight), vandq_u8(is_set[1], weight));
    uint8x16_t cd = vpaddq_u8(vandq_u8(is_set[2], weight), vandq_u8(is_set[3], weight));
    uint8x16_t sum = vpaddq_u8(ab, cd);
    sum = vpaddq_u8(sum, sum);
    return vgetq_lane_u64(vreinterpretq_u64_u8(sum), 0);
}

/* As avx2_marks(). */
static inline uint8x16_t neon_marks(uint8x16_t v, uint8x16_t is_control)
{
    static const uint8_t by_low_bits[16] = {' ', 0, '"', 0,   0,   0, 0,   0,
                                            0,   0, 0,   ';', '<', 0, '>', 0};
    uint8x16_t is_mark =
        vceqq_u8(vqtbl1q_u8(vld1q_u8(by_low_bits), vandq_u8(v, vdupq_n_u8(0x0f))), v);
    is_mark = vorrq_u8(is_mark, vceqq_u8(v, vdupq_n_u8(',')));
    return vorrq_u8(is_mark, is_control);
}

static inline struct block_masks neon_masks(const uint8_t *at)
{
    const uint8x16_t lf = vdupq_n_u8('\n');
    const uint8x16_t limit = vdupq_n_u8(0x20);
    uint8x16_t octets[4], is_lf[4], is_control[4], is_mark[4];
    for (uint32_t i = 0; i < 4; i++) {
        octets[i] = vld1q_u8(at + 16 * i);
        is_lf[i] = vceqq_u8(octets[i], lf);
        is_control[i] = vcltq_u8(octets[i], limit);
        is_mark[i] = neon_marks(octets[i], is_control[i]);
    }
    return (struct block_masks){neon_mask(is_lf), neon_mask(is_control), neon_mask(is_mark)};
}

static void scan_neon(struct otus_lines *lines)
{
    scan_window(lines, neon_masks, list_lf);
}

uint32_t otus_lines_scans(otus_lines_scan out_scans[OTUS_LINES_MAX_SCANS])
{
    out_scans[0] = scan_neon;
    out_scans[1] = otus_lines_scan_portable;
    return 2;
}

#else

uint32_t otus_lines_scans(otus_lines_scan out_scans[OTUS_LINES_MAX_SCANS])
{
    out_scans[0] = otus_lines_scan_portable;
    return 1;
}

#endif

otus_lines_scan otus_lines_best_scan(void)
{
    otus_lines_scan scans[OTUS_LINES_MAX_SCANS];
    (void)otus_lines_scans(scans);
    return scans[0];
}
