/* The first pass over a message: see lines.h. */
#include "lines.h"

#include <string.h>

#include "octet_search.h"

#if defined(__x86_64__) && !defined(OTUS_NO_SIMD)
#include <cpuid.h>
#include <immintrin.h>
#endif

/* What one block of 64 octets holds, one bit an octet. */
struct block_masks {
    uint64_t lf;
    uint64_t control; /* every octet below 0x20, line ends and tabs included */
};

/* Appends the offsets of the set bits. Four are written whatever the mask
 * holds: most blocks have fewer lines, and a loop over them mispredicts. */
static inline uint32_t append_lf(uint32_t *lf, uint32_t num, uint64_t mask, uint32_t base,
                                 uint32_t count)
{
    const uint64_t stop = (uint64_t)1 << 63; /* keeps ctz defined once the mask is empty */
    uint32_t *at = lf + num;
    for (uint32_t i = 0; i < 4; i++) {
        at[i] = base + (uint32_t)__builtin_ctzll(mask | stop);
        mask &= mask - 1;
    }
    for (uint32_t i = 4; OTUS_UNLIKELY(mask != 0); i++) {
        at[i] = base + (uint32_t)__builtin_ctzll(mask);
        mask &= mask - 1;
    }
    return num + count;
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

/* The part of the scan that is the same for every vector unit. */
static inline uint32_t take_block(struct otus_lines *lines, uint32_t num, uint32_t base,
                                  struct block_masks masks, uint32_t count)
{
    /* In a block of whole CRLF lines each control octet is an LF or stands before one. A CR
     * at the very end is explained by the next block, which note_control() looks into. */
    uint64_t explained = masks.lf | (masks.lf >> 1);
    uint64_t rest = masks.control & ~explained;
    if (OTUS_UNLIKELY(rest != 0) && lines->first_control == UINT32_MAX)
        note_control(lines, base, rest);
    return append_lf(lines->lf, num, masks.lf, base, count);
}

/* A last block that is not whole is copied, so that nothing past the end is read. */
static inline const uint8_t *block_at(const struct otus_lines *lines, uint32_t base,
                                      uint8_t padded[OTUS_LINES_BLOCK])
{
    uint32_t left = lines->len - base;
    if (OTUS_LIKELY(left >= OTUS_LINES_BLOCK))
        return lines->octets + base;
    memset(padded, ' ', OTUS_LINES_BLOCK);
    memcpy(padded, lines->octets + base, left);
    return padded;
}

static inline uint32_t window_end(const struct otus_lines *lines)
{
    uint32_t left = lines->len - lines->scanned;
    return lines->scanned + (left < OTUS_LINES_WINDOW ? left : OTUS_LINES_WINDOW);
}

static inline void end_window(struct otus_lines *lines, uint32_t num, uint32_t end)
{
    lines->num = num;
    lines->next = 0;
    lines->scanned = end;
}

static inline uint32_t count_bits(uint64_t mask)
{
    uint32_t count = 0;
    for (; mask != 0; mask &= mask - 1)
        count++;
    return count;
}

static struct block_masks portable_masks(const uint8_t *at)
{
    struct block_masks masks = {0, 0};
    for (uint32_t i = 0; i < OTUS_LINES_BLOCK; i++) {
        masks.lf |= (uint64_t)(at[i] == '\n') << i;
        masks.control |= (uint64_t)(at[i] < 0x20) << i;
    }
    return masks;
}

void otus_lines_scan_portable(struct otus_lines *lines)
{
    uint8_t padded[OTUS_LINES_BLOCK];
    uint32_t num = 0;
    uint32_t end = window_end(lines);
    for (uint32_t base = lines->scanned; base < end; base += OTUS_LINES_BLOCK) {
        struct block_masks masks = portable_masks(block_at(lines, base, padded));
        num = take_block(lines, num, base, masks, count_bits(masks.lf));
    }
    end_window(lines, num, end);
}

#if defined(__x86_64__) && !defined(OTUS_NO_SIMD)

static inline struct block_masks sse2_masks(const uint8_t *at)
{
    struct block_masks masks = {0, 0};
    const __m128i lf = _mm_set1_epi8('\n');
    const __m128i top = _mm_set1_epi8(0x1f);
    for (uint32_t i = 0; i < 4; i++) {
        __m128i v = otus_vector_load(at + 16 * i);
        uint32_t is_lf = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, lf));
        uint32_t is_low = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, top), v));
        masks.lf |= (uint64_t)is_lf << (16 * i);
        masks.control |= (uint64_t)is_low << (16 * i);
    }
    return masks;
}

