/* The reassembly pool by itself: order, duplicates, overlaps, holes, keys,
 * limits, timeout, floods. After every call the frames balance. */
#include "check.h"
#include "otus/reassembly.h"

#include <stdlib.h>
#include <unistd.h>

enum { MS = 1000000 };

struct pool_test {
    struct otus_counters counters;
    struct otus_reassembly *pool;
    struct otus_slice datagram;
    struct otus_fragment next; /* template of the next fragment */
    uint8_t src_ip[16];
    uint8_t dst_ip[16];
    uint8_t header[2048];
    uint64_t num_put;
    uint64_t num_completed;
};

static struct otus_reassembly_config usual_config(void)
{
    return (struct otus_reassembly_config){
        .max_datagrams = 64,
        .max_fragments = 32,
        .max_octets = 64 * OTUS_REASSEMBLY_BLOCK,
        .max_datagrams_per_source = 64,
        .timeout_ms = 1000,
    };
}

static void set_version(struct pool_test *t, uint8_t version)
{
    t->next.version = version;
    t->next.header.len = version == 4 ? 20 : 40;
    memset(t->header, 0, sizeof t->header);
    t->header[0] = version == 4 ? 0x45 : 0x60;
    t->next.next_header_at = version == 4 ? 0 : 6;
}

static void pool_open(struct pool_test *t, const struct otus_reassembly_config *config,
                      uint8_t version)
{
    memset(t, 0, sizeof *t);
    t->src_ip[0] = 1;
    t->dst_ip[0] = 2;
    t->next = (struct otus_fragment){
        .src_ip = t->src_ip,
        .dst_ip = t->dst_ip,
        .ts_ns = 1000000000u,
        .id = 7,
        .protocol = 17,
        .header = {t->header, 0},
    };
    set_version(t, version);
    if (!CHECK_EQ(otus_reassembly_new(&t->pool, config, &t->counters), OTUS_OK))
        abort();
}

static uint64_t count(const struct pool_test *t, enum otus_counter id)
{
    return t->counters.value[id];
}

static uint64_t count_fragments(const struct pool_test *t)
{
    uint64_t sum = 0;
    for (uint32_t id = 0; id < OTUS_NUM_COUNTERS; id++) {
        if (strcmp(otus_counter_group(id), "fragment") == 0)
            sum += t->counters.value[id];
    }
    return sum;
}

static bool balances(const struct pool_test *t)
{
    return t->num_put ==
           t->num_completed + count_fragments(t) + count(t, OTUS_COUNT_FRAGMENTS_HELD);
}

static void pool_close(struct pool_test *t)
{
    otus_reassembly_flush(t->pool);
    CHECK_EQ(count(t, OTUS_COUNT_FRAGMENTS_HELD), 0);
    CHECK_EQ(count(t, OTUS_COUNT_DATAGRAMS_HELD), 0);
    CHECK(balances(t));
    CHECK_EQ(count(t, OTUS_COUNT_REASSEMBLED), t->num_completed);
    otus_reassembly_free(t->pool);
}

static bool put_octets(struct pool_test *t, uint32_t off, const void *octets, uint32_t len,
                       bool more)
{
    t->next.off = off;
    t->next.payload = (struct otus_slice){octets, len};
    t->next.more = more;
    t->num_put++;
    bool whole = otus_reassembly_put(t->pool, &t->datagram, &t->next) == OTUS_OK;
    t->num_completed += whole;
    CHECK(balances(t));
    return whole;
}

/* text is the payload at off of a datagram; '+' in more: more fragments follow. */
static bool put(struct pool_test *t, uint32_t off, const char *text, const char *more)
{
    return put_octets(t, off, text, (uint32_t)strlen(text), *more == '+');
}

#define CHECK_PAYLOAD(t, text)                                                                     \
    CHECK_TEXT((t)->datagram.at + (t)->next.header.len, (t)->datagram.len - (t)->next.header.len,  \
               (text))

