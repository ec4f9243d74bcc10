/* The `sdp` member of a SIP payload. */
#ifndef OTUS_JSON_SDP_H
#define OTUS_JSON_SDP_H

#include "encoder.h"
#include "json_writer.h"

/* `a=group:BUNDLE 0 1`: the identification tags as a list. */
static uint8_t *put_bundle(uint8_t *at, uint8_t *end, struct otus_slice mids)
{
    if (OTUS_LIKELY(mids.len == 0))
        return at;
    at = JSON_LITERAL(at, "\"bundle\":[");
    struct otus_cursor left = otus_cursor_of(mids.at, mids.len);
    struct otus_cursor mid;
    while (encode_next_word(&left, &mid)) {
        struct otus_slice text = {mid.at, (uint32_t)otus_cursor_left(&mid)};
        at = JSON_ITEM(at, end, text);
    }
    at = json_close_any(at, ']');
    return JSON_LITERAL(at, ",");
}

static uint8_t *put_codecs(uint8_t *at, uint8_t *end, const uint8_t *octets,
                           const struct otus_sdp *sdp, const struct otus_sdp_media *media)
{
    struct otus_slice protocol = encode_part(octets, media->protocol);
    bool rtp = encode_carries_rtp(protocol.at, protocol.len);
    at = JSON_LITERAL(at, "\"codecs\":[");
    for (uint32_t i = 0; i < media->num_codecs; i++) {
        uint32_t index = (uint32_t)media->first_codec + i;
        if (index >= OTUS_SDP_MAX_CODECS)
            break;
        const struct otus_sdp_codec *codec = &sdp->codecs[index];
        struct otus_slice encoding = encode_part(octets, codec->encoding);
        const char *known = "";
        if (encoding.len == 0 && rtp)
            known = encode_static_codec(codec->payload_type);
        at = JSON_NUMBER(JSON_LITERAL(at, "{"), end, "payload_type", codec->payload_type);
        if (OTUS_LIKELY(encoding.len != 0))
            at = JSON_MEMBER(at, end, "encoding", encoding);
        else if (*known != '\0')
            at = JSON_NAME(at, end, "encoding", known);
        at = JSON_CLOSE(at, "},");
    }
    at = json_close_any(at, ']');
    return JSON_LITERAL(at, ",");
}

static uint8_t *put_candidates(uint8_t *at, uint8_t *end, const uint8_t *octets,
                               const struct otus_sdp *sdp, const struct otus_sdp_media *media)
{
    if (OTUS_LIKELY(media->num_candidates == 0))
        return at;
    at = JSON_LITERAL(at, "\"candidates\":[");
    for (uint32_t i = 0; i < media->num_candidates; i++) {
        uint32_t index = (uint32_t)media->first_candidate + i;
        if (index >= OTUS_SDP_MAX_CANDIDATES)
            break;
        at = JSON_ITEM(at, end, encode_part(octets, sdp->candidates[index]));
    }
    at = json_close_any(at, ']');
    return JSON_LITERAL(at, ",");
}

static uint8_t *put_media(uint8_t *at, uint8_t *end, const uint8_t *octets,
                          const struct otus_sdp *sdp, const struct otus_sdp_media *media)
{
    at = JSON_LITERAL(at, "{");
    at = JSON_MEMBER(at, end, "media", encode_part(octets, media->media));
    at = JSON_NUMBER(at, end, "port", media->port);
    if (OTUS_UNLIKELY(media->num_ports > 1))
        at = JSON_NUMBER(at, end, "num_ports", media->num_ports);
    at = JSON_MEMBER(at, end, "protocol", encode_part(octets, media->protocol));
    at = JSON_OPTIONAL(at, end, "address", encode_part(octets, media->address));
    at = JSON_NAME(at, end, "direction", encode_direction(media->direction));
    if (media->rtcp_port != 0)
        at = JSON_NUMBER(at, end, "rtcp_port", media->rtcp_port);
    at = JSON_OPTIONAL(at, end, "rtcp_address", encode_part(octets, media->rtcp_address));
    if (OTUS_UNLIKELY(media->rtcp_mux))
        at = JSON_LITERAL(at, "\"rtcp_mux\":true,");
    at = JSON_OPTIONAL(at, end, "mid", encode_part(octets, media->mid));
    at = put_codecs(at, end, octets, sdp, media);
    at = put_candidates(at, end, octets, sdp, media);
    return JSON_CLOSE(at, "},");
}

static uint8_t *put_sdp_members(uint8_t *at, uint8_t *end, const uint8_t *octets,
                                const struct otus_sdp *sdp)
{
    at = JSON_OPTIONAL(at, end, "origin", encode_part(octets, sdp->origin));
    at = JSON_OPTIONAL(at, end, "session_name", encode_part(octets, sdp->session_name));
    at = JSON_OPTIONAL(at, end, "address", encode_part(octets, sdp->address));
    at = put_bundle(at, end, encode_part(octets, sdp->bundle));
    at = JSON_LITERAL(at, "\"media\":[");
    for (uint32_t i = 0; i < sdp->num_media && i < OTUS_SDP_MAX_MEDIA; i++)
        at = put_media(at, end, octets, sdp, &sdp->media[i]);
    at = json_close_any(at, ']');
    at = JSON_LITERAL(at, ",");
    if (OTUS_UNLIKELY(sdp->truncated))
        at = JSON_LITERAL(at, "\"truncated\":true,");
    return at;
}

#endif
