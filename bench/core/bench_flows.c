/* What the flow registry costs, in nanoseconds of CPU and memory.
 *
 *     bench_flows [NUM_FLOWS ...]
 *
 * For each number of known flows (200, 2,000, 50,000): the memory that the registry holds, RTP
 * packets of all of them in no order from frame to record, and lookups alone. Figures are the least
 * and the median of several rounds. What SIP pays for the registry: bench_pipeline, flows.
 */
#include <string.h>
#include <unistd.h>

#include "bench.h"

enum {
    ROUNDS = 9,
    MIN_PACKETS = 200000,
    LOOPS = 2,
    NUM_LOOKUPS = 500000,
    DEFAULT_FLOWS = 1 << 15,
    TTL_MS = 300000,
    RTP_LEN = 172,
    FRAME_LEN = 14 + 20 + 8 + RTP_LEN,
    RECORD_HEAD = 16,
    FILE_HEAD = 24,
};

/* The frames' time, 0 by the capture, is before it: nothing is over. */
static const uint64_t FIRST_NS = 1000000000;

struct figure {
    double ns[ROUNDS];
};

static void show(const char *what, uint32_t num_flows, struct figure *figure)
{
    qsort(figure->ns, ROUNDS, sizeof *figure->ns, bench_by_value);
    printf("%8u flows  %-22s %7.1f ns at least  %7.1f median  %6.2f M/s\n", num_flows, what,
           figure->ns[0], figure->ns[ROUNDS / 2], 1e3 / figure->ns[ROUNDS / 2]);
    fflush(stdout);
}

static uint64_t resident(void)
{
    unsigned long pages = 0, total = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%lu %lu", &total, &pages) != 2)
        exit(1);
    fclose(file);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Of no pattern, and the same each time. */
static uint32_t scatter(uint32_t n)
{
    n = (n ^ n >> 16) * 0x7feb352du;
    n = (n ^ n >> 15) * 0x846ca68bu;
    return n ^ n >> 16;
}

/* --- endpoints of call n: a caller and a gateway, RTP on an even port --- */

struct end {
    uint8_t ip[4];
    uint16_t port;
};

static struct end end_of(uint32_t call, bool is_gateway)
{
    return (struct end){
        {is_gateway ? 192 : 10, (uint8_t)(call >> 16), (uint8_t)(call >> 8), (uint8_t)(call % 251)},
        (uint16_t)(10000 + 2 * (call % 20000))};
}

/* --- RTP --- */

static uint8_t *put_be16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
    return at + 2;
}

static uint8_t *put_rtp(uint8_t *at, uint32_t call, bool to_gateway)
{
    static const uint32_t head[4] = {0, 0, FRAME_LEN, FRAME_LEN};
    struct end to = end_of(call, to_gateway), from = end_of(call, !to_gateway);
    memcpy(at, head, sizeof head);
    at += sizeof head;
    memset(at, 0, FRAME_LEN);
    at[12] = 8;
    memcpy(at + 14, "\x45\0\0\0\0\0\x40\0\x40\x11", 10);
    put_be16(at + 16, FRAME_LEN - 14);
    memcpy(at + 26, from.ip, 4);
    memcpy(at + 30, to.ip, 4);
    put_be16(put_be16(put_be16(at + 34, from.port), to.port), 8 + RTP_LEN);
    at[42] = 0x80;
    at[43] = 8;
    memcpy(at + 50, &call, 4);
    return at + FRAME_LEN;
}

/* A capture of packets of random flows. */
static struct bench_octets make_rtp(uint32_t num_flows, uint32_t num_packets)
{
    static const uint32_t head[6] = {0xa1b2c3d4, 2 | 4 << 16, 0, 0, 65535, 1};
    size_t len = FILE_HEAD + (size_t)num_packets * (RECORD_HEAD + FRAME_LEN);
    uint8_t *octets = bench_or_exit(malloc(len));
    uint8_t *at = octets + FILE_HEAD;
    memcpy(octets, head, sizeof head);
    for (uint32_t i = 0; i < num_packets; i++) {
        uint32_t flow = scatter(i) % num_flows;
        at = put_rtp(at, flow / 2, flow % 2);
    }
    return (struct bench_octets){octets, len};
}

/* --- the registry --- */

