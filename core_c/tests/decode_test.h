/* Decoding one frame written in hex, with the ledger checked after every call. */
#ifndef OTUS_DECODE_TEST_H
#define OTUS_DECODE_TEST_H

#include "check.h"
#include "guard.h"
#include "otus/decode.h"
#include "otus/reassembly.h"

struct decode_test {
    struct otus_counters counters;
    struct otus_decoder *decoder;
    struct otus_packet packet;
    struct otus_raw_packet raw; /* how the next frame is presented; data and lengths are set */
};

static inline uint64_t count_of(const struct otus_counters *counters, enum otus_counter id)
{
    return counters->value[id];
}

static inline uint64_t count_group(const struct otus_counters *counters, const char *group)
{
    uint64_t sum = 0;
    for (uint32_t id = 0; id < OTUS_NUM_COUNTERS; id++) {
        if (strcmp(otus_counter_group(id), group) == 0)
            sum += counters->value[id];
    }
    return sum;
}

/* RECEIVED = DECODED + UNDECODABLE + FRAGMENT + fragments held. */
static inline bool ledger_balances(const struct otus_counters *counters)
{
    return count_of(counters, OTUS_COUNT_RECEIVED) ==
           count_group(counters, "decoded") + count_group(counters, "undecodable") +
               count_group(counters, "fragment") + count_of(counters, OTUS_COUNT_FRAGMENTS_HELD);
}

static inline void decode_open(struct decode_test *test, const struct otus_decoder_config *config)
{
    memset(test, 0, sizeof *test);
    test->raw.link_type = OTUS_LINK_ETHERNET;
    test->raw.ts_ns = 1000000000u;
    if (!CHECK_EQ(otus_decoder_new(&test->decoder, config, &test->counters), OTUS_OK))
        abort();
}

static inline void decode_close(struct decode_test *test)
{
    otus_decoder_flush(test->decoder);
    CHECK_EQ(count_of(&test->counters, OTUS_COUNT_FRAGMENTS_HELD), 0);
    CHECK_EQ(count_of(&test->counters, OTUS_COUNT_DATAGRAMS_HELD), 0);
    CHECK(ledger_balances(&test->counters));
    otus_decoder_free(test->decoder);
    test->decoder = NULL;
}

static inline enum otus_status decode_octets(struct decode_test *test, const uint8_t *octets,
                                             size_t len)
{
    test->raw.data = octets;
    test->raw.caplen = (uint32_t)len;
    if (test->raw.wirelen < test->raw.caplen)
        test->raw.wirelen = test->raw.caplen;
    enum otus_status status = otus_decode(test->decoder, &test->packet, &test->raw);
    CHECK(ledger_balances(&test->counters));
    test->raw.wirelen = 0;
    return status;
}

/* Hex digits in pairs; everything that is no hex digit separates. */
static inline size_t hex_octets(uint8_t *out_octets, size_t size, const char *hex)
{
    size_t len = 0;
    for (int high = -1; *hex != '\0'; hex++) {
        const char *digits = "0123456789abcdef";
        const char *at = strchr(digits, *hex);
        if (at == NULL)
            continue;
        int digit = (int)(at - digits);
        if (high < 0) {
            high = digit;
            continue;
        }
        if (len == size)
            abort();
        out_octets[len++] = (uint8_t)(high << 4 | digit);
        high = -1;
    }
    return len;
}

/* Decodes a copy that ends at a guard page; the packet's slices die with the next call. */
static inline enum otus_status decode_hex(struct decode_test *test, const char *hex)
{
    static struct guard_buffer last;
    static uint8_t octets[1 << 17];
    size_t len = hex_octets(octets, sizeof octets, hex);
    guard_free(&last);
    last = guard_copy(octets, len);
    return decode_octets(test, last.octets, len);
}

#define CHECK_SLICE(slice, text) CHECK_TEXT((slice).at, (slice).len, (text))

static inline void check_ip(const uint8_t got[16], const char *hex)
{
    uint8_t want[16] = {0};
    hex_octets(want, sizeof want, hex);
    CHECK_OCTETS(got, 16, want, 16);
}

#endif
