/* Tunnels in UDP: VXLAN (RFC 7348; GPE: draft-ietf-nvo3-vxlan-gpe; group policy:
 * draft-smith-vxlan-group-policy), Geneve (RFC 8926), GTP-U (3GPP TS 29.281), TZSP.
 *
 * A port number proves nothing: media may run on any. So what is not the
 * tunnel's protocol by its fixed header is no tunnel, and its packet goes on as
 * the plain UDP that it may well be; the anomaly TUNNEL_NON_IP is counted. */
#include "decode_tunnel.h"

enum {
    VXLAN_VNI_VALID = 0x08,
    VXLAN_GPE_PROTOCOL = 0x04,
    GTPU_GPDU = 255,
    GTPU_OPTIONAL = 0x07, /* extension header, sequence number or N-PDU number present */
    GTPU_EXTENSION = 0x04,
    TZSP_RECEIVED = 0,
    TZSP_TRANSMIT = 1,
    TZSP_ETHERNET = 1,
    TZSP_TAG_PADDING = 0,
    TZSP_TAG_END = 1,
};

static enum otus_layer no_tunnel(struct otus_walk *walk)
{
    otus_walk_anomaly(walk, OTUS_COUNT_TUNNEL_NON_IP);
    return OTUS_LAYER_DONE;
}

static enum otus_layer too_deep(struct otus_walk *walk)
{
    return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_TOO_DEEP);
}

/* What a GPE header names, where it is one. Senders of plain VXLAN leave
 * anything in the bits that were reserved for them, so that what is named must
 * also be there; otherwise it is Ethernet, as in RFC 7348. Without the bit that
 * says that something is named, which some forget, it must not be Ethernet either. */
static enum otus_layer vxlan_inner(struct otus_walk *walk, const uint8_t *vxlan)
{
    uint8_t first = 0;
    bool is_named = (vxlan[0] & VXLAN_GPE_PROTOCOL) != 0 ||
                    (vxlan[3] <= 2 && !otus_looks_like_ethernet(&walk->at, 0));
    if (!is_named || !otus_cursor_peek_u8(&walk->at, 0, &first))
        return OTUS_LAYER_ETHERNET;
    switch (vxlan[3]) {
    case 1:
        return first >> 4 == 4 ? OTUS_LAYER_IPV4 : OTUS_LAYER_ETHERNET;
    case 2:
        return first >> 4 == 6 ? OTUS_LAYER_IPV6 : OTUS_LAYER_ETHERNET;
    case 4:
        return otus_decode_nsh(walk);
    case 5:
        return otus_decode_mpls(walk);
    default:
        return OTUS_LAYER_ETHERNET;
    }
}

static enum otus_layer decode_vxlan(struct otus_walk *walk)
{
    const uint8_t *vxlan = otus_cursor_header(&walk->at, 8);
    /* RFC 7348 5: "the I flag MUST be set to 1 for a valid VXLAN Network ID"; GPE
     * without it is still a tunnel. The reserved fields "MUST be ignored". */
    if (vxlan == NULL || (vxlan[0] & (VXLAN_VNI_VALID | VXLAN_GPE_PROTOCOL)) == 0)
        return no_tunnel(walk);
    struct otus_tunnel *tunnel = otus_walk_enter(walk, OTUS_TUNNEL_VXLAN);
    if (tunnel == NULL)
        return too_deep(walk);
    if ((vxlan[0] & VXLAN_VNI_VALID) != 0)
        otus_tunnel_set_key(tunnel, otus_load_be24(vxlan + 4));
    return otus_walk_inside(walk, vxlan_inner(walk, vxlan));
}

static enum otus_layer decode_geneve(struct otus_walk *walk)
{
    const uint8_t *geneve = otus_cursor_header(&walk->at, 8);
    /* RFC 8926 3.4: version 0; the options' length in 4-byte words. */
    if (geneve == NULL || geneve[0] >> 6 != 0 ||
        !otus_cursor_skip(&walk->at, (geneve[0] & 0x3fu) * 4))
        return no_tunnel(walk);
    struct otus_tunnel *tunnel = otus_walk_enter(walk, OTUS_TUNNEL_GENEVE);
    if (tunnel == NULL)
        return too_deep(walk);
    otus_tunnel_set_key(tunnel, otus_load_be24(geneve + 4));
    walk->ethertype = otus_load_be16(geneve + 2);
    return otus_walk_inside(walk, OTUS_LAYER_ETHERTYPE);
}