static void scan_sse2(struct otus_lines *lines)
{
    uint8_t padded[OTUS_LINES_BLOCK];
    uint32_t num = 0;
    uint32_t end = window_end(lines);
    for (uint32_t base = lines->scanned; base < end; base += OTUS_LINES_BLOCK) {
        struct block_masks masks = sse2_masks(block_at(lines, base, padded));
        num = take_block(lines, num, base, masks, count_bits(masks.lf));
    }
    end_window(lines, num, end);
}

__attribute__((target("avx2,bmi,popcnt"))) static inline struct block_masks avx2_masks(
    const uint8_t *at)
{
    __m256i low, high;
    memcpy(&low, at, sizeof low);
    memcpy(&high, at + 32, sizeof high);
    const __m256i lf = _mm256_set1_epi8('\n');
    const __m256i top = _mm256_set1_epi8(0x1f);
    uint32_t lf_low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, lf));
    uint32_t lf_high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, lf));
    __m256i control_low = _mm256_cmpeq_epi8(_mm256_min_epu8(low, top), low);
    __m256i control_high = _mm256_cmpeq_epi8(_mm256_min_epu8(high, top), high);
    return (struct block_masks){
        lf_low | (uint64_t)lf_high << 32,
        (uint32_t)_mm256_movemask_epi8(control_low) |
            (uint64_t)(uint32_t)_mm256_movemask_epi8(control_high) << 32,
    };
}

__attribute__((target("avx2,bmi,popcnt"))) static void scan_avx2(struct otus_lines *lines)
{
    uint8_t padded[OTUS_LINES_BLOCK];
    uint32_t num = 0;
    uint32_t end = window_end(lines);
    for (uint32_t base = lines->scanned; base < end; base += OTUS_LINES_BLOCK) {
        struct block_masks masks = avx2_masks(block_at(lines, base, padded));
        num = take_block(lines, num, base, masks, (uint32_t)__builtin_popcountll(masks.lf));
    }
    end_window(lines, num, end);
}

/* AVX2 needs the processor and the operating system, which must save the upper
 * halves. Asked by hand: __builtin_cpu_supports() needs a runtime library that
 * not every cross compiler brings. */
static bool has_avx2(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_POPCNT))
        return false;
    uint32_t xcr0, high;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    if ((xcr0 & 6) != 6)
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2) && (b & bit_BMI);
}

otus_lines_scan otus_lines_baseline_scan(void)
{
    return scan_sse2;
}

otus_lines_scan otus_lines_best_scan(void)
{
    return has_avx2() ? scan_avx2 : scan_sse2;
}

#elif OTUS_SEARCH_NEON

/* Sixty-four comparison octets to one bit each: weigh them, then add neighbours thrice. */
static inline uint64_t neon_mask(uint8x16_t a, uint8x16_t b, uint8x16_t c, uint8x16_t d)
{
    static const uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t weight = vld1q_u8(weights);
    uint8x16_t ab = vpaddq_u8(vandq_u8(a, weight), vandq_u8(b, weight));
    uint8x16_t cd = vpaddq_u8(vandq_u8(c, weight), vandq_u8(d, weight));
    uint8x16_t sum = vpaddq_u8(ab, cd);
    sum = vpaddq_u8(sum, sum);
    return vgetq_lane_u64(vreinterpretq_u64_u8(sum), 0);
}

static inline struct block_masks neon_masks(const uint8_t *at)
{
    const uint8x16_t lf = vdupq_n_u8('\n');
    const uint8x16_t limit = vdupq_n_u8(0x20);
    uint8x16_t a = vld1q_u8(at), b = vld1q_u8(at + 16);
    uint8x16_t c = vld1q_u8(at + 32), d = vld1q_u8(at + 48);
    return (struct block_masks){
        neon_mask(vceqq_u8(a, lf), vceqq_u8(b, lf), vceqq_u8(c, lf), vceqq_u8(d, lf)),
        neon_mask(vcltq_u8(a, limit), vcltq_u8(b, limit), vcltq_u8(c, limit), vcltq_u8(d, limit)),
    };
}

static void scan_neon(struct otus_lines *lines)
{
    uint8_t padded[OTUS_LINES_BLOCK];
    uint32_t num = 0;
    uint32_t end = window_end(lines);
    for (uint32_t base = lines->scanned; base < end; base += OTUS_LINES_BLOCK) {
        struct block_masks masks = neon_masks(block_at(lines, base, padded));
        num = take_block(lines, num, base, masks, count_bits(masks.lf));
    }
    end_window(lines, num, end);
}

otus_lines_scan otus_lines_baseline_scan(void)
{
    return scan_neon;
}

otus_lines_scan otus_lines_best_scan(void)
{
    return scan_neon;
}

#else

otus_lines_scan otus_lines_baseline_scan(void)
{
    return otus_lines_scan_portable;
}

otus_lines_scan otus_lines_best_scan(void)
{
    return otus_lines_scan_portable;
}

#endif
