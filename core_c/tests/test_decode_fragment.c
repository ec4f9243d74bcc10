/* Fragments through the whole decoder: at every level, before and behind tunnels. */
#include "decode_frames.h"
#include "decode_test.h"

#define ALL_TUNNELS ((1u << OTUS_NUM_TUNNEL_KINDS) - 2)

static void open_all(struct decode_test *test)
{
    struct otus_decoder_config config;
    otus_decoder_config_init(&config);
    config.tunnels = ALL_TUNNELS;
    decode_open(test, &config);
}

static void check_held(struct decode_test *t, const char *hex)
{
    uint64_t held = count_of(&t->counters, OTUS_COUNT_FRAGMENTS_HELD);
    CHECK_EQ(decode_hex(t, hex), OTUS_E_AGAIN);
    CHECK_EQ(count_of(&t->counters, OTUS_COUNT_FRAGMENTS_HELD), held + 1);
}

/* Octets of a UDP datagram of 21 octets: 8 of header, "hello, world!" in two parts. */
#define FIRST_16 UDP("0015") "68656c6c6f2c2077"
#define LAST_5 "6f726c6421"

static void check_world(const struct decode_test *t)
{
    CHECK_SLICE(t->packet.payload, "hello, world!");
    CHECK_EQ(t->packet.meta.src_port, 5060);
    CHECK_EQ(t->packet.meta.protocol, 17);
    CHECK((t->packet.meta.flags & OTUS_PACKET_REASSEMBLED) != 0);
    CHECK((t->packet.meta.flags & OTUS_PACKET_TRANSPORT) != 0);
    CHECK_EQ(t->packet.meta.flags & OTUS_PACKET_TRUNCATED, 0);
}

static void test_ipv4_in_both_orders(void)
{
    struct decode_test t;
    open_all(&t);
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("0024", "2000", "11") FIRST_16);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("0019", "0002", "11") LAST_5), OTUS_OK);
    check_world(&t);
    CHECK_EQ(t.packet.meta.ip_total_len, 41);
    CHECK_EQ(t.packet.datagram.len, 41);
    CHECK_EQ(t.packet.frame.len, 14 + 25); /* of the fragment that completed it */
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("0019", "0002", "11") LAST_5 "000000000000000000");
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("0024", "2000", "11") FIRST_16), OTUS_OK);
    check_world(&t);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_FRAGMENT_ABSORBED), 2);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_REASSEMBLED), 2);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_DECODED), 2);
    decode_close(&t);
}

/* Trap: DF or the reserved bit set hides that a fragment is the last. */
static void test_last_fragment_with_df_and_reserved_bits(void)
{
    struct decode_test t;
    open_all(&t);
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("0024", "e000", "11") FIRST_16);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("0019", "c002", "11") LAST_5), OTUS_OK);
    check_world(&t);
    /* both bits without offset or MF make no fragment */
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("0021", "c000", "11") UDP("000d") HELLO),
             OTUS_OK);
    CHECK_EQ(t.packet.meta.flags & OTUS_PACKET_REASSEMBLED, 0);
    decode_close(&t);
}

/* Fragment header: next UDP, reserved, offset and M, identification 7. */
#define FRAGMENT6(next, place) next " 00 " place " 00000007 "

/* Trap: the Fragment header stands behind other extension headers. */
static void test_ipv6_fragment_behind_extension_headers(void)
{
    struct decode_test t;
    open_all(&t);
    check_held(&t, ETH_IPV6 IPV6("001d", "00") "2b 00 0104 00000000" /* hop-by-hop */
                                               "2c 00 0000 00000000" /* routing */
               FRAGMENT6("11", "0010") LAST_5);
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("0028", "00") "2b 00 0104 00000000"
                                                        "2c 00 0000 00000000" FRAGMENT6(
                                                            "11", "0001") FIRST_16),
             OTUS_OK);
    check_world(&t);
    CHECK_EQ(t.packet.meta.ip_total_len, 40 + 16 + 21);
    CHECK_EQ(t.packet.datagram.at[6], 0);   /* hop-by-hop */
    CHECK_EQ(t.packet.datagram.at[48], 17); /* routing: now UDP */
    decode_close(&t);
}

