/* Link types, VLAN tags in the frame and from the ring, MPLS, PPPoE, NSH. */
#include "decode_frames.h"
#include "decode_test.h"

static void open_link(struct decode_test *test, uint16_t link_type)
{
    struct otus_decoder_config config;
    otus_decoder_config_init(&config);
    decode_open(test, &config);
    test->raw.link_type = link_type;
}

static void check_hello(uint16_t link_type, const char *hex, uint8_t ip_version)
{
    struct decode_test t;
    open_link(&t, link_type);
    CHECK_EQ(decode_hex(&t, hex), OTUS_OK);
    CHECK_EQ(t.packet.meta.ip_version, ip_version);
    CHECK_SLICE(t.packet.payload, "hello");
    decode_close(&t);
}

static void check_fails(uint16_t link_type, const char *hex, enum otus_counter reason)
{
    struct decode_test t;
    open_link(&t, link_type);
    CHECK(decode_hex(&t, hex) < 0);
    CHECK_EQ(count_of(&t.counters, reason), 1);
    decode_close(&t);
}

/* packet type, ARPHRD, address length, address; the protocol follows */
#define SLL(type) type " 0001 0006 02aabbccddee 0000 "
/* reserved, interface 7, ARPHRD, packet type, address length, address */
#define SLL2(type) "0000 00000007 0001 " type " 06 02aabbccddee 0000 "

static void test_link_types(void)
{
    check_hello(OTUS_LINK_ETHERNET, ETH_IPV4 INNER_IPV4, 4);
    check_hello(OTUS_LINK_ETHERNET, ETH_IPV6 INNER_IPV6, 6);
    check_hello(OTUS_LINK_LINUX_SLL, SLL("0000") "0800" INNER_IPV4, 4);
    check_hello(OTUS_LINK_LINUX_SLL, SLL("0000") "86dd" INNER_IPV6, 6);
    check_hello(OTUS_LINK_LINUX_SLL2, "0800" SLL2("00") INNER_IPV4, 4);
    static const uint16_t raw[] = {12, 14, 101};
    for (size_t i = 0; i < 3; i++) {
        check_hello(raw[i], INNER_IPV4, 4);
        check_hello(raw[i], INNER_IPV6, 6);
    }
    check_hello(228, INNER_IPV4, 4);
    check_hello(229, INNER_IPV6, 6);
    check_hello(OTUS_LINK_PPP, "ff03 0021" INNER_IPV4, 4);
    check_hello(OTUS_LINK_PPP, "0057" INNER_IPV6, 6);
    check_hello(OTUS_LINK_PPP, "21" INNER_IPV4, 4); /* compressed protocol field */
    check_hello(OTUS_LINK_PPP_HDLC, "ff03 0021" INNER_IPV4, 4);
    check_hello(OTUS_LINK_PPP_HDLC, "0f00 0800" INNER_IPV4, 4); /* Cisco HDLC */
    check_hello(OTUS_LINK_C_HDLC, "8f00 86dd" INNER_IPV6, 6);
    check_hello(OTUS_LINK_PPP, "0f00 0800" INNER_IPV4, 4); /* as some routers' captures say */
    check_fails(228, INNER_IPV6, OTUS_COUNT_IPV4_VERSION);
    check_fails(229, INNER_IPV4 "00000000000000", OTUS_COUNT_IPV6_VERSION);
    check_fails(101, "", OTUS_COUNT_IPV4_TOO_SHORT);
    check_fails(OTUS_LINK_PPP, "c021 01010004", OTUS_COUNT_NON_IP); /* LCP */
    check_fails(OTUS_LINK_PPP, "ff03", OTUS_COUNT_FRAME_TOO_SHORT);
    check_fails(OTUS_LINK_LINUX_SLL, SLL("0000") "0004 42", OTUS_COUNT_NON_IP);
    check_fails(OTUS_LINK_LINUX_SLL, "0000", OTUS_COUNT_FRAME_TOO_SHORT);
    check_fails(OTUS_LINK_LINUX_SLL2, "0800", OTUS_COUNT_FRAME_TOO_SHORT);
}

