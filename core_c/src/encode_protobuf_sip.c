/* Messages Sip and Sdp of configs/otus.proto. */
#include "protobuf_writer.h"

struct source {
    const uint8_t *octets;
    bool has_folds; /* in header fields */
};

static inline struct otus_slice text_of(const struct source *source, struct otus_span span)
{
    return encode_part(source->octets, span);
}

static __attribute__((noinline)) void put_folded(struct protobuf_writer *writer, uint32_t field,
                                                 struct otus_slice value)
{
    struct otus_cursor left = otus_cursor_of(value.at, value.len);
    struct otus_cursor line;
    uint8_t *start = protobuf_begin(writer, field, 1);
    bool first = true;
    while (encode_next_line(&left, &line)) {
        if (!first)
            protobuf_put_text(writer, (const uint8_t *)" ", 1);
        first = false;
        protobuf_put_text(writer, line.at, (uint32_t)otus_cursor_left(&line));
    }
    protobuf_finish(writer, start, 1);
}

/* What stands in a header field, in one line wherever the field is folded. */
static inline void put_field(struct protobuf_writer *writer, uint32_t field,
                             const struct source *source, struct otus_span span)
{
    struct otus_slice text = text_of(source, span);
    if (OTUS_UNLIKELY(source->has_folds) && text.len != 0)
        put_folded(writer, field, text);
    else
        protobuf_string(writer, field, text);
}

static void put_address(struct protobuf_writer *writer, uint32_t field, const struct source *source,
                        const struct otus_sip_address *address)
{
    enum { DISPLAY_NAME = 1, URI, TAG, PARAMS };
    uint8_t *start = protobuf_begin(writer, field, 1);
    put_field(writer, DISPLAY_NAME, source, address->display_name);
    put_field(writer, URI, source, address->uri);
    put_field(writer, TAG, source, address->tag);
    put_field(writer, PARAMS, source, address->params);
    protobuf_finish(writer, start, 1);
}

static void put_via(struct protobuf_writer *writer, uint32_t field, const struct source *source,
                    const struct otus_sip_via *via)
{
    enum { TRANSPORT = 1, SENT_BY, BRANCH, RECEIVED, RPORT };
    uint8_t *start = protobuf_begin(writer, field, 1);
    put_field(writer, TRANSPORT, source, via->transport);
    put_field(writer, SENT_BY, source, via->sent_by);
    put_field(writer, BRANCH, source, via->branch);
    put_field(writer, RECEIVED, source, via->received);
    if (via->has_rport)
        protobuf_put_string(writer, RPORT, text_of(source, via->rport));
    protobuf_finish(writer, start, 1);
}

static void put_header(struct protobuf_writer *writer, uint32_t field, const struct source *source,
                       const struct otus_sip_header *header)
{
    enum { NAME = 1, VALUE };
    static const struct {
        uint8_t text[31]; /* with room for a last step */
        uint8_t len;
    } names[OTUS_SIP_NUM_HEADER_IDS] = {
#define HEADER_NAME(id, name, compact) [OTUS_SIP_HEADER_##id] = {name, sizeof(name) - 1},
        OTUS_SIP_HEADERS(HEADER_NAME)
#undef HEADER_NAME
    };
    uint8_t *start = protobuf_begin(writer, field, 1);
    struct otus_slice name = text_of(source, header->name);
    if (OTUS_LIKELY(header->id != OTUS_SIP_HEADER_OTHER && header->id < OTUS_SIP_NUM_HEADER_IDS))
        name = (struct otus_slice){names[header->id].text, names[header->id].len};
    protobuf_string(writer, NAME, name);
    if (header->folded)
        put_folded(writer, VALUE, text_of(source, header->value));
    else
        protobuf_string(writer, VALUE, text_of(source, header->value));
    protobuf_finish(writer, start, 1);
}

