/* Plain frames: IPv4, IPv6, transport, the lengths that cut them, every truncation. */
#include "decode_frames.h"
#include "decode_test.h"

static void open_plain(struct decode_test *test)
{
    struct otus_decoder_config config;
    otus_decoder_config_init(&config);
    decode_open(test, &config);
}

static void test_ethernet_ipv4_udp(void)
{
    struct decode_test t;
    open_plain(&t);
    t.raw.if_index = 3;
    CHECK_EQ(decode_hex(&t, ETH_IPV4 INNER_IPV4), OTUS_OK);
    const struct otus_packet_meta *meta = &t.packet.meta;
    CHECK_EQ(meta->ts_ns, 1000000000u);
    CHECK_EQ(meta->if_index, 3);
    CHECK_EQ(meta->caplen, 47);
    CHECK_EQ(meta->wirelen, 47);
    CHECK_EQ(meta->ip_version, 4);
    CHECK_EQ(meta->protocol, 17);
    CHECK_EQ(meta->ttl, 64);
    CHECK_EQ(meta->src_port, 5060);
    CHECK_EQ(meta->dst_port, 5061);
    CHECK_EQ(meta->ip_total_len, 33);
    CHECK_EQ(meta->ethertype, 0x0800);
    CHECK_EQ(meta->num_vlans, 0);
    CHECK_EQ(meta->num_tunnels, 0);
    CHECK_EQ(meta->flags, OTUS_PACKET_HAS_MAC | OTUS_PACKET_TRANSPORT);
    CHECK_OCTETS(meta->dst_mac, 6, "\x02\x11\x22\x33\x44\x55", 6);
    CHECK_OCTETS(meta->src_mac, 6, "\x02\xaa\xbb\xcc\xdd\xee", 6);
    check_ip(meta->src_ip, "0a000001");
    check_ip(meta->dst_ip, "0a000002");
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.transport.len, 13);
    CHECK_EQ(t.packet.datagram.len, 33);
    CHECK_EQ(t.packet.frame.len, 47);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_RECEIVED_OCTETS), 47);
    decode_close(&t);
}

static void test_ipv4_options_are_skipped(void)
{
    struct decode_test t;
    open_plain(&t);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 "4600 0025 0001 0000 40 11 0000 0a000001 0a000002 "
                                     "94040000 " UDP("000d") HELLO),
             OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    decode_close(&t);
}

/* Trap: Ethernet padding and vendor trailers end up in the payload. */
static void test_padding_and_trailer_are_cut(void)
{
    struct decode_test t;
    open_plain(&t);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 INNER_IPV4 "00000000 00000000 00000000 00"), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.datagram.len, 33);
    /* UDP's own length is shorter than IP's: what lies behind is not payload. */
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0025", "11") UDP("000d") HELLO "deadbeef"), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.transport.len, 17);
    CHECK_EQ(t.packet.meta.flags & OTUS_PACKET_TRUNCATED, 0);
    /* A TCP segment without payload in a minimum frame has none. */
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0028", "06") "13c4 13c5 00000001 00000002 5010 1000 "
                                                        "0000 0000 000000000000"),
             OTUS_OK);
    CHECK_EQ(t.packet.payload.len, 0);
    decode_close(&t);
}

/* Trap: the NIC fills checksums in after the tap has seen the frame (TP_STATUS_CSUMNOTREADY). */
static void test_checksums_are_not_judged(void)
{
    struct decode_test t;
    open_plain(&t);
    t.raw.flags = OTUS_RAW_CSUM_NOT_READY | OTUS_RAW_OUTGOING;
    /* IPv4 header checksum 0, UDP checksum wrong; IPv6 with a UDP checksum of 0 */
    CHECK_EQ(decode_hex(&t, ETH_IPV4 INNER_IPV4), OTUS_OK);
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("000d", "11") "13c4 13c5 000d 0000" HELLO), OTUS_OK);
    t.raw.flags = 0;
    CHECK_EQ(decode_hex(&t, ETH_IPV4 INNER_IPV4), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(count_group(&t.counters, "anomaly"), 0);
    decode_close(&t);
}

/* Trap: total length 0, left to the NIC or beyond 16 bits (BIG TCP). */
static void test_ipv4_length_zero(void)
{
    struct decode_test t;
    open_plain(&t);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0000", "11") UDP("0000") HELLO), OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.meta.ip_total_len, 33);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_IPV4_LENGTH_ZERO), 1);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_TRUNCATED), 0);
    decode_close(&t);
}

