/* What this processor can do beyond what the compiler was told. */
#ifndef OTUS_PROCESSOR_H
#define OTUS_PROCESSOR_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__) && !defined(OTUS_PORTABLE)
#define OTUS_PROCESSOR_X86_64 1
#include <cpuid.h>

/* What leaf 7 says of the features there are; none where the operating system does not save
 * the state components of XCR0 (Intel SDM 1, 13.3) that they need, or there is no POPCNT.
 * Asked by hand: __builtin_cpu_supports() needs a runtime library that not every cross
 * compiler brings. */
static inline bool otus_get_features(uint32_t components, uint32_t *out_b, uint32_t *out_c)
{
    uint32_t a, c, d;
    if (!__get_cpuid(1, &a, out_b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_POPCNT))
        return false;
    uint32_t xcr0, high;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    return (xcr0 & components) == components && __get_cpuid_count(7, 0, &a, out_b, out_c, &d);
}

/* AVX2, BMI1 and POPCNT. */
static inline bool otus_has_avx2(void)
{
    uint32_t b, c;
    return otus_get_features(0x06, &b, &c) && (b & bit_AVX2) && (b & bit_BMI);
}

/* What every processor since Ice Lake and Zen 4 has: AVX-512 F, BW, VL, VBMI and VBMI2, with
 * BMI1, BMI2 and POPCNT. */
static inline bool otus_has_avx512(void)
{
    const uint32_t need_b = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_BMI | bit_BMI2;
    const uint32_t need_c = bit_AVX512VBMI | bit_AVX512VBMI2;
    uint32_t b, c;
    return otus_get_features(0xe6, &b, &c) && (b & need_b) == need_b && (c & need_c) == need_c;
}
#endif

#endif
