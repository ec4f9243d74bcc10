#include "text.h"

#include <stddef.h>

const char otus_digit_pairs[201] = {
    "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
    "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
    "8081828384858687888990919293949596979899"};

uint32_t otus_text_u64(uint8_t *out, uint64_t value)
{
    uint8_t digits[OTUS_TEXT_U64];
    uint32_t at = sizeof digits;
    while (value >= 100) {
        at -= 2;
        memcpy(digits + at, otus_digit_pairs + 2 * (value % 100), 2);
        value /= 100;
    }
    at -= 2;
    memcpy(digits + at, otus_digit_pairs + 2 * value, 2);
    at += value < 10;
    memcpy(out, digits + at, sizeof digits - at);
    return (uint32_t)sizeof digits - at;
}

uint32_t otus_text_i64(uint8_t *out, int64_t value)
{
    if (value >= 0)
        return otus_text_u64(out, (uint64_t)value);
    out[0] = '-';
    return 1 + otus_text_u64(out + 1, 0 - (uint64_t)value);
}

const struct otus_text_octet otus_text_octets[256] = {
#define TEN(tens, len)                                                                             \
    {tens "0.", len}, {tens "1.", len}, {tens "2.", len}, {tens "3.", len}, {tens "4.", len},      \
        {tens "5.", len}, {tens "6.", len}, {tens "7.", len}, {tens "8.", len},                    \
    {                                                                                              \
        tens "9.", len                                                                             \
    }
    TEN("", 2),   TEN("1", 3),  TEN("2", 3),  TEN("3", 3),  TEN("4", 3),  TEN("5", 3),
    TEN("6", 3),  TEN("7", 3),  TEN("8", 3),  TEN("9", 3),  TEN("10", 4), TEN("11", 4),
    TEN("12", 4), TEN("13", 4), TEN("14", 4), TEN("15", 4), TEN("16", 4), TEN("17", 4),
    TEN("18", 4), TEN("19", 4), TEN("20", 4), TEN("21", 4), TEN("22", 4), TEN("23", 4),
    TEN("24", 4), {"250.", 4},  {"251.", 4},  {"252.", 4},  {"253.", 4},  {"254.", 4},
    {"255.", 4},
#undef TEN
};

static uint32_t text_hex_group(uint8_t *out, uint32_t value)
{
    static const char hex[] = "0123456789abcdef";
    uint32_t at = 0;
    if (value >= 0x1000)
        out[at++] = (uint8_t)hex[value >> 12];
    if (value >= 0x100)
        out[at++] = (uint8_t)hex[(value >> 8) & 15];
    if (value >= 0x10)
        out[at++] = (uint8_t)hex[(value >> 4) & 15];
    out[at++] = (uint8_t)hex[value & 15];
    return at;
}

/* RFC 5952 4.2: "::" stands for the longest run of zero groups, the first of
 * equals, and never for a single group. */
static void longest_zero_run(const uint16_t groups[8], int *out_first, int *out_len)
{
    int first = -1;
    int len = 1;
    for (int i = 0; i < 8; i++) {
        int run = 0;
        while (i + run < 8 && groups[i + run] == 0)
            run++;
        if (run > len) {
            first = i;
            len = run;
        }
        i += run;
    }
    *out_first = first;
    *out_len = len;
}

uint32_t otus_text_ipv6(uint8_t *out, const uint8_t *ip)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    /* RFC 5952 5: addresses with an embedded IPv4 address show it. */
    if (memcmp(ip, mapped, sizeof mapped) == 0) {
        memcpy(out, "::ffff:", 7);
        return 7 + otus_text_ipv4(out + 7, ip + 12);
    }
    uint16_t groups[8];
    for (int i = 0; i < 8; i++)
        groups[i] = (uint16_t)(ip[2 * i] << 8 | ip[2 * i + 1]);
    int zeros, num_zeros;
    longest_zero_run(groups, &zeros, &num_zeros);
    uint32_t at = 0;
    for (int i = 0; i < 8; i++) {
        if (i == zeros) {
            out[at++] = ':';
            i += num_zeros - 1;
            if (i == 7)
                out[at++] = ':';
            continue;
        }
        if (i != 0)
            out[at++] = ':';
        at += text_hex_group(out + at, groups[i]);
    }
    return at;
}

/* Days since 1970-03-01 shifted to eras of 400 years that start in March, so
 * that the leap day comes last. */
void otus_text_second(uint8_t out[OTUS_TEXT_SECOND], uint64_t seconds)
{
    uint64_t days = seconds / 86400 + 719468; /* since 0000-03-01 */
    uint64_t era = days / 146097;
    uint64_t day_of_era = days % 146097;
    uint64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t month = (5 * day_of_year + 2) / 153; /* 0 is March */
    uint64_t day = day_of_year - (153 * month + 2) / 5 + 1;
    month = month < 10 ? month + 3 : month - 9;
    uint64_t year = year_of_era + era * 400 + (month <= 2);
    memcpy(out, "0000-00-00T00:00:00", OTUS_TEXT_SECOND);
    otus_text_pair(out, (uint32_t)(year / 100));
    otus_text_pair(out + 2, (uint32_t)(year % 100));
    otus_text_pair(out + 5, (uint32_t)month);
    otus_text_pair(out + 8, (uint32_t)day);
    otus_text_pair(out + 11, (uint32_t)(seconds / 3600 % 24));
    otus_text_pair(out + 14, (uint32_t)(seconds / 60 % 60));
    otus_text_pair(out + 17, (uint32_t)(seconds % 60));
}

/* IANA protocol numbers, the names that operators use. */
const char *otus_protocol_name(uint8_t protocol)
{
    switch (protocol) {
    case 1:
        return "icmp";
    case 2:
        return "igmp";
    case 6:
        return "tcp";
    case 17:
        return "udp";
    case 33:
        return "dccp";
    case 47:
        return "gre";
    case 50:
        return "esp";
    case 51:
        return "ah";
    case 58:
        return "icmpv6";
    case 89:
        return "ospf";
    case 103:
        return "pim";
    case 112:
        return "vrrp";
    case 132:
        return "sctp";
    case 136:
        return "udplite";
    default:
        return NULL;
    }
}

uint32_t otus_text_protocol(uint8_t *out, uint8_t protocol)
{
    const char *name = otus_protocol_name(protocol);
    if (name == NULL)
        return otus_text_u32(out, protocol);
    uint32_t len = (uint32_t)strlen(name);
    memcpy(out, name, len);
    return len;
}

const char *otus_tunnel_kind_name(uint32_t kind)
{
    static const char *const names[OTUS_NUM_TUNNEL_KINDS] = {
        [OTUS_TUNNEL_NONE] = "",         [OTUS_TUNNEL_VXLAN] = "vxlan",
        [OTUS_TUNNEL_GRE] = "gre",       [OTUS_TUNNEL_ERSPAN] = "erspan",
        [OTUS_TUNNEL_GENEVE] = "geneve", [OTUS_TUNNEL_IPIP] = "ipip",
        [OTUS_TUNNEL_GTPU] = "gtpu",     [OTUS_TUNNEL_TZSP] = "tzsp",
    };
    return kind < OTUS_NUM_TUNNEL_KINDS ? names[kind] : "";
}