static void test_in_order_and_header(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 4);
    t.header[6] = 0x20; /* more fragments, as the first one says */
    t.header[8] = 64;
    CHECK(!put(&t, 0, "01234567", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENTS_HELD), 1);
    CHECK_EQ(count(&t, OTUS_COUNT_DATAGRAMS_HELD), 1);
    CHECK(put(&t, 8, "89abc", "."));
    CHECK_PAYLOAD(&t, "0123456789abc");
    const uint8_t *ip = t.datagram.at;
    CHECK_EQ(otus_load_be16(ip + 2), 33); /* total length */
    CHECK_EQ(otus_load_be16(ip + 6), 0);  /* no longer a fragment */
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 20; i += 2)
        sum += otus_load_be16(ip + i);
    CHECK_EQ((sum & 0xffff) + (sum >> 16), 0xffff); /* RFC 1071: checksum holds */
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_ABSORBED), 1);
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENTS_HELD), 0);
    CHECK_EQ(count(&t, OTUS_COUNT_DATAGRAMS_HELD), 0);
    pool_close(&t);
}

static void test_headroom_is_writable(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 4);
    CHECK(!put(&t, 0, "01234567", "+"));
    CHECK(put(&t, 8, "8", "."));
    uint8_t *front;
    memcpy(&front, &t.datagram.at, sizeof front);
    memset(front - OTUS_REASSEMBLY_HEADROOM, 0xee, OTUS_REASSEMBLY_HEADROOM);
    CHECK_PAYLOAD(&t, "012345678");
    pool_close(&t);
}

static void test_ipv6_next_header(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 6);
    t.header[6] = 44;
    t.next.protocol = 132; /* RFC 8200 4.5: only the first fragment's value is used */
    CHECK(!put(&t, 8, "89", "."));
    t.next.protocol = 17;
    CHECK(put(&t, 0, "01234567", "+"));
    CHECK_PAYLOAD(&t, "0123456789");
    CHECK_EQ(otus_load_be16(t.datagram.at + 4), 10);
    CHECK_EQ(t.datagram.at[6], 17);
    pool_close(&t);
}

static void test_long_unfragmentable_part(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 6);
    t.next.header.len = 40 + 1024;
    t.header[40] = 44; /* the fragment header was named in the last extension header */
    t.header[1063] = 0x5a;
    t.next.next_header_at = 40;
    CHECK(!put(&t, 0, "01234567", "+"));
    CHECK(put(&t, 8, "89", "."));
    CHECK_PAYLOAD(&t, "0123456789");
    CHECK_EQ(t.datagram.at[40], 17);
    CHECK_EQ(t.datagram.at[1063], 0x5a);
    CHECK_EQ(otus_load_be16(t.datagram.at + 4), 1024 + 10);
    t.next.header.len = sizeof t.header;
    CHECK(!put(&t, 0, "01234567", "+"));
    t.next.header.len++; /* longer than a block: refused, not read */
    CHECK(!put(&t, 0, "01234567", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_INVALID), 1);
    pool_close(&t);
}

/* Every order of four fragments, for both versions. */
static void test_every_order(void)
{
    static const char *const piece[4] = {"aaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccc", "ddd"};
    static const uint32_t off[4] = {0, 8, 24, 32};
    for (uint32_t order = 0; order < 256; order++) {
        uint32_t seen = 0;
        for (uint32_t i = 0; i < 4; i++)
            seen |= 1u << (order >> i * 2 & 3);
        if (seen != 15)
            continue;
        struct otus_reassembly_config config = usual_config();
        struct pool_test t;
        pool_open(&t, &config, order % 2 == 0 ? 4 : 6);
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t n = order >> i * 2 & 3;
            CHECK_EQ(put(&t, off[n], piece[n], n == 3 ? "." : "+"), i == 3);
        }
        CHECK_PAYLOAD(&t, "aaaaaaaabbbbbbbbbbbbbbbbccccccccddd");
        CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_ABSORBED), 3);
        pool_close(&t);
    }
}

/* Trap: completion by counting octets is fooled by duplicates. */
static void test_duplicates_do_not_fill_holes(void)
{
    for (uint8_t version = 4; version <= 6; version += 2) {
        struct otus_reassembly_config config = usual_config();
        struct pool_test t;
        pool_open(&t, &config, version);
        CHECK(!put(&t, 0, "aaaaaaaa", "+"));
        CHECK(!put(&t, 0, "aaaaaaaa", "+"));
        CHECK(!put(&t, 16, "cccc", "."));
        CHECK(!put(&t, 16, "cccc", "."));
        CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_DUPLICATE), 2);
        CHECK(put(&t, 8, "bbbbbbbb", "+"));
        CHECK_PAYLOAD(&t, "aaaaaaaabbbbbbbbcccc");
        CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_ABSORBED), 2);
        pool_close(&t);
    }
}

