/* The flow registry: what it knows of endpoints and calls. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "flow_fixture.h"

/* What was put is found under its key alone, and lives as long as it is used. */
static void test_put_get_ttl(void)
{
    struct otus_flow_registry *registry = registry_of(100, 1000);
    struct otus_flow_key key = key_of(1, 4000);
    struct otus_flow_key other = key_of(1, 4001);
    struct otus_flow_value value = value_of("call-1");
    struct otus_flow_value got;
    uint64_t now = 5 * (uint64_t)SECOND;
    otus_flow_put(registry, &key, &value, NOBODY, now, NULL);
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
    otus_flow_put(registry, &key, &first, NOBODY, 1, NULL);
    otus_flow_put(registry, &old, &first, NOBODY, 1, NULL);
    otus_flow_put(registry, &key, &second, NOBODY, 2, NULL);
    CHECK_EQ(otus_flow_count(registry), 2);
    end_call(registry, slice_of("call-1"));
    CHECK(otus_flow_get(registry, &got, &key, 3));
    CHECK_TEXT(got.octets, got.len, "call-2");
    CHECK(!otus_flow_get(registry, &got, &old, 3));
    end_call(registry, slice_of("call-2"));
    CHECK_EQ(otus_flow_count(registry), 0);
    otus_flow_registry_free(registry);
}

static int kind_at(struct otus_flow_registry *registry, uint16_t port, uint64_t now)
{
    struct otus_flow_key key = key_of(1, port);
    struct otus_flow_value got;
    return otus_flow_get(registry, &got, &key, now) ? got.kind : 0;
}

/* RTP and RTCP of one endpoint are put at once, and found each by its port. */
static void test_pair(void)
{
    struct otus_flow_registry *registry = registry_of(100, 1000);
    struct otus_flow_value value = value_of("call");
    struct otus_flow_ports ports[2] = {
        {.key = key_of(1, 4001), .kind = {OTUS_FLOW_RTP, OTUS_FLOW_RTCP}},
        {.key = key_of(1, 4002), .kind = {OTUS_FLOW_RTP_RTCP_MUX, 0}},
    };
    otus_flow_put_ports(registry, ports, 2, &value, NOBODY, 1, NULL);
    CHECK_EQ(otus_flow_count(registry), 3);
    CHECK_EQ(kind_at(registry, 4000, 1), OTUS_FLOW_RTP);
    CHECK_EQ(kind_at(registry, 4001, 1), OTUS_FLOW_RTCP);
    CHECK_EQ(kind_at(registry, 4002, 1), OTUS_FLOW_RTP_RTCP_MUX);
    CHECK_EQ(kind_at(registry, 4003, 1), 0);
    ports[0].kind[0] = OTUS_FLOW_RTP_RTCP_MUX; /* what is not named stays */
    ports[0].kind[1] = 0;
    otus_flow_put_ports(registry, ports, 1, &value, NOBODY, 1, NULL);
    CHECK_EQ(kind_at(registry, 4000, 1), OTUS_FLOW_RTP_RTCP_MUX);
    CHECK_EQ(kind_at(registry, 4001, 1), OTUS_FLOW_RTCP);
    CHECK_EQ(otus_flow_count(registry), 3);
    /* But what is over does not come back with the other port. */
    otus_flow_put_ports(registry, ports, 1, &value, NOBODY, 2 * (uint64_t)SECOND, NULL);
    CHECK_EQ(kind_at(registry, 4000, 2 * (uint64_t)SECOND), OTUS_FLOW_RTP_RTCP_MUX);
    CHECK_EQ(kind_at(registry, 4001, 2 * (uint64_t)SECOND), 0);
    end_call(registry, slice_of("call"));
    CHECK_EQ(otus_flow_count(registry), 0);
    otus_flow_registry_free(registry);
}

/* The two ports of a pair may be of two calls: each goes with its own, and when one takes over
 * the other's port, that one's end leaves it alone. */