static void put_codec(struct protobuf_writer *writer, uint32_t field, const struct source *source,
                      const struct otus_sdp_codec *codec, bool rtp)
{
    enum { PAYLOAD_TYPE = 1, ENCODING };
    uint8_t *start = protobuf_begin(writer, field, 1);
    protobuf_number(writer, PAYLOAD_TYPE, codec->payload_type);
    struct otus_slice encoding = text_of(source, codec->encoding);
    if (encoding.len != 0)
        protobuf_string(writer, ENCODING, encoding);
    else if (rtp && encode_static_codec(codec->payload_type)[0] != '\0')
        protobuf_name(writer, ENCODING, encode_static_codec(codec->payload_type));
    protobuf_finish(writer, start, 1);
}

static void put_media(struct protobuf_writer *writer, uint32_t field, const struct source *source,
                      const struct otus_sdp *sdp, const struct otus_sdp_media *media)
{
    enum {
        MEDIA = 1,
        PORT,
        NUM_PORTS,
        PROTOCOL,
        ADDRESS,
        DIRECTION,
        RTCP_PORT,
        RTCP_ADDRESS,
        RTCP_MUX,
        MID,
        CODECS,
        CANDIDATES,
    };
    struct otus_slice protocol = text_of(source, media->protocol);
    bool rtp = encode_carries_rtp(protocol.at, protocol.len);
    uint8_t *start = protobuf_begin(writer, field, 1);
    protobuf_string(writer, MEDIA, text_of(source, media->media));
    protobuf_number(writer, PORT, media->port);
    if (media->num_ports > 1)
        protobuf_number(writer, NUM_PORTS, media->num_ports);
    protobuf_string(writer, PROTOCOL, protocol);
    protobuf_string(writer, ADDRESS, text_of(source, media->address));
    protobuf_name(writer, DIRECTION, encode_direction(media->direction));
    protobuf_number(writer, RTCP_PORT, media->rtcp_port);
    protobuf_string(writer, RTCP_ADDRESS, text_of(source, media->rtcp_address));
    protobuf_number(writer, RTCP_MUX, media->rtcp_mux);
    protobuf_string(writer, MID, text_of(source, media->mid));
    for (uint32_t i = 0; i < media->num_codecs; i++) {
        uint32_t index = (uint32_t)media->first_codec + i;
        if (index < OTUS_SDP_MAX_CODECS)
            put_codec(writer, CODECS, source, &sdp->codecs[index], rtp);
    }
    for (uint32_t i = 0; i < media->num_candidates; i++) {
        uint32_t index = (uint32_t)media->first_candidate + i;
        if (index < OTUS_SDP_MAX_CANDIDATES)
            protobuf_put_string(writer, CANDIDATES, text_of(source, sdp->candidates[index]));
    }
    protobuf_finish(writer, start, 1);
}

static void put_bundle(struct protobuf_writer *writer, uint32_t field, struct otus_slice mids)
{
    struct otus_cursor left = otus_cursor_of(mids.at, mids.len);
    struct otus_cursor mid;
    while (encode_next_word(&left, &mid)) {
        struct otus_slice slice = {mid.at, (uint32_t)otus_cursor_left(&mid)};
        protobuf_put_string(writer, field, slice);
    }
}

static void put_sdp(struct protobuf_writer *writer, uint32_t field, const struct source *source,
                    const struct otus_sdp *sdp)
{
    enum { ORIGIN = 1, SESSION_NAME, ADDRESS, BUNDLE, MEDIA, TRUNCATED };
    uint8_t *start = protobuf_begin(writer, field, 2);
    protobuf_string(writer, ORIGIN, text_of(source, sdp->origin));
    protobuf_string(writer, SESSION_NAME, text_of(source, sdp->session_name));
    protobuf_string(writer, ADDRESS, text_of(source, sdp->address));
    put_bundle(writer, BUNDLE, text_of(source, sdp->bundle));
    for (uint32_t i = 0; i < sdp->num_media && i < OTUS_SDP_MAX_MEDIA; i++)
        put_media(writer, MEDIA, source, sdp, &sdp->media[i]);
    protobuf_number(writer, TRUNCATED, sdp->truncated);
    protobuf_finish(writer, start, 2);
}

