/* Tunnels: VXLAN, GRE, ERSPAN, Geneve, IPIP, GTP-U, TZSP, nested and switched off. */
#include "decode_frames.h"
#include "decode_test.h"

#define ALL_TUNNELS ((1u << OTUS_NUM_TUNNEL_KINDS) - 2)

static void open_tunnels(struct decode_test *test, uint32_t tunnels)
{
    struct otus_decoder_config config;
    otus_decoder_config_init(&config);
    config.tunnels = tunnels;
    decode_open(test, &config);
}

/* Decodes to the inner "hello" through one tunnel. */
static void check_tunnel(const char *hex, enum otus_tunnel_kind kind, uint8_t version, int64_t key)
{
    struct decode_test t;
    open_tunnels(&t, 1u << kind);
    check_about = hex;
    CHECK_EQ(decode_hex(&t, hex), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.meta.src_port, 5060);
    CHECK_EQ(t.packet.meta.num_tunnels, 1);
    const struct otus_tunnel *tunnel = &t.packet.tunnels[0];
    CHECK_EQ(tunnel->kind, kind);
    CHECK_EQ(tunnel->version, version);
    CHECK_EQ((tunnel->flags & OTUS_TUNNEL_HAS_KEY) != 0 ? (int64_t)tunnel->key : -1, key);
    CHECK_EQ(tunnel->ip_version, 4);
    check_ip(tunnel->src_ip, "c0000201");
    check_ip(tunnel->dst_ip, "c0000202");
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_TUNNEL_NON_IP), 0);
    decode_close(&t);
    /* Switched off, the outer packet is the result and nothing is counted. */
    open_tunnels(&t, ALL_TUNNELS & ~(1u << kind));
    CHECK_EQ(decode_hex(&t, hex), OTUS_OK);
    CHECK_EQ(t.packet.meta.num_tunnels, 0);
    check_ip(t.packet.meta.src_ip, "c0000201");
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_TUNNEL_NON_IP), 0);
    decode_close(&t);
    check_about = "";
}

/* The tunnel holds no IP, or is none: the packet that carries it is the result. */
static void check_carrier(const char *hex, uint8_t protocol)
{
    struct decode_test t;
    open_tunnels(&t, ALL_TUNNELS);
    check_about = hex;
    CHECK_EQ(decode_hex(&t, hex), OTUS_OK);
    CHECK_EQ(t.packet.meta.num_tunnels, 0);
    CHECK_EQ(t.packet.meta.num_vlans, 0);
    CHECK_EQ(t.packet.meta.protocol, protocol);
    CHECK_EQ((t.packet.meta.flags & OTUS_PACKET_TRANSPORT) != 0, protocol == 17);
    CHECK_EQ(t.packet.meta.src_port, protocol == 17 ? 0xc000 : 0);
    check_ip(t.packet.meta.src_ip, "c0000201");
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_TUNNEL_NON_IP), 1);
    CHECK(t.packet.datagram.at == t.packet.frame.at + 14);
    CHECK(t.packet.payload.at + t.packet.payload.len ==
          t.packet.datagram.at + t.packet.datagram.len);
    decode_close(&t);
    check_about = "";
}

static void check_fails(const char *hex, enum otus_counter reason)
{
    struct decode_test t;
    open_tunnels(&t, ALL_TUNNELS);
    check_about = hex;
    CHECK(decode_hex(&t, hex) < 0);
    CHECK_EQ(count_of(&t.counters, reason), 1);
    decode_close(&t);
    check_about = "";
}