/* Trap: GRO hands over TCP "frames" far above the MTU, BIG TCP above 64 KiB. */
static void test_oversized_frame(void)
{
    static uint8_t frame[200000];
    struct decode_test t;
    open_plain(&t);
    hex_octets(frame, sizeof frame,
               ETH_IPV4 IPV4("0000", "06") "13c4 13c5 00000001 00000002 5010 1000 0000 0000");
    CHECK_EQ(decode_octets(&t, frame, sizeof frame), OTUS_OK);
    CHECK_EQ(t.packet.payload.len, sizeof frame - 54);
    CHECK_EQ(t.packet.meta.ip_total_len, sizeof frame - 14);
    decode_close(&t);
}

/* Trap: IPv6 payload length 0 with the jumbo option, or with the option stripped. */
static void test_ipv6_jumbo(void)
{
    static uint8_t frame[14 + 40 + 8 + 70000 + 6];
    struct decode_test t;
    open_plain(&t);
    /* hop-by-hop: next UDP, jumbo payload option 70008 (with these 8 octets) */
    hex_octets(frame, sizeof frame,
               ETH_IPV6 IPV6("0000", "00") "11 00 c2 04 00011178 " UDP("0000"));
    CHECK_EQ(decode_octets(&t, frame, sizeof frame), OTUS_OK);
    CHECK_EQ(t.packet.meta.ip_total_len, 40 + 70008);
    CHECK_EQ(t.packet.payload.len, 70000 - 8); /* six octets of trailer cut */
    CHECK_EQ(t.packet.meta.protocol, 17);
    /* RFC 2675 2: 65535 and less is no jumbo length, and does not cut */
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("0000", "00") "11 00 c2 04 00000015 " UDP("0000") HELLO
                        "2121"),
             OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello!!");
    /* the option cut off by BIG TCP's tap: the frame's end is the datagram's */
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("0000", "06") "13c4 13c5 00000001 00000002 5010 1000 "
                                                        "0000 0000 68656c6c6f"),
             OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    /* no next header: nothing, however long the padding */
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("0000", "3b") "000000000000"), OTUS_OK);
    CHECK_EQ(t.packet.payload.len, 0);
    CHECK_EQ(t.packet.meta.ip_total_len, 40);
    decode_close(&t);
}

static void test_ipv6_extension_chain(void)
{
    struct decode_test t;
    open_plain(&t);
    CHECK_EQ(
        decode_hex(&t, ETH_IPV6 IPV6("0055", "00")
                   /* hop-by-hop */
                   "3c 00 01 04 00000000"
                   /* destination options, 16 octets */ "2b 01 010c 00000000 00000000 00000000"
                   /* routing */ "33 00 00 00 00000000"
                   /* AH, 24 octets */ "2c 04 0000 00000001 00000001 00000000 00000000 00000000"
                   /* atomic fragment */ "3c 00 0000 00000007"
                   /* destination options */ "11 00 01 04 00000000" UDP("000d") HELLO),
        OTUS_OK);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.meta.protocol, 17);
    CHECK_EQ(t.packet.meta.flags & OTUS_PACKET_REASSEMBLED, 0);
    check_ip(t.packet.meta.src_ip, FD00_1);
    check_ip(t.packet.meta.dst_ip, FD00_2);
    CHECK_EQ(t.packet.meta.ip_total_len, 40 + 0x55);
    decode_close(&t);
}

static void test_ipv6_extension_chain_too_long(void)
{
    static char hex[4000] = ETH_IPV6 IPV6("0108", "3c");
    struct decode_test t;
    open_plain(&t);
    for (int i = 0; i < 33; i++)
        strcat(hex, "3c00010400000000");
    CHECK_EQ(decode_hex(&t, hex), OTUS_E_MALFORMED);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_IPV6_EXT_TOO_MANY), 1);
    decode_close(&t);
}

static void test_esp_is_opaque(void)
{
    struct decode_test t;
    open_plain(&t);
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("0010", "32") "00000001 00000001 deadbeef deadbeef"),
             OTUS_OK);
    CHECK_EQ(t.packet.meta.protocol, 50);
    CHECK_EQ(t.packet.meta.flags & OTUS_PACKET_TRANSPORT, 0);
    CHECK_EQ(t.packet.payload.len, 16);
    decode_close(&t);
}

static void test_ipv4_ah_is_stepped_over(void)
{
    struct decode_test t;
    open_plain(&t);
    CHECK_EQ(decode_hex(&t,
                        ETH_IPV4 IPV4("0039", "33") "11 04 0000 00000001 00000001 "
                                                    "00000000 00000000 00000000" UDP("000d") HELLO),
             OTUS_OK);
    CHECK_EQ(t.packet.meta.protocol, 17);
    CHECK_SLICE(t.packet.payload, "hello");
    decode_close(&t);
}

