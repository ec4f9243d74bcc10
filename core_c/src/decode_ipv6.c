/* IPv6 and its extension headers: RFC 8200; jumbograms: RFC 2675. */
#include "decode_internal.h"

enum {
    IPV6_HEADER_LEN = 40,
    IPV6_MAX_EXTENSIONS = 32,
    IPV6_OPTION_PAD1 = 0,
    IPV6_OPTION_JUMBO = 0xc2,
    NEXT_HOP_BY_HOP = 0,
    NEXT_TCP = 6,
    NEXT_UDP = 17,
    NEXT_ROUTING = 43,
    NEXT_FRAGMENT = 44,
    NEXT_AH = 51,
    NEXT_DESTINATION = 60,
    NEXT_HIP = 139,
    NEXT_SHIM6 = 140,
};

static void note_header(struct otus_packet_meta *meta, const uint8_t *ip, uint32_t total_len)
{
    meta->ip_version = 6;
    meta->ip_total_len = total_len;
    meta->protocol = ip[6];
    meta->ttl = ip[7];
    memcpy(meta->src_ip, ip + 8, 16);
    memcpy(meta->dst_ip, ip + 24, 16);
}

/* The jumbo payload option's value in a hop-by-hop header, 0 where there is none. */
static uint32_t find_jumbo_length(struct otus_cursor at)
{
    const uint8_t *header = otus_cursor_header(&at, 2);
    if (header == NULL)
        return 0;
    otus_cursor_cut(&at, header[1] * 8u + 6);
    uint8_t kind;
    while (otus_cursor_u8(&at, &kind)) {
        uint8_t len;
        if (kind == IPV6_OPTION_PAD1)
            continue;
        uint32_t value;
        if (!otus_cursor_u8(&at, &len))
            return 0;
        if (kind == IPV6_OPTION_JUMBO && len == 4)
            return otus_cursor_be32(&at, &value) ? value : 0;
        if (!otus_cursor_skip(&at, len))
            return 0;
    }
    return 0;
}

/* Payload length 0 with something behind it: a jumbogram, or left open by the
 * sender (segmentation offload, Linux BIG TCP with its jumbo option stripped). */
static uint32_t length_of_zero(struct otus_walk *walk, uint8_t next, uint32_t left)
{
    if (next != NEXT_HOP_BY_HOP && next != NEXT_TCP && next != NEXT_UDP)
        return IPV6_HEADER_LEN;
    walk->no_ip_length = true;
    if (next == NEXT_HOP_BY_HOP) {
        struct otus_cursor options = walk->at;
        uint32_t jumbo =
            otus_cursor_skip(&options, IPV6_HEADER_LEN) ? find_jumbo_length(options) : 0;
        /* RFC 2675 2: the length "must be greater than 65,535". */
        if (jumbo > UINT16_MAX && jumbo <= UINT32_MAX - IPV6_HEADER_LEN)
            return jumbo + IPV6_HEADER_LEN;
    }
    return left;
}

static enum otus_layer decode_fragment(struct otus_walk *walk, uint32_t next_header_at)
{
    struct otus_slice datagram = walk->packet->datagram;
    struct otus_slice header = {datagram.at, datagram.len - (uint32_t)otus_cursor_left(&walk->at)};
    const uint8_t *at = otus_cursor_header(&walk->at, 8);
    if (at == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_IPV6_EXT_TOO_SHORT);
    uint16_t place = otus_load_be16(at + 2);
    if ((place & 0xfff9) == 0) {
        /* RFC 6946: an atomic fragment is whole and has nothing to do with other
         * fragments of the same identification. */
        walk->protocol = at[0];
        return OTUS_LAYER_DONE;
    }
    struct otus_fragment fragment = {
        .version = 6,
        .id = otus_load_be32(at + 4),
        .protocol = at[0],
        .off = place & 0xfff8u,
        .more = (place & 1) != 0,
        .header = header,
        .next_header_at = next_header_at,
        .payload = otus_cursor_rest(&walk->at),
    };
    return otus_decode_fragment(walk, &fragment);
}