static void test_pair_of_two_calls(void)
{
    struct otus_flow_registry *registry = registry_of(100, 1000);
    struct otus_flow_value first = value_of("call-1"), second = value_of("call-2"), got;
    struct otus_flow_key even = key_of(1, 4000), odd = key_of(1, 4001);
    struct otus_flow_ports both = {even, {OTUS_FLOW_RTP, OTUS_FLOW_RTCP}};
    otus_flow_put(registry, &even, &first, NOBODY, 1, NULL);
    otus_flow_put(registry, &odd, &second, NOBODY, 1, NULL);
    CHECK_EQ(otus_flow_count(registry), 2);
    CHECK(otus_flow_get(registry, &got, &even, 1));
    CHECK_TEXT(got.octets, got.len, "call-1");
    CHECK(otus_flow_get(registry, &got, &odd, 1));
    CHECK_TEXT(got.octets, got.len, "call-2");
    end_call(registry, slice_of("call-1"));
    CHECK(!otus_flow_get(registry, &got, &even, 1));
    CHECK(otus_flow_get(registry, &got, &odd, 1));

    otus_flow_put_ports(registry, &both, 1, &first, NOBODY, 1, NULL);
    CHECK_EQ(otus_flow_count(registry), 2);
    otus_flow_put(registry, &odd, &second, NOBODY, 1, NULL);
    CHECK_EQ(otus_flow_count(registry), 2);
    end_call(registry, slice_of("call-1"));
    CHECK(!otus_flow_get(registry, &got, &even, 1));
    CHECK(otus_flow_get(registry, &got, &odd, 1));
    CHECK_TEXT(got.octets, got.len, "call-2");
    end_call(registry, slice_of("call-2"));
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
        otus_flow_put(registry, &key, &value, NOBODY, 1, NULL);
        otus_flow_put(registry, &key, &value, NOBODY, 2, NULL); /* again: nothing grows */
    }
    CHECK_EQ(otus_flow_count(registry), 40);
    end_call(registry, slice_of("conference"));
    CHECK_EQ(otus_flow_count(registry), 0);
    otus_flow_registry_free(registry);
}

/* --- dialogs of one Call-ID --- */

/* One registry and the endpoints of the call, by their port. */
struct scene {
    struct otus_flow_registry *registry;
    struct otus_flow_value value;
};

static struct scene scene_of(void)
{
    return (struct scene){registry_of(1000, 1000), value_of("call")};
}

static struct otus_flow_dialog dialog_of(const char *from, const char *to, const char *branch)
{
    return (struct otus_flow_dialog){slice_of("call"), slice_of(from), slice_of(to),
                                     slice_of(branch), 1};
}

static void invite(struct scene *scene, const char *from, const char *to, const char *branch)
{
    struct otus_flow_dialog dialog = dialog_of(from, to, branch);
    otus_flow_invited(scene->registry, &dialog, true, 1, NULL);
}

static void answer(struct scene *scene, const char *from, const char *to, const char *branch)
{
    struct otus_flow_dialog dialog = dialog_of(from, to, branch);
    otus_flow_answered(scene->registry, &dialog, 1, NULL);
}

static void refuse(struct scene *scene, const char *from, const char *to, const char *branch)
{
    struct otus_flow_dialog dialog = dialog_of(from, to, branch);
    otus_flow_refused(scene->registry, &dialog);
}

static void end(struct scene *scene, const char *from, const char *to)
{
    struct otus_flow_dialog dialog = dialog_of(from, to, "");
    otus_flow_ended(scene->registry, &dialog);
}

static void offer(struct scene *scene, const char *owner, uint16_t port)
{
    struct otus_flow_key key = key_of(1, port);
    otus_flow_put(scene->registry, &key, &scene->value, slice_of(owner), 1, NULL);
}

static bool has(struct scene *scene, uint16_t port)
{
    struct otus_flow_key key = key_of(1, port);
    struct otus_flow_value got;
    return otus_flow_get(scene->registry, &got, &key, 1);
}

