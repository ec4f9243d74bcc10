/* Nanoseconds of CPU a packet, without Python.
 *
 *     bench_pipeline FILE.pcap LOOPS [sip|parse|flows|json|protobuf [FILTER]]
 *
 * sip decodes and parses, as a pipeline does it, and keeps nothing. The others are whole pipelines,
 * from the frame to the record in a batch: parse with labels and the payload, flows with media in
 * the flow registry as well, json and protobuf encoded. FILTER is a file with the program of a
 * condition that drops (compile_expression() of otus_sdk.expression makes it).
 */
#include <string.h>

#include "ask_ahead.h"
#include "bench.h"
#include "otus/sip.h"

static struct bench_slices slices;

static struct otus_filter *read_filter(const char *path)
{
    struct bench_octets program = bench_read_file(path);
    struct otus_filter *filter;
    char message[256];
    if (otus_filter_load(&filter, message, sizeof message, program.octets, program.len) !=
        OTUS_OK) {
        fprintf(stderr, "%s: %s\n", path, message);
        exit(1);
    }
    return filter;
}

static void run(struct bench_octets file, uint64_t loops, uint32_t outputs, const char *name,
                const char *filter, struct otus_flow_registry *flows)
{
    struct otus_filter *loaded = filter != NULL ? read_filter(filter) : NULL;
    struct otus_stage stages[3] = {{.kind = OTUS_STAGE_PARSE_SIP}};
    uint32_t num_stages = 1;
    if (flows != NULL) /* without it nobody asks for media, and none are noted */
        stages[num_stages++] = (struct otus_stage){.kind = OTUS_STAGE_PARSE_RTP};
    if (loaded != NULL)
        stages[num_stages++] = (struct otus_stage){.kind = OTUS_STAGE_FILTER, .filter = loaded};
    struct otus_pipeline_config config;
    uint64_t counters[OTUS_NUM_COUNTERS];
    double ns;
    bench_config_init(&config);
    config.stages = stages;
    config.num_stages = num_stages;
    config.outputs = outputs;
    config.flows = flows;
    slices.num = 0;
    bench_run(counters, &ns, &slices, file, loops, &config);
    bench_report(name, counters[OTUS_COUNT_OFFERED_PACKET], ns);
    bench_report_slices(&slices);
    otus_filter_free(loaded);
}

static void run_flows(struct bench_octets file, uint64_t loops, const char *filter)
{
    struct otus_flow_registry *flows;
    if (otus_flow_registry_new(&flows, 1 << 16, 300000) != OTUS_OK)
        exit(1);
    run(file, loops, 0, "flows", filter, flows);
    otus_flow_registry_free(flows);
}

struct sip_parts {
    struct otus_decoder *decoder;
    struct otus_sip_parser *parser;
    struct otus_counters counters;
    struct otus_packet packet;
    struct otus_sip_message message;
};

/* Decodes `num` frames, and parses in full what is SIP. */
static void parse_frames(struct sip_parts *parts, const struct otus_raw_packet *frames,
                         uint32_t num)
{
    uint32_t burst_octets = otus_burst_octets(frames, num);
    for (uint32_t i = 0; i < num; i++) {
        otus_ask_next_burst(&frames[i], burst_octets);
        if (otus_decode(parts->decoder, &parts->packet, &frames[i]) != OTUS_OK)
            continue;
        struct otus_slice payload = parts->packet.payload;
        if (otus_sip_can_handle(payload.at, payload.len))
            (void)!otus_sip_parse(parts->parser, &parts->message, payload.at, payload.len, 0);
    }
}

static void run_sip(struct bench_octets file, uint64_t loops)
{
    enum { BURST = 64, SLICE = 4096 };
    static struct sip_parts parts;
    struct otus_decoder_config config;
    struct otus_raw_packet frames[BURST];
    struct otus_capture *capture = bench_open(file, loops);
    uint32_t num;
    uint64_t num_frames = 0, sliced = 0;
    otus_decoder_config_init(&config);
    if (otus_decoder_new(&parts.decoder, &config, &parts.counters) != OTUS_OK ||
        otus_sip_parser_new(&parts.parser) != OTUS_OK)
        exit(1);
    slices.num = 0;
    double start = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID), last = start;
    while (otus_capture_next(capture, frames, &num, BURST, 0) == OTUS_OK) {
        parse_frames(&parts, frames, num);
        num_frames += num;
        if (num_frames - sliced >= SLICE) {
            double now = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);
            bench_slice(&slices, now - last, num_frames - sliced);
            sliced = num_frames;
            last = now;
        }
    }
    bench_report("sip", num_frames, bench_clock_ns(CLOCK_THREAD_CPUTIME_ID) - start);
    bench_report_slices(&slices);
    otus_sip_parser_free(parts.parser);
    otus_decoder_free(parts.decoder);
    otus_capture_close(capture);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr,
                "usage: bench_pipeline FILE.pcap LOOPS [sip|parse|flows|json|protobuf [FILTER]]\n");
        return 2;
    }
    struct bench_octets file = bench_read_file(argv[1]);
    uint64_t loops = strtoull(argv[2], NULL, 10);
    const char *filter = argc > 4 ? argv[4] : NULL;
    if (argc < 4 || strcmp(argv[3], "sip") == 0)
        run_sip(file, loops);
    if (argc < 4 || strcmp(argv[3], "parse") == 0)
        run(file, loops, 0, "parse", filter, NULL);
    if (argc < 4 || strcmp(argv[3], "flows") == 0)
        run_flows(file, loops, filter);
    if (argc < 4 || strcmp(argv[3], "json") == 0)
        run(file, loops, OTUS_OUTPUT_JSON, "json", filter, NULL);
    if (argc < 4 || strcmp(argv[3], "protobuf") == 0)
        run(file, loops, OTUS_OUTPUT_PROTOBUF, "protobuf", filter, NULL);
    return 0;
}
