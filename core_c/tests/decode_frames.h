/* Parts that frames are written from, in hex. Lengths are the test's business. */
#ifndef OTUS_DECODE_FRAMES_H
#define OTUS_DECODE_FRAMES_H

/* Ethernet: destination, source; the ethertype follows. */
#define MACS "021122334455 02aabbccddee "
#define ETH_IPV4 MACS "0800 "
#define ETH_IPV6 MACS "86dd "

/* IPv4 10.0.0.1 > 10.0.0.2: total length, flags and offset, protocol are given. */
#define IPV4_FRAGMENT(total, place, protocol)                                                      \
    "4500 " total " 0001 " place " 40 " protocol " 0000 0a000001 0a000002 "
#define IPV4(total, protocol) IPV4_FRAGMENT(total, "0000", protocol)

/* IPv6 fd00::1 > fd00::2. */
#define FD00_1 "fd000000000000000000000000000001 "
#define FD00_2 "fd000000000000000000000000000002 "
#define IPV6(payload_len, next) "60000000 " payload_len " " next " 40 " FD00_1 FD00_2

/* UDP 5060 > 5061, checksum wrong on purpose: the NIC may have been going to fill it in. */
#define UDP(len) "13c4 13c5 " len " beef "
#define UDP_TO(port, len) "c000 " port " " len " 0000 "
#define HELLO "68656c6c6f "

/* A whole inner packet: 10.0.0.1:5060 > 10.0.0.2:5061 "hello", 33 (0x21) octets. */
#define INNER_IPV4 IPV4("0021", "11") UDP("000d") HELLO
#define INNER_IPV6 IPV6("000d", "11") UDP("000d") HELLO /* 53 (0x35) octets */
#define INNER_ETH ETH_IPV4 INNER_IPV4                   /* 47 (0x2f) octets */

/* An outer header: 192.0.2.1 > 192.0.2.2. */
#define OUTER(total, protocol) "4500 " total " 0002 0000 40 " protocol " 0000 c0000201 c0000202 "

#endif
