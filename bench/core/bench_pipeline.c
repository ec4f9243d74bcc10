/* Nanoseconds of CPU a packet through the whole pipeline, without Python.
 *
 *     bench_pipeline FILE.pcap LOOPS [parse|flows|json|protobuf [FILTER]]
 *
 * flows is parse with media into the flow registry. FILTER is a file with the program of a
 * condition that drops (compile_expression() of otus_sdk.expression makes it).
 */
#include <string.h>

#include "bench.h"

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
    bench_run(counters, &ns, file, loops, &config);
    bench_report(name, counters[OTUS_COUNT_OFFERED_PACKET], ns);
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

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr,
                "usage: bench_pipeline FILE.pcap LOOPS [parse|flows|json|protobuf [FILTER]]\n");
        return 2;
    }
    struct bench_octets file = bench_read_file(argv[1]);
    uint64_t loops = strtoull(argv[2], NULL, 10);
    const char *filter = argc > 4 ? argv[4] : NULL;
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
