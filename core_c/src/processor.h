/* What this processor can do beyond what the compiler was told. */
#ifndef OTUS_PROCESSOR_H
#define OTUS_PROCESSOR_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__) && !defined(OTUS_PORTABLE)
#define OTUS_PROCESSOR_X86_64 1
#include <cpuid.h>

/* AVX2, BMI1 and POPCNT. AVX2 needs the processor and the operating system, which
 * must save the upper halves. Asked by hand: __builtin_cpu_supports() needs a
 * runtime library that not every cross compiler brings. */
static inline bool otus_has_avx2(void)
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
#endif

#endif
