/* SDP bodies (RFC 8866) as far as media is concerned. Spans are relative to
 * the octets handed to otus_sdp_parse()'s caller: see each field. */
#ifndef OTUS_SDP_H
#define OTUS_SDP_H

#include <stdbool.h>

#include "otus/cursor.h"

enum {
    OTUS_SDP_MAX_MEDIA = 64,   /* more is flagged as truncated */
    OTUS_SDP_MAX_CODECS = 256, /* of all media */
    OTUS_SDP_MAX_CANDIDATES = 256,
};

enum otus_sdp_direction {
    OTUS_SDP_SENDRECV = 0,
    OTUS_SDP_SENDONLY,
    OTUS_SDP_RECVONLY,
    OTUS_SDP_INACTIVE,
};

struct otus_sdp_codec {
    struct otus_span encoding; /* "PCMU/8000" of rtpmap; empty: see otus_sdp_static_encoding() */
    uint8_t payload_type;
};

struct otus_sdp_media {
    struct otus_span media;        /* "audio" */
    struct otus_span protocol;     /* "RTP/AVP" */
    struct otus_span address;      /* of c=, the session's where the media has none */
    struct otus_span mid;          /* a=mid */
    struct otus_span rtcp_address; /* of a=rtcp, empty: same as address */
    uint16_t port;
    uint16_t num_ports;
    uint16_t rtcp_port; /* of a=rtcp or port + 1; equal to port with rtcp-mux; 0: none */
    uint8_t direction;  /* enum otus_sdp_direction */
    bool rtcp_mux;
    uint16_t first_codec; /* index into codecs */
    uint16_t num_codecs;
    uint16_t first_candidate;
    uint16_t num_candidates;
};

struct otus_sdp {
    struct otus_span origin;       /* value of o= */
    struct otus_span session_name; /* value of s= */
    struct otus_span address;      /* of the session's c= */
    struct otus_span bundle;       /* mids of a=group:BUNDLE */
    uint32_t num_media;
    uint32_t num_codecs;
    uint32_t num_candidates;
    bool truncated; /* more media, codecs or candidates than kept */
    bool bad;       /* a line could not be read */
    struct otus_sdp_media media[OTUS_SDP_MAX_MEDIA];
    struct otus_sdp_codec codecs[OTUS_SDP_MAX_CODECS];
    struct otus_span candidates[OTUS_SDP_MAX_CANDIDATES]; /* value of a=candidate */
};

/* Parses the body that lies at body within octets; spans are relative to octets. */
OTUS_MUST_CHECK enum otus_status otus_sdp_parse(struct otus_sdp *out_sdp, const uint8_t *octets,
                                                struct otus_span body);

/* RFC 3551 section 6: "PCMU/8000" for a payload type that needs no rtpmap; NULL for
 * the others. Static storage. */
const char *otus_sdp_static_encoding(uint8_t payload_type);

#endif
