/* Link layers that carry IP here and there: Frame Relay (RFC 2427), FDDI, ATM with
 * LLC (RFC 2684), and what Linux's netfilter logs. */
#include "decode_internal.h"

enum {
    CONTROL_UI = 0x03,
    NLPID_PADDING = 0x00,
    NLPID_SNAP = 0x80,
    NLPID_IPV6 = 0x8e,
    NLPID_IPV4 = 0xcc,
    FRAME_RELAY_MAX_ADDRESS = 4,
    FDDI_HEADER_LEN = 13,
    FDDI_LLC_MASK = 0x70, /* frame class: asynchronous, LLC */
    FDDI_LLC = 0x50,
    NFLOG_HEADER_LEN = 4,
    NFLOG_PAYLOAD = 9,
};

static enum otus_layer too_short(struct otus_walk *walk)
{
    return otus_walk_fail(walk, OTUS_COUNT_FRAME_TOO_SHORT);
}

static enum otus_layer decode_nlpid(struct otus_walk *walk)
{
    uint8_t nlpid;
    do {
        if (!otus_cursor_u8(&walk->at, &nlpid))
            return too_short(walk);
    } while (nlpid == NLPID_PADDING);
    switch (nlpid) {
    case NLPID_IPV4:
        return OTUS_LAYER_IPV4;
    case NLPID_IPV6:
        return OTUS_LAYER_IPV6;
    case NLPID_SNAP:
        return otus_decode_snap(walk);
    default:
        return OTUS_LAYER_NON_IP;
    }
}

/* Q.922: the last octet of the address is odd. Cisco's own way has an ethertype
 * right behind it. */
static enum otus_layer decode_frame_relay(struct otus_walk *walk)
{
    uint8_t octet = 0;
    for (uint32_t n = 0; (octet & 1) == 0; n++) {
        if (n == FRAME_RELAY_MAX_ADDRESS)
            return OTUS_LAYER_NON_IP;
        if (!otus_cursor_u8(&walk->at, &octet))
            return too_short(walk);
    }
    if (!otus_cursor_peek_u8(&walk->at, 0, &octet))
        return too_short(walk);
    if (octet == CONTROL_UI)
        return otus_cursor_skip(&walk->at, 1) ? decode_nlpid(walk) : too_short(walk);
    uint16_t ethertype;
    if (!otus_cursor_be16(&walk->at, &ethertype))
        return too_short(walk);
    walk->ethertype = ethertype;
    return ethertype >= 0x0600 ? OTUS_LAYER_ETHERTYPE : OTUS_LAYER_NON_IP;
}

static enum otus_layer decode_fddi(struct otus_walk *walk)
{
    const uint8_t *fddi = otus_cursor_header(&walk->at, FDDI_HEADER_LEN);
    if (fddi == NULL)
        return too_short(walk);
    return (fddi[0] & FDDI_LLC_MASK) == FDDI_LLC ? otus_decode_llc(walk) : OTUS_LAYER_NON_IP;
}

/* LINKTYPE_NFLOG: a list of length, type and value in the capturing host's octet
 * order, each padded to four octets; one of them is the packet. */
static enum otus_layer decode_nflog(struct otus_walk *walk)
{
    if (!otus_cursor_skip(&walk->at, NFLOG_HEADER_LEN))
        return too_short(walk);
    for (;;) {
        const uint8_t *head = otus_cursor_header(&walk->at, 4);
        if (head == NULL)
            return OTUS_LAYER_NON_IP;
        uint32_t len = otus_load_be16(head);
        uint32_t type = otus_load_be16(head + 2);
        if (type > UINT8_MAX) { /* the numbers are small: it is the other order */
            len = __builtin_bswap16((uint16_t)len);
            type = __builtin_bswap16((uint16_t)type);
        }
        if (len < 4)
            return OTUS_LAYER_NON_IP;
        if (type == NFLOG_PAYLOAD) {
            otus_cursor_cut(&walk->at, len - 4);
            return OTUS_LAYER_IP;
        }
        if (!otus_cursor_skip(&walk->at, (len - 4 + 3) / 4 * 4))
            return OTUS_LAYER_NON_IP;
    }
}

enum otus_layer otus_decode_other_link(struct otus_walk *walk, uint16_t link_type)
{
    switch (link_type) {
    case OTUS_LINK_FRAME_RELAY:
        return decode_frame_relay(walk);
    case OTUS_LINK_FDDI:
        return decode_fddi(walk);
    case OTUS_LINK_ATM_RFC1483:
        return otus_decode_llc(walk);
    case OTUS_LINK_NFLOG:
        return decode_nflog(walk);
    default:
        return otus_walk_fail(walk, OTUS_COUNT_LINK_UNSUPPORTED);
    }
}