static void test_icmp_has_no_ports(void)
{
    struct decode_test t;
    open_plain(&t);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0021", "01") "0800 0000 0001 0001 " HELLO), OTUS_OK);
    CHECK_EQ(t.packet.meta.protocol, 1);
    CHECK_EQ(t.packet.meta.flags & OTUS_PACKET_TRANSPORT, 0);
    CHECK_EQ(t.packet.meta.src_port, 0);
    CHECK_EQ(t.packet.payload.len, 13);
    decode_close(&t);
}

static void test_tcp(void)
{
    struct decode_test t;
    open_plain(&t);
    /* header of 24 octets: one option word */
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0031", "06") "13c4 13c5 01020304 a0b0c0d0 6018 1000 "
                                                        "0000 0000 01010101 " HELLO),
             OTUS_OK);
    CHECK_EQ(t.packet.meta.tcp_seq, 0x01020304);
    CHECK_EQ(t.packet.meta.tcp_ack, 0xa0b0c0d0);
    CHECK_EQ(t.packet.meta.tcp_flags, 0x18);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0028", "06") "13c4 13c5 00000001 00000002 4010 1000 "
                                                        "0000 0000"),
             OTUS_E_MALFORMED);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_TCP_HLEN), 1);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0028", "06") "13c4 13c5 00000001 00000002 6010 1000 "
                                                        "0000 0000"),
             OTUS_E_MALFORMED);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_TCP_TOO_SHORT), 1);
    decode_close(&t);
}

static void test_sctp(void)
{
    struct decode_test t;
    open_plain(&t);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0025", "84") "13c4 13c5 00000001 00000000 " HELLO),
             OTUS_OK);
    CHECK_EQ(t.packet.meta.src_port, 5060);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("001c", "84") "13c4 13c5 00000001"), OTUS_E_MALFORMED);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_SCTP_TOO_SHORT), 1);
    decode_close(&t);
}

/* Trap: a frame that was captured short is parsed as if it were whole. */
static void test_truncated_capture_is_flagged(void)
{
    struct decode_test t;
    open_plain(&t);
    t.raw.wirelen = 100;
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0056", "11") UDP("0042") HELLO), OTUS_OK);
    CHECK((t.packet.meta.flags & OTUS_PACKET_TRUNCATED) != 0);
    CHECK_EQ(t.packet.meta.wirelen, 100);
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_TRUNCATED), 1);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_IPV4_CUT), 0); /* the snap length did it */
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_UDP_CUT), 0);
    /* snap length in the middle of the TCP options */
    t.raw.wirelen = 100;
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0056", "06") "13c4 13c5 00000001 00000002 8010 1000 "
                                                        "0000 0000 0101"),
             OTUS_OK);
    CHECK_EQ(t.packet.meta.src_port, 5060);
    CHECK_EQ(t.packet.payload.len, 0);
    decode_close(&t);
}

static void test_lengths_past_the_end(void)
{
    struct decode_test t;
    open_plain(&t);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0022", "11") UDP("000e") HELLO), OTUS_OK);
    CHECK((t.packet.meta.flags & OTUS_PACKET_TRUNCATED) != 0);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_IPV4_CUT), 1);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_UDP_CUT), 0);
    CHECK_EQ(decode_hex(&t, ETH_IPV4 IPV4("0021", "11") UDP("000e") HELLO), OTUS_OK);
    CHECK((t.packet.meta.flags & OTUS_PACKET_TRUNCATED) != 0);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_UDP_CUT), 1);
    CHECK_EQ(decode_hex(&t, ETH_IPV6 IPV6("000e", "11") UDP("000d") HELLO), OTUS_OK);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_IPV6_CUT), 1);
    CHECK_EQ(count_of(&t.counters, OTUS_COUNT_TRUNCATED), 3);
    decode_close(&t);
}

static void check_undecodable(struct decode_test *t, const char *hex, enum otus_counter reason)
{
    uint64_t before = count_of(&t->counters, reason);
    check_about = otus_counter_reason(reason);
    CHECK(decode_hex(t, hex) < 0);
    CHECK_EQ(count_of(&t->counters, reason), before + 1);
    check_about = "";
}

