/* The flow registry, alone and under threads. */
#include "otus/flow.h"

#include <pthread.h>
#include <stdlib.h>

#include "check.h"

enum { SECOND = 1000000000 };

static struct otus_flow_key key_of(uint32_t address, uint16_t port)
{
    struct otus_flow_key key = {.ip_version = 4, .protocol = 17, .port = port};
    memcpy(key.ip, &address, sizeof address);
    return key;
}

static struct otus_flow_value value_of(const char *call_id)
{
    struct otus_flow_value value = {.kind = OTUS_FLOW_RTP};
    otus_flow_set_call_id(&value,
                          (struct otus_slice){(const uint8_t *)call_id, (uint32_t)strlen(call_id)});
    return value;
}

static struct otus_slice slice_of(const char *text)
{
    return (struct otus_slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static struct otus_flow_registry *registry_of(uint32_t max_flows, uint32_t ttl_ms)
{
    struct otus_flow_registry *registry = NULL;
    CHECK(otus_flow_registry_new(&registry, max_flows, ttl_ms) == OTUS_OK);
    return registry;
}

/* What was put is found under its key alone, and lives as long as it is used. */
static void test_put_get_ttl(void)
{
    struct otus_flow_registry *registry = registry_of(100, 1000);
    struct otus_flow_key key = key_of(1, 4000);
    struct otus_flow_key other = key_of(1, 4001);
    struct otus_flow_value value = value_of("call-1");
    struct otus_flow_value got;
    uint64_t now = 5 * (uint64_t)SECOND;
    CHECK(!otus_flow_put(registry, &key, &value, now));
    CHECK(otus_flow_get(registry, &got, &key, now));
    CHECK_TEXT(got.octets, got.len, "call-1");
    CHECK_EQ(got.kind, OTUS_FLOW_RTP);
    CHECK(!otus_flow_get(registry, &got, &other, now));
    for (int i = 0; i < 10; i++) { /* hits refresh: ten times 0.9 of the TTL */
        now += 900000000;
        CHECK(otus_flow_get(registry, &got, &key, now));
    }
    CHECK(!otus_flow_get(registry, &got, &key, now + 1000000001));
    CHECK(otus_flow_get(registry, &got, &key, 0)); /* a clock that steps back keeps it */
    otus_flow_registry_free(registry);
}

/* An endpoint that a new call takes over belongs to the new call: the old one's end
 * leaves it alone. */
static void test_reuse_of_an_endpoint(void)
{
    struct otus_flow_registry *registry = registry_of(100, 1000);
    struct otus_flow_key key = key_of(1, 4000);
    struct otus_flow_key old = key_of(2, 4000);
    struct otus_flow_value first = value_of("call-1");
    struct otus_flow_value second = value_of("call-2");
    struct otus_flow_value got;
    otus_flow_put(registry, &key, &first, 1);
    otus_flow_put(registry, &old, &first, 1);
    otus_flow_put(registry, &key, &second, 2);
    CHECK_EQ(otus_flow_count(registry), 2);
    otus_flow_remove_call(registry, slice_of("call-1"));
    CHECK(otus_flow_get(registry, &got, &key, 3));
    CHECK_TEXT(got.octets, got.len, "call-2");
    CHECK(!otus_flow_get(registry, &got, &old, 3));
    otus_flow_remove_call(registry, slice_of("call-2"));
    CHECK_EQ(otus_flow_count(registry), 0);
    otus_flow_registry_free(registry);
}

/* A call with more endpoints than one record holds loses all of them at its end. */
static void test_many_endpoints(void)
{
    struct otus_flow_registry *registry = registry_of(1000, 1000);
    struct otus_flow_value value = value_of("conference");
    for (uint16_t i = 0; i < 40; i++) {
        struct otus_flow_key key = key_of(7, (uint16_t)(1000 + i));
        otus_flow_put(registry, &key, &value, 1);
        otus_flow_put(registry, &key, &value, 2); /* again: nothing grows */
    }
    CHECK_EQ(otus_flow_count(registry), 40);
    otus_flow_remove_call(registry, slice_of("conference"));
    CHECK_EQ(otus_flow_count(registry), 0);
    otus_flow_registry_free(registry);
}

/* A failed INVITE ends a call that was never answered, and no other. */
static void test_answered(void)
{
    struct otus_flow_registry *registry = registry_of(100, 1000);
    struct otus_flow_key key = key_of(1, 4000);
    struct otus_flow_value value = value_of("call-1");
    struct otus_flow_value got;
    otus_flow_put(registry, &key, &value, 1);
    otus_flow_set_answered(registry, slice_of("call-1"));
    otus_flow_remove_unanswered(registry, slice_of("call-1"));
    CHECK(otus_flow_get(registry, &got, &key, 1));
    otus_flow_remove_call(registry, slice_of("call-1"));
    CHECK(!otus_flow_get(registry, &got, &key, 1));
    otus_flow_put(registry, &key, &value, 1);
    otus_flow_remove_unanswered(registry, slice_of("call-1"));
    CHECK(!otus_flow_get(registry, &got, &key, 1));
    otus_flow_registry_free(registry);
}

/* A Call-ID of any length names its call and no other. */
static void test_long_call_ids(void)
{
    struct otus_flow_registry *registry = registry_of(100, 1000);
    struct otus_flow_key key_a = key_of(1, 4000);
    struct otus_flow_key key_b = key_of(1, 4002);
    struct otus_flow_value got;
    char a[301], b[301];
    memset(a, 'x', 300);
    memset(b, 'x', 300);
    a[300] = b[300] = '\0';
    b[299] = 'y';
    struct otus_flow_value value_a = value_of(a);
    struct otus_flow_value value_b = value_of(b);
    CHECK_EQ(value_a.len, OTUS_FLOW_MAX_VALUE);
    CHECK(memcmp(&value_a, &value_b, sizeof value_a) != 0);
    otus_flow_put(registry, &key_a, &value_a, 1);
    otus_flow_put(registry, &key_b, &value_b, 1);
    otus_flow_remove_call(registry, slice_of(a));
    CHECK(!otus_flow_get(registry, &got, &key_a, 1));
    CHECK(otus_flow_get(registry, &got, &key_b, 1));
    otus_flow_registry_free(registry);
}

/* A flood of unique keys evicts the oldest and never holds more than there is room for. */
static void test_flood(void)
{
    struct otus_flow_registry *registry = registry_of(1000, 3600000);
    uint32_t num_evicted = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        char call_id[32];
        snprintf(call_id, sizeof call_id, "call-%u", i);
        struct otus_flow_key key = key_of(i, (uint16_t)(i * 7));
        struct otus_flow_value value = value_of(call_id);
        num_evicted += otus_flow_put(registry, &key, &value, i + 1) ? 1 : 0;
    }
    CHECK(otus_flow_count(registry) <= 1000 + 1000 / 4 + 8);
    CHECK(otus_flow_count(registry) >= 900);
    CHECK_EQ(num_evicted + otus_flow_count(registry), 100000);
    struct otus_flow_value got;
    struct otus_flow_key last = key_of(99999, (uint16_t)(99999 * 7));
    CHECK(otus_flow_get(registry, &got, &last, 100000));
    CHECK_TEXT(got.octets, got.len, "call-99999");
    otus_flow_registry_free(registry);
}

/* Entries whose time is over go away while others come, without being asked for. */
static void test_sweep(void)
{
    struct otus_flow_registry *registry = registry_of(1000, 1000);
    struct otus_flow_value value = value_of("old");
    for (uint32_t i = 0; i < 500; i++) {
        struct otus_flow_key key = key_of(i, 1);
        otus_flow_put(registry, &key, &value, 1);
    }
    CHECK(otus_flow_count(registry) >= 490);
    struct otus_flow_key key = key_of(1000, 1);
    struct otus_flow_value young = value_of("young");
    for (uint32_t i = 0; i < 200; i++)
        otus_flow_put(registry, &key, &young, 10 * (uint64_t)SECOND);
    CHECK_EQ(otus_flow_count(registry), 1);
    otus_flow_registry_free(registry);
}

/* A packet is found by where it goes, where it comes from, or both together. */
static void test_find(void)
{
    struct otus_flow_registry *registry = registry_of(100, 1000);
    struct otus_packet_meta meta = {
        .ip_version = 4, .protocol = 17, .src_port = 10, .dst_port = 20};
    struct otus_flow_value got;
    meta.src_ip[0] = 1;
    meta.dst_ip[0] = 2;
    struct otus_flow_value value = value_of("c");
    struct otus_flow_key dst = key_of(2, 20), src = key_of(1, 10), pair = key_of(2, 20);
    pair.peer_port = 10;
    pair.peer_ip[0] = 1;
    struct otus_flow_key back = key_of(1, 10);
    back.peer_port = 20;
    back.peer_ip[0] = 2;
    const struct otus_flow_key *keys[] = {&dst, &src, &pair, &back};
    for (int i = 0; i < 4; i++) {
        CHECK(!otus_flow_find(registry, &got, &meta, 1));
        otus_flow_put(registry, keys[i], &value, 1);
        CHECK(otus_flow_find(registry, &got, &meta, 1));
        otus_flow_remove_call(registry, slice_of("c"));
    }
    otus_flow_registry_free(registry);
}

static void test_arguments(void)
{
    struct otus_flow_registry *registry = NULL;
    CHECK(otus_flow_registry_new(&registry, 0, 1) == OTUS_E_INVALID);
    CHECK(otus_flow_registry_new(&registry, 1, 0) == OTUS_E_INVALID);
    CHECK(registry == NULL);
    otus_flow_registry_free(NULL);
}

/* --- threads: a reader never sees one entry's key with another's value --- */

enum { THREAD_KEYS = 64, THREAD_ROUNDS = 20000 };

struct thread_work {
    struct otus_flow_registry *registry;
    uint32_t seed;
    uint32_t num_hits;
    uint32_t num_torn;
};

static void *writer_run(void *argument)
{
    struct thread_work *work = argument;
    uint32_t state = work->seed;
    for (uint32_t i = 0; i < THREAD_ROUNDS; i++) {
        state = state * 1664525 + 1013904223;
        uint32_t number = (state >> 8) % THREAD_KEYS;
        struct otus_flow_key key = key_of(number, (uint16_t)number);
        struct otus_flow_value value = {.kind = (uint8_t)(1 + number % 3), .len = 100};
        memset(value.octets, 'a' + (int)(number % 26), value.len);
        if (i % 16 == 0)
            otus_flow_remove_call(work->registry, (struct otus_slice){value.octets, value.len});
        else
            otus_flow_put(work->registry, &key, &value, i + 1);
    }
    return NULL;
}

static void *reader_run(void *argument)
{
    struct thread_work *work = argument;
    for (uint32_t i = 0; i < THREAD_ROUNDS; i++) {
        uint32_t number = i % THREAD_KEYS;
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

static void test_threads(void)
{
    /* One bucket or two, so that everything collides. */
    struct otus_flow_registry *registry = registry_of(8, 1000000);
    struct thread_work work[4] = {{0}};
    pthread_t threads[4];
    for (uint32_t i = 0; i < 4; i++) {
        work[i] = (struct thread_work){.registry = registry, .seed = i + 1};
        CHECK_EQ(pthread_create(&threads[i], NULL, i < 2 ? writer_run : reader_run, &work[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(work[2].num_torn + work[3].num_torn, 0);
    CHECK(work[2].num_hits + work[3].num_hits > 0);
    CHECK(otus_flow_count(registry) <= 16);
    otus_flow_registry_free(registry);
}

int main(void)
{
    test_put_get_ttl();
    test_reuse_of_an_endpoint();
    test_many_endpoints();
    test_answered();
    test_long_call_ids();
    test_flood();
    test_sweep();
    test_find();
    test_arguments();
    test_threads();
    return check_summary();
}