static void test_link_types_that_are_rare(void)
{
    /* Frame Relay: NLPID of IPv4, padding and IPv6, SNAP, Cisco's; an address of four octets */
    check_hello(OTUS_LINK_FRAME_RELAY, "1841 03 cc" INNER_IPV4, 4);
    check_hello(OTUS_LINK_FRAME_RELAY, "1841 03 00 8e" INNER_IPV6, 6);
    check_hello(OTUS_LINK_FRAME_RELAY, "18400001 03 80 000000 0800" INNER_IPV4, 4);
    check_hello(OTUS_LINK_FRAME_RELAY, "1841 0800" INNER_IPV4, 4);
    check_fails(OTUS_LINK_FRAME_RELAY, "1841 03 82 00", OTUS_COUNT_NON_IP); /* ES-IS */
    check_fails(OTUS_LINK_FRAME_RELAY, "18404040 4001 03 cc", OTUS_COUNT_NON_IP);
    check_fails(OTUS_LINK_FRAME_RELAY, "1841 03", OTUS_COUNT_FRAME_TOO_SHORT);
    check_hello(OTUS_LINK_FDDI, "50" MACS "aaaa03000000 0800" INNER_IPV4, 4);
    check_fails(OTUS_LINK_FDDI, "c1" MACS "aaaa03000000 0800" INNER_IPV4, OTUS_COUNT_NON_IP);
    check_hello(OTUS_LINK_ATM_RFC1483, "aaaa03000000 86dd" INNER_IPV6, 6);
    /* netfilter: a prefix of one octet, padded, then the packet; in either order */
    check_hello(OTUS_LINK_NFLOG, "02 00 0000 0500 0a00 00 000000 2500 0900" INNER_IPV4 "000000", 4);
    check_hello(OTUS_LINK_NFLOG, "0a 00 0000 0005 000a 00 000000 0039 0009" INNER_IPV6 "000000", 6);
    check_fails(OTUS_LINK_NFLOG, "02 00 0000 0500 0a00 00 000000", OTUS_COUNT_NON_IP);
    check_fails(OTUS_LINK_NFLOG, "02 00 0000 0300 0a00 00 000000", OTUS_COUNT_NON_IP);
    check_fails(OTUS_LINK_NFLOG, "02 00", OTUS_COUNT_FRAME_TOO_SHORT);
    check_fails(147, INNER_IPV4, OTUS_COUNT_LINK_UNSUPPORTED);
}

/* Trap: the family is in the capturing host's byte order, and every BSD has its own number. */
static void test_loopback_families_in_both_byte_orders(void)
{
    static const char *const ipv6[] = {"0a000000", "18000000", "1c000000", "1e000000",
                                       "0000000a", "00000018", "0000001c", "0000001e"};
    check_hello(OTUS_LINK_NULL, "02000000" INNER_IPV4, 4);
    check_hello(OTUS_LINK_NULL, "00000002" INNER_IPV4, 4);
    check_hello(OTUS_LINK_LOOP, "00000002" INNER_IPV4, 4);
    for (size_t i = 0; i < sizeof ipv6 / sizeof *ipv6; i++) {
        char hex[300];
        snprintf(hex, sizeof hex, "%s %s", ipv6[i], INNER_IPV6);
        check_hello(i < 4 ? OTUS_LINK_NULL : OTUS_LINK_LOOP, hex, 6);
    }
    check_hello(OTUS_LINK_NULL, "0f000800" INNER_IPV4, 4); /* an ethertype instead */
    check_hello(OTUS_LINK_NULL, "000086dd" INNER_IPV6, 6);
    check_fails(OTUS_LINK_NULL, "07000000 00", OTUS_COUNT_NON_IP);
    check_fails(OTUS_LINK_NULL, "0f000806 00", OTUS_COUNT_NON_IP);
    check_fails(OTUS_LINK_NULL, "0200", OTUS_COUNT_FRAME_TOO_SHORT);
}

