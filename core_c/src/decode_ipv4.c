/* IPv4: RFC 791. */
#include "decode_internal.h"

enum {
    IPV4_HEADER_LEN = 20,
    IPV4_MORE_FRAGMENTS = 0x2000,
    IPV4_FRAGMENT_OFFSET = 0x1fff,
};

static void note_header(struct otus_packet_meta *meta, const uint8_t *ip, uint32_t total_len)
{
    meta->ip_version = 4;
    meta->ip_total_len = total_len;
    meta->ttl = ip[8];
    meta->protocol = ip[9];
    memcpy(meta->src_ip, ip + 12, 4);
    memset(meta->src_ip + 4, 0, 12);
    memcpy(meta->dst_ip, ip + 16, 4);
    memset(meta->dst_ip + 4, 0, 12);
}

static enum otus_layer decode_fragment(struct otus_walk *walk, const uint8_t *ip, uint32_t hlen)
{
    struct otus_fragment fragment = {
        .version = 4,
        .id = otus_load_be16(ip + 4),
        .protocol = ip[9],
        /* RFC 791 3.1: the offset counts units of eight octets. The flags beside it
         * (reserved, DF) say nothing about the fragment's place. */
        .off = (otus_load_be16(ip + 6) & IPV4_FRAGMENT_OFFSET) * 8u,
        .more = (otus_load_be16(ip + 6) & IPV4_MORE_FRAGMENTS) != 0,
        .header = {ip, hlen},
        .payload = otus_cursor_rest(&walk->at),
    };
    return otus_decode_fragment(walk, &fragment);
}

enum otus_layer otus_decode_ipv4(struct otus_walk *walk)
{
    const uint8_t *ip = otus_cursor_peek(&walk->at, IPV4_HEADER_LEN);
    if (ip == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_IPV4_TOO_SHORT);
    if (OTUS_UNLIKELY(ip[0] >> 4 != 4))
        return otus_walk_fail(walk, OTUS_COUNT_IPV4_VERSION);
    uint32_t left = (uint32_t)otus_cursor_left(&walk->at);
    uint32_t hlen = (ip[0] & 15u) * 4;
    /* RFC 791 3.1: "the minimum value for a correct header is 5." */
    if (OTUS_UNLIKELY(hlen < IPV4_HEADER_LEN))
        return otus_walk_fail(walk, OTUS_COUNT_IPV4_HLEN_TOO_SMALL);
    if (OTUS_UNLIKELY(hlen > left))
        return otus_walk_fail(walk, OTUS_COUNT_IPV4_HLEN_TOO_LARGE);

    uint32_t total_len = otus_load_be16(ip + 2);
    walk->no_ip_length = false;
    walk->ip_cut = 0;
    if (OTUS_UNLIKELY(total_len == 0)) {
        /* Left open by the sender for the NIC to fill in (TSO), or too long for
         * the field (Linux BIG TCP): the frame's end is the datagram's. */
        otus_walk_anomaly(walk, OTUS_COUNT_IPV4_LENGTH_ZERO);
        walk->no_ip_length = true;
        total_len = left;
    } else if (OTUS_UNLIKELY(total_len < hlen)) {
        return otus_walk_fail(walk, OTUS_COUNT_IPV4_TOTAL_LEN);
    } else if (OTUS_UNLIKELY(total_len > left)) {
        walk->ip_cut = total_len - left;
        walk->packet->meta.flags |= OTUS_PACKET_TRUNCATED;
        if (walk->whole)
            otus_walk_anomaly(walk, OTUS_COUNT_IPV4_CUT);
    }
    otus_cursor_cut(&walk->at, total_len); /* Ethernet padding and trailers go here */

    note_header(&walk->packet->meta, ip, total_len);
    walk->packet->datagram = otus_cursor_rest(&walk->at);
    if (!otus_cursor_skip(&walk->at, hlen))
        return otus_walk_fail(walk, OTUS_COUNT_IPV4_HLEN_TOO_LARGE);
    if (OTUS_UNLIKELY((otus_load_be16(ip + 6) & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET)) != 0))
        return decode_fragment(walk, ip, hlen);
    walk->protocol = ip[9];
    return otus_decode_transport(walk);
}
