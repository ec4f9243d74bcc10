/* Plain frames: Ethernet, VLAN, IPv4, IPv6, transport. */
#include "decode_test.h"

#define MACS "021122334455 02aabbccddee "
#define IPV4_UDP "4500 0021 0001 0000 40 11 0000 0a000001 0a000002 "
#define UDP "13c4 13c5 000d 0000 "
#define HELLO "68656c6c6f "

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
    CHECK_EQ(decode_hex(&t, MACS "0800" IPV4_UDP UDP HELLO), OTUS_OK);
    const struct otus_packet_meta *meta = &t.packet.meta;
    CHECK_EQ(meta->ip_version, 4);
    CHECK_EQ(meta->protocol, 17);
    CHECK_EQ(meta->ttl, 64);
    CHECK_EQ(meta->src_port, 5060);
    CHECK_EQ(meta->dst_port, 5061);
    CHECK_EQ(meta->ip_total_len, 33);
    CHECK_EQ(meta->ethertype, 0x0800);
    CHECK_EQ(meta->flags, OTUS_PACKET_HAS_MAC | OTUS_PACKET_TRANSPORT);
    CHECK_OCTETS(meta->dst_mac, 6, "\x02\x11\x22\x33\x44\x55", 6);
    CHECK_OCTETS(meta->src_mac, 6, "\x02\xaa\xbb\xcc\xdd\xee", 6);
    check_ip(meta->src_ip, "0a000001");
    check_ip(meta->dst_ip, "0a000002");
    CHECK_SLICE(t.packet.payload, "hello");
    CHECK_EQ(t.packet.transport.len, 13);
    CHECK_EQ(t.packet.datagram.len, 33);
    CHECK_EQ(t.packet.frame.len, 47);
    decode_close(&t);
}

int main(void)
{
    test_ethernet_ipv4_udp();
    return check_summary();
}