static void test_cooked_direction_and_interface(void)
{
    struct decode_test t;
    open_link(&t, OTUS_LINK_LINUX_SLL);
    CHECK_EQ(decode_hex(&t, SLL("0004") "0800" INNER_IPV4), OTUS_OK);
    CHECK((t.packet.meta.flags & OTUS_PACKET_OUTGOING) != 0);
    CHECK_EQ(t.packet.meta.flags & OTUS_PACKET_HAS_MAC, 0);
    t.raw.link_type = OTUS_LINK_LINUX_SLL2;
    CHECK_EQ(decode_hex(&t, "0800" SLL2("04") INNER_IPV4), OTUS_OK);
    CHECK((t.packet.meta.flags & OTUS_PACKET_OUTGOING) != 0);
    CHECK_EQ(t.packet.meta.if_index, 7);
    decode_close(&t);
}

static void check_vlans(const struct decode_test *t, uint8_t num, const uint16_t *vlans)
{
    CHECK_EQ(t->packet.meta.num_vlans, num);
    for (uint8_t i = 0; i < num; i++)
        CHECK_EQ(t->packet.meta.vlans[i], vlans[i]);
}

static void test_vlan_tags_of_every_kind(void)
{
    struct decode_test t;
    open_link(&t, OTUS_LINK_ETHERNET);
    /* 802.1ad, 0x9100, 0x9200, 802.1Q; the priority bits are not the VLAN ID */
    CHECK_EQ(decode_hex(&t, MACS "88a8 e064 9100 2002 9200 1fff 8100 0001 0800" INNER_IPV4),
             OTUS_OK);
    check_vlans(&t, 4, (const uint16_t[]){0x064, 0x002, 0xfff, 0x001});
    CHECK_EQ(t.packet.meta.ethertype, 0x0800);
    CHECK_SLICE(t.packet.payload, "hello");
    t.raw.link_type = OTUS_LINK_LINUX_SLL; /* trap: SLL with a tag */
    CHECK_EQ(decode_hex(&t, SLL("0000") "8100 0005 0800" INNER_IPV4), OTUS_OK);
    check_vlans(&t, 1, (const uint16_t[]){5});
    decode_close(&t);
}

/* Trap: the kernel strips the outer tag into the ring's metadata. */
static void test_vlan_from_ring_metadata_goes_in_front(void)
{
    struct decode_test t;
    open_link(&t, OTUS_LINK_ETHERNET);
    t.raw.flags = OTUS_RAW_VLAN_VALID;
    t.raw.vlan_tci = 0x6064;
    t.raw.vlan_tpid = 0x88a8;
    CHECK_EQ(decode_hex(&t, MACS "8100 0007 0800" INNER_IPV4), OTUS_OK);
    check_vlans(&t, 2, (const uint16_t[]){0x064, 7});
    t.raw.flags = 0; /* without the flag the fields mean nothing */
    CHECK_EQ(decode_hex(&t, MACS "8100 0007 0800" INNER_IPV4), OTUS_OK);
    check_vlans(&t, 1, (const uint16_t[]){7});
    t.raw.flags = OTUS_RAW_OUTGOING;
    CHECK_EQ(decode_hex(&t, ETH_IPV4 INNER_IPV4), OTUS_OK);
    CHECK((t.packet.meta.flags & OTUS_PACKET_OUTGOING) != 0);
    decode_close(&t);
}

