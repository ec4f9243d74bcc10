/* What a JSON string can't hold as it is: RFC 8259 section 7 escapes, and one U+FFFD for
 * each maximal subpart of what is no UTF-8 (Unicode 15, section 3.9). */
#include "encoder.h"
#include "octet_search.h"

#define TIMES_32(octet)                                                                            \
    octet, octet, octet, octet, octet, octet, octet, octet, octet, octet, octet, octet, octet,     \
        octet, octet, octet, octet, octet, octet, octet, octet, octet, octet, octet, octet, octet, \
        octet, octet, octet, octet, octet, octet

#define SIX JSON_TAKES_SIX
#define TO(octet, letter) 0x80 | ((octet) ^ (letter))

const struct json_vectors json_vectors = {
    .escaped =
        {
            /* clang-format off */
            SIX, SIX, SIX, SIX, SIX, SIX, SIX, SIX,
            TO('\b', 'b'), TO('\t', 't'), TO('\n', 'n'), SIX, TO('\f', 'f'), TO('\r', 'r'), SIX, SIX,
            SIX, SIX, SIX, SIX, SIX, SIX, SIX, SIX,
            SIX, SIX, SIX, SIX, SIX, SIX, SIX, SIX,
            ['"'] = TO('"', '"'), ['\\'] = TO('\\', '\\'),
            /* clang-format on */
        },
    .allowed = {TIMES_32(0x20)},
    .quote = {TIMES_32('"')},
    .backslash = {TIMES_32('\\')},
};

int encode_utf8_character(const uint8_t *at, const uint8_t *end)
{
    uint8_t lead = at[0];
    uint8_t low = 0x80;
    uint8_t high = 0xbf;
    int len;
    if (lead >= 0xc2 && lead <= 0xdf) {
        len = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        len = 3;
        low = lead == 0xe0 ? 0xa0 : 0x80;  /* no overlong forms */
        high = lead == 0xed ? 0x9f : 0xbf; /* no surrogates */
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        len = 4;
        low = lead == 0xf0 ? 0x90 : 0x80;
        high = lead == 0xf4 ? 0x8f : 0xbf; /* nothing above U+10FFFF */
    } else {
        return -1;
    }
    for (int i = 1; i < len; i++) {
        if (at + i >= end || at[i] < low || at[i] > high)
            return -i;
        low = 0x80;
        high = 0xbf;
    }
    return len;
}

static uint32_t escape_ascii(uint8_t *out, uint8_t octet)
{
    static const char hex[] = "0123456789abcdef";
    static const char shorthands[] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r', ['"'] = '"'};
    out[0] = '\\';
    if (octet == '\\') {
        out[1] = '\\';
        return 2;
    }
    if (octet < sizeof shorthands && shorthands[octet] != 0) {
        out[1] = (uint8_t)shorthands[octet];
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = (uint8_t)hex[octet >> 4];
    out[5] = (uint8_t)hex[octet & 15];
    return 6;
}

uint8_t *json_escape_one(uint8_t *at, const uint8_t **from, const uint8_t *stop)
{
    uint8_t octet = **from;
    if (octet < 0x80) {
        *from += 1;
        if (octet >= 0x20 && octet != '"' && octet != '\\') {
            *at = octet;
            return at + 1;
        }
        return at + escape_ascii(at, octet);
    }
    int len = encode_utf8_character(*from, stop);
    if (len > 0) {
        for (int i = 0; i < len; i++)
            at[i] = (*from)[i];
        *from += len;
        return at + len;
    }
    memcpy(at, "\xef\xbf\xbd", 3);
    *from += -len;
    return at + 3;
}

enum { ASCII_STEP = 32 };
static const uint64_t top_bits = 0x8080808080808080u;

static inline uint64_t any_of_step(const uint8_t *at)
{
    return (otus_load8(at) | otus_load8(at + 8)) | (otus_load8(at + 16) | otus_load8(at + 24));
}

/* Of a step or more. The last step overlaps the one before, so that no octet is looked at alone. */
static inline bool is_ascii(const uint8_t *octets, uint32_t len)
{
    const uint8_t *last = octets + len - ASCII_STEP;
    uint64_t all = any_of_step(last);
    for (const uint8_t *at = octets; at < last; at += ASCII_STEP)
        all |= any_of_step(at);
    return (all & top_bits) == 0;
}

bool encode_is_utf8(const uint8_t *octets, uint32_t len)
{
    if (OTUS_LIKELY(len >= ASCII_STEP && is_ascii(octets, len)))
        return true;
    const uint8_t *at = octets;
    const uint8_t *end = octets + len;
    while (at < end) {
        if (end - at >= 8 && (otus_load8(at) & top_bits) == 0) {
            at += 8;
            continue;
        }
        int step = *at < 0x80 ? 1 : encode_utf8_character(at, end);
        if (step < 0)
            return false;
        at += step;
    }
    return true;
}