static void test_ipv4_overlap_keeps_first_octets(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 4);
    CHECK(!put(&t, 8, "11111111", "+"));
    CHECK(!put(&t, 0, "2222222222222222", "+")); /* in front of it and over it */
    CHECK(put(&t, 8, "33333333333", "."));       /* over it and behind it */
    CHECK_PAYLOAD(&t, "2222222211111111333");
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_OVERLAPPED), 2);
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_ABSORBED), 2);
    pool_close(&t);
}

/* Trap: a fragment that spans a hole on both sides of one that is there. */
static void test_ipv4_fragment_spans_holes_on_both_sides(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 4);
    CHECK(!put(&t, 8, "11111111", "+"));
    CHECK(!put(&t, 24, "11111111", "+"));
    CHECK(put(&t, 0, "2222222222222222222222222222222222222222222", "."));
    CHECK_PAYLOAD(&t, "2222222211111111222222221111111122222222222");
    pool_close(&t);
}

static void test_ipv4_covered_with_other_octets(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 4);
    CHECK(!put(&t, 0, "1111111122222222", "+"));
    CHECK(!put(&t, 8, "xxxxxxxx", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_DUPLICATE), 1);
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_OVERLAPPED), 1);
    CHECK(put(&t, 8, "22222222", ".")); /* nothing new but where the datagram ends */
    CHECK_PAYLOAD(&t, "1111111122222222");
    pool_close(&t);
}

static void test_ipv6_overlap_drops_the_datagram(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 6);
    CHECK(!put(&t, 0, "1111111111111111", "+"));
    CHECK(!put(&t, 8, "2222222222222222", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_OVERLAP), 2);
    CHECK_EQ(count(&t, OTUS_COUNT_DATAGRAMS_HELD), 0);
    /* RFC 5722: and those not yet received. */
    CHECK(!put(&t, 16, "3", "."));
    CHECK(!put(&t, 0, "1111111111111111", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_OVERLAP), 4);
    t.next.ts_ns += 1001u * MS; /* the time of that identification is over */
    CHECK(!put(&t, 0, "1111111111111111", "+"));
    CHECK(put(&t, 16, "3", "."));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_OVERLAP), 4);
    pool_close(&t);
}

static void test_ipv6_repeat_with_other_octets_is_an_overlap(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 6);
    CHECK(!put(&t, 0, "11111111", "+"));
    CHECK(!put(&t, 0, "11111112", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_OVERLAP), 2);
    pool_close(&t);
}

static void test_contradicting_ends(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 4);
    CHECK(!put(&t, 8, "1111", "."));
    CHECK(!put(&t, 16, "22222222", "+")); /* behind the end */
    CHECK(!put(&t, 16, "222", "."));      /* another end */
    CHECK(!put(&t, 8, "111", "."));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_INVALID), 3);
    CHECK(put(&t, 0, "00000000", "+"));
    CHECK_PAYLOAD(&t, "000000001111");
    CHECK(!put(&t, 16, "22222222", "+"));
    CHECK(!put(&t, 8, "111", ".")); /* an end before octets that are there */
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_INVALID), 4);
    pool_close(&t);

    pool_open(&t, &config, 6);
    CHECK(!put(&t, 8, "1111", "."));
    CHECK(!put(&t, 16, "22222222", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_OVERLAP), 2);
    pool_close(&t);
}

static void test_impossible_fragments(void)
{
    static const uint8_t zeros[65535];
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 4);
    CHECK(!put(&t, 0, "", "+"));
    CHECK(!put(&t, 8, "", "."));
    CHECK(!put(&t, 0, "1234567", "+"));             /* not a multiple of eight */
    CHECK(!put_octets(&t, 65528, zeros, 8, false)); /* "ping of death" */
    CHECK(!put_octets(&t, 65512, zeros, 4, false)); /* one octet too many with the header */
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_INVALID), 5);
    CHECK_EQ(count(&t, OTUS_COUNT_DATAGRAMS_HELD), 0);
    CHECK(!put_octets(&t, 65512, zeros, 3, false)); /* the longest that there is */
    CHECK(put_octets(&t, 0, zeros, 65512, true));
    CHECK_EQ(t.datagram.len, 65535);
    /* The first fragment's header is longer than the last one's was. */
    CHECK(!put_octets(&t, 65512, zeros, 3, false));
    CHECK(!put_octets(&t, 65504, zeros, 8, true));
    t.next.header.len = 24;
    CHECK(!put_octets(&t, 0, zeros, 65504, true));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_INVALID), 8);
    pool_close(&t);

    pool_open(&t, &config, 6);
    CHECK(!put_octets(&t, 65528, zeros, 8, false));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_INVALID), 1);
    CHECK(!put_octets(&t, 65528, zeros, 7, false));
    CHECK(put_octets(&t, 0, zeros, 65528, true));
    CHECK_EQ(t.datagram.len, 40 + 65535);
    pool_close(&t);
}