/* The tunnel's own length is one octet short: it cuts, and the packet is flagged. */
static void check_cut(const char *hex)
{
    struct decode_test t;
    open_tunnels(&t, ALL_TUNNELS);
    check_about = hex;
    CHECK_EQ(decode_hex(&t, hex), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hell");
    CHECK((t.packet.meta.flags & OTUS_PACKET_TRUNCATED) != 0);
    decode_close(&t);
    check_about = "";
}

/* lengths: IP total, UDP; then eight octets of VXLAN header */
#define VXLAN(total, udp_len, header) ETH_IPV4 OUTER(total, "11") UDP_TO("12b5", udp_len) header
#define VXLAN_GPE(total, udp_len, header) ETH_IPV4 OUTER(total, "11") UDP_TO("12b6", udp_len) header

static void test_vxlan(void)
{
    struct decode_test t;
    check_tunnel(VXLAN("0053", "003f", "08000000 00007b00") INNER_ETH, OTUS_TUNNEL_VXLAN, 0, 123);
    open_tunnels(&t, ALL_TUNNELS);
    CHECK_EQ(
        decode_hex(&t, VXLAN("0057", "0043", "08000000 ffffff00") MACS "8100 0007 0800" INNER_IPV4),
        OTUS_OK);
    CHECK_EQ(t.packet.tunnels[0].key, 0xffffff);
    CHECK_EQ(t.packet.tunnels[0].src_port, 0xc000);
    CHECK_EQ(t.packet.tunnels[0].dst_port, 4789);
    CHECK_EQ(t.packet.meta.num_vlans, 1); /* a tag inside the tunnel counts as well */
    CHECK_EQ(t.packet.meta.vlans[0], 7);
    /* ICMP inside: the outer ports are not its own; the outer MAC addresses are kept */
    CHECK_EQ(
        decode_hex(&t,
                   VXLAN("0053", "003f", "08000000 00007b00") "060000000001 060000000002 0800" IPV4(
                       "0021", "01") "0800 0000 0001 0001 " HELLO),
        OTUS_OK);
    CHECK_EQ(t.packet.meta.protocol, 1);
    CHECK_EQ(t.packet.meta.flags & OTUS_PACKET_TRANSPORT, 0);
    CHECK_EQ(t.packet.meta.src_port, 0);
    CHECK_EQ(t.packet.meta.dst_port, 0);
    CHECK_OCTETS(t.packet.meta.dst_mac, 6, "\x02\x11\x22\x33\x44\x55", 6);
    decode_close(&t);
}

/* Trap: flags and reserved fields that are not zero. */
static void test_vxlan_gbp_and_reserved_fields(void)
{
    /* group policy: G bit and an id */
    check_tunnel(VXLAN("0053", "003f", "88080042 00007b00") INNER_ETH, OTUS_TUNNEL_VXLAN, 0, 123);
    /* RFC 7348 5: reserved fields "MUST be ignored", those that GPE took over too */
    check_tunnel(VXLAN("0053", "003f", "ffffff01 00007bff") INNER_ETH, OTUS_TUNNEL_VXLAN, 0, 123);
    check_tunnel(VXLAN("0053", "003f", "0c000002 00007b00") INNER_ETH, OTUS_TUNNEL_VXLAN, 0, 123);
}

static void test_vxlan_gpe(void)
{
    check_tunnel(VXLAN_GPE("0045", "0031", "0c000001 00007b00") INNER_IPV4, OTUS_TUNNEL_VXLAN, 0,
                 123);
    check_tunnel(VXLAN_GPE("0059", "0045", "0c000002 00007b00") INNER_IPV6, OTUS_TUNNEL_VXLAN, 0,
                 123);
    check_tunnel(VXLAN_GPE("0053", "003f", "0c000003 00007b00") INNER_ETH, OTUS_TUNNEL_VXLAN, 0,
                 123);
    check_tunnel(VXLAN_GPE("004d", "0039", "0c000004 00007b00") "0002 01 01 00000001" INNER_IPV4,
                 OTUS_TUNNEL_VXLAN, 0, 123);
    check_tunnel(VXLAN_GPE("0049", "0035", "0c000005 00007b00") "00010140" INNER_IPV4,
                 OTUS_TUNNEL_VXLAN, 0, 123);
    /* without the bit that says that a protocol is named, as some send it */
    check_tunnel(VXLAN_GPE("0045", "0031", "08000001 00007b00") INNER_IPV4, OTUS_TUNNEL_VXLAN, 0,
                 123);
    check_tunnel(VXLAN_GPE("0059", "0045", "08000002 00007b00") INNER_IPV6, OTUS_TUNNEL_VXLAN, 0,
                 123);
    check_tunnel(VXLAN("0053", "003f", "08000001 00007b00") INNER_ETH, OTUS_TUNNEL_VXLAN, 0, 123);
    /* without a valid VNI there is no key */
    check_tunnel(VXLAN_GPE("0045", "0031", "04000001 00007b00") INNER_IPV4, OTUS_TUNNEL_VXLAN, 0,
                 -1);
}

static void test_not_vxlan(void)
{
    check_carrier(VXLAN("0053", "003f", "00000000 00007b00") INNER_ETH, 17); /* no I flag */
    check_carrier(VXLAN("0021", "000d", HELLO), 17); /* too short for a header */
    check_carrier(VXLAN("0024", "0010", "08000000 00007b00"), 17);
    check_carrier(VXLAN("0036", "0022", "08000000 00007b00") MACS "8100 0007 0806 0001", 17);
}

/* Policy: an inner packet that is broken makes its frame undecodable, by its own reason. */
static void test_broken_inner_packet(void)
{
    check_fails(VXLAN("002e", "001a", "08000000 00007b00") "02112233445502aabbcc",
                OTUS_COUNT_FRAME_TOO_SHORT);
    check_fails(VXLAN("0047", "0033", "08000000 00007b00") ETH_IPV4 IPV4("0021", "11") "13",
                OTUS_COUNT_UDP_TOO_SHORT);
    check_fails(VXLAN("0046", "0032", "08000000 00007b00") MACS "86dd" IPV4("0021", "11"),
                OTUS_COUNT_IPV6_TOO_SHORT);
}

#define GRE(total, header) ETH_IPV4 OUTER(total, "2f") header

/* Trap: every optional field, alone and together. */
static void test_gre_optional_fields(void)
{
    check_tunnel(GRE("0039", "0000 0800") INNER_IPV4, OTUS_TUNNEL_GRE, 0, -1);
    check_tunnel(GRE("004d", "0000 86dd") INNER_IPV6, OTUS_TUNNEL_GRE, 0, -1);
    check_tunnel(GRE("0047", "0000 6558") INNER_ETH, OTUS_TUNNEL_GRE, 0, -1);
    check_tunnel(GRE("003d", "0000 8847 00010140") INNER_IPV4, OTUS_TUNNEL_GRE, 0, -1);
    check_tunnel(GRE("003d", "2000 0800 deadbeef") INNER_IPV4, OTUS_TUNNEL_GRE, 0, 0xdeadbeef);
    check_tunnel(GRE("003d", "1000 0800 00000001") INNER_IPV4, OTUS_TUNNEL_GRE, 0, -1);
    check_tunnel(GRE("003d", "8000 0800 beef0000") INNER_IPV4, OTUS_TUNNEL_GRE, 0, -1);
    check_tunnel(GRE("0045", "b000 0800 beef0000 0000002a 00000001") INNER_IPV4, OTUS_TUNNEL_GRE, 0,
                 42);
    /* routing: one entry of eight octets, then the end */
    check_tunnel(GRE("0055", "f000 0800 beef0000 0000002a 00000001"
                             "0800 00 08 0a000001 0a000002 00000000") INNER_IPV4,
                 OTUS_TUNNEL_GRE, 0, 42);
}

/* Regression: what Cisco's WCCP redirects was no IP; version 2 has a header of four octets. */
static void test_gre_wccp(void)
{
    check_tunnel(GRE("0039", "0000 883e") INNER_IPV4, OTUS_TUNNEL_GRE, 0, -1);
    check_tunnel(GRE("003d", "0000 883e 01040000") INNER_IPV4, OTUS_TUNNEL_GRE, 0, -1);
    check_fails(GRE("001a", "0000 883e 0104"), OTUS_COUNT_TUNNEL_TOO_SHORT);
}

static void test_gre_version_1(void)
{
    /* key: payload length 35 and call ID; sequence and acknowledgment; compressed PPP */
    check_tunnel(GRE("0047", "3081 880b 0023 0009 00000001 00000002 0021") INNER_IPV4,
                 OTUS_TUNNEL_GRE, 1, 9);
    check_tunnel(GRE("0044", "3001 880b 0024 0009 00000001 ff03 21") INNER_IPV4 "00",
                 OTUS_TUNNEL_GRE, 1, 9);
    check_carrier(GRE("0024", "2081 880b 0000 0009 00000002"), 47); /* acknowledgment alone */
    check_carrier(GRE("0024", "3001 880b 0004 0009 00000002 c021 0101"), 47); /* LCP */
}

static void test_gre_payload_length_cuts(void)
{
    check_cut(GRE("0047", "3081 880b 0022 0009 00000001 00000002 0021") INNER_IPV4);
}

static void test_gre_without_ip(void)
{
    check_carrier(GRE("001c", "0000 8200 44444444"), 47); /* Aruba: 802.11 */
    check_carrier(GRE("0018", "0000 0000"), 47);          /* Cisco keep-alive */
    check_carrier(GRE("0018", "0000 0800"), 47);
    check_fails(GRE("0016", "0000"), OTUS_COUNT_TUNNEL_TOO_SHORT);
    check_fails(GRE("001a", "2000 0800 0000"), OTUS_COUNT_TUNNEL_TOO_SHORT);
    check_fails(GRE("001c", "4000 0800 00000000"), OTUS_COUNT_TUNNEL_TOO_SHORT);
    check_fails(GRE("0039", "0002 0800") INNER_IPV4, OTUS_COUNT_TUNNEL_INVALID);
}

/* Trap: types I and II share 0x88be; the sequence number tells them apart. */
static void test_erspan_types(void)
{
    check_tunnel(GRE("0047", "0000 88be") INNER_ETH, OTUS_TUNNEL_ERSPAN, 1, -1);
    check_tunnel(GRE("0053", "1000 88be 00000001 1017 8064 00000000") INNER_ETH, OTUS_TUNNEL_ERSPAN,
                 2, 100);
    check_tunnel(GRE("0057", "1000 22eb 00000001 2fff 03ff 00000000 00000000") INNER_ETH,
                 OTUS_TUNNEL_ERSPAN, 3, 0x3ff);
    /* type III: platform-specific subheader of eight octets; and IP without Ethernet */
    check_tunnel(GRE("005f", "1000 22eb 00000001 2fff 03ff 00000000 00000001 "
                             "0000000000000000") INNER_ETH,
                 OTUS_TUNNEL_ERSPAN, 3, 0x3ff);
    check_tunnel(GRE("0049", "1000 22eb 00000001 2000 0001 00000000 00000800") INNER_IPV4,
                 OTUS_TUNNEL_ERSPAN, 3, 1);
    check_fails(GRE("0053", "1000 88be 00000001 3017 8064 00000000") INNER_ETH,
                OTUS_COUNT_TUNNEL_INVALID);
    check_fails(GRE("001c", "1000 88be 00000001"), OTUS_COUNT_TUNNEL_TOO_SHORT);
    check_fails(GRE("0020", "1000 88be 00000001 1017 8064"), OTUS_COUNT_TUNNEL_TOO_SHORT);
    check_carrier(GRE("0024", "1000 88be 00000001 1017 8064 00000000"), 47);
}

/* Regression: type III under 0x88be and type II under 0x22eb were taken for invalid. */
static void test_erspan_version_counts_not_the_protocol_number(void)
{
    check_tunnel(GRE("0057", "1000 88be 00000001 2fff 03ff 00000000 00000000") INNER_ETH,
                 OTUS_TUNNEL_ERSPAN, 3, 0x3ff);
    check_tunnel(GRE("0053", "1000 22eb 00000001 1017 8064 00000000") INNER_ETH, OTUS_TUNNEL_ERSPAN,
                 2, 100);
}

/* Trap: the ERSPAN header's VLAN has twelve bits, and is none of the frame's tags. */
static void test_erspan_vlan(void)
{
    struct decode_test t;
    open_tunnels(&t, ALL_TUNNELS);
    CHECK_EQ(decode_hex(&t, GRE("0057", "1000 88be 00000001 1abc 8064 00000000") MACS
                        "8100 0007 0800" INNER_IPV4),
             OTUS_OK);
    CHECK_EQ(t.packet.tunnels[0].vlan, 0xabc);
    CHECK_EQ(t.packet.meta.num_vlans, 1);
    CHECK_EQ(t.packet.meta.vlans[0], 7);
    CHECK_EQ(t.packet.meta.num_tunnels, 1); /* the GRE below it is not a level of its own */
    decode_close(&t);
}

#define GENEVE(total, udp_len, header) ETH_IPV4 OUTER(total, "11") UDP_TO("17c1", udp_len) header

/* Trap: protocol 0x6558 is Ethernet, 0x0800 is IP right away. */
static void test_geneve(void)
{
    check_tunnel(GENEVE("0053", "003f", "0000 6558 00007b00") INNER_ETH, OTUS_TUNNEL_GENEVE, 0,
                 123);
    check_tunnel(GENEVE("0045", "0031", "0000 0800 00007b00") INNER_IPV4, OTUS_TUNNEL_GENEVE, 0,
                 123);
    check_tunnel(GENEVE("0059", "0045", "0000 86dd 00007b00") INNER_IPV6, OTUS_TUNNEL_GENEVE, 0,
                 123);
    /* two options, of eight and four octets */
    check_tunnel(GENEVE("0051", "003d", "0340 0800 00007bff 0102 80 01 00000000 0102 00 00")
                     INNER_IPV4,
                 OTUS_TUNNEL_GENEVE, 0, 123);
    /* 33 words of options: the length has six bits */
#define WORDS_8 "0102000000000000 0102000000000000 0102000000000000 0102000000000000 "
    check_tunnel(GENEVE("00c9", "00b5",
                        "2100 0800 00007b00") "01020000" WORDS_8 WORDS_8 WORDS_8 WORDS_8 INNER_IPV4,
                 OTUS_TUNNEL_GENEVE, 0, 123);
    check_carrier(GENEVE("0053", "003f", "4000 6558 00007b00") INNER_ETH, 17); /* version 1 */
    check_carrier(GENEVE("0028", "0014", "3f00 6558 00007b00 00000000"), 17);  /* options cut */
    check_carrier(GENEVE("0028", "0014", "0000 88b5 00007b00 00000000"), 17);
    check_carrier(GENEVE("0021", "000d", HELLO), 17);
}

static void test_ip_in_ip(void)
{
    struct decode_test t;
    check_tunnel(ETH_IPV4 OUTER("0035", "04") INNER_IPV4, OTUS_TUNNEL_IPIP, 0, -1);
    check_tunnel(ETH_IPV4 OUTER("0049", "29") INNER_IPV6, OTUS_TUNNEL_IPIP, 0, -1);
    open_tunnels(&t, ALL_TUNNELS);
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("0021", "04") INNER_IPV4), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.tunnels[0].ip_version, 6);
    check_ip(t.packet.tunnels[0].src_ip, FD00_1);
    check_ip(t.packet.meta.src_ip, "0a000001"); /* and twelve zeros, not the outer address */
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("0035", "29") INNER_IPV6), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    decode_close(&t);
    check_carrier(ETH_IPV4 OUTER("0014", "04"), 4);
    check_fails(ETH_IPV4 OUTER("0049", "04") INNER_IPV6, OTUS_COUNT_IPV4_VERSION);
}