static void test_ipv6_destination_options_in_the_fragmentable_part(void)
{
    struct decode_test t;
    open_all(&t);
    check_held(&t, ETH_IPV6 IPV6("0018", "2c")
                       FRAGMENT6("3c", "0001") "11 00 0104 00000000" UDP("000d"));
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("000d", "2c") FRAGMENT6("3c", "0010") HELLO), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.meta.protocol, 17);
    decode_close(&t);
}

/* Trap: RFC 6946, atomic fragments, also while others of that identification wait. */
static void test_atomic_fragment_passes_beside_others(void)
{
    struct decode_test t;
    open_all(&t);
    check_held(&t, ETH_IPV6 IPV6("0018", "2c") FRAGMENT6("11", "0001") FIRST_16);
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("0015", "2c") FRAGMENT6("11", "0000") UDP("000d") HELLO),
             OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.meta.flags & OTUS_PACKET_REASSEMBLED, 0);
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("000d", "2c") FRAGMENT6("11", "0010") LAST_5), OTUS_OK);
    check_world(&t);
    decode_close(&t);
}

/* Trap: the UDP length is checked against the whole datagram, not the first fragment. */
static void test_transport_is_read_again_after_reassembly(void)
{
    struct decode_test t;
    open_all(&t);
    /* a TCP header in two fragments */
    check_held(
        &t, ETH_IPV4 IPV4_FRAGMENT("0024", "2000", "06") "13c4 13c5 00000001 00000002 5018 1000");
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("001d", "0002", "06") "0000 0000 " HELLO),
             OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.meta.tcp_flags, 0x18);
    /* the UDP header alone: eight octets are the smallest fragment */
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("001c", "2000", "11") UDP("000d"));
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("0019", "0001", "11") HELLO), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    /* UDP says less than came: cut; more than came: flagged */
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("001c", "2000", "11") UDP("000a"));
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("0019", "0001", "11") HELLO), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "he");
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("001c", "2000", "11") UDP("00ff"));
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("0019", "0001", "11") HELLO), OTUS_OK);
    CHECK((t.packet.meta.flags & OTUS_PACKET_TRUNCATED) != 0);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_UDP_CUT), 1);
    /* a broken header costs the frame that completed it; the others were absorbed */
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("001c", "2000", "11") UDP("0003"));
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("0019", "0001", "11") HELLO), OTUS_E_MALFORMED);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_UDP_LENGTH), 1);
    decode_close(&t);
}

/* VXLAN to 4789, VNI 123; a UDP datagram of 0x3f octets, cut behind 32. */
#define OUTER_FRAGMENT(total, place) "4500 " total " 0002 " place " 40 11 0000 c0000201 c0000202 "
#define VXLAN_PART_1 UDP_TO("12b5", "003f") "08000000 00007b00" MACS "0800 4500"
#define VXLAN_PART_2 "0021 0001 0000 40 11 0000 0a000001 0a000002 " UDP("000d") HELLO

/* Trap: a fragmented VXLAN datagram is a tunnel only once it is whole. */
static void test_tunnel_in_fragmented_outer_datagram(void)
{
    struct decode_test t;
    open_all(&t);
    check_held(&t, ETH_IPV4 OUTER_FRAGMENT("0034", "2000") VXLAN_PART_1);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 OUTER_FRAGMENT("0033", "0004") VXLAN_PART_2), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.meta.num_tunnels, 1);
    CHECK_EQ(t.packet.tunnels[0].key, 123);
    CHECK((t.packet.meta.flags & OTUS_PACKET_REASSEMBLED) != 0);
    decode_close(&t);
}

#define INNER_FRAGMENT_1(port)                                                                     \
    ETH_IPV4 OUTER("0056", "11") "c" port                                                          \
                                 " 12b5 0042 0000 08000000 00007b00" ETH_IPV4 IPV4_FRAGMENT(       \
                                     "0024", "2000", "11") FIRST_16
#define INNER_FRAGMENT_2(port)                                                                     \
    ETH_IPV4 OUTER("004b", "11") "c" port                                                          \
                                 " 12b5 0037 0000 08000000 00007b00" ETH_IPV4 IPV4_FRAGMENT(       \
                                     "0019", "0002", "11") LAST_5

