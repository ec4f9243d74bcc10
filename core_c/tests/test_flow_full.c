/* The flow registry when it is full: what gives way, and that it is counted. */
#include "flow_fixture.h"

static uint64_t num_flows_evicted(const struct otus_counters *counters)
{
    return counters->value[OTUS_COUNT_FLOWS_EVICTED];
}

static uint64_t num_calls_evicted(const struct otus_counters *counters)
{
    return counters->value[OTUS_COUNT_CALLS_EVICTED];
}

/* A flood of unique keys evicts the oldest and never holds more than there is room for. */
static void test_flood(void)
{
    struct otus_flow_registry *registry = registry_of(1000, 3600000);
    struct otus_counters counters = {0};
    for (uint32_t i = 0; i < 100000; i++) {
        char call_id[32];
        snprintf(call_id, sizeof call_id, "call-%u", i);
        struct otus_flow_key key = key_of(i, (uint16_t)(i * 7));
        struct otus_flow_value value = value_of(call_id);
        otus_flow_put(registry, &key, &value, NOBODY, i + 1, &counters);
    }
    CHECK(otus_flow_count(registry) <= 1000 + 1000 / 4 + 8);
    CHECK(otus_flow_count(registry) >= 900);
    CHECK_EQ(num_flows_evicted(&counters) + otus_flow_count(registry), 100000);
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
    struct otus_counters counters = {0};
    uint32_t num_ended = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        struct otus_flow_value value = {.kind = OTUS_FLOW_RTP, .len = 4};
        memcpy(value.octets, &i, sizeof i);
        struct otus_flow_ports ports = {key_of(i, 4000), {OTUS_FLOW_RTP, OTUS_FLOW_RTCP}};
        otus_flow_put_ports(registry, &ports, 1, &value, NOBODY, i + 1, &counters);
        if (i % 3 == 0) {
            struct otus_slice call_id = {value.octets, value.len};
            end_call(registry, call_id);
            num_ended += 2;
        }
    }
    CHECK_EQ(num_flows_evicted(&counters) + num_ended + otus_flow_count(registry), 40000);
    CHECK(otus_flow_count(registry) > 600);
    CHECK(otus_flow_count(registry) <= 2 * (300 + 300 / 4 + 6));
    otus_flow_registry_free(registry);
}

/* A registry that is just full of calls with two endpoints each knows when nearly all of them end,
 * and counts those of which it does not. */
static void test_as_many_calls_as_there_is_room_for(void)
{
    enum { FLOWS = 8192, CALLS = FLOWS / 2 };
    struct otus_flow_registry *registry = registry_of(FLOWS, 1000);
    struct otus_counters counters = {0};
    char call_id[16];
    for (uint32_t i = 0; i < CALLS; i++) {
        snprintf(call_id, sizeof call_id, "call-%u", i);
        struct otus_flow_value value = value_of(call_id);
        struct otus_flow_ports ends[2] = {
            {.key = key_of(2 * i, 4000), .kind = {OTUS_FLOW_RTP, OTUS_FLOW_RTCP}},
            {.key = key_of(2 * i + 1, 4000), .kind = {OTUS_FLOW_RTP, OTUS_FLOW_RTCP}},
        };
        otus_flow_put_ports(registry, ends, 2, &value, NOBODY, 1, &counters);
    }
    uint32_t held = otus_flow_count(registry);
    CHECK(held > FLOWS); /* two ports each */
    for (uint32_t i = 0; i < CALLS; i++) {
        snprintf(call_id, sizeof call_id, "call-%u", i);
        end_call(registry, slice_of(call_id));
    }
    CHECK(otus_flow_count(registry) < held / 20);
    CHECK(otus_flow_count(registry) <= 4 * num_calls_evicted(&counters)); /* its ports */
    otus_flow_registry_free(registry);
}

/* Calls, or endpoints, each a little later than the one before. */
static uint64_t time_of(uint32_t number)
{
    return 10000000 * (uint64_t)number;
}

/* --- calls that give way: a registry for one endpoint has one bucket of six records --- */

static void invite(struct otus_flow_registry *registry, uint32_t call, uint64_t now,
                   struct otus_counters *counters)
{
    struct otus_slice call_id = {(const uint8_t *)&call, sizeof call};
    struct otus_flow_dialog dialog = {.call_id = call_id, .from_tag = slice_of("a")};
    otus_flow_invited(registry, &dialog, true, now, counters);
}

static void answer(struct otus_flow_registry *registry, uint32_t call, uint64_t now,
                   struct otus_counters *counters)
{
    struct otus_slice call_id = {(const uint8_t *)&call, sizeof call};
    struct otus_flow_dialog dialog = {
        .call_id = call_id, .from_tag = slice_of("a"), .to_tag = slice_of("b")};
    otus_flow_answered(registry, &dialog, now, counters);
}

/* An endpoint of the call's own. */
static void describe(struct otus_flow_registry *registry, uint32_t call, uint64_t now,
                     struct otus_counters *counters)
{
    struct otus_flow_key key = key_of(call, 4000);
    struct otus_flow_value value = {.kind = OTUS_FLOW_RTP, .len = sizeof call};
    memcpy(value.octets, &call, sizeof call);
    otus_flow_put(registry, &key, &value, NOBODY, now, counters);
}

