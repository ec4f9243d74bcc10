/* Nanoseconds per frame of the decoder alone, on one core.
 *
 * cc -O3 -D_GNU_SOURCE -Icore_c/include core_c/src/[a-z]*.c bench/core/bench_decode.c -lz
 *
 * "in cache": the same few frames over and over, the decoder's own work;
 * "from memory": 65536 frames one behind the other, as in a ring.
 * Each figure is the best of five runs. */
#include <string.h>

#include "bench.h"

enum { NUM_FRAMES = 65536, NUM_HOT = 128, NUM_RUNS = 5, SLOT = 2048, PAYLOAD = 600 };

struct bench {
    const char *name;
    uint32_t tunnels;
    /* Writes frame n at out and returns its length. */
    uint32_t (*make)(uint8_t *out, uint32_t n);
};

static uint8_t *put_be16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
    return at + 2;
}

static uint8_t *put_ethernet(uint8_t *at, uint32_t ethertype)
{
    memcpy(at, "\x02\x11\x22\x33\x44\x55\x02\xaa\xbb\xcc\xdd\xee", 12);
    return put_be16(at + 12, ethertype);
}

static uint8_t *put_ipv4(uint8_t *at, uint32_t payload_len, uint32_t id, uint32_t place,
                         uint8_t protocol)
{
    memcpy(at, "\x45\0\0\0\0\0\0\0\x40\0\0\0\x0a\0\0\1\x0a\0\0\2", 20);
    put_be16(at + 2, payload_len + 20);
    put_be16(at + 4, id);
    put_be16(at + 6, place);
    at[9] = protocol;
    put_be16(at + 13, id); /* many addresses */
    return at + 20;
}

static uint8_t *put_udp(uint8_t *at, uint32_t payload_len, uint32_t dst_port)
{
    put_be16(at, 5060);
    put_be16(at + 2, dst_port);
    put_be16(at + 4, payload_len + 8);
    put_be16(at + 6, 0);
    return at + 8;
}

static uint8_t *put_packet(uint8_t *at, uint32_t n, uint32_t payload_len)
{
    at = put_ipv4(at, payload_len + 8, n, 0, 17);
    at = put_udp(at, payload_len, 5060);
    memset(at, 'x', payload_len);
    return at + payload_len;
}

static uint32_t make_plain(uint8_t *out, uint32_t n)
{
    return (uint32_t)(put_packet(put_ethernet(out, 0x0800), n, PAYLOAD) - out);
}

static uint32_t make_tcp(uint8_t *out, uint32_t n)
{
    uint8_t *at = put_ipv4(put_ethernet(out, 0x0800), PAYLOAD + 20, n, 0, 6);
    memset(at, 0, PAYLOAD + 20);
    put_be16(at, 5060);
    at[12] = 0x50;
    return (uint32_t)(at + PAYLOAD + 20 - out);
}

static uint32_t make_ipv6(uint8_t *out, uint32_t n)
{
    uint8_t *at = put_ethernet(out, 0x86dd);
    memset(at, 0, 40);
    at[0] = 0x60;
    put_be16(at + 4, PAYLOAD + 8);
    at[6] = 17;
    put_be16(at + 22, n);
    at = put_udp(at + 40, PAYLOAD, 5060);
    memset(at, 'x', PAYLOAD);
    return (uint32_t)(at + PAYLOAD - out);
}

static uint32_t make_vlan(uint8_t *out, uint32_t n)
{
    uint8_t *at = put_be16(put_be16(put_ethernet(out, 0x8100), n & 0xfff), 0x0800);
    return (uint32_t)(put_packet(at, n, PAYLOAD) - out);
}

static uint32_t make_vxlan(uint8_t *out, uint32_t n)
{
    uint32_t inner_len = PAYLOAD + 42;
    uint8_t *at = put_ipv4(put_ethernet(out, 0x0800), inner_len + 16, n, 0, 17);
    at = put_udp(at, inner_len + 8, 4789);
    memcpy(at, "\x08\0\0\0\0\0\x7b\0", 8);
    return (uint32_t)(put_packet(put_ethernet(at + 8, 0x0800), n, PAYLOAD) - out);
}

