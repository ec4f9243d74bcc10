/* CRC-32C by the instructions that x86-64 (SSE4.2) and arm64 (CRC32) have for it. */
#include "otus/crc32c.h"

#include <stdbool.h>
#include <string.h>

#include "processor.h"

#if defined(__aarch64__) && defined(__linux__) && !defined(OTUS_PORTABLE)
#define OTUS_CRC32C_ARM64 1
#include <arm_acle.h>
#include <sys/auxv.h>
#endif

/* Half an octet at a time: what has no instruction has no room for a table either. */
uint32_t otus_crc32c_portable(const uint8_t *octets, size_t len)
{
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < len; i++) {
        crc ^= octets[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

#if defined(OTUS_PROCESSOR_X86_64)

static bool has_instruction(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2);
}

/* From clang 14 on the instruction is a feature of its own, and sse4.2 does not bring it back
 * where a command line has it off, as zig's for a plain x86-64 has. */
#if defined(__clang__) && __clang_major__ >= 14
#define WITH_CRC32 __attribute__((target("sse4.2,crc32")))
#else
#define WITH_CRC32 __attribute__((target("sse4.2")))
#endif

WITH_CRC32 static uint32_t by_instruction(const uint8_t *octets, size_t len)
{
    uint64_t crc = UINT32_MAX;
    uint64_t word;
    for (; len >= sizeof word; len -= sizeof word, octets += sizeof word) {
        memcpy(&word, octets, sizeof word);
        crc = __builtin_ia32_crc32di(crc, word);
    }
    for (; len != 0; len--)
        crc = __builtin_ia32_crc32qi((uint32_t)crc, *octets++);
    return ~(uint32_t)crc;
}

#elif defined(OTUS_CRC32C_ARM64)

static bool has_instruction(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
}

__attribute__((target("+crc"))) static uint32_t by_instruction(const uint8_t *octets, size_t len)
{
    uint32_t crc = UINT32_MAX;
    uint64_t word;
    for (; len >= sizeof word; len -= sizeof word, octets += sizeof word) {
        memcpy(&word, octets, sizeof word);
        crc = __crc32cd(crc, word);
    }
    for (; len != 0; len--)
        crc = __crc32cb(crc, *octets++);
    return ~crc;
}

#else

static bool has_instruction(void)
{
    return false;
}

static uint32_t by_instruction(const uint8_t *octets, size_t len)
{
    return otus_crc32c_portable(octets, len);
}

#endif

otus_crc32c otus_crc32c_best(void)
{
    return has_instruction() ? by_instruction : otus_crc32c_portable;
}
