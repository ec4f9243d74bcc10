/* The payload of a SIP record: what a reader asks for by name, and then every
 * header field in the order of the message, unfolded. */
#ifndef OTUS_JSON_SIP_H
#define OTUS_JSON_SIP_H

#include "json_sdp.h"

/* `["P-Asserted-Identity","`: copied whole, without looking at its length. */
struct header_head {
    char text[31];
    uint8_t len;
};
static_assert(sizeof(struct header_head) == 32, "json_move32() copies it");

static const struct header_head header_heads[OTUS_SIP_NUM_HEADER_IDS] = {
#define HEADER_HEAD_ROW(id, name, compact)                                                         \
    [OTUS_SIP_HEADER_##id] = {"[\"" name "\",\"", sizeof("[\"" name "\",\"") - 1},
    OTUS_SIP_HEADERS(HEADER_HEAD_ROW)
#undef HEADER_HEAD_ROW
};

static uint8_t *put_folded(uint8_t *at, uint8_t *end, struct otus_slice value)
{
    struct otus_cursor left = otus_cursor_of(value.at, value.len);
    struct otus_cursor line;
    bool first = true;
    while (encode_next_line(&left, &line)) {
        if (!first)
            at = JSON_LITERAL(at, " ");
        first = false;
        struct otus_slice text = {line.at, (uint32_t)otus_cursor_left(&line)};
        at = json_string(at, end, text);
    }
    return at;
}

static inline uint8_t *put_header_head(uint8_t *at, uint8_t *end, const uint8_t *octets,
                                       const struct otus_sip_header *header)
{
    uint32_t id = header->id;
    if (OTUS_LIKELY(id - 1 < OTUS_SIP_NUM_HEADER_IDS - 1)) {
        const struct header_head *head = &header_heads[id];
        json_move32(at, head);
        return at + head->len;
    }
    at = JSON_LITERAL(at, "[\"");
    at = json_string(at, end, encode_part(octets, header->name));
    return JSON_LITERAL(at, "\",\"");
}

static inline uint8_t *put_headers(uint8_t *at, uint8_t *end, const uint8_t *octets,
                                   const struct otus_sip_message *message)
{
    const struct otus_sip_header *stop = message->headers + message->num_headers;
    at = JSON_LITERAL(at, "\"headers\":[");
    for (const struct otus_sip_header *header = message->headers; header < stop; header++) {
        at = put_header_head(at, end, octets, header);
        struct otus_slice value = encode_part(octets, header->value);
        if (OTUS_LIKELY(!header->folded))
            at = json_string(at, end, value);
        else
            at = put_folded(at, end, value);
        at = JSON_LITERAL(at, "\"],");
    }
    at = json_close_any(at, ']');
    return JSON_LITERAL(at, ",");
}

static inline uint8_t *put_start_line(uint8_t *at, uint8_t *end, const uint8_t *octets,
                                      const struct otus_sip_message *message)
{
    if (message->is_request) {
        at = JSON_LITERAL(at, "\"type\":\"request\",");
        at = JSON_MEMBER(at, end, "method", encode_part(octets, message->method));
        at = JSON_MEMBER(at, end, "request_uri", encode_part(octets, message->request_uri));
    } else {
        at = JSON_LITERAL(at, "\"type\":\"response\",");
        at = JSON_NUMBER(at, end, "status_code", message->status_code);
        at = JSON_MEMBER(at, end, "reason", encode_part(octets, message->reason));
    }
    if (OTUS_UNLIKELY(encode_start_line_deviates(message)))
        at = JSON_MEMBER(at, end, "start_line", encode_part(octets, message->start_line));
    return at;
}

static __attribute__((noinline)) uint8_t *put_folded_member(uint8_t *at, uint8_t *end,
                                                            const char *head, size_t head_len,
                                                            struct otus_slice text)
{
    at = json_put(at, head, head_len);
    at = put_folded(at, end, text);
    return JSON_LITERAL(at, "\",");
}

/* What stands in a header field, in one line wherever the field is folded. */
static inline __attribute__((always_inline)) uint8_t *put_field(uint8_t *at, uint8_t *end,
                                                                const char *head, size_t head_len,
                                                                struct otus_slice text,
                                                                bool has_folds)
{
    return has_folds ? put_folded_member(at, end, head, head_len, text)
                     : json_member(at, end, head, head_len, text);
}

#define FIELD(at, end, name, text, has_folds)                                                      \
    put_field((at), (end), "\"" name "\":\"" JSON_PADDING, sizeof("\"" name "\":\"") - 1, (text),  \
              (has_folds))
#define OPTIONAL_FIELD(at, end, name, text, has_folds)                                             \
    ((text).len == 0 ? (at) : FIELD((at), (end), name, (text), (has_folds)))

static inline __attribute__((always_inline)) uint8_t *put_address_members(
    uint8_t *at, uint8_t *end, const uint8_t *octets, const struct otus_sip_address *address,
    bool has_folds)
{
    at = OPTIONAL_FIELD(at, end, "display_name", encode_part(octets, address->display_name),
                        has_folds);
    at = FIELD(at, end, "uri", encode_part(octets, address->uri), has_folds);
    at = OPTIONAL_FIELD(at, end, "tag", encode_part(octets, address->tag), has_folds);
    at = OPTIONAL_FIELD(at, end, "params", encode_part(octets, address->params), has_folds);
    return JSON_CLOSE(at, "},");
}

static uint8_t *put_plain_address(uint8_t *at, uint8_t *end, const uint8_t *octets,
                                  const struct otus_sip_address *address)
{
    return put_address_members(at, end, octets, address, false);
}

static __attribute__((noinline)) uint8_t *put_folded_address(uint8_t *at, uint8_t *end,
                                                             const uint8_t *octets,
                                                             const struct otus_sip_address *address)
{
    return put_address_members(at, end, octets, address, true);
}

static inline uint8_t *put_address(uint8_t *at, uint8_t *end, const uint8_t *octets,
                                   const struct otus_sip_address *address, bool has_folds)
{
    return has_folds ? put_folded_address(at, end, octets, address)
                     : put_plain_address(at, end, octets, address);
}

static inline bool has_header(const struct otus_sip_message *message, uint32_t id)
{
    return message->first[id] != 0;
}

static inline uint8_t *put_addresses(uint8_t *at, uint8_t *end, const uint8_t *octets,
                                     const struct otus_sip_message *message, bool has_folds)
{
    if (OTUS_LIKELY(has_header(message, OTUS_SIP_HEADER_FROM))) {
        at = JSON_LITERAL(at, "\"from\":{");
        at = put_address(at, end, octets, &message->from, has_folds);
    }
    if (OTUS_LIKELY(has_header(message, OTUS_SIP_HEADER_TO))) {
        at = JSON_LITERAL(at, "\"to\":{");
        at = put_address(at, end, octets, &message->to, has_folds);
    }
    if (has_header(message, OTUS_SIP_HEADER_CONTACT)) {
        at = JSON_LITERAL(at, "\"contact\":{");
        at = put_address(at, end, octets, &message->contact, has_folds);
    }
    return at;
}

static inline uint8_t *put_via(uint8_t *at, uint8_t *end, const uint8_t *octets,
                               const struct otus_sip_message *message, bool has_folds)
{
    const struct otus_sip_via *via = &message->via;
    if (OTUS_UNLIKELY(!has_header(message, OTUS_SIP_HEADER_VIA)))
        return at;
    at = JSON_LITERAL(at, "\"via\":{");
    at = FIELD(at, end, "transport", encode_part(octets, via->transport), has_folds);
    at = FIELD(at, end, "sent_by", encode_part(octets, via->sent_by), has_folds);
    at = OPTIONAL_FIELD(at, end, "branch", encode_part(octets, via->branch), has_folds);
    at = OPTIONAL_FIELD(at, end, "received", encode_part(octets, via->received), has_folds);
    if (via->has_rport)
        at = FIELD(at, end, "rport", encode_part(octets, via->rport), has_folds);
    return JSON_CLOSE(at, "},");
}

static inline uint8_t *put_cseq(uint8_t *at, uint8_t *end, const uint8_t *octets,
                                const struct otus_sip_message *message, bool has_folds)
{
    if (OTUS_UNLIKELY(!has_header(message, OTUS_SIP_HEADER_CSEQ)))
        return at;
    at = JSON_NUMBER(at, end, "cseq", message->cseq);
    return FIELD(at, end, "cseq_method", encode_part(octets, message->cseq_method), has_folds);
}

/* What header fields say that a reader asks for by name. */
static inline __attribute__((always_inline)) uint8_t *put_fields(
    uint8_t *at, uint8_t *end, const uint8_t *octets, const struct otus_sip_message *message,
    bool has_folds)
{
    at = OPTIONAL_FIELD(at, end, "call_id", encode_part(octets, message->call_id), has_folds);
    at = put_cseq(at, end, octets, message, has_folds);
    at = put_addresses(at, end, octets, message, has_folds);
    at = put_via(at, end, octets, message, has_folds);
    at = OPTIONAL_FIELD(at, end, "user_agent", encode_part(octets, message->user_agent), has_folds);
    return OPTIONAL_FIELD(at, end, "content_type", encode_part(octets, message->content_type),
                          has_folds);
}

static __attribute__((noinline)) uint8_t *put_folded_fields(uint8_t *at, uint8_t *end,
                                                            const uint8_t *octets,
                                                            const struct otus_sip_message *message)
{
    return put_fields(at, end, octets, message, true);
}

static inline uint8_t *put_content_length(uint8_t *at, uint8_t *end,
                                          const struct otus_sip_message *message)
{
    if (OTUS_UNLIKELY(message->content_length < 0))
        return at;
    if (OTUS_LIKELY(message->content_length <= UINT32_MAX))
        return JSON_NUMBER(at, end, "content_length", (uint32_t)message->content_length);
    at = JSON_LITERAL(at, "\"content_length\":");
    at += otus_text_u64(at, (uint64_t)message->content_length);
    return JSON_LITERAL(at, ",");
}

/* A body that is no UTF-8 goes as base64, so that nothing of it is lost. */
static inline uint8_t *put_body(uint8_t *at, uint8_t *end, const uint8_t *octets,
                                const struct otus_sip_message *message)
{
    struct otus_slice body = encode_part(octets, message->body);
    if (body.len == 0)
        return at;
    if (OTUS_LIKELY(encode_is_utf8(body.at, body.len)))
        return JSON_MEMBER(at, end, "body", body);
    at = JSON_LITERAL(at, "\"body_base64\":\"");
    if (end - at <= (ptrdiff_t)encode_base64_len(body.len))
        return end;
    at += encode_base64(at, body.at, body.len);
    return JSON_LITERAL(at, "\",");
}

static inline uint8_t *put_sdp(uint8_t *at, uint8_t *end, const uint8_t *octets,
                               const struct otus_sip_message *message)
{
    const char *role = encode_offer_answer(message);
    if (OTUS_LIKELY(role != NULL))
        at = JSON_NAME(at, end, "offer_answer", role);
    at = JSON_LITERAL(at, "\"sdp\":{");
    at = put_sdp_members(at, end, octets, message->sdp);
    return JSON_CLOSE(at, "},");
}

static __attribute__((noinline)) uint8_t *put_anomalies(uint8_t *at, uint8_t *end,
                                                        uint64_t anomalies)
{
    at = JSON_LITERAL(at, "\"anomalies\":[");
    for (uint32_t id = 0; id < OTUS_SIP_NUM_ANOMALIES; id++) {
        if (((anomalies >> id) & 1) != 0)
            at = JSON_NAME_ITEM(at, end, encode_anomaly_name(id));
    }
    at = json_close_any(at, ']');
    return JSON_LITERAL(at, ",");
}

/* The inside of the payload's object, a comma behind every member. */
static uint8_t *put_sip_members(uint8_t *at, uint8_t *end, const struct otus_sip_message *message)
{
    /* Aside, since for all that the compiler knows each octet written may change them. */
    const uint8_t *octets = message->octets;
    at = put_start_line(at, end, octets, message);
    at = OTUS_LIKELY(!message->has_folds) ? put_fields(at, end, octets, message, false)
                                          : put_folded_fields(at, end, octets, message);
    at = put_content_length(at, end, message);
    at = put_headers(at, end, octets, message);
    at = put_body(at, end, octets, message);
    if (message->sdp != NULL)
        at = put_sdp(at, end, octets, message);
    if (OTUS_UNLIKELY(message->anomalies != 0))
        at = put_anomalies(at, end, message->anomalies);
    return at;
}

#endif