/* Field numbers of message Sip. */
enum {
    SIP_TYPE = 1,
    SIP_METHOD,
    SIP_REQUEST_URI,
    SIP_STATUS_CODE,
    SIP_REASON,
    SIP_START_LINE,
    SIP_CALL_ID,
    SIP_CSEQ,
    SIP_CSEQ_METHOD,
    SIP_FROM,
    SIP_TO,
    SIP_CONTACT,
    SIP_VIA,
    SIP_USER_AGENT,
    SIP_CONTENT_TYPE,
    SIP_CONTENT_LENGTH,
    SIP_HEADERS,
    SIP_BODY,
    SIP_OFFER_ANSWER,
    SIP_SDP,
    SIP_ANOMALIES,
};

static void put_start_line(struct protobuf_writer *writer, const struct source *source,
                           const struct otus_sip_message *message)
{
    if (message->is_request) {
        protobuf_name(writer, SIP_TYPE, "request");
        protobuf_string(writer, SIP_METHOD, text_of(source, message->method));
        protobuf_string(writer, SIP_REQUEST_URI, text_of(source, message->request_uri));
    } else {
        protobuf_name(writer, SIP_TYPE, "response");
        protobuf_number(writer, SIP_STATUS_CODE, message->status_code);
        protobuf_string(writer, SIP_REASON, text_of(source, message->reason));
    }
    if (encode_start_line_deviates(message))
        protobuf_string(writer, SIP_START_LINE, text_of(source, message->start_line));
}

static void put_fields(struct protobuf_writer *writer, const struct source *source,
                       const struct otus_sip_message *message)
{
    put_field(writer, SIP_CALL_ID, source, message->call_id);
    if (message->first[OTUS_SIP_HEADER_CSEQ] != 0) {
        protobuf_put_number(writer, SIP_CSEQ, message->cseq);
        put_field(writer, SIP_CSEQ_METHOD, source, message->cseq_method);
    }
    if (message->first[OTUS_SIP_HEADER_FROM] != 0)
        put_address(writer, SIP_FROM, source, &message->from);
    if (message->first[OTUS_SIP_HEADER_TO] != 0)
        put_address(writer, SIP_TO, source, &message->to);
    if (message->first[OTUS_SIP_HEADER_CONTACT] != 0)
        put_address(writer, SIP_CONTACT, source, &message->contact);
    if (message->first[OTUS_SIP_HEADER_VIA] != 0)
        put_via(writer, SIP_VIA, source, &message->via);
    put_field(writer, SIP_USER_AGENT, source, message->user_agent);
    put_field(writer, SIP_CONTENT_TYPE, source, message->content_type);
    if (message->content_length >= 0)
        protobuf_put_number(writer, SIP_CONTENT_LENGTH, (uint64_t)message->content_length);
}

void protobuf_sip_fields(struct protobuf_writer *writer, const struct otus_sip_message *message)
{
    struct source source = {message->octets, message->has_folds};
    put_start_line(writer, &source, message);
    put_fields(writer, &source, message);
    for (uint32_t i = 0; i < message->num_headers; i++)
        put_header(writer, SIP_HEADERS, &source, &message->headers[i]);
    struct otus_slice body = text_of(&source, message->body);
    if (body.len != 0)
        protobuf_put_octets(writer, SIP_BODY, body.at, body.len);
    if (message->sdp != NULL) {
        const char *role = encode_offer_answer(message);
        if (role != NULL)
            protobuf_name(writer, SIP_OFFER_ANSWER, role);
        put_sdp(writer, SIP_SDP, &source, message->sdp);
    }
    if (OTUS_LIKELY(message->anomalies == 0))
        return;
    for (uint32_t id = 0; id < OTUS_SIP_NUM_ANOMALIES; id++) {
        if ((message->anomalies >> id) & 1)
            protobuf_name(writer, SIP_ANOMALIES, encode_anomaly_name(id));
    }
}
