/* The flow registry when it is full: what gives way, and that it is counted. */
#include "flow_fixture.h"

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
        num_evicted += otus_flow_put(registry, &key, &value, NOBODY, i + 1) ? 1 : 0;
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

/* Pairs that give way are counted by the endpoint; what comes and goes leaves nothing behind. */
static void test_flood_of_pairs(void)
{
    struct otus_flow_registry *registry = registry_of(300, 3600000);
    uint32_t num_evicted = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        struct otus_flow_value value = {.kind = OTUS_FLOW_RTP, .len = 4};
        memcpy(value.octets, &i, sizeof i);
        struct otus_flow_ports ports = {key_of(i, 4000), {OTUS_FLOW_RTP, OTUS_FLOW_RTCP}};
        num_evicted += otus_flow_put_ports(registry, &ports, 1, &value, NOBODY, i + 1);
        if (i % 3 == 0) {
            struct otus_slice call_id = {value.octets, value.len};
            end_call(registry, call_id);
            num_evicted += 2;
        }
    }
    CHECK_EQ(num_evicted + otus_flow_count(registry), 40000);
    CHECK(otus_flow_count(registry) > 600);
    CHECK(otus_flow_count(registry) <= 2 * (300 + 300 / 4 + 6));
    otus_flow_registry_free(registry);
}

/* A registry that is just full of calls with two endpoints each knows when nearly all of them end.
 */
static void test_as_many_calls_as_there_is_room_for(void)
{
    enum { FLOWS = 8192, CALLS = FLOWS / 2 };
    struct otus_flow_registry *registry = registry_of(FLOWS, 1000);
    char call_id[16];
    for (uint32_t i = 0; i < CALLS; i++) {
        snprintf(call_id, sizeof call_id, "call-%u", i);
        struct otus_flow_value value = value_of(call_id);
        struct otus_flow_ports ends[2] = {
            {.key = key_of(2 * i, 4000), .kind = {OTUS_FLOW_RTP, OTUS_FLOW_RTCP}},
            {.key = key_of(2 * i + 1, 4000), .kind = {OTUS_FLOW_RTP, OTUS_FLOW_RTCP}},
        };
        (void)otus_flow_put_ports(registry, ends, 2, &value, NOBODY, 1);
    }
    uint32_t held = otus_flow_count(registry);
    CHECK(held > FLOWS); /* two ports each */
    for (uint32_t i = 0; i < CALLS; i++) {
        snprintf(call_id, sizeof call_id, "call-%u", i);
        end_call(registry, slice_of(call_id));
    }
    CHECK(otus_flow_count(registry) < held / 20);
    otus_flow_registry_free(registry);
}

/* --- a call with more endpoints than the records of its bucket hold --- */

enum { HELD_ENDPOINTS = OTUS_TABLE_SLOTS * OTUS_CALL_ENDPOINTS };

static struct otus_flow_dialog dialog_of(const char *call_id, const char *from, const char *to)
{
    return (struct otus_flow_dialog){slice_of(call_id), slice_of(from), slice_of(to), NOBODY, 1};
}

static uint64_t time_of(uint32_t endpoint)
{
    return 10000000 * (uint64_t)endpoint;
}

/* One endpoint after the other, each a little later. */
static void offer(struct otus_flow_registry *registry, uint32_t first, uint32_t end)
{
    struct otus_flow_value value = value_of("conference");
    for (uint32_t i = first; i < end; i++) {
        struct otus_flow_key key = key_of(i, 4000);
        otus_flow_put(registry, &key, &value, slice_of("a"), time_of(i));
    }
}

/* Its head, the oldest of its records, stays and with it the dialogs; what the oldest of the others
 * knew waits for the TTL. */
static void test_call_that_fills_its_bucket(void)
{
    struct otus_flow_registry *registry = registry_of(10000, 1000000);
    struct otus_flow_dialog first = dialog_of("conference", "a", "t1");
    struct otus_flow_dialog second = dialog_of("conference", "a", "t2");
    otus_flow_answered(registry, &first, 0);
    otus_flow_answered(registry, &second, 0);
    offer(registry, 0, HELD_ENDPOINTS + 1);
    otus_flow_ended(registry, &first);
    CHECK_EQ(otus_flow_count(registry), HELD_ENDPOINTS + 1);
    otus_flow_ended(registry, &second);
    CHECK_EQ(otus_flow_count(registry), OTUS_CALL_ENDPOINTS);
    for (uint32_t i = 0; i < HELD_ENDPOINTS + 1; i++) {
        struct otus_flow_key key = key_of(i, 4000);
        struct otus_flow_value got;
        CHECK_EQ(otus_flow_get(registry, &got, &key, time_of(i)), i / OTUS_CALL_ENDPOINTS == 1);
    }
    otus_flow_registry_free(registry);
}

/* While there is one of another call, that gives way, though it is younger. */
static void test_call_that_fills_a_bucket_of_others(void)
{
    const uint32_t num = HELD_ENDPOINTS - OTUS_CALL_ENDPOINTS;
    struct otus_flow_registry *registry = registry_of(1, 1000000); /* one bucket */
    struct otus_flow_dialog large = dialog_of("conference", "a", "");
    struct otus_flow_dialog other = dialog_of("other", "b", "");
    otus_flow_invited(registry, &large, false, 0);
    offer(registry, 0, num);
    otus_flow_invited(registry, &other, false, time_of(num));
    CHECK(otus_flow_is_offerless(registry, &large) && otus_flow_is_offerless(registry, &other));
    offer(registry, num, num + 1);
    CHECK(otus_flow_is_offerless(registry, &large) && !otus_flow_is_offerless(registry, &other));
    otus_flow_registry_free(registry);
}

int main(void)
{
    test_flood();
    test_flood_of_pairs();
    test_as_many_calls_as_there_is_room_for();
    test_call_that_fills_its_bucket();
    test_call_that_fills_a_bucket_of_others();
    return check_summary();
}
