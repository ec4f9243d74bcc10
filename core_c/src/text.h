/* Numbers, addresses and dates as text, for encoders, keys and filters. */
#ifndef OTUS_TEXT_H
#define OTUS_TEXT_H

#include <stdint.h>
#include <string.h>

#include "otus/packet.h"

enum {
    OTUS_TEXT_U32 = 10, /* octets that a number may take */
    OTUS_TEXT_U64 = 20,
    OTUS_TEXT_IP = 46,      /* "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", and a dot */
    OTUS_TEXT_SECOND = 19,  /* "2026-11-24T08:28:37" */
    OTUS_TEXT_FRACTION = 9, /* "123456789" */
};

__attribute__((visibility("hidden"))) extern const char otus_digit_pairs[201];

/* Each writes at out, which has room for the constant of its name, and returns
 * the octets written. */
uint32_t otus_text_u64(uint8_t *out, uint64_t value);
uint32_t otus_text_i64(uint8_t *out, int64_t value); /* OTUS_TEXT_U64 holds it */

/* Ports and lengths are mostly four or three digits, counters one. */
static inline uint32_t otus_text_u32(uint8_t *out, uint32_t value)
{
    if (value >= 1000 && value < 10000) {
        memcpy(out, otus_digit_pairs + 2 * (value / 100), 2);
        memcpy(out + 2, otus_digit_pairs + 2 * (value % 100), 2);
        return 4;
    }
    if (value >= 100 && value < 1000) {
        out[0] = (uint8_t)('0' + value / 100);
        memcpy(out + 1, otus_digit_pairs + 2 * (value % 100), 2);
        return 3;
    }
    if (value < 10) {
        out[0] = (uint8_t)('0' + value);
        return 1;
    }
    return otus_text_u64(out, value);
}

/* Every octet of an IPv4 address with the dot behind it. */
struct otus_text_octet {
    char digits[7]; /* four that are copied */
    uint8_t len;
};
__attribute__((visibility("hidden"))) extern const struct otus_text_octet otus_text_octets[256];

/* Dotted decimal. */
static inline uint32_t otus_text_ipv4(uint8_t *out, const uint8_t *ip)
{
    uint8_t *at = out;
    for (int i = 0; i < 4; i++) {
        const struct otus_text_octet *octet = &otus_text_octets[ip[i]];
        memcpy(at, octet->digits, 4);
        at += octet->len;
    }
    return (uint32_t)(at - out) - 1; /* without the last dot */
}

uint32_t otus_text_ipv6(uint8_t *out, const uint8_t *ip); /* RFC 5952 */

/* Either, as the version says; nothing where it is 0. */
static inline uint32_t otus_text_ip(uint8_t *out, uint8_t version, const uint8_t ip[16])
{
    if (OTUS_LIKELY(version == 4))
        return otus_text_ipv4(out, ip);
    return version == 6 ? otus_text_ipv6(out, ip) : 0;
}

/* The date and time of a second since the epoch, UTC; years 1970 to 9999. */
void otus_text_second(uint8_t out[OTUS_TEXT_SECOND], uint64_t seconds);

/* Two digits of a value below 100. */
static inline void otus_text_pair(uint8_t *out, uint32_t value)
{
    memcpy(out, otus_digit_pairs + 2 * value, 2);
}

/* The nine digits of a fraction below 1,000,000,000. */
static inline void otus_text_fraction(uint8_t out[OTUS_TEXT_FRACTION], uint32_t ns)
{
    /* Halves, so that the divisions do not wait for each other. */
    uint32_t high = ns / 10000;
    uint32_t low = ns - high * 10000;
    uint32_t first = high / 10000;
    high -= first * 10000;
    out[0] = (uint8_t)('0' + first);
    otus_text_pair(out + 1, high / 100);
    otus_text_pair(out + 3, high % 100);
    otus_text_pair(out + 5, low / 100);
    otus_text_pair(out + 7, low % 100);
}

/* "udp", "tcp", ...; NULL where a protocol has no name here and its number is used. */
const char *otus_protocol_name(uint8_t protocol);
/* As above, or the number; OTUS_TEXT_PROTOCOL octets at most. */
enum { OTUS_TEXT_PROTOCOL = 8 };
uint32_t otus_text_protocol(uint8_t *out, uint8_t protocol);

/* "vxlan", "gre", ...; "" for none and beyond the last. */
const char *otus_tunnel_kind_name(uint32_t kind);

#endif