/* The VXLAN source port is a hash of the inner ports: it may differ by fragment. */
static void test_fragments_inside_a_tunnel(void)
{
    struct decode_test t;
    open_all(&t);
    check_held(&t, INNER_FRAGMENT_1("001"));
    CHECK_EQ(decode_hex(&t, INNER_FRAGMENT_2("002")), OTUS_OK);
    check_world(&t);
    CHECK_EQ(t.packet.meta.num_tunnels, 1);
    decode_close(&t);
}

/* Outer datagrams in fragments, each with an inner fragment: both are put together. */
static void test_fragments_inside_fragments(void)
{
    struct decode_test t;
    open_all(&t);
    /* first inner fragment, split at octet 32 of the outer UDP datagram */
    check_held(&t, ETH_IPV4 OUTER_FRAGMENT("0034", "2000")
                       UDP_TO("12b5", "0042") "08000000 00007b00" ETH_IPV4 "4500");
    CHECK_EQ(
        decode_hex(&t, ETH_IPV4 OUTER_FRAGMENT(
                           "0036", "0004") "0024 0001 2000 40 11 0000 0a000001 0a000002 " FIRST_16),
        OTUS_E_AGAIN);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_FRAGMENT_ABSORBED), 1);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_FRAGMENTS_HELD), 1);
    check_held(&t, ETH_IPV4 OUTER_FRAGMENT("0034", "2000")
                       UDP_TO("12b5", "0037") "08000000 00007b00" ETH_IPV4 "4500");
    CHECK_EQ(
        decode_hex(&t, ETH_IPV4 OUTER_FRAGMENT(
                           "002b", "0004") "0019 0001 0002 40 11 0000 0a000001 0a000002 " LAST_5),
        OTUS_OK);
    check_world(&t);
    CHECK_EQ(t.packet.meta.num_tunnels, 1);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_FRAGMENT_ABSORBED), 3);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_DECODED), 1);
    decode_close(&t);
}

/* Trap: tenants with equal addresses and identifications mix. */
static void test_vlans_and_tunnels_keep_tenants_apart(void)
{
    struct decode_test t;
    open_all(&t);
    check_held(&t, MACS "8100 0001 0800" IPV4_FRAGMENT("0024", "2000", "11") FIRST_16);
    check_held(&t, MACS "8100 0002 0800" IPV4_FRAGMENT("0019", "0002", "11") LAST_5);
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("0019", "0002", "11") LAST_5);
    t.raw.flags = OTUS_RAW_VLAN_VALID;
    t.raw.vlan_tci = 3;
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("0019", "0002", "11") LAST_5);
    t.raw.flags = 0;
    check_held(&t, MACS "8847 00010140" IPV4_FRAGMENT("0019", "0002", "11") LAST_5);
    check_held(&t, MACS "8864 1100 0007 001b 0021" IPV4_FRAGMENT("0019", "0002", "11") LAST_5);
    check_held(&t, ETH_IPV4 OUTER("0035", "2f") "2000 0800 00000001" /* GRE key 1 */
               IPV4_FRAGMENT("0019", "0002", "11") LAST_5);
    check_held(&t, ETH_IPV4 OUTER("0035", "2f") "2000 0800 00000002" IPV4_FRAGMENT("0019", "0002",
                                                                                   "11") LAST_5);
    check_held(&t, ETH_IPV4 OUTER("002d", "04") IPV4_FRAGMENT("0019", "0002", "11") LAST_5);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_DATAGRAMS_HELD), 9);
    t.raw.flags = OTUS_RAW_VLAN_VALID; /* the same tag, in the frame or stripped, is the same */
    t.raw.vlan_tci = 0x2001;
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("0019", "0002", "11") LAST_5), OTUS_OK);
    check_world(&t);
    decode_close(&t);
}

/* MPLS: the bottom label tells VPNs apart, an entropy label (RFC 6790) does not. */
static void test_entropy_label_is_not_part_of_the_key(void)
{
    struct decode_test t;
    open_all(&t);
    check_held(&t,
               MACS "8847 00064040 00007040 11111140" IPV4_FRAGMENT("0024", "2000", "11") FIRST_16);
    CHECK_EQ(decode_hex(&t, MACS "8847 00064040 00007040 22222140" IPV4_FRAGMENT("0019", "0002",
                                                                                 "11") LAST_5),
             OTUS_OK);
    check_world(&t);
    decode_close(&t);
}