/* A refused INVITE ends a call that was never answered; a refused re-INVITE ends nothing,
 * also where the beginning of the dialog was not seen. */
static void test_refused(void)
{
    struct scene scene = scene_of();
    invite(&scene, "a", "", "b1");
    offer(&scene, "a", 10);
    refuse(&scene, "a", "t", "b1");
    CHECK(!has(&scene, 10));
    invite(&scene, "a", "t", "b2"); /* a re-INVITE out of the blue */
    offer(&scene, "a", 10);
    refuse(&scene, "a", "t", "b2");
    CHECK(has(&scene, 10));
    end(&scene, "t", "a"); /* the other side hangs up */
    CHECK(!has(&scene, 10));
    CHECK_EQ(otus_flow_count(scene.registry), 0);
    otus_flow_registry_free(scene.registry);
}

/* A forked INVITE: the phone that is busy takes its own early media along, the caller's
 * stay while other phones ring, and until the last of them has refused. */
static void test_forked_and_refused(void)
{
    struct scene scene = scene_of();
    invite(&scene, "a", "", "b0");
    offer(&scene, "a", 10);
    invite(&scene, "a", "", "b1");
    invite(&scene, "a", "", "b2");
    offer(&scene, "t1", 11);
    offer(&scene, "t2", 12);
    refuse(&scene, "a", "t1", "b1");
    CHECK(has(&scene, 10) && !has(&scene, 11) && has(&scene, 12));
    refuse(&scene, "a", "t1", "b1"); /* retransmitted */
    CHECK(has(&scene, 10) && has(&scene, 12));
    refuse(&scene, "a", "t2", "b2");
    CHECK(has(&scene, 10) && !has(&scene, 12));
    refuse(&scene, "a", "t0", "b0");
    CHECK_EQ(otus_flow_count(scene.registry), 0);
    otus_flow_registry_free(scene.registry);
}

/* Two phones answer (RFC 3261 13.2.2.4): the BYE to one leaves the session with the other. */
static void test_forked_and_answered(void)
{
    struct scene scene = scene_of();
    invite(&scene, "a", "", "b1");
    offer(&scene, "a", 10);
    offer(&scene, "t1", 11);
    answer(&scene, "a", "t1", "b1");
    offer(&scene, "t2", 12);
    answer(&scene, "a", "t2", "b1");
    end(&scene, "a", "t2");
    CHECK(has(&scene, 10) && has(&scene, 11) && !has(&scene, 12));
    end(&scene, "a", "t2"); /* retransmitted */
    CHECK(has(&scene, 10) && has(&scene, 11));
    end(&scene, "t1", "a");
    CHECK_EQ(otus_flow_count(scene.registry), 0);
    otus_flow_registry_free(scene.registry);
}

/* Two parties of one call behind one address, at the two ports of one pair: each goes alone,
 * and a port that changes hands goes with who has it. */
static void test_pair_of_two_parties(void)
{
    struct scene scene = scene_of();
    answer(&scene, "a", "t1", "b1");
    answer(&scene, "b", "t2", "b2");
    offer(&scene, "a", 10);
    offer(&scene, "b", 11);
    end(&scene, "a", "t1");
    CHECK(!has(&scene, 10) && has(&scene, 11));
    answer(&scene, "a", "t1", "b1");
    offer(&scene, "a", 10);
    offer(&scene, "a", 11);
    offer(&scene, "b", 10);
    end(&scene, "a", "t1");
    CHECK(has(&scene, 10) && !has(&scene, 11));
    end(&scene, "b", "t2");
    CHECK_EQ(otus_flow_count(scene.registry), 0);
    otus_flow_registry_free(scene.registry);
}

