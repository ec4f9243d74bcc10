/* RTP and RTCP headers (RFC 3550). */
#ifndef OTUS_RTP_H
#define OTUS_RTP_H

#include <stdbool.h>

#include "otus/cursor.h"

struct otus_rtp_header {
    uint32_t ssrc;
    uint32_t timestamp;
    uint16_t sequence;
    uint8_t payload_type;
    bool marker;
    uint8_t num_csrc;
    bool has_extension;
    struct otus_span payload; /* from the first octet; padding cut off, where it can be read */
};

struct otus_rtcp_header {
    uint32_t ssrc;        /* of the first packet of the compound */
    uint8_t packet_type;  /* 192 to 223; SR is 200 */
    uint8_t count;        /* RC, SC or FMT */
    uint16_t num_packets; /* in the compound */
};

OTUS_MUST_CHECK enum otus_status otus_rtp_parse(struct otus_rtp_header *out_header,
                                                const uint8_t *octets, uint32_t len);
OTUS_MUST_CHECK enum otus_status otus_rtcp_parse(struct otus_rtcp_header *out_header,
                                                 const uint8_t *octets, uint32_t len);

/* RFC 5761 section 4: tells RTCP from RTP on one port. */
bool otus_rtp_is_rtcp(const uint8_t *octets, uint32_t len);

#endif