/* AH in tunnel mode is IP in IP. */
static void test_ah_tunnel_mode(void)
{
    check_tunnel(ETH_IPV4 OUTER("004d", "33") "04 04 0000 00000001 00000001 00000000 00000000 "
                                              "00000000" INNER_IPV4,
                 OTUS_TUNNEL_IPIP, 0, -1);
}

#define GTPU(total, udp_len, header) ETH_IPV4 OUTER(total, "11") UDP_TO("0868", udp_len) header

static void test_gtpu(void)
{
    check_tunnel(GTPU("0045", "0031", "30ff 0021 0000007b") INNER_IPV4, OTUS_TUNNEL_GTPU, 1, 123);
    check_tunnel(GTPU("0059", "0045", "30ff 0035 0000007b") INNER_IPV6, OTUS_TUNNEL_GTPU, 1, 123);
    /* sequence number; N-PDU number; both fields are there with either flag */
    check_tunnel(GTPU("0049", "0035", "32ff 0025 0000007b 0001 00 00") INNER_IPV4, OTUS_TUNNEL_GTPU,
                 1, 123);
    check_tunnel(GTPU("0049", "0035", "31ff 0025 0000007b 0000 07 85") INNER_IPV4, OTUS_TUNNEL_GTPU,
                 1, 123);
    /* extension headers: a PDU session container, then one of eight octets */
    check_tunnel(GTPU("0055", "0041",
                      "34ff 0031 0000007b 0000 00 85 "
                      "01 0009 40 02 000000000000 00") INNER_IPV4,
                 OTUS_TUNNEL_GTPU, 1, 123);
    check_carrier(GTPU("0028", "0014", "3201 0004 00000000 0001 00 00"), 17); /* echo request */
    check_carrier(GTPU("0045", "0031", "30fe 0021 00000000") INNER_IPV4, 17); /* end marker */
    check_cut(GTPU("0045", "0031", "30ff 0020 0000007b") INNER_IPV4);
    check_carrier(GTPU("0045", "0031", "20ff 0021 0000007b") INNER_IPV4, 17); /* GTP' */
    check_carrier(GTPU("0045", "0031", "50ff 0021 0000007b") INNER_IPV4, 17); /* version 2 */
    check_carrier(GTPU("0028", "0014", "34ff 0004 0000007b 0000 00 85"), 17);
    check_carrier(GTPU("002c", "0018", "34ff 0008 0000007b 0000 00 85 00000000"), 17);
    check_carrier(GTPU("0028", "0014", "30ff 0004 0000007b ff030021"), 17); /* PPP inside */
}

