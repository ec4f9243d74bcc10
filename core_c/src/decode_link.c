/* Link layers up to the ethertype: https://www.tcpdump.org/linktypes.html,
 * IEEE 802.3, 802.1Q, 802.1ad, 802.1ah. */
#include "decode_internal.h"

enum {
    ETHERTYPE_IPV4 = 0x0800,
    ETHERTYPE_IPV6 = 0x86dd,
    ETHERTYPE_PPP = 0x880b,
    ETHERTYPE_MPLS = 0x8847,
    ETHERTYPE_MPLS_UPSTREAM = 0x8848,
    ETHERTYPE_PPPOE_SESSION = 0x8864,
    ETHERTYPE_PBB = 0x88e7,
    ETHERTYPE_FABRICPATH = 0x8903, /* Cisco; MAC addresses of its own in front */
    ETHERTYPE_VNTAG = 0x8926,
    ETHERTYPE_NSH = 0x894f,
    ETHERTYPE_WCCP = 0x883e, /* redirected by Cisco's WCCP, in GRE */
    ETHERTYPE_TEB = 0x6558,  /* transparent Ethernet bridging: GRE, Geneve */
    ETHERTYPE_VLAN = 0x8100,
    ETHERTYPE_VLAN_SERVICE = 0x88a8,
    ETHERTYPE_VLAN_9100 = 0x9100, /* used for QinQ before 802.1ad */
    ETHERTYPE_VLAN_9200 = 0x9200,
    ETHERTYPE_MIN = 0x0600, /* IEEE 802.3 3.2.6: below it is a length */
    PACKET_OUTGOING = 4,    /* of linux/if_packet.h, in cooked headers */
};

bool otus_walk_push_vlan(struct otus_walk *walk, uint16_t tci)
{
    struct otus_packet_meta *meta = &walk->packet->meta;
    if (meta->num_vlans == OTUS_MAX_VLANS)
        return false;
    meta->vlans[meta->num_vlans++] = tci & 0x0fff; /* priority and DEI are not the VLAN ID */
    return true;
}

/* An ethertype behind the OUI of RFC 1042, or of bridges that translated that
 * one (IEEE 802.1H). */
enum otus_layer otus_decode_snap(struct otus_walk *walk)
{
    const uint8_t *snap = otus_cursor_header(&walk->at, 5);
    if (snap == NULL || snap[0] != 0 || snap[1] != 0 || (snap[2] != 0 && snap[2] != 0xf8))
        return OTUS_LAYER_NON_IP;
    walk->ethertype = otus_load_be16(snap + 3);
    return walk->ethertype >= ETHERTYPE_MIN ? OTUS_LAYER_ETHERTYPE : OTUS_LAYER_NON_IP;
}

/* IEEE 802.2: IP by its own SAP (RFC 948), or in SNAP. */
enum otus_layer otus_decode_llc(struct otus_walk *walk)
{
    const uint8_t *llc = otus_cursor_header(&walk->at, 3);
    if (llc == NULL)
        return OTUS_LAYER_NON_IP;
    if (memcmp(llc, "\x06\x06\x03", 3) == 0)
        return OTUS_LAYER_IPV4;
    return memcmp(llc, "\xaa\xaa\x03", 3) == 0 ? otus_decode_snap(walk) : OTUS_LAYER_NON_IP;
}

