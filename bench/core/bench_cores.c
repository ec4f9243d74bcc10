/* What a second core brings, and how far the pipeline is from the octets' own cost.
 *
 *     bench_cores FILE.pcap LOOPS
 *
 * floor: memchr() finds every LF of every frame and nothing else is done. one, two: decode, full
 * SIP and SDP parse, labels, media into the flow registry on one and on two threads, a pipeline
 * each and one registry between them. RTP of flows that are known is labelled. Figures are CPU
 * time a packet, so that a machine that does other things as well does not lie: twice "one" by
 * "two" is what a second core that is free brings. The wall clock stands behind.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "otus/flow.h"
#include "otus/pipeline.h"

enum { MAX_FLOWS = 1 << 16, TTL_MS = 3600000 };

struct capture_octets {
    const uint8_t *octets;
    size_t len;
};

static struct capture_octets read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    size_t len = (size_t)ftell(file);
    rewind(file);
    uint8_t *octets = malloc(len);
    if (octets == NULL || fread(octets, 1, len, file) != len)
        exit(1);
    fclose(file);
    return (struct capture_octets){octets, len};
}

static double clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void report(const char *name, uint64_t num, double ns)
{
    printf("%-8s %10llu packets %8.1f ns %6.2f M packets/s\n", name, (unsigned long long)num,
           ns / (double)num, 1e3 * (double)num / ns);
}

/* One pipeline over the capture; returns its records. */
static uint64_t run_pipeline(struct capture_octets capture_octets, uint64_t loops,
                             struct otus_flow_registry *flows)
{
    static const struct otus_stage stages[] = {{.kind = OTUS_STAGE_PARSE_SIP},
                                               {.kind = OTUS_STAGE_PARSE_RTP}};
    struct otus_memory_config memory = {capture_octets.octets, capture_octets.len, loops};
    struct otus_pipeline_config config = {
        .envelope = {.task_id = "bench", .agent_id = "bench", .pipeline_id = "bench-0"},
        .flows = flows,
        .stages = stages,
        .num_stages = 2,
    };
    struct otus_capture *capture = NULL;
    struct otus_pipeline *pipeline = NULL;
    char message[256];
    otus_decoder_config_init(&config.decoder);
    otus_stream_config_init(&config.streams);
    if (otus_capture_open_memory(&capture, message, sizeof message, &memory) != OTUS_OK ||
        otus_pipeline_open(&pipeline, capture, &config) != OTUS_OK)
        exit(1);
    uint64_t num = 0;
    uint32_t next;
    enum otus_status status = OTUS_OK;
    while (status == OTUS_OK) {
        status = otus_pipeline_poll(pipeline, &next, 0);
        num += otus_pipeline_batch(pipeline)->num_records;
    }
    otus_pipeline_close(pipeline);
    return num;
}

static struct otus_flow_registry *new_registry(void)
{
    struct otus_flow_registry *flows;
    if (otus_flow_registry_new(&flows, MAX_FLOWS, TTL_MS) != OTUS_OK)
        exit(1);
    return flows;
}

/* Frames of a little-endian capture, as bench/traffic.py writes it. */
static void bench_floor(struct capture_octets capture, uint64_t loops)
{
    enum { FILE_HEAD = 24, RECORD_HEAD = 16 };
    uint64_t num = 0, lines = 0;
    double start = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (uint64_t loop = 0; loop < loops; loop++) {
        const uint8_t *end = capture.octets + capture.len;
        const uint8_t *at = capture.octets + FILE_HEAD;
        while (at + RECORD_HEAD <= end) {
            uint32_t caplen;
            memcpy(&caplen, at + 8, sizeof caplen);
            const uint8_t *frame_end = at + RECORD_HEAD + caplen;
            if (frame_end > end)
                break;
            const uint8_t *lf = at + RECORD_HEAD;
            while ((lf = memchr(lf, '\n', (size_t)(frame_end - lf))) != NULL) {
                lf++;
                lines++;
            }
            at = frame_end;
            num++;
        }
    }
    report(lines != 0 ? "floor" : "floor (no lines)", num,
           clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start);
}

struct job {
    struct capture_octets capture;
    uint64_t loops;
    struct otus_flow_registry *flows;
    uint64_t num;
};

static void *run_job(void *context)
{
    struct job *job = context;
    job->num = run_pipeline(job->capture, job->loops, job->flows);
    return NULL;
}

static double bench_threads(struct capture_octets capture, uint64_t loops, uint32_t num_threads)
{
    struct otus_flow_registry *flows = new_registry();
    struct job jobs[2];
    pthread_t threads[2];
    uint64_t num = 0;
    double cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    double wall = clock_ns(CLOCK_MONOTONIC);
    for (uint32_t i = 0; i < num_threads; i++) {
        jobs[i] = (struct job){capture, loops, flows, 0};
        if (pthread_create(&threads[i], NULL, run_job, &jobs[i]) != 0)
            exit(1);
    }
    for (uint32_t i = 0; i < num_threads; i++) {
        pthread_join(threads[i], NULL);
        num += jobs[i].num;
    }
    cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    report(num_threads == 1 ? "one" : "two", num, cpu);
    printf("       %.1f ns a packet by the wall clock\n",
           (clock_ns(CLOCK_MONOTONIC) - wall) / (double)num);
    otus_flow_registry_free(flows);
    return cpu / (double)num;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: bench_cores FILE.pcap LOOPS\n");
        return 2;
    }
    struct capture_octets capture = read_file(argv[1]);
    uint64_t loops = strtoull(argv[2], NULL, 10);
    bench_floor(capture, loops);
    double one = bench_threads(capture, loops, 1);
    double two = bench_threads(capture, loops, 2);
    printf("a second core brings %.2f times\n", 2 * one / two);
    return 0;
}