/* Regression: an Ethernet PDU session was reported as the packet around it. */
static void test_gtpu_ethernet(void)
{
    check_tunnel(GTPU("0053", "003f", "30ff 002f 0000007b") INNER_ETH, OTUS_TUNNEL_GTPU, 1, 123);
}

#define TZSP(total, udp_len, header) ETH_IPV4 OUTER(total, "11") UDP_TO("9090", udp_len) header

static void test_tzsp(void)
{
    check_tunnel(TZSP("0050", "003c", "01 00 0001 01") INNER_ETH, OTUS_TUNNEL_TZSP, 1, -1);
    /* padding, a tag with two octets, the end */
    check_tunnel(TZSP("0055", "0041", "01 01 0001 00 0a 02 ffff 01") INNER_ETH, OTUS_TUNNEL_TZSP, 1,
                 -1);
    check_carrier(TZSP("0050", "003c", "01 00 0012 01") INNER_ETH, 17); /* 802.11 */
    check_carrier(TZSP("0020", "000c", "01 04 0000"), 17);              /* keep-alive */
    check_carrier(TZSP("0050", "003c", "02 00 0001 01") INNER_ETH, 17);
    check_carrier(TZSP("0022", "000e", "01 00 0001 0a ff"), 17); /* tag cut off */
}

