/* UDP (RFC 768), TCP (RFC 9293), SCTP (RFC 9260); other protocols are known by
 * their number alone. AH (RFC 4302) is stepped over in either IP version. */
#include "decode_tunnel.h"

enum {
    PROTOCOL_IPV4 = 4,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    PROTOCOL_IPV6 = 41,
    PROTOCOL_GRE = 47,
    PROTOCOL_AH = 51,
    PROTOCOL_SCTP = 132,
    UDP_HEADER_LEN = 8,
    TCP_HEADER_LEN = 20,
    SCTP_HEADER_LEN = 12,
};

static void note_ports(struct otus_packet_meta *meta, const uint8_t *header)
{
    meta->src_port = otus_load_be16(header);
    meta->dst_port = otus_load_be16(header + 2);
    meta->flags |= OTUS_PACKET_TRANSPORT;
}

/* The tunnel kind that is looked for behind a UDP port, NONE mostly. */
static enum otus_tunnel_kind tunnel_of_port(const struct otus_decoder *decoder, uint16_t port)
{
    if (OTUS_LIKELY(decoder->udp_port_hint[port & 0xff] == 0))
        return OTUS_TUNNEL_NONE;
    for (uint32_t i = 0; i < decoder->num_udp_ports; i++) {
        if (decoder->udp_ports[i].port == port)
            return decoder->udp_ports[i].kind;
    }
    return OTUS_TUNNEL_NONE;
}

static enum otus_layer decode_udp(struct otus_walk *walk)
{
    const uint8_t *udp = otus_cursor_header(&walk->at, UDP_HEADER_LEN);
    if (udp == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_UDP_TOO_SHORT);
    uint32_t len = otus_load_be16(udp + 4);
    uint32_t left = (uint32_t)otus_cursor_left(&walk->at) + UDP_HEADER_LEN;
    /* RFC 2675 4: length 0 in a datagram that is too long for the field. */
    if (OTUS_UNLIKELY(len == 0 && walk->no_ip_length))
        len = left;
    /* RFC 768: "the minimum value of the length is eight." */
    if (OTUS_UNLIKELY(len < UDP_HEADER_LEN))
        return otus_walk_fail(walk, OTUS_COUNT_UDP_LENGTH);
    if (OTUS_UNLIKELY(len > left)) {
        walk->packet->meta.flags |= OTUS_PACKET_TRUNCATED;
        if (len > left + walk->ip_cut)
            otus_walk_anomaly(walk, OTUS_COUNT_UDP_CUT);
    }
    otus_cursor_cut(&walk->at, len - UDP_HEADER_LEN);
    note_ports(&walk->packet->meta, udp);
    walk->packet->payload = otus_cursor_rest(&walk->at);
    enum otus_tunnel_kind kind = tunnel_of_port(walk->decoder, walk->packet->meta.dst_port);
    return OTUS_LIKELY(kind == OTUS_TUNNEL_NONE) ? OTUS_LAYER_DONE
                                                 : otus_decode_udp_tunnel(walk, kind);
}

static enum otus_layer decode_tcp(struct otus_walk *walk)
{
    struct otus_packet_meta *meta = &walk->packet->meta;
    const uint8_t *tcp = otus_cursor_header(&walk->at, TCP_HEADER_LEN);
    if (tcp == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_TCP_TOO_SHORT);
    uint32_t hlen = (tcp[12] >> 4) * 4u;
    if (OTUS_UNLIKELY(hlen < TCP_HEADER_LEN))
        return otus_walk_fail(walk, OTUS_COUNT_TCP_HLEN);
    if (OTUS_UNLIKELY(!otus_cursor_skip(&walk->at, hlen - TCP_HEADER_LEN))) {
        /* Options cut off by the snap length: the fixed fields are still good. */
        if ((meta->flags & OTUS_PACKET_TRUNCATED) == 0)
            return otus_walk_fail(walk, OTUS_COUNT_TCP_TOO_SHORT);
        walk->at.at = walk->at.end;
    }
    note_ports(meta, tcp);
    meta->tcp_seq = otus_load_be32(tcp + 4);
    meta->tcp_ack = otus_load_be32(tcp + 8);
    meta->tcp_flags = tcp[13];
    walk->packet->payload = otus_cursor_rest(&walk->at);
    return OTUS_LAYER_DONE;
}

static enum otus_layer decode_sctp(struct otus_walk *walk)
{
    const uint8_t *sctp = otus_cursor_header(&walk->at, SCTP_HEADER_LEN);
    if (sctp == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_SCTP_TOO_SHORT);
    note_ports(&walk->packet->meta, sctp);
    walk->packet->payload = otus_cursor_rest(&walk->at);
    return OTUS_LAYER_DONE;
}

static enum otus_layer decode_ah(struct otus_walk *walk)
{
    const uint8_t *ah = otus_cursor_peek(&walk->at, 12);
    /* RFC 4302 2.2: length "in 32-bit words (4-byte units), minus 2". */
    if (ah == NULL || !otus_cursor_skip(&walk->at, (ah[1] + 2u) * 4))
        return otus_walk_fail(walk, OTUS_COUNT_IPV6_EXT_TOO_SHORT);
    walk->protocol = ah[0];
    return OTUS_LAYER_TRANSPORT;
}

enum otus_layer otus_decode_transport(struct otus_walk *walk)
{
    walk->packet->meta.protocol = walk->protocol;
    walk->packet->transport = otus_cursor_rest(&walk->at);
    /* Until a transport header says otherwise: ICMP, IGMP, ESP, ... have no ports. */
    walk->packet->payload = walk->packet->transport;
    if (OTUS_LIKELY(walk->protocol == PROTOCOL_UDP))
        return decode_udp(walk);
    switch (walk->protocol) {
    case PROTOCOL_TCP:
        return decode_tcp(walk);
    case PROTOCOL_SCTP:
        return decode_sctp(walk);
    case PROTOCOL_AH:
        return decode_ah(walk);
    case PROTOCOL_GRE:
        return otus_decode_gre(walk);
    case PROTOCOL_IPV4:
        return otus_decode_ipip(walk, OTUS_LAYER_IPV4);
    case PROTOCOL_IPV6:
        return otus_decode_ipip(walk, OTUS_LAYER_IPV6);
    default:
        return OTUS_LAYER_DONE;
    }
}