static enum otus_layer decode_vlan(struct otus_walk *walk)
{
    const uint8_t *tag = otus_cursor_header(&walk->at, 4);
    if (tag == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
    if (!otus_walk_push_vlan(walk, otus_load_be16(tag)))
        return otus_walk_fail(walk, OTUS_COUNT_TOO_MANY_VLANS);
    walk->ethertype = otus_load_be16(tag + 2);
    return OTUS_LAYER_ETHERTYPE;
}

/* A tag of which nothing is needed, then a whole Ethernet frame. */
static enum otus_layer skip_to_ethernet(struct otus_walk *walk, size_t tag_len)
{
    return otus_cursor_skip(&walk->at, tag_len) ? OTUS_LAYER_ETHERNET
                                                : otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
}

static enum otus_layer decode_vntag(struct otus_walk *walk)
{
    const uint8_t *tag = otus_cursor_header(&walk->at, 6);
    if (tag == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
    walk->ethertype = otus_load_be16(tag + 4);
    return OTUS_LAYER_ETHERTYPE;
}

/* draft-wilson-wrec-wccp-v2-01 4.12: version 2 puts four octets in front of the
 * redirected packet, version 1 none; they begin with a type below 4. */
static enum otus_layer decode_wccp(struct otus_walk *walk)
{
    uint8_t first;
    if (otus_cursor_peek_u8(&walk->at, 0, &first) && first >> 4 != 4 &&
        !otus_cursor_skip(&walk->at, 4))
        return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_TOO_SHORT);
    return OTUS_LAYER_IPV4;
}

enum otus_layer otus_decode_ethertype(struct otus_walk *walk)
{
    walk->packet->meta.ethertype = walk->ethertype;
    if (OTUS_LIKELY(walk->ethertype == ETHERTYPE_IPV4))
        return otus_decode_ipv4(walk);
    switch (walk->ethertype) {
    case ETHERTYPE_IPV6:
        return otus_decode_ipv6(walk);
    case ETHERTYPE_VLAN:
    case ETHERTYPE_VLAN_SERVICE:
    case ETHERTYPE_VLAN_9100:
    case ETHERTYPE_VLAN_9200:
        return decode_vlan(walk);
    case ETHERTYPE_MPLS:
    case ETHERTYPE_MPLS_UPSTREAM:
        return otus_decode_mpls(walk);
    case ETHERTYPE_PPPOE_SESSION:
        return otus_decode_pppoe(walk);
    case ETHERTYPE_PPP:
        return otus_decode_ppp(walk);
    case ETHERTYPE_NSH:
        return otus_decode_nsh(walk);
    case ETHERTYPE_PBB:
        return skip_to_ethernet(walk, 4); /* IEEE 802.1ah: I-TAG */
    case ETHERTYPE_FABRICPATH:
        return skip_to_ethernet(walk, 2);
    case ETHERTYPE_VNTAG:
        return decode_vntag(walk);
    case ETHERTYPE_TEB:
        return OTUS_LAYER_ETHERNET;
    case ETHERTYPE_WCCP:
        return decode_wccp(walk);
    default:
        if (walk->ethertype >= ETHERTYPE_MIN)
            return OTUS_LAYER_NON_IP;
        otus_cursor_cut(&walk->at, walk->ethertype);
        return otus_decode_llc(walk);
    }
}

enum otus_layer otus_decode_ethernet(struct otus_walk *walk)
{
    struct otus_packet_meta *meta = &walk->packet->meta;
    const uint8_t *ethernet = otus_cursor_header(&walk->at, 14);
    if (ethernet == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
    /* The outermost header's are kept. */
    if (OTUS_LIKELY((meta->flags & OTUS_PACKET_HAS_MAC) == 0)) {
        memcpy(meta->dst_mac, ethernet, 6);
        memcpy(meta->src_mac, ethernet + 6, 6);
        meta->flags |= OTUS_PACKET_HAS_MAC;
    }
    walk->ethertype = otus_load_be16(ethernet + 12);
    return otus_decode_ethertype(walk);
}

/* Below 0x0600 a cooked header's protocol is no length: linux/if_ether.h. */
static enum otus_layer decode_cooked_protocol(struct otus_walk *walk, uint16_t protocol)
{
    enum { ETH_P_ALL = 3, ETH_P_802_2 = 4 }; /* a whole Ethernet frame; LLC without one */
    walk->ethertype = protocol;
    if (protocol == ETH_P_ALL)
        return OTUS_LAYER_ETHERNET;
    if (protocol == ETH_P_802_2)
        return otus_decode_llc(walk);
    return protocol < ETHERTYPE_MIN ? OTUS_LAYER_NON_IP : OTUS_LAYER_ETHERTYPE;
}

/* LINKTYPE_LINUX_SLL: packet type, ARPHRD, address length, address, protocol. */
static enum otus_layer decode_sll(struct otus_walk *walk)
{
    const uint8_t *sll = otus_cursor_header(&walk->at, 16);
    if (sll == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
    if (otus_load_be16(sll) == PACKET_OUTGOING)
        walk->packet->meta.flags |= OTUS_PACKET_OUTGOING;
    return decode_cooked_protocol(walk, otus_load_be16(sll + 14));
}

/* LINKTYPE_LINUX_SLL2: protocol, reserved, interface, ARPHRD, type, length, address. */
static enum otus_layer decode_sll2(struct otus_walk *walk)
{
    const uint8_t *sll2 = otus_cursor_header(&walk->at, 20);
    if (sll2 == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
    walk->packet->meta.if_index = otus_load_be32(sll2 + 4);
    if (sll2[10] == PACKET_OUTGOING)
        walk->packet->meta.flags |= OTUS_PACKET_OUTGOING;
    return decode_cooked_protocol(walk, otus_load_be16(sll2));
}

/* LINKTYPE_NULL: an address family in the byte order of the capturing host;
 * LINKTYPE_LOOP: in network order. The small numbers are told apart either way. */
static enum otus_layer decode_loopback(struct otus_walk *walk)
{
    const uint8_t *header = otus_cursor_header(&walk->at, 4);
    if (header == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
    uint32_t family = otus_load_be32(header);
    if (family > UINT16_MAX)
        family = __builtin_bswap32(family);
    switch (family) {
    case 2:
        return OTUS_LAYER_IPV4;
    case 10: /* Linux */
    case 24: /* NetBSD, OpenBSD */
    case 28: /* FreeBSD */
    case 30: /* Darwin */
        return OTUS_LAYER_IPV6;
    default:
        /* Some write what the octets in front of IP are on other links: an ethertype. */
        walk->ethertype = otus_load_be16(header + 2);
        return walk->ethertype >= ETHERTYPE_MIN ? OTUS_LAYER_ETHERTYPE : OTUS_LAYER_NON_IP;
    }
}

/* PPP, with HDLC-like framing or without, or Cisco HDLC: the first octet tells them apart, and
 * captures of serial lines carry either under either link type. */
static enum otus_layer decode_hdlc(struct otus_walk *walk)
{
    const uint8_t *header = otus_cursor_peek(&walk->at, 4);
    if (header == NULL)
        return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
    if (header[0] != 0x0f && header[0] != 0x8f) /* Cisco: unicast, multicast */
        return OTUS_LAYER_PPP;
    walk->ethertype = otus_load_be16(header + 2);
    return otus_cursor_skip(&walk->at, 4) ? OTUS_LAYER_ETHERTYPE
                                          : otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
}

enum otus_layer otus_decode_link(struct otus_walk *walk, uint16_t link_type)
{
    if (OTUS_LIKELY(link_type == OTUS_LINK_ETHERNET))
        return otus_decode_ethernet(walk);
    switch (link_type) {
    case OTUS_LINK_LINUX_SLL:
        return decode_sll(walk);
    case OTUS_LINK_LINUX_SLL2:
        return decode_sll2(walk);
    case OTUS_LINK_RAW_BSD:
    case OTUS_LINK_RAW_OPENBSD:
    case OTUS_LINK_RAW:
        return OTUS_LAYER_IP;
    case OTUS_LINK_IPV4:
        return OTUS_LAYER_IPV4;
    case OTUS_LINK_IPV6:
        return OTUS_LAYER_IPV6;
    case OTUS_LINK_NULL:
    case OTUS_LINK_LOOP:
        return decode_loopback(walk);
    case OTUS_LINK_PPP_ETHER:
        return otus_decode_pppoe(walk);
    case OTUS_LINK_PPP:
    case OTUS_LINK_PPP_HDLC:
    case OTUS_LINK_C_HDLC:
        return decode_hdlc(walk);
    default:
        return otus_decode_other_link(walk, link_type);
    }
}