static void test_configured_ports(void)
{
    struct otus_decoder_config config;
    struct decode_test t;
    otus_decoder_config_init(&config);
    config.tunnels = ALL_TUNNELS;
    config.vxlan = (struct otus_tunnel_ports){{8472, 49152}, 2};
    decode_open(&t, &config);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 OUTER("0053", "11")
                                UDP_TO("2118", "003f") "08000000 00007b00" INNER_ETH),
             OTUS_OK);
    CHECK_EQ(t.packet.meta.num_tunnels, 1);
    /* the registered port is then plain UDP, and a source port never counts */
    CHECK_EQ(decode_hex(&t, VXLAN("0053", "003f", "08000000 00007b00") INNER_ETH), OTUS_OK);
    CHECK_EQ(t.packet.meta.num_tunnels, 0);
    CHECK_EQ(t.packet.meta.dst_port, 4789);
    decode_close(&t);
}

/* Every level's kind, key and outer addresses, outermost first. */
static void test_nested_levels_are_kept_in_order(void)
{
    struct decode_test t;
    open_tunnels(&t, ALL_TUNNELS);
    CHECK_EQ(decode_hex(&t, MACS "8100 0064 86dd" IPV6("005b", "2f") "2000 6558 00000011"
                        /* 91 - 8 = 83 octets of Ethernet in GRE */
                        MACS "8100 00c8 0800" OUTER("0041", "11") UDP_TO(
                            "0868", "002d") "30ff 001d 00000022" IPV4("001d", "04") "45000009"),
             OTUS_E_MALFORMED);
    CHECK_EQ(
        decode_hex(&t,
                   MACS "8100 0064 86dd" IPV6(
                       "0073", "2f") "2000 6558 00000011" MACS "8100 00c8 0800" OUTER("0059", "11")
                       UDP_TO("0868", "0045") "30ff 0035 00000022" IPV4("0035", "04") INNER_IPV4),
        OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.meta.num_tunnels, 3);
    CHECK_EQ(t.packet.tunnels[0].kind, OTUS_TUNNEL_GRE);
    CHECK_EQ(t.packet.tunnels[0].key, 0x11);
    CHECK_EQ(t.packet.tunnels[0].ip_version, 6);
    check_ip(t.packet.tunnels[0].dst_ip, FD00_2);
    CHECK_EQ(t.packet.tunnels[1].kind, OTUS_TUNNEL_GTPU);
    CHECK_EQ(t.packet.tunnels[1].key, 0x22);
    check_ip(t.packet.tunnels[1].src_ip, "c0000201");
    CHECK_EQ(t.packet.tunnels[1].dst_port, 2152);
    CHECK_EQ(t.packet.tunnels[2].kind, OTUS_TUNNEL_IPIP);
    CHECK_EQ(t.packet.tunnels[2].flags, 0);
    CHECK_EQ(t.packet.tunnels[2].src_port, 0);
    check_ip(t.packet.tunnels[2].src_ip, "0a000001");
    CHECK_EQ(t.packet.meta.num_vlans, 2);
    CHECK_EQ(t.packet.meta.vlans[0], 100);
    CHECK_EQ(t.packet.meta.vlans[1], 200);
    CHECK_OCTETS(t.packet.meta.dst_mac, 6, "\x02\x11\x22\x33\x44\x55", 6);
    decode_close(&t);
}