static void test_vlan_count_is_bounded(void)
{
#define FOUR_TAGS "8100 0001 8100 0002 8100 0003 8100 0004 "
    check_hello(OTUS_LINK_ETHERNET, MACS FOUR_TAGS FOUR_TAGS "0800" INNER_IPV4, 4);
    check_fails(OTUS_LINK_ETHERNET, MACS FOUR_TAGS FOUR_TAGS "8100 0009 0800" INNER_IPV4,
                OTUS_COUNT_TOO_MANY_VLANS);
    struct decode_test t;
    open_link(&t, OTUS_LINK_ETHERNET);
    t.raw.flags = OTUS_RAW_VLAN_VALID;
    CHECK(decode_hex(&t, MACS FOUR_TAGS FOUR_TAGS "0800" INNER_IPV4) < 0);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_TOO_MANY_VLANS), 1);
    decode_close(&t);
    check_fails(OTUS_LINK_ETHERNET, MACS "8100 00", OTUS_COUNT_FRAME_TOO_SHORT);
}

static void test_llc_snap(void)
{
    check_hello(OTUS_LINK_ETHERNET, MACS "0029 aaaa03000000 0800" INNER_IPV4 "0000", 4);
    check_fails(OTUS_LINK_ETHERNET, MACS "0026 424203 0000000000", OTUS_COUNT_NON_IP); /* STP */
    check_fails(OTUS_LINK_ETHERNET, MACS "0004 aaaa0300 0000 0800" INNER_IPV4, OTUS_COUNT_NON_IP);
}

/* Regression: IP by its own SAP, and in the SNAP of IEEE 802.1H, was no IP. */
static void test_llc_of_other_kinds(void)
{
    check_hello(OTUS_LINK_ETHERNET, MACS "0024 060603" INNER_IPV4 "0000", 4);
    check_hello(OTUS_LINK_ETHERNET, MACS "0029 aaaa030000f8 0800" INNER_IPV4 "0000", 4);
    check_fails(OTUS_LINK_ETHERNET, MACS "0029 aaaa0300000c 0800" INNER_IPV4, OTUS_COUNT_NON_IP);
    check_fails(OTUS_LINK_ETHERNET, MACS "0003 aaaa03", OTUS_COUNT_NON_IP);
}

/* Regression: a cooked header may carry LLC or a whole Ethernet frame. */
static void test_cooked_802_2_and_ethernet(void)
{
    check_hello(OTUS_LINK_LINUX_SLL, SLL("0000") "0004 aaaa03000000 0800" INNER_IPV4, 4);
    check_hello(OTUS_LINK_LINUX_SLL, SLL("0000") "0003" INNER_ETH, 4);
    check_hello(OTUS_LINK_LINUX_SLL2, "0004" SLL2("00") "aaaa03000000 86dd" INNER_IPV6, 6);
    check_hello(OTUS_LINK_LINUX_SLL2, "0003" SLL2("00") INNER_ETH, 4);
    check_fails(OTUS_LINK_LINUX_SLL, SLL("0000") "0001" INNER_ETH, OTUS_COUNT_NON_IP);
}

static void test_mpls(void)
{
    check_hello(OTUS_LINK_ETHERNET, MACS "8847 00010140" INNER_IPV4, 4);
    check_hello(OTUS_LINK_ETHERNET, MACS "8848 00010040 00002140" INNER_IPV6, 6);
    /* pseudowire: control word, then Ethernet; and without one */
    check_hello(OTUS_LINK_ETHERNET, MACS "8847 00010140 00000000" INNER_ETH, 4);
    check_hello(OTUS_LINK_ETHERNET, MACS "8847 00010140" INNER_ETH, 4);
    check_fails(OTUS_LINK_ETHERNET, MACS "8847 00010040", OTUS_COUNT_MPLS_INVALID);
    check_fails(OTUS_LINK_ETHERNET, MACS "8847 00010140", OTUS_COUNT_MPLS_INVALID);
    check_fails(OTUS_LINK_ETHERNET, MACS "8847 00010140 10000021 4500", OTUS_COUNT_NON_IP);
#define FOUR_LABELS "00010040 00010040 00010040 00010040 "
    check_hello(OTUS_LINK_ETHERNET,
                MACS "8847" FOUR_LABELS FOUR_LABELS FOUR_LABELS
                     "00010040 00010040 00010040 00010140" INNER_IPV4,
                4);
    check_fails(OTUS_LINK_ETHERNET,
                MACS "8847" FOUR_LABELS FOUR_LABELS FOUR_LABELS FOUR_LABELS "00010140" INNER_IPV4,
                OTUS_COUNT_MPLS_INVALID);
}

