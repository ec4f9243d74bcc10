/* Nanoseconds of CPU a packet through the whole pipeline, without Python.
 *
 *     bench_pipeline FILE.pcap LOOPS [parse|json|protobuf [FILTER]]
 *
 * FILTER is a file with the program of a condition that drops (compile_expression()
 * of otus_sdk.expression makes it).
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "otus/pipeline.h"

static uint8_t *read_file(const char *path, size_t *out_len)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    *out_len = (size_t)ftell(file);
    rewind(file);
    uint8_t *octets = malloc(*out_len);
    if (octets == NULL || fread(octets, 1, *out_len, file) != *out_len)
        exit(1);
    fclose(file);
    return octets;
}

static double cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static struct otus_filter *read_filter(const char *path)
{
    size_t len;
    uint8_t *program = read_file(path, &len);
    struct otus_filter *filter;
    char message[256];
    if (otus_filter_load(&filter, message, sizeof message, program, len) != OTUS_OK) {
        fprintf(stderr, "%s: %s\n", path, message);
        exit(1);
    }
    free(program);
    return filter;
}

static void run(const uint8_t *octets, size_t len, uint64_t loops, uint32_t outputs,
                const char *name, const char *filter)
{
    struct otus_filter *loaded = filter != NULL ? read_filter(filter) : NULL;
    struct otus_stage stages[] = {{.kind = OTUS_STAGE_PARSE_SIP},
                                  {.kind = OTUS_STAGE_FILTER, .filter = loaded}};
    struct otus_memory_config memory = {octets, len, loops};
    struct otus_pipeline_config config = {
        .envelope = {.task_id = "bench", .agent_id = "bench", .pipeline_id = "bench-0"},
        .stages = stages,
        .num_stages = loaded != NULL ? 2 : 1,
        .outputs = outputs,
    };
    struct otus_capture *capture = NULL;
    struct otus_pipeline *pipeline = NULL;
    char message[256];
    otus_decoder_config_init(&config.decoder);
    otus_stream_config_init(&config.streams);
    if (otus_capture_open_memory(&capture, message, sizeof message, &memory) != OTUS_OK ||
        otus_pipeline_open(&pipeline, capture, &config) != OTUS_OK)
        exit(1);
    double start = cpu_ns();
    uint32_t next;
    enum otus_status status = OTUS_OK;
    while (status == OTUS_OK) {
        status = otus_pipeline_poll(pipeline, &next, 0);
    }
    double took = cpu_ns() - start;
    uint64_t counters[OTUS_NUM_COUNTERS];
    otus_pipeline_get_counters(pipeline, counters);
    uint64_t num = counters[OTUS_COUNT_OFFERED_PACKET];
    double ns = took / (double)num;
    printf("%-8s %10llu packets %8.1f ns %6.2f M packets/s\n", name, (unsigned long long)num, ns,
           1e3 / ns);
    otus_pipeline_close(pipeline);
    otus_filter_free(loaded);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: bench_pipeline FILE.pcap LOOPS [parse|json|protobuf [FILTER]]\n");
        return 2;
    }
    size_t len;
    uint8_t *octets = read_file(argv[1], &len);
    uint64_t loops = strtoull(argv[2], NULL, 10);
    const char *filter = argc > 4 ? argv[4] : NULL;
    if (argc < 4 || strcmp(argv[3], "parse") == 0)
        run(octets, len, loops, 0, "parse", filter);
    if (argc < 4 || strcmp(argv[3], "json") == 0)
        run(octets, len, loops, OTUS_OUTPUT_JSON, "json", filter);
    if (argc < 4 || strcmp(argv[3], "protobuf") == 0)
        run(octets, len, loops, OTUS_OUTPUT_PROTOBUF, "protobuf", filter);
    free(octets);
    return 0;
}