/* Where the inner tunnel holds no IP, the result is its carrier, tunnel and all. */
static void test_carrier_inside_a_tunnel(void)
{
    struct decode_test t;
    open_tunnels(&t, ALL_TUNNELS);
    CHECK_EQ(decode_hex(&t, VXLAN("004e", "003a", "08000000 00007b00")
                                ETH_IPV4 OUTER("001c", "2f") "0000 8200 44444444"),
             OTUS_OK);
    CHECK_EQ(t.packet.meta.num_tunnels, 1);
    CHECK_EQ(t.packet.tunnels[0].kind, OTUS_TUNNEL_VXLAN);
    CHECK_EQ(t.packet.meta.protocol, 47);
    CHECK_EQ(t.packet.payload.len, 8);
    decode_close(&t);
}

/* Trap: recursion without a bound. */
static void test_depth_is_bounded(void)
{
    char hex[2000] = ETH_IPV4;
    struct decode_test t;
    open_tunnels(&t, ALL_TUNNELS);
    for (int level = 8; level > 0; level--) {
        char header[80];
        snprintf(header, sizeof header, "4500 %04x 0001 0000 40 04 0000 c0000201 c0000202 ",
                 33 + 20 * level);
        strcat(hex, header);
    }
    strcat(hex, INNER_IPV4);
    CHECK_EQ(decode_hex(&t, hex), OTUS_OK);
    CHECK_EQ(t.packet.meta.num_tunnels, OTUS_MAX_TUNNELS);
    CHECK_SLICE(t.packet.payload, "hello");
    char deeper[2200] = ETH_IPV4 "4500 00d5 0001 0000 40 04 0000 c0000201 c0000202 ";
    strcat(deeper, hex + strlen(ETH_IPV4));
    CHECK(decode_hex(&t, deeper) < 0);
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
    static const char *const frames[] = {
        VXLAN("0053", "003f", "08000000 00007b00") INNER_ETH,
        VXLAN_GPE("004d", "0039", "0c000004 00007b00") "0002 01 01 00000001" INNER_IPV4,
        GRE("0055", "f000 0800 beef0000 0000002a 00000001 0800 00 08 0a000001 0a000002 00000000")
            INNER_IPV4,
        GRE("0047", "3081 880b 0023 0009 00000001 00000002 0021") INNER_IPV4,
        GRE("0053", "1000 88be 00000001 1017 8064 00000000") INNER_ETH,
        GRE("005f", "1000 22eb 00000001 2fff 03ff 00000000 00000001 0000000000000000") INNER_ETH,
        GENEVE("0051", "003d", "0340 0800 00007bff 0102 80 01 00000000 0102 00 00") INNER_IPV4,
        GTPU("0055", "0041", "34ff 0031 0000007b 0000 00 85 01 0009 40 02 000000000000 00")
            INNER_IPV4,
        TZSP("0055", "0041", "01 01 0001 00 0a 02 ffff 01") INNER_ETH,
        ETH_IPV4 OUTER("0049", "29") INNER_IPV6,
    };
    struct decode_test t;
    open_tunnels(&t, ALL_TUNNELS);
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        uint8_t octets[512];
        size_t len = hex_octets(octets, sizeof octets, frames[i]);
        guard_every_truncation(decode_truncated, &t, octets, len);
        /* Truncated with lengths that fit: the inner layers see the end, not IP's cut. */
        for (size_t n = 34; n <= len; n++) {
            octets[16] = (uint8_t)((n - 14) >> 8);
            octets[17] = (uint8_t)(n - 14);
            if (octets[23] == 17 && n >= 42) {
                octets[38] = (uint8_t)((n - 34) >> 8);
                octets[39] = (uint8_t)(n - 34);
            }
            struct guard_buffer copy = guard_copy(octets, n);
            decode_truncated(&t, copy.octets, n);
            guard_free(&copy);
        }
    }
    decode_close(&t);
}

int main(void)
{
    test_vxlan();
    test_vxlan_gbp_and_reserved_fields();
    test_vxlan_gpe();
    test_not_vxlan();
    test_broken_inner_packet();
    test_gre_optional_fields();
    test_gre_wccp();
    test_gre_version_1();
    test_gre_payload_length_cuts();
    test_gre_without_ip();
    test_erspan_types();
    test_erspan_version_counts_not_the_protocol_number();
    test_erspan_vlan();
    test_geneve();
    test_ip_in_ip();
    test_ah_tunnel_mode();
    test_gtpu();
    test_gtpu_ethernet();
    test_tzsp();
    test_configured_ports();
    test_nested_levels_are_kept_in_order();
    test_carrier_inside_a_tunnel();
    test_depth_is_bounded();
    test_every_truncation();
    return check_summary();
}