/* TS 29.281 5.2: each extension header begins with its length in four octets
 * and ends with the type of the next one. */
static bool skip_gtpu_extensions(struct otus_cursor *at, uint8_t type)
{
    while (type != 0) {
        uint8_t words;
        if (!otus_cursor_peek_u8(at, 0, &words) || words == 0 ||
            !otus_cursor_peek_u8(at, words * 4u - 1, &type) || !otus_cursor_skip(at, words * 4u))
            return false;
    }
    return true;
}

static enum otus_layer decode_gtpu(struct otus_walk *walk)
{
    const uint8_t *gtpu = otus_cursor_header(&walk->at, 8);
    /* TS 29.281 5.1: version 1, protocol type GTP. Only a G-PDU carries a user's packet. */
    if (gtpu == NULL || gtpu[0] >> 4 != 3 || gtpu[1] != GTPU_GPDU)
        return no_tunnel(walk);
    otus_cursor_cut(&walk->at, otus_load_be16(gtpu + 2));
    if ((gtpu[0] & GTPU_OPTIONAL) != 0) {
        const uint8_t *optional = otus_cursor_header(&walk->at, 4);
        uint8_t next = optional != NULL && (gtpu[0] & GTPU_EXTENSION) != 0 ? optional[3] : 0;
        if (optional == NULL || !skip_gtpu_extensions(&walk->at, next))
            return no_tunnel(walk);
    }
    struct otus_tunnel *tunnel = otus_walk_enter(walk, OTUS_TUNNEL_GTPU);
    if (tunnel == NULL)
        return too_deep(walk);
    tunnel->version = 1;
    otus_tunnel_set_key(tunnel, otus_load_be32(gtpu + 4));
    uint8_t first = 0;
    if (otus_cursor_peek_u8(&walk->at, 0, &first) && (first >> 4 == 4 || first >> 4 == 6))
        return OTUS_LAYER_IP;
    /* TS 23.501 5.6.10.2: a PDU session may be of type Ethernet. */
    return otus_looks_like_ethernet(&walk->at, 0) ? OTUS_LAYER_ETHERNET : OTUS_LAYER_NON_IP;
}

static bool skip_tzsp_tags(struct otus_cursor *at)
{
    for (;;) {
        uint8_t tag, len;
        if (!otus_cursor_u8(at, &tag))
            return false;
        if (tag == TZSP_TAG_END)
            return true;
        if (tag == TZSP_TAG_PADDING)
            continue;
        if (!otus_cursor_u8(at, &len) || !otus_cursor_skip(at, len))
            return false;
    }
}

static enum otus_layer decode_tzsp(struct otus_walk *walk)
{
    const uint8_t *tzsp = otus_cursor_header(&walk->at, 4);
    if (tzsp == NULL || tzsp[0] != 1 || (tzsp[1] != TZSP_RECEIVED && tzsp[1] != TZSP_TRANSMIT) ||
        !skip_tzsp_tags(&walk->at))
        return no_tunnel(walk);
    struct otus_tunnel *tunnel = otus_walk_enter(walk, OTUS_TUNNEL_TZSP);
    if (tunnel == NULL)
        return too_deep(walk);
    tunnel->version = 1;
    if (otus_load_be16(tzsp + 2) != TZSP_ETHERNET)
        return OTUS_LAYER_NON_IP;
    return otus_walk_inside(walk, OTUS_LAYER_ETHERNET);
}

enum otus_layer otus_decode_udp_tunnel(struct otus_walk *walk, enum otus_tunnel_kind kind)
{
    switch (kind) {
    case OTUS_TUNNEL_VXLAN:
        return decode_vxlan(walk);
    case OTUS_TUNNEL_GENEVE:
        return decode_geneve(walk);
    case OTUS_TUNNEL_GTPU:
        return decode_gtpu(walk);
    case OTUS_TUNNEL_TZSP:
        return decode_tzsp(walk);
    default:
        return OTUS_LAYER_DONE;
    }
}