/* Trap: a fragment that was captured short is put in as if it were whole. */
static void test_truncated_fragment_is_not_used(void)
{
    struct decode_test t;
    open_all(&t);
    t.raw.wirelen = 60;
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("002c", "2000", "11") FIRST_16), OTUS_E_AGAIN);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_FRAGMENT_TRUNCATED), 1);
    t.raw.wirelen = 60; /* cut in the padding: whole all the same */
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("0024", "2000", "11") FIRST_16);
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("001e", "2c") FRAGMENT6("11", "0001") FIRST_16),
             OTUS_E_AGAIN);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_FRAGMENT_TRUNCATED), 2);
    decode_close(&t);
}

static void test_reassembly_switched_off(void)
{
    struct otus_decoder_config config;
    struct decode_test t;
    otus_decoder_config_init(&config);
    config.ip_reassembly = false;
    config.max_datagrams = 0; /* and then nothing else is asked for */
    decode_open(&t, &config);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("0024", "2000", "11") FIRST_16), OTUS_E_AGAIN);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_FRAGMENT_DISABLED), 1);
    otus_decoder_expire(t.decoder, UINT64_MAX);
    decode_close(&t);
}

static void test_expire_while_nothing_comes(void)
{
    struct decode_test t;
    open_all(&t);
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("0024", "2000", "11") FIRST_16);
    otus_decoder_expire(t.decoder, t.raw.ts_ns + UINT64_C(5000000000));
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_FRAGMENTS_HELD), 1);
    otus_decoder_expire(t.decoder, t.raw.ts_ns + UINT64_C(5000000001));
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_FRAGMENTS_HELD), 0);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_FRAGMENT_TIMEOUT), 1);
    CHECK(ledger_balances(&t.counters));
    decode_close(&t);
}

/* There are 32 octets in front of a reassembled datagram for a synthetic link header. */
static void test_headroom(void)
{
    struct decode_test t;
    open_all(&t);
    check_held(&t, ETH_IPV4 IPV4_FRAGMENT("0024", "2000", "11") FIRST_16);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4_FRAGMENT("0019", "0002", "11") LAST_5), OTUS_OK);
    uint8_t *datagram;
    memcpy(&datagram, &t.packet.datagram.at, sizeof datagram);
    memset(datagram - OTUS_REASSEMBLY_HEADROOM, 0xff, OTUS_REASSEMBLY_HEADROOM);
    check_world(&t);
    decode_close(&t);
}

static void decode_truncated(void *context, const uint8_t *octets, size_t len)
{
    struct decode_test *t = context;
    (void)decode_octets(t, octets, len);
}

static void test_every_truncation(void)
{
    static const char *const frames[] = {
        ETH_IPV4 IPV4_FRAGMENT("0024", "2000", "11") FIRST_16,
        ETH_IPV6 IPV6("0028", "00") "2b 00 0104 00000000 2c 00 0000 00000000" FRAGMENT6(
            "11", "0001") FIRST_16,
        INNER_FRAGMENT_1("001"),
    };
    struct decode_test t;
    open_all(&t);
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        uint8_t octets[256];
        size_t len = hex_octets(octets, sizeof octets, frames[i]);
        guard_every_truncation(decode_truncated, &t, octets, len);
    }
    decode_close(&t);
}

int main(void)
{
    test_ipv4_in_both_orders();
    test_last_fragment_with_df_and_reserved_bits();
    test_ipv6_fragment_behind_extension_headers();
    test_ipv6_destination_options_in_the_fragmentable_part();
    test_atomic_fragment_passes_beside_others();
    test_transport_is_read_again_after_reassembly();
    test_tunnel_in_fragmented_outer_datagram();
    test_fragments_inside_a_tunnel();
    test_fragments_inside_fragments();
    test_vlans_and_tunnels_keep_tenants_apart();
    test_entropy_label_is_not_part_of_the_key();
    test_truncated_fragment_is_not_used();
    test_reassembly_switched_off();
    test_expire_while_nothing_comes();
    test_headroom();
    test_every_truncation();
    return check_summary();
}
