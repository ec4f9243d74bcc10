/* RTP and RTCP headers: RFC 3550 5.1 and 6.1, RFC 5761 4. */
#include "otus/rtp.h"

enum {
    RTP_VERSION = 2,
    RTCP_FIRST_TYPE = 192, /* FIR and NACK of RFC 2032; SR is 200 */
    RTCP_LAST_TYPE = 223,
    RTCP_HEADER_OCTETS = 4,
};

/* RFC 3550 5.3.1: a 16-bit id, the length in 32-bit words, then the words. */
static enum otus_status skip_extension(struct otus_cursor *cursor)
{
    uint16_t words;
    if (!otus_cursor_skip(cursor, 2) || !otus_cursor_be16(cursor, &words) ||
        !otus_cursor_skip(cursor, (size_t)words * 4))
        return OTUS_E_MALFORMED;
    return OTUS_OK;
}

/* RFC 3550 5.1: the last octet counts the padding, itself included. SRTP encrypts it and puts a tag
 * behind (RFC 3711 3.1), and a packet cut short ends elsewhere: a count that can't be is none. */
static uint32_t padding_of(const struct otus_cursor *cursor, uint32_t left)
{
    uint8_t padding = 0;
    if (left == 0 || !otus_cursor_peek_u8(cursor, left - 1, &padding) || padding > left)
        return 0;
    return padding;
}

enum otus_status otus_rtp_parse(struct otus_rtp_header *out_header, const uint8_t *octets,
                                uint32_t len)
{
    struct otus_cursor cursor = otus_cursor_of(octets, len);
    struct otus_rtp_header header = {0};
    uint8_t first, second;
    if (!otus_cursor_u8(&cursor, &first) || !otus_cursor_u8(&cursor, &second) ||
        !otus_cursor_be16(&cursor, &header.sequence) ||
        !otus_cursor_be32(&cursor, &header.timestamp) || !otus_cursor_be32(&cursor, &header.ssrc))
        return OTUS_E_MALFORMED;
    if (first >> 6 != RTP_VERSION)
        return OTUS_E_MALFORMED;
    header.has_extension = (first & 0x10) != 0;
    header.num_csrc = first & 0x0f;
    header.marker = (second & 0x80) != 0;
    header.payload_type = second & 0x7f;
    if (!otus_cursor_skip(&cursor, (size_t)header.num_csrc * 4))
        return OTUS_E_MALFORMED;
    if (header.has_extension && skip_extension(&cursor) != OTUS_OK)
        return OTUS_E_MALFORMED;

    uint32_t left = (uint32_t)otus_cursor_left(&cursor);
    uint32_t off = len - left;
    if (first & 0x20)
        left -= padding_of(&cursor, left);
    header.payload = (struct otus_span){off, left};
    *out_header = header;
    return OTUS_OK;
}

/* One packet of a compound; false where none starts here. */
static bool next_rtcp(struct otus_cursor *cursor, uint8_t *out_first, uint8_t *out_type)
{
    uint16_t words;
    return otus_cursor_u8(cursor, out_first) && otus_cursor_u8(cursor, out_type) &&
           otus_cursor_be16(cursor, &words) && *out_first >> 6 == RTP_VERSION &&
           otus_cursor_skip(cursor, (size_t)words * 4);
}

enum otus_status otus_rtcp_parse(struct otus_rtcp_header *out_header, const uint8_t *octets,
                                 uint32_t len)
{
    struct otus_cursor cursor = otus_cursor_of(octets, len);
    struct otus_rtcp_header header = {0};
    uint8_t first;
    if (!next_rtcp(&cursor, &first, &header.packet_type) || header.packet_type < RTCP_FIRST_TYPE ||
        header.packet_type > RTCP_LAST_TYPE)
        return OTUS_E_MALFORMED;
    header.count = first & 0x1f;
    header.num_packets = 1;

    /* An empty BYE, of zero words, names no source: RFC 3550 6.6. */
    struct otus_cursor ssrc = otus_cursor_of(octets, len);
    size_t first_octets = (size_t)len - otus_cursor_left(&cursor);
    otus_cursor_cut(&ssrc, first_octets);
    if (otus_cursor_skip(&ssrc, RTCP_HEADER_OCTETS) && otus_cursor_left(&ssrc) != 0 &&
        !otus_cursor_be32(&ssrc, &header.ssrc))
        return OTUS_E_MALFORMED;

    /* SRTCP encrypts from the second packet on, so what can't be read ends the count. */
    uint8_t type;
    while (otus_cursor_left(&cursor) != 0 && next_rtcp(&cursor, &first, &type) &&
           header.num_packets < UINT16_MAX)
        header.num_packets++;
    *out_header = header;
    return OTUS_OK;
}

bool otus_rtp_is_rtcp(const uint8_t *octets, uint32_t len)
{
    /* RFC 5761 4: RTCP types 192 to 223 fall on RTP payload types 64 to 95 with the marker
     * set, which are therefore not to be used. */
    return len >= RTCP_HEADER_OCTETS && octets[0] >> 6 == RTP_VERSION &&
           octets[1] >= RTCP_FIRST_TYPE && octets[1] <= RTCP_LAST_TYPE;
}