static struct otus_flow_registry *new_registry(uint32_t num_flows)
{
    struct otus_flow_registry *flows;
    uint32_t max_flows = num_flows * 3 < DEFAULT_FLOWS ? DEFAULT_FLOWS : num_flows * 3;
    if (otus_flow_registry_new(&flows, max_flows, TTL_MS) != OTUS_OK)
        exit(1);
    return flows;
}

/* RTP and RTCP of both ends of each call, as their descriptions name them. */
static void fill(struct otus_flow_registry *flows, uint32_t num_flows)
{
    for (uint32_t flow = 0; flow < num_flows; flow++) {
        struct end end = end_of(flow / 2, flow % 2);
        struct otus_flow_key key = {.ip_version = 4, .protocol = 17, .port = end.port};
        struct otus_flow_value value = {.kind = OTUS_FLOW_RTP};
        char call_id[40];
        int len = snprintf(call_id, sizeof call_id, "%08x%016x@10.1.2.3", scatter(flow / 2), flow);
        struct otus_slice octets = {(const uint8_t *)call_id, (uint32_t)len};
        memcpy(key.ip, end.ip, 4);
        otus_flow_set_call_id(&value, octets);
        otus_flow_put(flows, &key, &value, octets, FIRST_NS, NULL);
        key.port++;
        value.kind = OTUS_FLOW_RTCP;
        otus_flow_put(flows, &key, &value, octets, FIRST_NS, NULL);
    }
}

static void bench_packets(struct otus_flow_registry *flows, uint32_t num_flows)
{
    static const struct otus_stage stages[] = {{.kind = OTUS_STAGE_PARSE_SIP},
                                               {.kind = OTUS_STAGE_PARSE_RTP}};
    uint32_t num = num_flows * 2 < MIN_PACKETS ? MIN_PACKETS : num_flows * 2;
    struct bench_octets file = make_rtp(num_flows, num);
    struct otus_pipeline_config config;
    struct figure figure;
    double found = 0;
    bench_config_init(&config);
    config.stages = stages;
    config.num_stages = 2;
    config.flows = flows;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint64_t counters[OTUS_NUM_COUNTERS];
        bench_run(counters, &figure.ns[round], NULL, file, LOOPS, &config);
        figure.ns[round] /= (double)num * LOOPS;
        found = (double)counters[OTUS_COUNT_PARSED_RTP] / (double)num / LOOPS;
    }
    printf("%8u flows  %.1f %% of packets known\n", num_flows, found * 100);
    show("RTP packet to record", num_flows, &figure);
}

static void bench_lookups(struct otus_flow_registry *flows, uint32_t num_flows, bool is_known)
{
    struct figure figure;
    uint64_t num_hits = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        double start = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);
        for (uint32_t i = 0; i < NUM_LOOKUPS; i++) {
            uint32_t flow = scatter(i) % num_flows;
            struct end to = end_of(flow / 2, flow % 2);
            struct otus_flow_value value;
            struct otus_packet_meta meta = {.ip_version = 4, .protocol = is_known ? 17 : 6};
            meta.dst_port = to.port;
            memcpy(meta.dst_ip, to.ip, 4);
            num_hits += otus_flow_find(flows, &value, &meta, FIRST_NS) ? 1 : 0;
        }
        figure.ns[round] = (bench_clock_ns(CLOCK_THREAD_CPUTIME_ID) - start) / NUM_LOOKUPS;
    }
    if ((num_hits != 0) != is_known)
        exit(1);
    show(is_known ? "lookup, found" : "lookup, not found", num_flows, &figure);
}

static void bench(uint32_t num_flows)
{
    uint64_t before = resident();
    struct otus_flow_registry *flows = new_registry(num_flows);
    uint64_t opened = resident();
    fill(flows, num_flows);
    printf("%8u flows  memory %.2f MB opened, %.2f MB filled\n", num_flows,
           (double)(opened - before) / 1e6, (double)(resident() - before) / 1e6);
    bench_packets(flows, num_flows);
    bench_lookups(flows, num_flows, true);
    bench_lookups(flows, num_flows, false);
    otus_flow_registry_free(flows);
}

int main(int argc, char **argv)
{
    static const uint32_t usual[] = {200, 2000, 50000};
    for (int i = 1; i < argc; i++)
        bench((uint32_t)strtoul(argv[i], NULL, 10));
    for (uint32_t i = 0; argc == 1 && i < sizeof usual / sizeof *usual; i++)
        bench(usual[i]);
    return 0;
}
