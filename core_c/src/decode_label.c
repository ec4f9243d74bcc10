/* What lies between Ethernet and IP in carrier networks: MPLS (RFC 3032) with
 * pseudowires (RFC 4385, RFC 4448), PPPoE (RFC 2516), PPP (RFC 1661), NSH (RFC 8300). */
#include "decode_internal.h"

enum {
    MPLS_MAX_LABELS = 16,
    MPLS_ENTROPY_INDICATOR = 7,
    PPP_IPV4 = 0x0021,
    PPP_IPV6 = 0x0057,
    PPP_MPLS = 0x0281,
    PPP_MPLS_MULTICAST = 0x0283,
};

bool otus_looks_like_ethernet(const struct otus_cursor *at, size_t off)
{
    uint16_t ethertype, sap;
    if (!otus_cursor_peek_be16(at, off + 12, &ethertype))
        return false;
    switch (ethertype) {
    case 0x0800:
    case 0x86dd:
    case 0x8100:
    case 0x88a8:
    case 0x9100:
    case 0x9200:
    case 0x8847:
    case 0x8864:
        return true;
    default:
        /* IEEE 802.3: a length, and behind it SNAP. */
        return ethertype < 0x0600 && otus_cursor_peek_be16(at, off + 14, &sap) && sap == 0xaaaa;
    }
}

/* Whether lengths fit that an IP header at the cursor would give: a MAC address
 * may begin with 4 or 6, too. */
static bool looks_like_ip(const struct otus_cursor *at, uint8_t first)
{
    uint16_t len;
    size_t left = otus_cursor_left(at);
    if (first >> 4 == 6)
        return !otus_cursor_peek_be16(at, 4, &len) || len + 40u <= left;
    return !otus_cursor_peek_be16(at, 2, &len) || len == 0 ||
           ((first & 15) >= 5 && len >= (first & 15u) * 4 && len <= left);
}

static enum otus_layer decode_mpls_payload(struct otus_walk *walk)
{
    uint8_t first;
    if (!otus_cursor_peek_u8(&walk->at, 0, &first))
        return otus_walk_fail(walk, OTUS_COUNT_MPLS_INVALID);
    /* RFC 4928 3: the first nibble tells IP from what is not; 0 starts a control
     * word, 1 an associated channel. RFC 8469: a pseudowire without control word
     * may be taken for IP by that. */
    switch (first >> 4) {
    case 4:
    case 6:
        if (walk->whole && !looks_like_ip(&walk->at, first) &&
            otus_looks_like_ethernet(&walk->at, 0))
            return OTUS_LAYER_ETHERNET;
        return OTUS_LAYER_IP;
    case 1:
        return OTUS_LAYER_NON_IP;
    default:
        break;
    }
    if (first >> 4 == 0 && otus_looks_like_ethernet(&walk->at, 4) && otus_cursor_skip(&walk->at, 4))
        return OTUS_LAYER_ETHERNET;
    return otus_looks_like_ethernet(&walk->at, 0) ? OTUS_LAYER_ETHERNET : OTUS_LAYER_NON_IP;
}

enum otus_layer otus_decode_mpls(struct otus_walk *walk)
{
    uint32_t above = 0;
    for (uint32_t n = 0; n < MPLS_MAX_LABELS; n++) {
        uint32_t entry;
        if (!otus_cursor_be32(&walk->at, &entry))
            break;
        if ((entry >> 8 & 1) != 0) {
            /* The bottom label tells VPNs apart, but for an entropy label (RFC 6790),
             * which may differ between the fragments of one datagram. */
            if (above != MPLS_ENTROPY_INDICATOR)
                walk->context = otus_mix64(walk->context, entry >> 12);
            return decode_mpls_payload(walk);
        }
        above = entry >> 12;
    }
    return otus_walk_fail(walk, OTUS_COUNT_MPLS_INVALID);
}

enum otus_layer otus_decode_pppoe(struct otus_walk *walk)
{
    const uint8_t *pppoe = otus_cursor_header(&walk->at, 6);
    /* RFC 2516 4: version and type "MUST be set to 0x1", code 0x00 in a session. */
    if (pppoe == NULL || pppoe[0] != 0x11 || pppoe[1] != 0)
        return otus_walk_fail(walk, OTUS_COUNT_PPPOE_INVALID);
    walk->context = otus_mix64(walk->context, otus_load_be16(pppoe + 2));
    otus_cursor_cut(&walk->at, otus_load_be16(pppoe + 4));
    return otus_decode_ppp(walk);
}

enum otus_layer otus_decode_ppp(struct otus_walk *walk)
{
    uint16_t address_control;
    /* RFC 1662 3.1: all-stations address and unnumbered information, or left out. */
    if (otus_cursor_peek_be16(&walk->at, 0, &address_control) && address_control == 0xff03 &&
        !otus_cursor_skip(&walk->at, 2))
        return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
    uint8_t first, second;
    if (!otus_cursor_u8(&walk->at, &first))
        return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
    uint32_t protocol = first;
    /* RFC 1661 2: only a protocol's last octet is odd; one octet is the compressed form. */
    if ((first & 1) == 0) {
        if (!otus_cursor_u8(&walk->at, &second))
            return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
        protocol = protocol << 8 | second;
    }
    switch (protocol) {
    case PPP_IPV4:
        return OTUS_LAYER_IPV4;
    case PPP_IPV6:
        return OTUS_LAYER_IPV6;
    case PPP_MPLS:
    case PPP_MPLS_MULTICAST:
        return otus_decode_mpls(walk);
    default: /* LCP, IPCP, compressed datagrams, ... */
        return OTUS_LAYER_NON_IP;
    }
}

enum otus_layer otus_decode_nsh(struct otus_walk *walk)
{
    const uint8_t *nsh = otus_cursor_peek(&walk->at, 4);
    /* RFC 8300 2.2: length in 4-byte words, the base header's own included. */
    if (nsh == NULL || (nsh[1] & 0x3fu) < 2 || !otus_cursor_skip(&walk->at, (nsh[1] & 0x3fu) * 4))
        return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
    switch (nsh[3]) {
    case 1:
        return OTUS_LAYER_IPV4;
    case 2:
        return OTUS_LAYER_IPV6;
    case 3:
        return OTUS_LAYER_ETHERNET;
    case 5:
        return otus_decode_mpls(walk);
    default:
        return OTUS_LAYER_NON_IP;
    }
}