/* SIP datagrams of 2000 octets in two fragments, first one first. */
static uint32_t make_fragments(uint8_t *out, uint32_t n)
{
    uint8_t *at = put_ethernet(out, 0x0800);
    if (n % 2 != 0) {
        at = put_ipv4(at, 528, n / 2, 185, 17);
        memset(at, 'x', 528);
        return (uint32_t)(at + 528 - out);
    }
    at = put_udp(put_ipv4(at, 1480, n / 2, 0x2000, 17), 2000, 5060);
    memset(at, 'x', 1472);
    return (uint32_t)(at + 1472 - out);
}

/* The same in any order: 64 datagrams at a time, all their last parts first. */
static uint32_t make_interleaved(uint8_t *out, uint32_t n)
{
    uint32_t datagram = n / 128 * 64 + n % 64;
    return make_fragments(out, datagram * 2 + (n % 128 < 64));
}

/* Fragments that never become whole, each with a key of its own. */
static uint32_t make_flood(uint8_t *out, uint32_t n)
{
    uint8_t *at = put_ipv4(put_ethernet(out, 0x0800), 1480, n, 0x2000, 17);
    memset(at, 'x', 1480);
    return (uint32_t)(at + 1480 - out);
}

struct bed {
    struct otus_counters counters;
    struct otus_decoder *decoder;
    struct otus_packet packet;
    uint64_t now_ns;
};

/* Decodes the first num frames over and over, NUM_FRAMES in all; ns a frame. */
static double measure(struct bed *bed, struct otus_raw_packet *raw, uint32_t num)
{
    double best = 1e9;
    for (int run = 0; run < NUM_RUNS; run++) {
        double start = bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        for (uint32_t n = 0; n < NUM_FRAMES; n++) {
            struct otus_raw_packet *frame = &raw[n & (num - 1)];
            frame->ts_ns = bed->now_ns += 1000;
            if (otus_decode(bed->decoder, &bed->packet, frame) == OTUS_OK)
                __asm__ volatile("" ::"r"(&bed->packet) : "memory");
        }
        double took = (bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start) / NUM_FRAMES;
        best = took < best ? took : best;
    }
    return best;
}

static void run(const struct bench *bench, uint8_t *ring, struct otus_raw_packet *raw)
{
    static struct bed bed;
    struct otus_decoder_config config;
    otus_decoder_config_init(&config);
    config.tunnels = bench->tunnels;
    memset(&bed, 0, sizeof bed);
    if (otus_decoder_new(&bed.decoder, &config, &bed.counters) != OTUS_OK)
        abort();
    uint8_t *at = ring;
    for (uint32_t n = 0; n < NUM_FRAMES; n++) {
        raw[n].data = at + 66; /* a ring keeps its own header in front of each frame */
        raw[n].caplen = bench->make(at + 66, n);
        at += (66 + raw[n].caplen + 15) / 16 * 16;
        raw[n].wirelen = raw[n].caplen;
        raw[n].link_type = OTUS_LINK_ETHERNET;
    }
    double hot = measure(&bed, raw, NUM_HOT);
    double ring_ns = measure(&bed, raw, NUM_FRAMES);
    printf("%-28s %10.1f %12.1f %10.2f\n", bench->name, hot, ring_ns, 1e3 / ring_ns);
    otus_decoder_free(bed.decoder);
}

int main(void)
{
    static const struct bench benches[] = {
        {"IPv4 UDP", 0, make_plain},
        {"IPv4 UDP, tunnels enabled", 0xfe, make_plain},
        {"IPv4 TCP", 0, make_tcp},
        {"IPv6 UDP", 0, make_ipv6},
        {"VLAN IPv4 UDP", 0, make_vlan},
        {"VXLAN IPv4 UDP", 0xfe, make_vxlan},
        {"VXLAN not followed", 0, make_vxlan},
        {"fragments, in order", 0, make_fragments},
        {"fragments, interleaved", 0, make_interleaved},
        {"fragments, never whole", 0, make_flood},
    };
    uint8_t *ring = malloc((size_t)NUM_FRAMES * SLOT);
    struct otus_raw_packet *raw = calloc(NUM_FRAMES, sizeof *raw);
    if (ring == NULL || raw == NULL)
        abort();
    printf("%-28s %10s %12s %10s\n", "ns a frame", "in cache", "from memory", "M/s");
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++)
        run(&benches[i], ring, raw);
    free(raw);
    free(ring);
    return 0;
}
