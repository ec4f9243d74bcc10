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
#include <string.h>

#include "bench.h"

enum { MAX_FLOWS = 1 << 16, TTL_MS = 3600000 };

static struct otus_flow_registry *new_registry(void)
{
    struct otus_flow_registry *flows;
    if (otus_flow_registry_new(&flows, MAX_FLOWS, TTL_MS) != OTUS_OK)
        exit(1);
    return flows;
}

/* Frames of a little-endian capture, as bench/traffic.py writes it. */
static void bench_floor(struct bench_octets capture, uint64_t loops)
{
    enum { FILE_HEAD = 24, RECORD_HEAD = 16 };
    uint64_t num = 0, lines = 0;
    double start = bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
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
    bench_report(lines != 0 ? "floor" : "floor (no lines)", num,
                 bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start);
}

struct job {
    struct bench_octets capture;
    uint64_t loops;
    struct otus_flow_registry *flows;
    uint64_t num;
};

static void *run_job(void *context)
{
    static const struct otus_stage stages[] = {{.kind = OTUS_STAGE_PARSE_SIP},
                                               {.kind = OTUS_STAGE_PARSE_RTP}};
    struct job *job = context;
    struct otus_pipeline_config config;
    uint64_t counters[OTUS_NUM_COUNTERS];
    double ns;
    bench_config_init(&config);
    config.stages = stages;
    config.num_stages = 2;
    config.flows = job->flows;
    bench_run(counters, &ns, NULL, job->capture, job->loops, &config);
    job->num = counters[OTUS_COUNT_EMITTED];
    return NULL;
}

static double bench_threads(struct bench_octets capture, uint64_t loops, uint32_t num_threads)
{
    struct otus_flow_registry *flows = new_registry();
    struct job jobs[2];
    pthread_t threads[2];
    uint64_t num = 0;
    double cpu = bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    double wall = bench_clock_ns(CLOCK_MONOTONIC);
    for (uint32_t i = 0; i < num_threads; i++) {
        jobs[i] = (struct job){capture, loops, flows, 0};
        if (pthread_create(&threads[i], NULL, run_job, &jobs[i]) != 0)
            exit(1);
    }
    for (uint32_t i = 0; i < num_threads; i++) {
        pthread_join(threads[i], NULL);
        num += jobs[i].num;
    }
    cpu = bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    bench_report(num_threads == 1 ? "one" : "two", num, cpu);
    printf("       %.1f ns a packet by the wall clock\n",
           (bench_clock_ns(CLOCK_MONOTONIC) - wall) / (double)num);
    otus_flow_registry_free(flows);
    return cpu / (double)num;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: bench_cores FILE.pcap LOOPS\n");
        return 2;
    }
    struct bench_octets capture = bench_read_file(argv[1]);
    uint64_t loops = strtoull(argv[2], NULL, 10);
    bench_floor(capture, loops);
    double one = bench_threads(capture, loops, 1);
    double two = bench_threads(capture, loops, 2);
    printf("a second core brings %.2f times\n", 2 * one / two);
    return 0;
}