/* Regression: a pseudowire's Ethernet header may name an older tag, or a length. */
static void test_pseudowire_with_old_tags_and_lengths(void)
{
    check_hello(OTUS_LINK_ETHERNET, MACS "8847 00010140 00000000" MACS "9100 0005 0800" INNER_IPV4,
                4);
    check_hello(OTUS_LINK_ETHERNET, MACS "8847 00010140" MACS "9200 0005 0800" INNER_IPV4, 4);
    check_hello(OTUS_LINK_ETHERNET,
                MACS "8847 00010140 00000000" MACS "0029 aaaa03000000 0800" INNER_IPV4, 4);
    check_fails(OTUS_LINK_ETHERNET, MACS "8847 00010140 00000000" MACS "0026 424203 0000000000",
                OTUS_COUNT_NON_IP);
}

/* Regression: a MAC address that begins with 4 or 6 behind the label was taken for IP. */
static void test_pseudowire_to_an_address_like_ip(void)
{
    check_hello(OTUS_LINK_ETHERNET,
                MACS "8847 00010140"
                     "44d3ca010203 4c5e0c010203 0800" INNER_IPV4,
                4);
    check_hello(OTUS_LINK_ETHERNET,
                MACS "8847 00010140"
                     "640980010203 600010203040 8100 0005 0800" INNER_IPV4,
                4);
    check_hello(OTUS_LINK_ETHERNET,
                MACS "8847 00010140"
                     "45000a010203 4c5e0c010203 86dd" INNER_IPV6,
                6);
    /* IP that ends too early, or was captured short, stays IP: 8.0.0.1 looks like an ethertype */
    struct decode_test t;
    open_link(&t, OTUS_LINK_ETHERNET);
    t.raw.wirelen = 1000;
    CHECK_EQ(decode_hex(&t, MACS "8847 00010140 4500 03d6 0001 0000 40 11 0000 08000001 0a000002"
                                 "13c4 13c5 03c2 beef" HELLO),
             OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    decode_close(&t);
    check_fails(OTUS_LINK_ETHERNET, MACS "8847 00010140 4500 0100 0001", OTUS_COUNT_IPV4_TOO_SHORT);
}

static void test_pppoe(void)
{
    check_hello(OTUS_LINK_PPP_ETHER, "1100 0001 0023 0021" INNER_IPV4, 4);
    check_hello(OTUS_LINK_ETHERNET, MACS "8864 1100 0001 0027 0283 00010140" INNER_IPV4, 4);

    check_hello(OTUS_LINK_ETHERNET, MACS "8864 1100 0001 0023 0021" INNER_IPV4 "00000000", 4);
    check_hello(OTUS_LINK_ETHERNET, MACS "8864 1100 0001 0037 0057" INNER_IPV6, 6);
    /* the session's length cuts, too */
    struct decode_test t;
    open_link(&t, OTUS_LINK_ETHERNET);
    CHECK_EQ(decode_hex(&t, MACS "8864 1100 0001 0022 0021" INNER_IPV4), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hell");
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_IPV4_CUT), 1);
    decode_close(&t);
    check_fails(OTUS_LINK_ETHERNET, MACS "8864 1200 0001 0023 0021" INNER_IPV4,
                OTUS_COUNT_PPPOE_INVALID);
    check_fails(OTUS_LINK_ETHERNET, MACS "8864 1109 0001 0023 0021" INNER_IPV4,
                OTUS_COUNT_PPPOE_INVALID);
    check_fails(OTUS_LINK_ETHERNET, MACS "8864 1100 0001", OTUS_COUNT_PPPOE_INVALID);
    check_fails(OTUS_LINK_ETHERNET, MACS "8863 1109 0000 0000", OTUS_COUNT_NON_IP); /* discovery */
}

