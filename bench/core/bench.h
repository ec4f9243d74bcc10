/* What the benchmark programs share: a file in memory, the clock, one pipeline over it. */
#ifndef OTUS_BENCH_H
#define OTUS_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "otus/pipeline.h"

struct bench_octets {
    const uint8_t *octets;
    size_t len;
};

static inline void *bench_or_exit(void *block)
{
    if (block == NULL) {
        perror("memory");
        exit(1);
    }
    return block;
}

static inline struct bench_octets bench_read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    size_t len = (size_t)ftell(file);
    rewind(file);
    uint8_t *octets = bench_or_exit(malloc(len + 1));
    if (fread(octets, 1, len, file) != len) {
        perror(path);
        exit(1);
    }
    fclose(file);
    return (struct bench_octets){octets, len};
}

static inline double bench_clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static inline void bench_report(const char *name, uint64_t num, double ns)
{
    printf("%-10s %10llu packets %8.1f ns %6.2f M packets/s\n", name, (unsigned long long)num,
           ns / (double)num, 1e3 * (double)num / ns);
    fflush(stdout);
}

/* Decoder, streams and names as they are without configuration. */
static inline void bench_config_init(struct otus_pipeline_config *config)
{
    *config = (struct otus_pipeline_config){
        .envelope = {.task_id = "bench", .agent_id = "bench", .pipeline_id = "bench-0"}};
    otus_decoder_config_init(&config->decoder);
    otus_stream_config_init(&config->streams);
}

static inline int bench_by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

/* What short stretches of a run took, in ns a packet. Who shares the machine's cores slows most
 * of them down; the quickest of a hundred show what the code takes on a core of its own. */
enum { BENCH_MAX_SLICES = 1 << 16, BENCH_MIN_SLICE = 1000 /* packets */ };
struct bench_slices {
    uint32_t num;
    double ns[BENCH_MAX_SLICES];
};

static inline void bench_slice(struct bench_slices *slices, double ns, uint64_t num_packets)
{
    if (num_packets >= BENCH_MIN_SLICE && slices->num < BENCH_MAX_SLICES)
        slices->ns[slices->num++] = ns / (double)num_packets;
}

static inline void bench_report_slices(struct bench_slices *slices)
{
    if (slices->num == 0)
        return;
    qsort(slices->ns, slices->num, sizeof *slices->ns, bench_by_value);
    printf("%28s undisturbed %6.1f ns %6.2f M packets/s, median %6.1f ns\n", "",
           slices->ns[slices->num / 100], 1e3 / slices->ns[slices->num / 100],
           slices->ns[slices->num / 2]);
    fflush(stdout);
}

static inline struct otus_capture *bench_open(struct bench_octets file, uint64_t loops)
{
    struct otus_memory_config memory = {file.octets, file.len, loops};
    struct otus_capture *capture = NULL;
    char message[256] = "";
    if (otus_capture_open_memory(&capture, message, sizeof message, &memory) != OTUS_OK) {
        fprintf(stderr, "cannot open: %s\n", message);
        exit(1);
    }
    return capture;
}

/* One pipeline over a capture; its counters. Opening and closing are no part of *out_ns, the
 * calling thread's time. out_slices may be NULL. */
static inline void bench_run(uint64_t counters[OTUS_NUM_COUNTERS], double *out_ns,
                             struct bench_slices *out_slices, struct bench_octets file,
                             uint64_t loops, const struct otus_pipeline_config *config)
{
    struct otus_capture *capture = bench_open(file, loops);
    struct otus_pipeline *pipeline = NULL;
    if (otus_pipeline_open(&pipeline, capture, config) != OTUS_OK) {
        fprintf(stderr, "cannot open the pipeline\n");
        exit(1);
    }
    double start = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    double last = start;
    uint64_t seen = 0;
    uint32_t next;
    enum otus_status status = OTUS_OK;
    while (status == OTUS_OK) {
        status = otus_pipeline_poll(pipeline, &next, 0);
        if (out_slices != NULL) {
            double now = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);
            /* Not the batch's records: who is filtered out has none. */
            otus_pipeline_get_counters(pipeline, counters);
            bench_slice(out_slices, now - last, counters[OTUS_COUNT_OFFERED_PACKET] - seen);
            seen = counters[OTUS_COUNT_OFFERED_PACKET];
            last = now;
        }
    }
    *out_ns = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;
    otus_pipeline_get_counters(pipeline, counters);
    otus_pipeline_close(pipeline);
}

#endif
