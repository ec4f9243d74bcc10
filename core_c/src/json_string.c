/* The general form of strings: RFC 8259 section 7 escapes, and one U+FFFD for
 * each maximal subpart of what is no UTF-8 (Unicode 15, section 3.9). */
#include "encoder.h"

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

/* Writes what the octets at *at become and moves both on; at most 6 octets. */
static uint8_t *escape_one(uint8_t *out, const uint8_t **at, const uint8_t *end)
{
    uint8_t octet = **at;
    if (octet < 0x80) {
        *at += 1;
        if (octet >= 0x20 && octet != '"' && octet != '\\') {
            *out = octet;
            return out + 1;
        }
        return out + escape_ascii(out, octet);
    }
    int len = encode_utf8_character(*at, end);
    if (len > 0) {
        for (int i = 0; i < len; i++)
            out[i] = (*at)[i];
        *at += len;
        return out + len;
    }
    memcpy(out, "\xef\xbf\xbd", 3);
    *at += -len;
    return out + 3;
}

/* Copies up to 16 octets and, where one of them needs it, an escape. Touches at
 * most JSON_STEP_ROOM octets of out. */
static uint8_t *escape_step(uint8_t *out, const uint8_t **at, const uint8_t *end,
                            const uint8_t *readable_end)
{
    if (readable_end - *at < JSON_STEP)
        return escape_one(out, at, end);
    uint32_t left = end - *at < JSON_STEP ? (uint32_t)(end - *at) : JSON_STEP;
    uint32_t bad = json_copy16(out, *at);
    uint32_t clean = bad == 0 ? JSON_STEP : (uint32_t)__builtin_ctz(bad);
    if (clean >= left) {
        *at += left;
        return out + left;
    }
    *at += clean;
    out += clean;
    /* Line ends come in pairs, and bodies are full of them. */
    if (**at == '\r' && end - *at > 1 && (*at)[1] == '\n') {
        memcpy(out, "\\r\\n", 4);
        *at += 2;
        return out + 4;
    }
    return escape_one(out, at, end);
}

void json_escape(struct json_writer *writer, const uint8_t *at, const uint8_t *end,
                 const uint8_t *readable_end)
{
    while (at < end && json_room(writer) >= JSON_STEP_ROOM)
        writer->at = escape_step(writer->at, &at, end, readable_end);
    /* Near the end of the room each step is made aside and put if it fits. */
    while (at < end && !writer->full) {
        uint8_t aside[JSON_STEP_ROOM];
        uint8_t *done = escape_step(aside, &at, end, readable_end);
        json_put(writer, aside, (size_t)(done - aside));
    }
}

bool encode_is_utf8(const uint8_t *octets, uint32_t len)
{
    const uint8_t *at = octets;
    const uint8_t *end = octets + len;
    while (at < end) {
        uint64_t word;
        if (end - at >= (ptrdiff_t)sizeof word) {
            memcpy(&word, at, sizeof word);
            if ((word & 0x8080808080808080u) == 0) {
                at += sizeof word;
                continue;
            }
        }
        int step = *at < 0x80 ? 1 : encode_utf8_character(at, end);
        if (step < 0)
            return false;
        at += step;
    }
    return true;
}