/* Whatever message a call begins with, it is counted when another one takes its place, and once. */
static void test_calls_that_give_way(void)
{
    struct otus_flow_registry *registry = registry_of(1, 1000);
    struct otus_counters counters = {0};
    uint32_t call = 0;
    for (; call < 10; call++)
        invite(registry, call, time_of(call), &counters);
    CHECK_EQ(num_calls_evicted(&counters), 10 - 6);
    for (uint32_t held = 10 - 6; held < 10; held++) {
        invite(registry, held, time_of(held), &counters);
        answer(registry, held, time_of(held), &counters);
    }
    CHECK_EQ(num_calls_evicted(&counters), 10 - 6);
    for (; call < 13; call++)
        answer(registry, call, time_of(call), &counters);
    CHECK_EQ(num_calls_evicted(&counters), 13 - 6);
    for (; call < 20; call++)
        describe(registry, call, time_of(call), &counters);
    CHECK_EQ(num_calls_evicted(&counters), 20 - 6);
    CHECK_EQ(num_flows_evicted(&counters), 7 - 6);
    invite(registry, call, time_of(call), NULL);
    otus_flow_registry_free(registry);
}

/* One of which nothing was heard during the TTL is none that is missed. */
static void test_calls_whose_time_is_over(void)
{
    struct otus_flow_registry *registry = registry_of(1, 1000);
    struct otus_counters counters = {0};
    uint32_t call = 0;
    for (; call < 6; call++)
        invite(registry, call, 1, &counters);
    for (; call < 12; call++)
        invite(registry, call, 2 * (uint64_t)SECOND, &counters);
    CHECK_EQ(num_calls_evicted(&counters), 0);
    invite(registry, call, 2 * (uint64_t)SECOND + SECOND / 2, &counters);
    CHECK_EQ(num_calls_evicted(&counters), 1);
    otus_flow_registry_free(registry);
}

/* One that talks longer than the TTL is one, though its messages are as old. */
static void test_calls_that_talk(void)
{
    struct otus_flow_registry *registry = registry_of(1, 1000);
    struct otus_counters counters = {0};
    struct otus_flow_key heard = key_of(0, 4000);
    struct otus_flow_value got;
    uint32_t call = 0;
    for (; call < 6; call++)
        describe(registry, call, time_of(call), &counters);
    for (uint64_t now = SECOND / 2; now < 2 * (uint64_t)SECOND; now += SECOND / 2)
        CHECK(otus_flow_get(registry, &got, &heard, now));
    invite(registry, call++, 2 * (uint64_t)SECOND, &counters); /* in place of the first */
    CHECK_EQ(num_calls_evicted(&counters), 1);
    invite(registry, call, 2 * (uint64_t)SECOND, &counters);
    CHECK_EQ(num_calls_evicted(&counters), 1);
    otus_flow_registry_free(registry);
}

/* --- a call with more endpoints than the records of its bucket hold --- */

enum { HELD_ENDPOINTS = OTUS_TABLE_SLOTS * OTUS_CALL_ENDPOINTS };

static struct otus_flow_dialog dialog_of(const char *call_id, const char *from, const char *to)
{
    return (struct otus_flow_dialog){slice_of(call_id), slice_of(from), slice_of(to), NOBODY, 1};
}

static void offer(struct otus_flow_registry *registry, uint32_t first, uint32_t end,
                  struct otus_counters *counters)
{
    struct otus_flow_value value = value_of("conference");
    for (uint32_t i = first; i < end; i++) {
        struct otus_flow_key key = key_of(i, 4000);
        otus_flow_put(registry, &key, &value, slice_of("a"), time_of(i), counters);
    }
}

/* Its head, the oldest of its records, stays and with it the dialogs; what the oldest of the others
 * knew waits for the TTL. */
static void test_call_that_fills_its_bucket(void)
{
    struct otus_flow_registry *registry = registry_of(10000, 1000000);
    struct otus_counters counters = {0};
    struct otus_flow_dialog first = dialog_of("conference", "a", "t1");
    struct otus_flow_dialog second = dialog_of("conference", "a", "t2");
    otus_flow_answered(registry, &first, 0, NULL);
    otus_flow_answered(registry, &second, 0, NULL);
    offer(registry, 0, HELD_ENDPOINTS, &counters);
    CHECK_EQ(num_calls_evicted(&counters), 0);
    offer(registry, HELD_ENDPOINTS, HELD_ENDPOINTS + 1, &counters);
    CHECK_EQ(num_calls_evicted(&counters), 1);
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

/* A younger call stays: the large one's oldest record but its head gives way. */
static void test_call_that_fills_a_bucket_of_others(void)
{
    const uint32_t num = HELD_ENDPOINTS - OTUS_CALL_ENDPOINTS;
    struct otus_flow_registry *registry = registry_of(1, 1000000); /* one bucket */
    struct otus_counters counters = {0};
    struct otus_flow_dialog large = dialog_of("conference", "a", "");
    struct otus_flow_dialog other = dialog_of("other", "b", "");
    otus_flow_invited(registry, &large, false, 0, NULL);
    offer(registry, 0, num, NULL);
    otus_flow_invited(registry, &other, false, time_of(num), NULL);
    CHECK(otus_flow_is_offerless(registry, &large) && otus_flow_is_offerless(registry, &other));
    offer(registry, num, num + 1, &counters);
    CHECK_EQ(num_calls_evicted(&counters), 1);
    CHECK(otus_flow_is_offerless(registry, &large) && otus_flow_is_offerless(registry, &other));
    otus_flow_registry_free(registry);
}

int main(void)
{
    test_flood();
    test_flood_of_pairs();
    test_as_many_calls_as_there_is_room_for();
    test_calls_that_give_way();
    test_calls_whose_time_is_over();
    test_calls_that_talk();
    test_call_that_fills_its_bucket();
    test_call_that_fills_a_bucket_of_others();
    return check_summary();
}
