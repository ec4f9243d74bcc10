/* The payload of a SIP record: what a reader asks for by name, and then every
 * header field in the order of the message, unfolded. */
#include "encoder.h"

enum { HEADER_HEAD = 32 }; /* `["P-Asserted-Identity","` padded */

static const struct {
    char text[HEADER_HEAD];
    uint8_t len;
} header_heads[OTUS_SIP_NUM_HEADER_IDS] = {
#define HEADER_HEAD_ROW(id, name, compact)                                                         \
    [OTUS_SIP_HEADER_##id] = {"[\"" name "\",\"", sizeof("[\"" name "\",\"") - 1},
    OTUS_SIP_HEADERS(HEADER_HEAD_ROW)
#undef HEADER_HEAD_ROW
};

static inline struct json_text text_of(const struct otus_sip_message *message,
                                       struct otus_span span)
{
    return json_text_in(message->octets, message->len, span);
}

static void put_folded(struct json_writer *writer, struct json_text value)
{
    struct otus_cursor left = otus_cursor_of(value.at, value.len);
    struct otus_cursor line;
    bool first = true;
    while (encode_next_line(&left, &line)) {
        if (!first)
            JSON_LITERAL(writer, " ");
        first = false;
        uint32_t behind = value.readable - (uint32_t)(line.at - value.at);
        struct json_text text = {line.at, (uint32_t)otus_cursor_left(&line), behind};
        json_string(writer, text);
    }
}

static inline void put_header_head(struct json_writer *writer,
                                   const struct otus_sip_message *message,
                                   const struct otus_sip_header *header)
{
    if (OTUS_LIKELY(header->id != OTUS_SIP_HEADER_OTHER && header->id < OTUS_SIP_NUM_HEADER_IDS)) {
        uint8_t len = header_heads[header->id].len;
        if (OTUS_UNLIKELY(json_room(writer) < HEADER_HEAD)) {
            json_put(writer, header_heads[header->id].text, len);
            return;
        }
        memcpy(writer->at, header_heads[header->id].text, HEADER_HEAD);
        writer->at += len;
        return;
    }
    JSON_LITERAL(writer, "[\"");
    json_string(writer, text_of(message, header->name));
    JSON_LITERAL(writer, "\",\"");
}

static void put_headers(struct json_writer *writer, const struct otus_sip_message *message)
{
    JSON_LITERAL(writer, "\"headers\":[");
    for (uint32_t i = 0; i < message->num_headers; i++) {
        const struct otus_sip_header *header = &message->headers[i];
        put_header_head(writer, message, header);
        struct json_text value = text_of(message, header->value);
        if (OTUS_LIKELY(!header->folded))
            json_string(writer, value);
        else
            put_folded(writer, value);
        JSON_LITERAL(writer, "\"],");
    }
    json_close(writer, ']');
    JSON_LITERAL(writer, ",");
}

static void put_start_line(struct json_writer *writer, const struct otus_sip_message *message)
{
    if (message->is_request) {
        JSON_LITERAL(writer, "\"type\":\"request\",");
        JSON_MEMBER(writer, "method", text_of(message, message->method));
        JSON_MEMBER(writer, "request_uri", text_of(message, message->request_uri));
    } else {
        JSON_LITERAL(writer, "\"type\":\"response\",");
        JSON_NUMBER(writer, "status_code", message->status_code);
        JSON_MEMBER(writer, "reason", text_of(message, message->reason));
    }
    if (OTUS_UNLIKELY(encode_start_line_deviates(message)))
        JSON_MEMBER(writer, "start_line", text_of(message, message->start_line));
}

static inline void put_address_members(struct json_writer *writer,
                                       const struct otus_sip_message *message,
                                       const struct otus_sip_address *address)
{
    JSON_OPTIONAL(writer, "display_name", text_of(message, address->display_name));
    JSON_MEMBER(writer, "uri", text_of(message, address->uri));
    JSON_OPTIONAL(writer, "tag", text_of(message, address->tag));
    JSON_OPTIONAL(writer, "params", text_of(message, address->params));
    json_close(writer, '}');
    JSON_LITERAL(writer, ",");
}

static bool has_header(const struct otus_sip_message *message, uint32_t id)
{
    return message->first[id] != 0;
}

static void put_addresses(struct json_writer *writer, const struct otus_sip_message *message)
{
    if (has_header(message, OTUS_SIP_HEADER_FROM)) {
        JSON_LITERAL(writer, "\"from\":{");
        put_address_members(writer, message, &message->from);
    }
    if (has_header(message, OTUS_SIP_HEADER_TO)) {
        JSON_LITERAL(writer, "\"to\":{");
        put_address_members(writer, message, &message->to);
    }
    if (has_header(message, OTUS_SIP_HEADER_CONTACT)) {
        JSON_LITERAL(writer, "\"contact\":{");
        put_address_members(writer, message, &message->contact);
    }
}

static void put_via(struct json_writer *writer, const struct otus_sip_message *message)
{
    const struct otus_sip_via *via = &message->via;
    if (!has_header(message, OTUS_SIP_HEADER_VIA))
        return;
    JSON_LITERAL(writer, "\"via\":{");
    JSON_MEMBER(writer, "transport", text_of(message, via->transport));
    JSON_MEMBER(writer, "sent_by", text_of(message, via->sent_by));
    JSON_OPTIONAL(writer, "branch", text_of(message, via->branch));
    JSON_OPTIONAL(writer, "received", text_of(message, via->received));
    if (via->has_rport)
        JSON_MEMBER(writer, "rport", text_of(message, via->rport));
    json_close(writer, '}');
    JSON_LITERAL(writer, ",");
}

static void put_cseq(struct json_writer *writer, const struct otus_sip_message *message)
{
    if (!has_header(message, OTUS_SIP_HEADER_CSEQ))
        return;
    JSON_NUMBER(writer, "cseq", message->cseq);
    JSON_MEMBER(writer, "cseq_method", text_of(message, message->cseq_method));
}

static void put_content(struct json_writer *writer, const struct otus_sip_message *message)
{
    JSON_OPTIONAL(writer, "content_type", text_of(message, message->content_type));
    if (message->content_length < 0)
        return;
    if (OTUS_LIKELY(message->content_length <= UINT32_MAX)) {
        JSON_NUMBER(writer, "content_length", (uint32_t)message->content_length);
        return;
    }
    uint8_t digits[OTUS_TEXT_U64];
    uint32_t len = otus_text_u64(digits, (uint64_t)message->content_length);
    JSON_LITERAL(writer, "\"content_length\":");
    json_put(writer, digits, len);
    JSON_LITERAL(writer, ",");
}

/* A body that is no UTF-8 goes as base64, so that nothing of it is lost. */
static void put_body(struct json_writer *writer, const struct otus_sip_message *message)
{
    struct json_text body = text_of(message, message->body);
    if (body.len == 0)
        return;
    if (OTUS_LIKELY(encode_is_utf8(body.at, body.len))) {
        JSON_MEMBER(writer, "body", body);
        return;
    }
    uint64_t len = ((uint64_t)body.len + 2) / 3 * 4;
    JSON_LITERAL(writer, "\"body_base64\":\"");
    if (json_room(writer) < len) {
        writer->full = true;
        return;
    }
    writer->at += encode_base64(writer->at, body.at, body.len);
    JSON_LITERAL(writer, "\",");
}

static void put_anomalies(struct json_writer *writer, uint64_t anomalies)
{
    if (OTUS_LIKELY(anomalies == 0))
        return;
    JSON_LITERAL(writer, "\"anomalies\":[");
    for (uint32_t id = 0; id < OTUS_SIP_NUM_ANOMALIES; id++) {
        if (((anomalies >> id) & 1) == 0)
            continue;
        const char *name = encode_anomaly_name(id);
        struct otus_slice slice = {(const uint8_t *)name, (uint32_t)strlen(name)};
        json_put_text(writer, "\"", 1, json_text_of(slice), "\",", 2);
    }
    json_close(writer, ']');
    JSON_LITERAL(writer, ",");
}

static void put_sdp(struct json_writer *writer, const struct otus_sip_message *message)
{
    if (message->sdp == NULL)
        return;
    const char *role = encode_offer_answer(message);
    if (role != NULL) {
        struct otus_slice slice = {(const uint8_t *)role, (uint32_t)strlen(role)};
        JSON_MEMBER(writer, "offer_answer", json_text_of(slice));
    }
    JSON_LITERAL(writer, "\"sdp\":{");
    json_sdp_members(writer, message->sdp, message->octets, message->len);
    json_close(writer, '}');
    JSON_LITERAL(writer, ",");
}

void json_sip_members(struct json_writer *writer, const struct otus_sip_message *message)
{
    put_start_line(writer, message);
    JSON_OPTIONAL(writer, "call_id", text_of(message, message->call_id));
    put_cseq(writer, message);
    put_addresses(writer, message);
    put_via(writer, message);
    JSON_OPTIONAL(writer, "user_agent", text_of(message, message->user_agent));
    put_content(writer, message);
    put_headers(writer, message);
    put_body(writer, message);
    put_sdp(writer, message);
    put_anomalies(writer, message->anomalies);
}
