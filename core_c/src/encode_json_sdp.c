/* The `sdp` member of a SIP payload. */
#include "encoder.h"

struct sdp_source {
    const uint8_t *octets;
    uint32_t len;
};

static inline struct json_text text_of(const struct sdp_source *source, struct otus_span span)
{
    return json_text_in(source->octets, source->len, span);
}

/* `a=group:BUNDLE 0 1`: the identification tags as a list. */
static void put_bundle(struct json_writer *writer, struct json_text mids)
{
    if (mids.len == 0)
        return;
    JSON_LITERAL(writer, "\"bundle\":[");
    struct otus_cursor left = otus_cursor_of(mids.at, mids.len);
    struct otus_cursor mid;
    while (encode_next_word(&left, &mid)) {
        struct otus_slice slice = {mid.at, (uint32_t)otus_cursor_left(&mid)};
        json_put_text(writer, "\"", 1, json_text_of(slice), "\",", 2);
    }
    json_close(writer, ']');
    JSON_LITERAL(writer, ",");
}

static void put_codecs(struct json_writer *writer, const struct otus_sdp *sdp,
                       const struct otus_sdp_media *media, const struct sdp_source *source)
{
    struct json_text protocol = text_of(source, media->protocol);
    bool rtp = encode_carries_rtp(protocol.at, protocol.len);
    JSON_LITERAL(writer, "\"codecs\":[");
    for (uint32_t i = 0; i < media->num_codecs; i++) {
        uint32_t index = (uint32_t)media->first_codec + i;
        if (index >= OTUS_SDP_MAX_CODECS)
            break;
        const struct otus_sdp_codec *codec = &sdp->codecs[index];
        struct json_text encoding = text_of(source, codec->encoding);
        if (encoding.len == 0 && rtp) {
            const char *name = encode_static_codec(codec->payload_type);
            struct otus_slice slice = {(const uint8_t *)name, (uint32_t)strlen(name)};
            encoding = json_text_of(slice);
        }
        JSON_LITERAL(writer, "{");
        JSON_NUMBER(writer, "payload_type", codec->payload_type);
        JSON_OPTIONAL(writer, "encoding", encoding);
        json_close(writer, '}');
        JSON_LITERAL(writer, ",");
    }
    json_close(writer, ']');
    JSON_LITERAL(writer, ",");
}

static void put_candidates(struct json_writer *writer, const struct otus_sdp *sdp,
                           const struct otus_sdp_media *media, const struct sdp_source *source)
{
    if (media->num_candidates == 0)
        return;
    JSON_LITERAL(writer, "\"candidates\":[");
    for (uint32_t i = 0; i < media->num_candidates; i++) {
        uint32_t index = (uint32_t)media->first_candidate + i;
        if (index >= OTUS_SDP_MAX_CANDIDATES)
            break;
        json_put_text(writer, "\"", 1, text_of(source, sdp->candidates[index]), "\",", 2);
    }
    json_close(writer, ']');
    JSON_LITERAL(writer, ",");
}

static void put_media(struct json_writer *writer, const struct otus_sdp *sdp,
                      const struct otus_sdp_media *media, const struct sdp_source *source)
{
    JSON_LITERAL(writer, "{");
    JSON_MEMBER(writer, "media", text_of(source, media->media));
    JSON_NUMBER(writer, "port", media->port);
    if (media->num_ports > 1)
        JSON_NUMBER(writer, "num_ports", media->num_ports);
    JSON_MEMBER(writer, "protocol", text_of(source, media->protocol));
    JSON_OPTIONAL(writer, "address", text_of(source, media->address));
    const char *direction = encode_direction(media->direction);
    struct otus_slice slice = {(const uint8_t *)direction, (uint32_t)strlen(direction)};
    JSON_MEMBER(writer, "direction", json_text_of(slice));
    if (media->rtcp_port != 0)
        JSON_NUMBER(writer, "rtcp_port", media->rtcp_port);
    JSON_OPTIONAL(writer, "rtcp_address", text_of(source, media->rtcp_address));
    if (media->rtcp_mux)
        JSON_LITERAL(writer, "\"rtcp_mux\":true,");
    JSON_OPTIONAL(writer, "mid", text_of(source, media->mid));
    put_codecs(writer, sdp, media, source);
    put_candidates(writer, sdp, media, source);
    json_close(writer, '}');
    JSON_LITERAL(writer, ",");
}

void json_sdp_members(struct json_writer *writer, const struct otus_sdp *sdp, const uint8_t *octets,
                      uint32_t len)
{
    struct sdp_source source = {octets, len};
    JSON_OPTIONAL(writer, "origin", text_of(&source, sdp->origin));
    JSON_OPTIONAL(writer, "session_name", text_of(&source, sdp->session_name));
    JSON_OPTIONAL(writer, "address", text_of(&source, sdp->address));
    put_bundle(writer, text_of(&source, sdp->bundle));
    JSON_LITERAL(writer, "\"media\":[");
    for (uint32_t i = 0; i < sdp->num_media && i < OTUS_SDP_MAX_MEDIA; i++)
        put_media(writer, sdp, &sdp->media[i], &source);
    json_close(writer, ']');
    JSON_LITERAL(writer, ",");
    if (sdp->truncated)
        JSON_LITERAL(writer, "\"truncated\":true,");
}
