/* What the decoder does without memory, and that it takes none once it is open.
 *
 * The sources are compiled once more here, with an allocator that can be told to
 * fail; their public names get a prefix, so that they stand beside the library's. */
#include <stdlib.h>

static long allocations_left; /* before one fails; negative: none does */
static long num_allocations;
static long num_live;

static void *counted(void *memory)
{
    num_live += memory != NULL;
    return memory;
}

static _Bool may_allocate(void)
{
    num_allocations++;
    return allocations_left < 0 || allocations_left-- > 0;
}

static void *test_malloc(size_t size)
{
    return may_allocate() ? counted(malloc(size)) : NULL;
}

static void *test_calloc(size_t num, size_t size)
{
    return may_allocate() ? counted(calloc(num, size)) : NULL;
}

static void test_free(void *memory)
{
    num_live -= memory != NULL;
    free(memory);
}

#define malloc(size) test_malloc(size)
#define calloc(num, size) test_calloc(num, size)
#define free(memory) test_free(memory)
#define otus_decoder_config_init memtest_decoder_config_init
#define otus_decoder_new memtest_decoder_new
#define otus_decoder_free memtest_decoder_free
#define otus_decoder_expire memtest_decoder_expire
#define otus_decoder_flush memtest_decoder_flush
#define otus_decode memtest_decode
#define otus_reassembly_new memtest_reassembly_new
#define otus_reassembly_free memtest_reassembly_free
#define otus_reassembly_put memtest_reassembly_put
#define otus_reassembly_expire memtest_reassembly_expire
#define otus_reassembly_flush memtest_reassembly_flush
#define otus_decode_fragment memtest_decode_fragment
#define otus_decode_ipv4 memtest_decode_ipv4
#define otus_decode_ethernet memtest_decode_ethernet
#define otus_decode_ethertype memtest_decode_ethertype
#define otus_decode_link memtest_decode_link
#define otus_decode_llc memtest_decode_llc
#define otus_decode_snap memtest_decode_snap
#define otus_walk_push_vlan memtest_walk_push_vlan
#define otus_block_pool_open memtest_block_pool_open
#define otus_block_pool_close memtest_block_pool_close
#define otus_block_take memtest_block_take
#define otus_block_give memtest_block_give
#define otus_map_covered memtest_map_covered
#define otus_map_equals memtest_map_equals
#define otus_map_reserve memtest_map_reserve
#define otus_map_write memtest_map_write
#define otus_map_read memtest_map_read
#define otus_map_release memtest_map_release

#include "../src/decode.c"
#include "../src/decode_fragment.c"
#include "../src/decode_ipv4.c"
#include "../src/decode_link.c"
#include "../src/octet_map.c"
#include "../src/reassembly.c"

#include "decode_frames.h"
#include "decode_test.h"

static void test_every_failing_allocation_at_open(void)
{
    struct otus_counters counters = {{0}};
    struct otus_decoder_config config;
    otus_decoder_config_init(&config);
    long needed = 0;
    for (;; needed++) {
        struct otus_decoder *decoder = NULL;
        allocations_left = needed;
        enum otus_status status = otus_decoder_new(&decoder, &config, &counters);
        allocations_left = -1;
        if (status == OTUS_OK) {
            otus_decoder_free(decoder);
            break;
        }
        CHECK_EQ(status, OTUS_E_NOMEM);
        CHECK(decoder == NULL);
        CHECK_EQ(num_live, 0); /* what it had taken is given back */
    }
    CHECK(needed >= 7);
    CHECK_EQ(num_live, 0);
}

static void test_no_allocation_once_open(void)
{
    struct otus_decoder_config config;
    struct decode_test t;
    otus_decoder_config_init(&config);
    config.max_datagrams = 8;
    decode_open(&t, &config);
    long before = num_allocations;
    CHECK_EQ(decode_hex(&t, ETH_IPV4 INNER_IPV4), OTUS_OK);
    for (unsigned i = 0; i < 1000; i++) {
        char hex[300];
        snprintf(hex, sizeof hex,
                 ETH_IPV4 "4500 001c %04x 2000 40 11 0000 0a000001 0a000002 " UDP("000d"), i / 2);
        CHECK_EQ(decode_hex(&t, hex), OTUS_E_AGAIN);
        snprintf(hex, sizeof hex,
                 ETH_IPV4 "4500 0019 %04x 0001 40 11 0000 0a000001 0a000002 " HELLO, i / 2);
        if (i % 2 != 0)
            CHECK_EQ(decode_hex(&t, hex), OTUS_OK);
    }
    otus_decoder_expire(t.decoder, t.raw.ts_ns + 1);
    CHECK_EQ(num_allocations, before);
    decode_close(&t);
    CHECK_EQ(num_live, 0);
}

int main(void)
{
    allocations_left = -1;
    test_every_failing_allocation_at_open();
    test_no_allocation_once_open();
    return check_summary();
}