/* Trap: a key that lacks the destination, the VLAN or the tunnel. */
static void test_key_parts(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 4);
    CHECK(!put(&t, 0, "00000000", "+"));
    t.src_ip[3] ^= 1;
    CHECK(!put(&t, 8, "1", "."));
    t.src_ip[3] ^= 1;
    t.dst_ip[3] ^= 1;
    CHECK(!put(&t, 8, "2", "."));
    t.dst_ip[3] ^= 1;
    t.next.id ^= 0x8000;
    CHECK(!put(&t, 8, "3", "."));
    t.next.id ^= 0x8000;
    t.next.protocol = 6;
    CHECK(!put(&t, 8, "4", "."));
    t.next.protocol = 17;
    t.next.context = 1;
    CHECK(!put(&t, 8, "5", "."));
    t.next.context = 0;
    set_version(&t, 6);
    CHECK(!put(&t, 8, "6", "."));
    set_version(&t, 4);
    CHECK_EQ(count(&t, OTUS_COUNT_DATAGRAMS_HELD), 7);
    CHECK(put(&t, 8, "7", "."));
    CHECK_PAYLOAD(&t, "000000007");
    pool_close(&t);
}

static void test_timeout_by_packet_time(void)
{
    struct otus_reassembly_config config = usual_config();
    struct pool_test t;
    pool_open(&t, &config, 4);
    CHECK(!put(&t, 0, "00000000", "+"));
    t.next.ts_ns += 1000u * MS; /* on the limit: still in time */
    CHECK(put(&t, 8, "1", "."));
    CHECK(!put(&t, 0, "00000000", "+"));
    t.next.ts_ns += 500u * MS;
    CHECK(!put(&t, 16, "2", ".")); /* does not prolong it: RFC 8200 4.5, since the first */
    t.next.ts_ns += 501u * MS;
    CHECK(!put(&t, 8, "11111111", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_TIMEOUT), 2);
    otus_reassembly_expire(t.pool, t.next.ts_ns + 1001u * MS);
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_TIMEOUT), 3);
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENTS_HELD), 0);
    CHECK(balances(&t));
    /* A clock that is set back does not keep them either. */
    CHECK(!put(&t, 0, "00000000", "+"));
    t.next.ts_ns -= 2000u * MS;
    CHECK(!put(&t, 8, "1", "."));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_TIMEOUT), 4);
    pool_close(&t);
}

static void test_limit_datagrams_evicts_the_oldest(void)
{
    struct otus_reassembly_config config = usual_config();
    config.max_datagrams = 3;
    struct pool_test t;
    pool_open(&t, &config, 4);
    for (t.next.id = 0; t.next.id < 4; t.next.id++)
        CHECK(!put(&t, 0, "00000000", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_LIMIT_DATAGRAMS), 1);
    CHECK_EQ(count(&t, OTUS_COUNT_DATAGRAMS_HELD), 3);
    for (t.next.id = 1; t.next.id < 4; t.next.id++)
        CHECK(put(&t, 8, "1", "."));
    t.next.id = 0;
    CHECK(!put(&t, 8, "1", "."));
    pool_close(&t);
}

static void test_limit_fragments(void)
{
    struct otus_reassembly_config config = usual_config();
    config.max_fragments = 3;
    struct pool_test t;
    pool_open(&t, &config, 4);
    for (uint32_t i = 0; i < 3; i++)
        CHECK(!put(&t, i * 16, "00000000", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENTS_HELD), 3);
    CHECK(!put(&t, 48, "0", "."));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_LIMIT_FRAGMENTS), 4);
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENTS_HELD), 0);
    CHECK(!put(&t, 8, "00000000", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_LIMIT_FRAGMENTS), 5);
    pool_close(&t);
    /* Exactly as many as allowed do complete. */
    pool_open(&t, &config, 4);
    CHECK(!put(&t, 0, "00000000", "+"));
    CHECK(!put(&t, 8, "00000000", "+"));
    CHECK(put(&t, 16, "0", "."));
    pool_close(&t);
}