/* Walks the extension headers: RFC 8200 4. walk->protocol is what comes first
 * and, with OTUS_LAYER_DONE, what comes behind them. */
static enum otus_layer skip_extensions(struct otus_walk *walk)
{
    uint32_t next_header_at = 6;
    for (uint32_t n = 0; n < IPV6_MAX_EXTENSIONS; n++) {
        uint32_t here = walk->packet->datagram.len - (uint32_t)otus_cursor_left(&walk->at);
        enum otus_layer layer;
        const uint8_t *header;
        switch (walk->protocol) {
        case NEXT_HOP_BY_HOP:
        case NEXT_ROUTING:
        case NEXT_DESTINATION:
        case NEXT_HIP:
        case NEXT_SHIM6:
            header = otus_cursor_peek(&walk->at, 8);
            /* RFC 8200 4.3: length "in 8-octet units, not including the first 8 octets". */
            if (header == NULL || !otus_cursor_skip(&walk->at, header[1] * 8u + 8))
                return otus_walk_fail(walk, OTUS_COUNT_IPV6_EXT_TOO_SHORT);
            walk->protocol = header[0];
            break;
        case NEXT_AH:
            header = otus_cursor_peek(&walk->at, 8);
            /* RFC 4302 2.2: length "in 32-bit words (4-byte units), minus 2". */
            if (header == NULL || !otus_cursor_skip(&walk->at, (header[1] + 2u) * 4))
                return otus_walk_fail(walk, OTUS_COUNT_IPV6_EXT_TOO_SHORT);
            walk->protocol = header[0];
            break;
        case NEXT_FRAGMENT:
            layer = decode_fragment(walk, next_header_at);
            if (layer != OTUS_LAYER_DONE)
                return layer;
            break;
        default:
            return OTUS_LAYER_DONE;
        }
        next_header_at = here;
    }
    return otus_walk_fail(walk, OTUS_COUNT_IPV6_EXT_TOO_MANY);
}

enum otus_layer otus_decode_ipv6(struct otus_walk *walk)
{
    const uint8_t *ip = otus_cursor_peek(&walk->at, IPV6_HEADER_LEN);
    if (ip == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_IPV6_TOO_SHORT);
    if (OTUS_UNLIKELY(ip[0] >> 4 != 6))
        return otus_walk_fail(walk, OTUS_COUNT_IPV6_VERSION);
    uint32_t left = (uint32_t)otus_cursor_left(&walk->at);
    uint32_t total_len = otus_load_be16(ip + 4) + (uint32_t)IPV6_HEADER_LEN;
    walk->no_ip_length = false;
    walk->ip_cut = 0;
    if (OTUS_UNLIKELY(total_len == IPV6_HEADER_LEN))
        total_len = length_of_zero(walk, ip[6], left);
    if (OTUS_UNLIKELY(total_len > left)) {
        walk->ip_cut = total_len - left;
        walk->packet->meta.flags |= OTUS_PACKET_TRUNCATED;
        if (walk->whole)
            otus_walk_anomaly(walk, OTUS_COUNT_IPV6_CUT);
    }
    otus_cursor_cut(&walk->at, total_len);

    note_header(&walk->packet->meta, ip, total_len);
    walk->packet->datagram = otus_cursor_rest(&walk->at);
    if (!otus_cursor_skip(&walk->at, IPV6_HEADER_LEN))
        return otus_walk_fail(walk, OTUS_COUNT_IPV6_TOO_SHORT);
    walk->protocol = ip[6];
    enum otus_layer layer = skip_extensions(walk);
    if (OTUS_UNLIKELY(layer != OTUS_LAYER_DONE))
        return layer;
    return otus_decode_transport(walk);
}
