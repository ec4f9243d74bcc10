/* The flow registry under threads: a reader never sees one entry's key with another's value. */
#include <pthread.h>

#include "flow_fixture.h"

enum { THREAD_ROUNDS = 20000 };

struct thread_work {
    struct otus_flow_registry *registry;
    struct otus_counters counters;
    const bool *writers_done; /* readers go on until then, and once more over all keys */
    uint32_t num_keys;
    uint32_t seed;
    uint32_t num_hits;
    uint32_t num_torn;
};

static void *writer_run(void *argument)
{
    struct thread_work *work = argument;
    uint32_t state = work->seed;
    for (uint32_t i = 0; i < THREAD_ROUNDS; i++) {
        uint64_t now_ns = (uint64_t)(i + 1) << 14; /* 60 rounds a millisecond */
        state = state * 1664525 + 1013904223;
        uint32_t number = (state >> 8) % work->num_keys;
        struct otus_flow_key key = key_of(number, (uint16_t)number);
        struct otus_flow_value value = {.kind = (uint8_t)(1 + number % 3), .len = 100};
        memset(value.octets, 'a' + (int)(number % 26), value.len);
        if (i % 16 == 0)
            end_call(work->registry, (struct otus_slice){value.octets, value.len});
        else
            otus_flow_put(work->registry, &key, &value, NOBODY, now_ns, &work->counters);
    }
    return NULL;
}

static void *reader_run(void *argument)
{
    struct thread_work *work = argument;
    uint32_t left = work->num_keys;
    for (uint32_t i = 0; left > 0; i++) {
        if (__atomic_load_n(work->writers_done, __ATOMIC_ACQUIRE))
            left--;
        uint32_t number = i % work->num_keys;
        struct otus_flow_key key = key_of(number, (uint16_t)number);
        struct otus_flow_value got;
        if (!otus_flow_get(work->registry, &got, &key, 1))
            continue;
        work->num_hits++;
        bool torn = got.len != 100 || got.kind != 1 + number % 3;
        for (uint32_t k = 0; k < 100 && !torn; k++)
            torn = got.octets[k] != 'a' + number % 26;
        work->num_torn += torn ? 1 : 0;
    }
    return NULL;
}

static void run_threads(uint32_t max_flows, uint32_t num_keys, uint32_t ttl_ms)
{
    struct otus_flow_registry *registry = registry_of(max_flows, ttl_ms);
    struct thread_work work[4] = {{0}};
    pthread_t threads[4];
    bool writers_done = false;
    for (uint32_t i = 0; i < 4; i++) {
        work[i] = (struct thread_work){.registry = registry,
                                       .writers_done = &writers_done,
                                       .num_keys = num_keys,
                                       .seed = i + 1};
        CHECK_EQ(pthread_create(&threads[i], NULL, i < 2 ? writer_run : reader_run, &work[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        if (i == 1)
            __atomic_store_n(&writers_done, true, __ATOMIC_RELEASE);
    }
    CHECK_EQ(work[2].num_torn + work[3].num_torn, 0);
    CHECK(work[2].num_hits + work[3].num_hits > 0);
    CHECK(otus_flow_count(registry) <= num_keys && otus_flow_count(registry) <= 2 * max_flows);
    otus_flow_registry_free(registry);
}

int main(void)
{
    run_threads(8, 64, 1000000);     /* two buckets, in which everything collides */
    run_threads(8, 64, 2);           /* of which some is over */
    run_threads(1000, 512, 1000000); /* entries that a call gives back are another bucket's next */
    return check_summary();
}