static void test_limit_octets(void)
{
    struct otus_reassembly_config config = usual_config();
    config.max_octets = 3 * OTUS_REASSEMBLY_BLOCK;
    struct pool_test t;
    pool_open(&t, &config, 4);
    for (t.next.id = 0; t.next.id < 3; t.next.id++)
        CHECK(!put(&t, 0, "00000000", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_LIMIT_OCTETS), 0);
    t.next.id = 2; /* another block for the newest costs the oldest its own */
    CHECK(!put(&t, OTUS_REASSEMBLY_BLOCK, "0000", "."));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_LIMIT_OCTETS), 1);
    t.next.id = 1;
    CHECK(put(&t, 8, "1", "."));
    t.next.id = 2;
    CHECK(!put(&t, 2 * OTUS_REASSEMBLY_BLOCK - 8, "00000000", "+")); /* behind the end */
    t.next.id = 3; /* alone it is still too much */
    CHECK(!put(&t, 0, "00000000", "+"));
    CHECK(!put(&t, OTUS_REASSEMBLY_BLOCK, "00000000", "+"));
    CHECK(!put(&t, 2 * OTUS_REASSEMBLY_BLOCK, "00000000", "+"));
    uint64_t before = count(&t, OTUS_COUNT_FRAGMENT_LIMIT_OCTETS);
    CHECK(!put(&t, 3 * OTUS_REASSEMBLY_BLOCK, "00000000", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_LIMIT_OCTETS), before + 4);
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENTS_HELD), 0);
    pool_close(&t);
}

static void test_limit_source_evicts_its_own_oldest(void)
{
    struct otus_reassembly_config config = usual_config();
    config.max_datagrams_per_source = 2;
    struct pool_test t;
    pool_open(&t, &config, 4);
    t.src_ip[1] = 9;
    CHECK(!put(&t, 0, "other000", "+"));
    t.src_ip[1] = 0;
    for (t.next.id = 0; t.next.id < 3; t.next.id++)
        CHECK(!put(&t, 0, "00000000", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_LIMIT_SOURCE), 1);
    CHECK_EQ(count(&t, OTUS_COUNT_DATAGRAMS_HELD), 3);
    t.next.id = 1;
    CHECK(put(&t, 8, "1", "."));
    t.next.id = 7;
    t.src_ip[1] = 9; /* the other source lost nothing */
    CHECK(put(&t, 8, "1", "."));
    CHECK_PAYLOAD(&t, "other0001");
    pool_close(&t);
    config.max_datagrams_per_source = 1;
    pool_open(&t, &config, 4);
    for (t.next.id = 0; t.next.id < 3; t.next.id++)
        CHECK(!put(&t, 0, "00000000", "+"));
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_LIMIT_SOURCE), 2);
    pool_close(&t);
}

static void test_unusable_configurations(void)
{
    struct otus_counters counters = {{0}};
    struct otus_reassembly *pool = NULL;
    struct otus_reassembly_config config = usual_config();
    config.max_datagrams = 0;
    CHECK_EQ(otus_reassembly_new(&pool, &config, &counters), OTUS_E_INVALID);
    config = usual_config();
    config.max_fragments = 1;
    CHECK_EQ(otus_reassembly_new(&pool, &config, &counters), OTUS_E_INVALID);
    config = usual_config();
    config.max_octets = 0;
    CHECK_EQ(otus_reassembly_new(&pool, &config, &counters), OTUS_E_INVALID);
    config = usual_config();
    config.timeout_ms = 0;
    CHECK_EQ(otus_reassembly_new(&pool, &config, &counters), OTUS_E_INVALID);
    CHECK(pool == NULL);
    otus_reassembly_free(NULL);
}

/* Random datagrams cut, repeated, overlapped with the same octets and shuffled:
 * what comes out is what went in. */
