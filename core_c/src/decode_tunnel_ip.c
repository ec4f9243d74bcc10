/* Tunnels right above IP: GRE (RFC 2784, RFC 2890, RFC 1701), its version 1
 * (RFC 2637, PPTP), ERSPAN (draft-foschiano-erspan-03), IP in IP (RFC 2003,
 * RFC 2473, RFC 4213). */
#include "decode_tunnel.h"

enum {
    GRE_CHECKSUM = 0x8000,
    GRE_ROUTING = 0x4000,
    GRE_KEY = 0x2000,
    GRE_SEQUENCE = 0x1000,
    GRE_ACKNOWLEDGMENT = 0x0080, /* version 1 */
    GRE_VERSION = 0x0007,
    GRE_ERSPAN_1_2 = 0x88be,
    GRE_ERSPAN_3 = 0x22eb,
    ERSPAN_FRAME_IP = 2,
};

enum otus_layer otus_decode_ipip(struct otus_walk *walk, enum otus_layer inner)
{
    if (!otus_walk_follows(walk, OTUS_TUNNEL_IPIP))
        return OTUS_LAYER_DONE;
    if (otus_walk_enter(walk, OTUS_TUNNEL_IPIP) == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_TOO_DEEP);
    return otus_walk_inside(walk, inner);
}

static enum otus_layer erspan_too_short(struct otus_walk *walk)
{
    return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_TOO_SHORT);
}

/* Types II and III begin alike: version, VLAN (12 bits), class, T, session (10 bits).
 * The version tells them apart: senders swap the protocol numbers. */
static enum otus_layer decode_erspan_header(struct otus_walk *walk, struct otus_tunnel *tunnel)
{
    uint8_t first;
    if (!otus_cursor_peek_u8(&walk->at, 0, &first))
        return erspan_too_short(walk);
    uint8_t type = (uint8_t)((first >> 4) + 1);
    if (type != 2 && type != 3)
        return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_INVALID);
    const uint8_t *erspan = otus_cursor_header(&walk->at, type == 2 ? 8 : 12);
    if (erspan == NULL)
        return erspan_too_short(walk);
    tunnel->version = type;
    tunnel->vlan = otus_load_be16(erspan) & 0x0fff;
    otus_tunnel_set_key(tunnel, otus_load_be16(erspan + 2) & 0x03ffu);
    if (type == 2)
        return otus_walk_inside(walk, OTUS_LAYER_ETHERNET);
    /* Type III: the O bit announces eight octets of platform-specific header. */
    if ((erspan[11] & 1) != 0 && !otus_cursor_skip(&walk->at, 8))
        return erspan_too_short(walk);
    uint8_t frame_type = erspan[10] >> 2 & 0x1f;
    return otus_walk_inside(walk,
                            frame_type == ERSPAN_FRAME_IP ? OTUS_LAYER_IP : OTUS_LAYER_ETHERNET);
}

static enum otus_layer decode_erspan(struct otus_walk *walk, uint16_t flags, uint16_t protocol)
{
    if (!otus_walk_follows(walk, OTUS_TUNNEL_ERSPAN))
        return OTUS_LAYER_DONE;
    struct otus_tunnel *tunnel = otus_walk_enter(walk, OTUS_TUNNEL_ERSPAN);
    if (tunnel == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_TOO_DEEP);
    /* Types I and II share the protocol number. Type I has no header of its own,
     * and no GRE sequence number; type II must have one. */
    if (protocol == GRE_ERSPAN_3 || (flags & GRE_SEQUENCE) != 0)
        return decode_erspan_header(walk, tunnel);
    tunnel->version = 1;
    return otus_walk_inside(walk, OTUS_LAYER_ETHERNET);
}

/* RFC 1701: source route entries up to one of family 0 and length 0. */
static bool skip_routing(struct otus_cursor *at)
{
    for (;;) {
        const uint8_t *entry = otus_cursor_header(at, 4);
        if (entry == NULL)
            return false;
        if (otus_load_be16(entry) == 0 && entry[3] == 0)
            return true;
        if (!otus_cursor_skip(at, entry[3]))
            return false;
    }
}

static enum otus_layer decode_gre_v0(struct otus_walk *walk, uint16_t flags, uint16_t protocol)
{
    uint32_t key = 0;
    bool whole = true;
    if ((flags & (GRE_CHECKSUM | GRE_ROUTING)) != 0)
        whole = otus_cursor_skip(&walk->at, 4);
    if (whole && (flags & GRE_KEY) != 0)
        whole = otus_cursor_be32(&walk->at, &key);
    if (whole && (flags & GRE_SEQUENCE) != 0)
        whole = otus_cursor_skip(&walk->at, 4);
    if (whole && (flags & GRE_ROUTING) != 0)
        whole = skip_routing(&walk->at);
    if (!whole)
        return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_TOO_SHORT);
    if (protocol == GRE_ERSPAN_1_2 || protocol == GRE_ERSPAN_3)
        return decode_erspan(walk, flags, protocol);

    struct otus_tunnel *tunnel = otus_walk_enter(walk, OTUS_TUNNEL_GRE);
    if (tunnel == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_TOO_DEEP);
    if ((flags & GRE_KEY) != 0)
        otus_tunnel_set_key(tunnel, key);
    walk->ethertype = protocol;
    return otus_walk_inside(walk, OTUS_LAYER_ETHERTYPE);
}

/* RFC 2637 4.1: payload length and call ID in the key's place, then sequence and
 * acknowledgment numbers where their bits are set; the payload is PPP. */
static enum otus_layer decode_gre_v1(struct otus_walk *walk, uint16_t flags)
{
    const uint8_t *key = otus_cursor_header(&walk->at, 4);
    size_t numbers =
        ((flags & GRE_SEQUENCE) != 0 ? 4u : 0u) + ((flags & GRE_ACKNOWLEDGMENT) != 0 ? 4u : 0u);
    if (key == NULL || !otus_cursor_skip(&walk->at, numbers))
        return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_TOO_SHORT);
    struct otus_tunnel *tunnel = otus_walk_enter(walk, OTUS_TUNNEL_GRE);
    if (tunnel == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_TOO_DEEP);
    tunnel->version = 1;
    otus_tunnel_set_key(tunnel, otus_load_be16(key + 2));
    otus_cursor_cut(&walk->at, otus_load_be16(key));
    return otus_walk_inside(walk, OTUS_LAYER_PPP);
}

enum otus_layer otus_decode_gre(struct otus_walk *walk)
{
    struct otus_cursor at = walk->at;
    const uint8_t *gre = otus_cursor_header(&at, 4);
    if (gre == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_TOO_SHORT);
    uint16_t flags = otus_load_be16(gre);
    uint16_t protocol = otus_load_be16(gre + 2);
    bool is_erspan = protocol == GRE_ERSPAN_1_2 || protocol == GRE_ERSPAN_3;
    if (!otus_walk_follows(walk, is_erspan ? OTUS_TUNNEL_ERSPAN : OTUS_TUNNEL_GRE))
        return OTUS_LAYER_DONE;
    walk->at = at;
    switch (flags & GRE_VERSION) {
    case 0:
        return decode_gre_v0(walk, flags, protocol);
    case 1:
        return decode_gre_v1(walk, flags);
    default:
        return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_INVALID);
    }
}