/* A B2BUA that keeps the Call-ID: each leg's media end with the leg. */
static void test_legs(void)
{
    struct scene scene = scene_of();
    invite(&scene, "a", "", "b1");
    offer(&scene, "a", 10);
    invite(&scene, "b", "", "b2");
    offer(&scene, "b", 20);
    offer(&scene, "d", 21);
    answer(&scene, "b", "d", "b2");
    offer(&scene, "c", 11);
    answer(&scene, "a", "c", "b1");
    end(&scene, "a", "c");
    CHECK(!has(&scene, 10) && !has(&scene, 11) && has(&scene, 20) && has(&scene, 21));
    end(&scene, "b", "d");
    CHECK_EQ(otus_flow_count(scene.registry), 0);
    otus_flow_registry_free(scene.registry);
}

/* A challenged INVITE keeps the caller's endpoints for the one with credentials. */
static void test_challenged(void)
{
    struct scene scene = scene_of();
    struct otus_flow_dialog dialog = dialog_of("a", "t", "b1");
    invite(&scene, "a", "", "b1");
    offer(&scene, "a", 10);
    otus_flow_challenged(scene.registry, &dialog);
    CHECK(has(&scene, 10));
    invite(&scene, "a", "", "b2");
    refuse(&scene, "a", "t", "b2");
    CHECK(!has(&scene, 10));
    otus_flow_registry_free(scene.registry);
}

/* More forks than a call remembers: nothing that may be in use goes, TTL takes the rest; and
 * floods of dialogs and INVITEs under one Call-ID take no more room than a call has. */
static void test_more_forks_than_remembered(void)
{
    struct scene scene = scene_of();
    char text[16];
    offer(&scene, "a", 10);
    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "t%u", i);
        invite(&scene, "a", "", text);
        answer(&scene, "a", text, text);
    }
    for (uint32_t i = 0; i < 999; i++) {
        snprintf(text, sizeof text, "t%u", i);
        end(&scene, "a", text);
        if (i == 1)
            CHECK(has(&scene, 10));
    }
    offer(&scene, "t999", 11);
    end(&scene, "a", "t999");
    CHECK(!has(&scene, 11));
    otus_flow_registry_free(scene.registry);
}

/* Each endpoint of a description asks for its owner, so of a long tag no more than the start
 * and the length are looked at; short ones differ by any octet. */
static void test_long_tags(void)
{
    struct otus_flow_registry *registry = registry_of(100, 1000);
    uint8_t a[60000], b[60000];
    memset(a, 'x', sizeof a);
    memset(b, 'x', sizeof b);
    b[sizeof b - 1] = 'y';
    struct otus_slice long_a = {a, sizeof a}, long_b = {b, sizeof b};
    CHECK_EQ(otus_flow_hash_text(registry, long_a), otus_flow_hash_text(registry, long_b));
    for (uint32_t len = 1; len < 100; len++) {
        b[len - 1] = 'y';
        struct otus_slice one = {a, len}, other = {b, len}, longer = {a, len + 1};
        CHECK(otus_flow_hash_text(registry, one) != otus_flow_hash_text(registry, other));
        CHECK(otus_flow_hash_text(registry, one) != otus_flow_hash_text(registry, longer));
        b[len - 1] = 'x';
    }
    CHECK_EQ(otus_flow_hash_text(registry, NOBODY), 0);
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
    otus_flow_put(registry, &key_a, &value_a, NOBODY, 1, NULL);
    otus_flow_put(registry, &key_b, &value_b, NOBODY, 1, NULL);
    end_call(registry, slice_of(a));
    CHECK(!otus_flow_get(registry, &got, &key_a, 1));
    CHECK(otus_flow_get(registry, &got, &key_b, 1));
    otus_flow_registry_free(registry);
}

/* Entries whose time is over go away while others come, without being asked for. */
static void test_sweep(void)
{
    struct otus_flow_registry *registry = registry_of(1000, 1000);
    struct otus_flow_value value = value_of("old");
    for (uint32_t i = 0; i < 500; i++) {
        struct otus_flow_key key = key_of(i, 1);
        otus_flow_put(registry, &key, &value, NOBODY, 1, NULL);
    }
    CHECK(otus_flow_count(registry) >= 400); /* some gave way: buckets fill unevenly */
    struct otus_flow_key key = key_of(1000, 1);
    struct otus_flow_value young = value_of("young");
    for (uint32_t i = 0; i < 250; i++) /* more than there are buckets */
        otus_flow_put(registry, &key, &young, NOBODY, 10 * (uint64_t)SECOND, NULL);
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
        otus_flow_put(registry, keys[i], &value, NOBODY, 1, NULL);
        CHECK(otus_flow_find(registry, &got, &meta, 1));
        end_call(registry, slice_of("c"));
    }
    otus_flow_registry_free(registry);
}

