/* Fragments in any order, number and shape. Seven octets of input make one
 * fragment. Its octets are a function of the datagram and the place, so that
 * whatever overlaps says the same, and what is put together can be checked. */
#include "decode_checks.h"
#include "otus/reassembly.h"

enum { STEP_LEN = 7, MAX_STEPS = 400, NUM_IDS = 4, MAX_PLACE = 1 << 17 };

/* What every datagram of an identification holds, up to where a fragment can reach. */
static uint8_t octets_of[NUM_IDS][MAX_PLACE];

struct fuzz_pool {
    struct otus_counters counters;
    struct otus_reassembly *pool;
    uint64_t now_ns;
    uint64_t num_put;
    uint64_t num_whole;
};

static void fill_octets(void)
{
    for (uint32_t id = 0; id < NUM_IDS; id++) {
        for (uint32_t place = 0; place < MAX_PLACE; place++)
            octets_of[id][place] = (uint8_t)(id * 31 + place * 7 + (place >> 8));
    }
}

static void require_pool_balance(const struct fuzz_pool *f)
{
    FUZZ_REQUIRE(f->num_put == f->num_whole + checks_group(&f->counters, OTUS_GROUP_FRAGMENT) +
                                   f->counters.value[OTUS_COUNT_FRAGMENTS_HELD]);
    FUZZ_REQUIRE(f->counters.value[OTUS_COUNT_DATAGRAMS_HELD] <=
                 f->counters.value[OTUS_COUNT_FRAGMENTS_HELD]);
}

/* step: ids and flags, offset in units (2), length (2), header length, time */
static void put_step(struct fuzz_pool *f, const uint8_t step[STEP_LEN])
{
    uint8_t header[255] = {0};
    uint8_t src_ip[16] = {(uint8_t)(step[0] >> 2 & 3)};
    uint8_t dst_ip[16] = {1};
    uint8_t version = (step[0] & 0x20) != 0 ? 6 : 4;
    uint32_t id = step[0] & 3;
    uint32_t off = (otus_load_be16(step + 1) & 0x1fffu) * 8;
    uint32_t len = otus_load_be16(step + 3);
    if ((step[0] & 0x80) == 0)
        len &= 0xfff8; /* mostly a possible length */
    f->now_ns += step[6] * UINT64_C(1000000);
    struct otus_fragment fragment = {
        .src_ip = src_ip,
        .dst_ip = dst_ip,
        .ts_ns = f->now_ns,
        .id = id,
        .off = off,
        .header = {header, version == 4 ? 20u + (step[5] & 10) * 4u : 40u + (step[5] & 26) * 8u},
        .payload = {octets_of[id] + off, len},
        .next_header_at = version == 4 ? 0 : 6,
        .protocol = 17,
        .version = version,
        .more = (step[0] & 0x40) != 0,
    };
    header[0] = (uint8_t)(version << 4);
    header[1] = (uint8_t)fragment.header.len; /* of the first fragment: where the payload is */
    struct otus_slice datagram;
    f->num_put++;
    if (otus_reassembly_put(f->pool, &datagram, &fragment) == OTUS_OK) {
        f->num_whole++;
        uint32_t hlen = datagram.at[1];
        FUZZ_REQUIRE(datagram.at[0] >> 4 == version && datagram.len > hlen);
        FUZZ_REQUIRE(memcmp(datagram.at + hlen, octets_of[id], datagram.len - hlen) == 0);
    }
    require_pool_balance(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len);

/* One pool for all inputs: a flush leaves it as it was opened. */
static void open_pool(struct fuzz_pool *f)
{
    static const struct otus_reassembly_config config = {
        .max_datagrams = 5,
        .max_fragments = 12,
        .max_octets = 36 * OTUS_REASSEMBLY_BLOCK,
        .max_datagrams_per_source = 3,
        .timeout_ms = 300,
    };
    fill_octets();
    FUZZ_REQUIRE(otus_reassembly_new(&f->pool, &config, &f->counters) == OTUS_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
    static struct fuzz_pool f;
    if (f.pool == NULL)
        open_pool(&f);
    memset(&f.counters, 0, sizeof f.counters);
    f.num_put = 0;
    f.num_whole = 0;
    for (uint32_t n = 0; n < MAX_STEPS && len >= STEP_LEN; n++) {
        put_step(&f, octets);
        octets += STEP_LEN;
        len -= STEP_LEN;
    }
    otus_reassembly_flush(f.pool);
    FUZZ_REQUIRE(f.counters.value[OTUS_COUNT_FRAGMENTS_HELD] == 0);
    require_pool_balance(&f);
    return 0;
}
