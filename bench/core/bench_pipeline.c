/* Nanoseconds of CPU a packet through the whole pipeline, without Python.
 *
 *     bench_pipeline FILE.pcap LOOPS [parse|json|protobuf]
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

static void run(const uint8_t *octets, size_t len, uint64_t loops, uint32_t outputs,
                const char *name)
{
    static const struct otus_stage stages[] = {{.kind = OTUS_STAGE_PARSE_SIP}};
    struct otus_memory_config memory = {octets, len, loops};
    struct otus_pipeline_config config = {
        .envelope = {.task_id = "bench", .agent_id = "bench", .pipeline_id = "bench-0"},
        .stages = stages,
        .num_stages = 1,
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
    uint64_t num = 0;
    uint32_t next;
    enum otus_status status = OTUS_OK;
    while (status == OTUS_OK) {
        status = otus_pipeline_poll(pipeline, &next, 0);
        num += otus_pipeline_batch(pipeline)->num_records;
    }
    double ns = (cpu_ns() - start) / (double)num;
    printf("%-8s %10llu packets %8.1f ns %6.2f M packets/s\n", name, (unsigned long long)num, ns,
           1e3 / ns);
    otus_pipeline_close(pipeline);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: bench_pipeline FILE.pcap LOOPS [parse|json|protobuf]\n");
        return 2;
    }
    size_t len;
    uint8_t *octets = read_file(argv[1], &len);
    uint64_t loops = strtoull(argv[2], NULL, 10);
    if (argc < 4 || strcmp(argv[3], "parse") == 0)
        run(octets, len, loops, 0, "parse");
    if (argc < 4 || strcmp(argv[3], "json") == 0)
        run(octets, len, loops, OTUS_OUTPUT_JSON, "json");
    if (argc < 4 || strcmp(argv[3], "protobuf") == 0)
        run(octets, len, loops, OTUS_OUTPUT_PROTOBUF, "protobuf");
    free(octets);
    return 0;
}