static void test_undecodable_reasons(void)
{
    struct decode_test t;
    open_plain(&t);
    check_undecodable(&t, "0211223344", OTUS_COUNT_FRAME_TOO_SHORT);
    check_undecodable(&t, MACS "0806 0001", OTUS_COUNT_NON_IP);
    check_undecodable(&t, ETH_IPV4 "4500 0021", OTUS_COUNT_IPV4_TOO_SHORT);
    check_undecodable(&t, ETH_IPV4 INNER_IPV6, OTUS_COUNT_IPV4_VERSION);
    check_undecodable(&t, ETH_IPV4 "4400 0021 0001 0000 40 11 0000 0a000001 0a000002 ",
                      OTUS_COUNT_IPV4_HLEN_TOO_SMALL);
    check_undecodable(&t, ETH_IPV4 "4600 0021 0001 0000 40 11 0000 0a000001 0a000002 ",
                      OTUS_COUNT_IPV4_HLEN_TOO_LARGE);
    check_undecodable(&t, ETH_IPV4 IPV4("0013", "11") UDP("000d"), OTUS_COUNT_IPV4_TOTAL_LEN);
    check_undecodable(&t, ETH_IPV6 "60000000 000d 11", OTUS_COUNT_IPV6_TOO_SHORT);
    check_undecodable(&t, ETH_IPV6 INNER_IPV4 "00000000000000", OTUS_COUNT_IPV6_VERSION);
    check_undecodable(&t, ETH_IPV6 IPV6("0008", "00") "11 01 0104 00000000",
                      OTUS_COUNT_IPV6_EXT_TOO_SHORT);
    check_undecodable(&t, ETH_IPV6 IPV6("0004", "2c") "11 00 0000", OTUS_COUNT_IPV6_EXT_TOO_SHORT);
    check_undecodable(&t, ETH_IPV4 IPV4("001b", "11") "13c4 13c5 000d 00",
                      OTUS_COUNT_UDP_TOO_SHORT);
    check_undecodable(&t, ETH_IPV4 IPV4("0021", "11") UDP("0007") HELLO, OTUS_COUNT_UDP_LENGTH);
    check_undecodable(&t, ETH_IPV4 IPV4("0021", "11") UDP("0000") HELLO, OTUS_COUNT_UDP_LENGTH);
    check_undecodable(&t,
                      ETH_IPV4 IPV4("0027", "06") "13c4 13c5 00000001 00000002 5010 1000 0000 00",
                      OTUS_COUNT_TCP_TOO_SHORT);
    t.raw.link_type = 147;
    check_undecodable(&t, ETH_IPV4 INNER_IPV4, OTUS_COUNT_LINK_UNSUPPORTED);
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
        ETH_IPV4 INNER_IPV4,
        ETH_IPV6 INNER_IPV6,
        ETH_IPV4 IPV4("0031",
                      "06") "13c4 13c5 01020304 a0b0c0d0 6018 1000 0000 0000 01010101 " HELLO,
        ETH_IPV4 IPV4("0025", "84") "13c4 13c5 00000001 00000000 " HELLO,
        ETH_IPV6 IPV6("0025", "00") "3c 00 0104 00000000 2b 00 0104 00000000 "
                                    "11 00 0000 00000000" UDP("000d") HELLO,
        ETH_IPV6 IPV6("0000", "00") "11 00 c2 04 00011178 " UDP("0000"),
        ETH_IPV4 IPV4("0039", "33") "11 04 0000 00000001 00000001 00000000 00000000 "
                                    "00000000" UDP("000d") HELLO,
    };
    struct decode_test t;
    open_plain(&t);
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        uint8_t octets[512];
        size_t len = hex_octets(octets, sizeof octets, frames[i]);
        guard_every_truncation(decode_truncated, &t, octets, len);
    }
    decode_close(&t);
}

static void test_unusable_configuration(void)
{
    struct otus_counters counters = {{0}};
    struct otus_decoder *decoder = NULL;
    struct otus_decoder_config config;
    otus_decoder_config_init(&config);
    config.tunnels = 1u << OTUS_NUM_TUNNEL_KINDS;
    CHECK_EQ(otus_decoder_new(&decoder, &config, &counters), OTUS_E_INVALID);
    otus_decoder_config_init(&config);
    config.tunnels = 1u << OTUS_TUNNEL_VXLAN;
    config.vxlan.num = OTUS_MAX_TUNNEL_PORTS + 1;
    CHECK_EQ(otus_decoder_new(&decoder, &config, &counters), OTUS_E_INVALID);
    otus_decoder_config_init(&config);
    config.max_datagrams = 0;
    CHECK_EQ(otus_decoder_new(&decoder, &config, &counters), OTUS_E_INVALID);
    CHECK(decoder == NULL);
    otus_decoder_free(NULL);
}

int main(void)
{
    test_ethernet_ipv4_udp();
    test_ipv4_options_are_skipped();
    test_padding_and_trailer_are_cut();
    test_checksums_are_not_judged();
    test_ipv4_length_zero();
    test_oversized_frame();
    test_ipv6_jumbo();
    test_ipv6_extension_chain();
    test_ipv6_extension_chain_too_long();
    test_esp_is_opaque();
    test_ipv4_ah_is_stepped_over();
    test_icmp_has_no_ports();
    test_tcp();
    test_sctp();
    test_truncated_capture_is_flagged();
    test_lengths_past_the_end();
    test_undecodable_reasons();
    test_every_truncation();
    test_unusable_configuration();
    return check_summary();
}