/* Asking ahead, in any order and of any packet, changes nothing that is found. */
static void test_ahead(void)
{
    struct otus_flow_registry *registry = registry_of(100, 1000);
    struct otus_flow_value value = value_of("c"), got;
    struct otus_flow_key key = key_of(2, 20);
    for (uint8_t octet = 0; octet < 4; octet++) {
        struct otus_packet_meta meta = {
            .ip_version = 4, .protocol = 17, .src_port = 20, .dst_port = 20};
        meta.dst_ip[0] = octet;
        meta.src_ip[0] = octet ^ 1;
        struct otus_flow_key asked = key_of(octet, 20);
        uint64_t hash = otus_flow_ask_bucket(registry, &asked);
        CHECK(!otus_flow_ask_entry(registry, hash));
        CHECK(!otus_flow_find(registry, &got, &meta, 1));
        otus_flow_put(registry, &key, &value, NOBODY, 1, NULL);
        CHECK(octet != 2 || otus_flow_ask_entry(registry, hash));
        CHECK_EQ(otus_flow_find(registry, &got, &meta, 1), octet >= 2);
        CHECK_EQ(otus_flow_count(registry), 1);
        end_call(registry, slice_of("c"));
    }
    otus_flow_registry_free(registry);
}

static size_t resident_octets(const struct otus_flow_registry *registry)
{
    const struct otus_tables *tables = &registry->tables;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), num = (tables->memory_len + page - 1) / page;
    unsigned char *is_there = calloc(num, 1);
    size_t octets = 0;
    if (!CHECK(is_there != NULL && mincore(tables->memory, tables->memory_len, is_there) == 0))
        return 0;
    for (size_t i = 0; i < num; i++)
        octets += (is_there[i] & 1) * page;
    free(is_there);
    return octets;
}

/* A task holds the memory of the calls that it has, not of those that it may have, also where the
 * kernel gives it in pages of two MiB; and calls that come and go take no more. */
static void test_memory(void)
{
    const size_t two_pages = (size_t)4 << 20;
    struct otus_flow_registry *registry = registry_of(65536, 1000);
    CHECK(registry->tables.memory_len > 4 * two_pages);
    CHECK_EQ(resident_octets(registry), 0);
    for (uint32_t i = 0; i < 100000; i++) {
        struct otus_flow_key key = key_of(i % 1000, (uint16_t)(i / 1000 * 2));
        struct otus_flow_value value = {.kind = OTUS_FLOW_RTP, .len = 4};
        memcpy(value.octets, &i, sizeof i);
        otus_flow_put(registry, &key, &value, NOBODY, 1, NULL);
        if (i >= 100) {
            uint32_t old = i - 100;
            end_call(registry, (struct otus_slice){(const uint8_t *)&old, sizeof old});
        }
    }
    CHECK_EQ(otus_flow_count(registry), 100);
    CHECK(resident_octets(registry) > 0);
    CHECK(resident_octets(registry) <= two_pages);
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

int main(void)
{
    test_put_get_ttl();
    test_reuse_of_an_endpoint();
    test_pair();
    test_pair_of_two_calls();
    test_many_endpoints();
    test_refused();
    test_forked_and_refused();
    test_forked_and_answered();
    test_pair_of_two_parties();
    test_legs();
    test_challenged();
    test_more_forks_than_remembered();
    test_long_tags();
    test_long_call_ids();
    test_sweep();
    test_find();
    test_ahead();
    test_memory();
    test_arguments();
    return check_summary();
}