static void test_random_datagrams(void)
{
    static uint8_t whole[65535];
    struct otus_reassembly_config config = usual_config();
    config.max_fragments = 4096;
    struct pool_test t;
    pool_open(&t, &config, 4);
    srand(20260917);
    for (uint32_t round = 0; round < 300; round++) {
        uint32_t len = 9 + (uint32_t)rand() % (round % 10 == 0 ? 60000u : 5000u);
        for (uint32_t i = 0; i < len; i++)
            whole[i] = (uint8_t)rand();
        t.next.id = round;
        bool done = false;
        for (uint32_t tries = 0; tries < 100000 && !done; tries++) {
            uint32_t off = (uint32_t)rand() % len / 8 * 8;
            uint32_t max = (1 + (uint32_t)rand() % (1 + len / 16)) * 8;
            uint32_t piece = len - off < max ? len - off : max;
            bool more = off + piece < len;
            done = put_octets(&t, off, whole + off, piece, more);
        }
        CHECK(done);
        CHECK_OCTETS(t.datagram.at + 20, t.datagram.len - 20, whole, len);
    }
    CHECK_EQ(count(&t, OTUS_COUNT_FRAGMENT_LIMIT_OCTETS), 0);
    pool_close(&t);
}

static long resident_pages(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%*d %ld", &pages) != 1)
        pages = -1;
    if (file != NULL)
        fclose(file);
    return pages;
}

/* Unfinished fragments with unique keys, whole traffic beside them. The number
 * is in OTUS_FLOOD_FRAGMENTS; ten million by hand, less in every run. */
static void test_flood_of_unfinished_fragments(void)
{
    static const uint8_t octets[1480];
    const char *wanted = getenv("OTUS_FLOOD_FRAGMENTS");
    uint64_t num = wanted != NULL ? strtoull(wanted, NULL, 10) : 1000000;
    struct otus_reassembly_config config = usual_config();
    config.max_datagrams = 4096;
    config.max_datagrams_per_source = 512;
    config.max_octets = 4u << 20;
    struct pool_test t;
    pool_open(&t, &config, 4);
    long before = -1;
    for (uint64_t i = 0; i < num; i++) {
        if (i == 10000)
            before = resident_pages(); /* every block has been used by now */
        uint32_t unique = (uint32_t)i;
        memcpy(t.src_ip, &unique, sizeof unique);
        t.next.id = unique;
        t.next.ts_ns += 1000;
        t.next.off = i % 3 == 0 ? 1480 : 0;
        t.next.payload = (struct otus_slice){octets, sizeof octets};
        t.next.more = true;
        t.num_put++;
        if (otus_reassembly_put(t.pool, &t.datagram, &t.next) == OTUS_OK)
            CHECK(false);
        if (i % 100 == 0) { /* a datagram of two fragments, some of the flood between them */
            memset(t.src_ip, 0xff, 4);
            t.next.id = (uint32_t)(i / 100);
            CHECK(!put(&t, 0, "whole000", "+"));
        } else if (i % 100 == 50) {
            memset(t.src_ip, 0xff, 4);
            t.next.id = (uint32_t)(i / 100);
            CHECK(put(&t, 8, "1", "."));
        }
    }
    long grown = resident_pages() - before;
    CHECK(before > 0 && grown < 64);
    CHECK(count(&t, OTUS_COUNT_DATAGRAMS_HELD) <= config.max_datagrams);
    CHECK_EQ(count(&t, OTUS_COUNT_REASSEMBLED), (num + 49) / 100);
    pool_close(&t);
}

int main(void)
{
    test_in_order_and_header();
    test_headroom_is_writable();
    test_ipv6_next_header();
    test_long_unfragmentable_part();
    test_every_order();
    test_duplicates_do_not_fill_holes();
    test_ipv4_overlap_keeps_first_octets();
    test_ipv4_fragment_spans_holes_on_both_sides();
    test_ipv4_covered_with_other_octets();
    test_ipv6_overlap_drops_the_datagram();
    test_ipv6_repeat_with_other_octets_is_an_overlap();
    test_contradicting_ends();
    test_impossible_fragments();
    test_key_parts();
    test_timeout_by_packet_time();
    test_limit_datagrams_evicts_the_oldest();
    test_limit_fragments();
    test_limit_octets();
    test_limit_source_evicts_its_own_oldest();
    test_unusable_configurations();
    test_random_datagrams();
    test_flood_of_unfinished_fragments();
    return check_summary();
}