static void test_other_encapsulations(void)
{
    check_hello(OTUS_LINK_ETHERNET, MACS "88e7 00000001" INNER_ETH, 4); /* MAC-in-MAC */
    check_hello(OTUS_LINK_ETHERNET, MACS "8926 00000001 0800" INNER_IPV4, 4);
    check_hello(OTUS_LINK_ETHERNET, MACS "8903 0001" INNER_ETH, 4);
    check_hello(OTUS_LINK_ETHERNET, MACS "894f 0002 01 01 00000001" INNER_IPV4, 4); /* NSH */
    check_hello(OTUS_LINK_ETHERNET, MACS "894f 0002 01 02 00000001" INNER_IPV6, 6);
    check_hello(OTUS_LINK_ETHERNET, MACS "894f 0002 01 03 00000001" INNER_ETH, 4);
    check_fails(OTUS_LINK_ETHERNET, MACS "894f 0001 01 01 00000001" INNER_IPV4,
                OTUS_COUNT_FRAME_TOO_SHORT);
    check_fails(OTUS_LINK_ETHERNET, MACS "88e7 0000", OTUS_COUNT_FRAME_TOO_SHORT);
}

/* Layers without a bound of their own can't keep the decoder busy. */
static void test_layers_are_bounded(void)
{
    static char hex[1 << 16];
    struct decode_test t;
    open_link(&t, OTUS_LINK_ETHERNET);
    for (int i = 0; i < 200; i++)
        strcat(hex, MACS "88e7 00000001 ");
    strcat(hex, INNER_ETH);
    CHECK(decode_hex(&t, hex) < 0);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_TUNNEL_TOO_DEEP), 1);
    decode_close(&t);
}

static void decode_truncated(void *context, const uint8_t *octets, size_t len)
{
    struct decode_test *t = context;
    (void)decode_octets(t, octets, len);
}

static void test_every_truncation(void)
{
    static const struct {
        uint16_t link_type;
        const char *hex;
    } frames[] = {
        {1, MACS "88a8 0064 8100 0007 8847 00010040 00010140 00000000" INNER_ETH},
        {1, MACS "8864 1100 0001 0023 0021" INNER_IPV4},
        {1, MACS "0029 aaaa03000000 0800" INNER_IPV4},
        {1, MACS "894f 0002 01 01 00000001" INNER_IPV4},
        {1, MACS "8926 00000001 0800" INNER_IPV4},
        {0, "02000000" INNER_IPV4},
        {9, "ff03 0021" INNER_IPV4},
        {50, "0f00 0800" INNER_IPV4},
        {10, "50" MACS "aaaa03000000 0800" INNER_IPV4},
        {107, "18400001 03 80 000000 0800" INNER_IPV4},
        {239, "02 00 0000 0500 0a00 00 000000 2500 0900" INNER_IPV4 "000000"},
        {113, SLL("0004") "0800" INNER_IPV4},
        {276, "0800" SLL2("04") INNER_IPV4},
    };
    struct decode_test t;
    open_link(&t, OTUS_LINK_ETHERNET);
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        uint8_t octets[256];
        size_t len = hex_octets(octets, sizeof octets, frames[i].hex);
        t.raw.link_type = frames[i].link_type;
        guard_every_truncation(decode_truncated, &t, octets, len);
    }
    decode_close(&t);
}

int main(void)
{
    test_link_types();
    test_link_types_that_are_rare();
    test_loopback_families_in_both_byte_orders();
    test_cooked_direction_and_interface();
    test_vlan_tags_of_every_kind();
    test_vlan_from_ring_metadata_goes_in_front();
    test_vlan_count_is_bounded();
    test_llc_snap();
    test_llc_of_other_kinds();
    test_cooked_802_2_and_ethernet();
    test_mpls();
    test_pseudowire_with_old_tags_and_lengths();
    test_pseudowire_to_an_address_like_ip();
    test_pppoe();
    test_other_encapsulations();
    test_layers_are_bounded();
    test_every_truncation();
    return check_summary();
}
