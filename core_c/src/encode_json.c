/* One record as one JSON object: docs/reference/record.md lists its members. */
#include "encoder.h"

#include "otus/encode.h"

static void put_timestamp(struct json_writer *writer, struct otus_encoder *encoder, uint64_t ts_ns)
{
    enum { HEAD = sizeof("{\"timestamp\":\"") - 1 };
    uint64_t second = ts_ns / 1000000000;
    if (OTUS_UNLIKELY(second != encoder->second || !encoder->has_date)) {
        otus_text_second(encoder->date, second);
        encoder->second = second;
        encoder->has_date = true;
    }
    if (OTUS_UNLIKELY(json_room(writer) < HEAD + OTUS_TEXT_SECOND + 1 + OTUS_TEXT_FRACTION)) {
        writer->full = true;
        return;
    }
    memcpy(writer->at, "{\"timestamp\":\"", HEAD);
    writer->at += HEAD;
    memcpy(writer->at, encoder->date, OTUS_TEXT_SECOND);
    writer->at += OTUS_TEXT_SECOND;
    *writer->at++ = '.';
    otus_text_fraction(writer->at, (uint32_t)(ts_ns - second * 1000000000));
    writer->at += OTUS_TEXT_FRACTION;
}

static void put_ip(struct json_writer *writer, uint8_t version, const uint8_t ip[16])
{
    if (OTUS_UNLIKELY(json_room(writer) < OTUS_TEXT_IP)) {
        writer->full = true;
        return;
    }
    writer->at += otus_text_ip(writer->at, version, ip);
}

static void put_network(struct json_writer *writer, const struct otus_packet_meta *meta)
{
    put_ip(writer, meta->ip_version, meta->src_ip);
    JSON_LITERAL(writer, "\",\"dst_ip\":\"");
    put_ip(writer, meta->ip_version, meta->dst_ip);
    JSON_LITERAL(writer, "\",");
    JSON_NUMBER(writer, "src_port", meta->src_port);
    JSON_NUMBER(writer, "dst_port", meta->dst_port);
    if (OTUS_LIKELY(meta->protocol == 17)) {
        JSON_LITERAL(writer, "\"protocol\":\"udp\",");
    } else {
        uint8_t name[OTUS_TEXT_PROTOCOL];
        struct otus_slice protocol = {name, otus_text_protocol(name, meta->protocol)};
        JSON_MEMBER(writer, "protocol", json_text_of(protocol));
    }
}

static void put_vlans(struct json_writer *writer, const struct otus_packet_meta *meta)
{
    uint32_t num = meta->num_vlans < OTUS_MAX_VLANS ? meta->num_vlans : OTUS_MAX_VLANS;
    if (OTUS_LIKELY(num == 0))
        return;
    JSON_LITERAL(writer, "\"vlans\":[");
    for (uint32_t i = 0; i < num; i++)
        json_put_number(writer, "", 0, meta->vlans[i]);
    json_close(writer, ']');
    JSON_LITERAL(writer, ",");
}

static struct json_text static_text(const char *string)
{
    struct otus_slice slice = {(const uint8_t *)string, (uint32_t)strlen(string)};
    return json_text_of(slice);
}

static void put_tunnel(struct json_writer *writer, const struct otus_tunnel *tunnel)
{
    JSON_LITERAL(writer, "{");
    JSON_MEMBER(writer, "kind", static_text(otus_tunnel_kind_name(tunnel->kind)));
    if (tunnel->flags & OTUS_TUNNEL_HAS_KEY)
        JSON_NUMBER(writer, "key", tunnel->key);
    JSON_LITERAL(writer, "\"src_ip\":\"");
    put_ip(writer, tunnel->ip_version, tunnel->src_ip);
    JSON_LITERAL(writer, "\",\"dst_ip\":\"");
    put_ip(writer, tunnel->ip_version, tunnel->dst_ip);
    JSON_LITERAL(writer, "\",");
    if (tunnel->src_port != 0 || tunnel->dst_port != 0) {
        JSON_NUMBER(writer, "src_port", tunnel->src_port);
        JSON_NUMBER(writer, "dst_port", tunnel->dst_port);
    }
    JSON_NUMBER(writer, "version", tunnel->version);
    json_close(writer, '}');
    JSON_LITERAL(writer, ",");
}

static void put_tunnels(struct json_writer *writer, const struct otus_encode_input *input)
{
    if (OTUS_LIKELY(input->meta->num_tunnels == 0 || input->tunnels == NULL))
        return;
    JSON_LITERAL(writer, "\"tunnels\":[");
    for (uint32_t i = 0; i < input->meta->num_tunnels && i < OTUS_MAX_TUNNELS; i++)
        put_tunnel(writer, &input->tunnels[i]);
    json_close(writer, ']');
    JSON_LITERAL(writer, ",");
}

static void put_flags(struct json_writer *writer, uint32_t flags)
{
    const uint32_t told = OTUS_PACKET_TRUNCATED | OTUS_PACKET_REASSEMBLED | OTUS_PACKET_STREAM |
                          OTUS_PACKET_WEBSOCKET | OTUS_PACKET_OUTGOING;
    if (OTUS_LIKELY((flags & told) == 0))
        return;
    JSON_LITERAL(writer, "\"flags\":[");
    if (flags & OTUS_PACKET_TRUNCATED)
        JSON_LITERAL(writer, "\"truncated\",");
    if (flags & OTUS_PACKET_REASSEMBLED)
        JSON_LITERAL(writer, "\"reassembled\",");
    if (flags & OTUS_PACKET_STREAM)
        JSON_LITERAL(writer, "\"stream\",");
    if (flags & OTUS_PACKET_WEBSOCKET)
        JSON_LITERAL(writer, "\"websocket\",");
    if (flags & OTUS_PACKET_OUTGOING)
        JSON_LITERAL(writer, "\"outgoing\",");
    json_close(writer, ']');
    JSON_LITERAL(writer, ",");
}

/* Label values mostly lie in the message, where more may be read behind them. */
static struct json_text label_text(struct otus_slice value, struct otus_slice payload)
{
    struct json_text text = json_text_of(value);
    uintptr_t off = (uintptr_t)value.at - (uintptr_t)payload.at;
    if (off < payload.len && value.len <= payload.len - off)
        text.readable = payload.len - (uint32_t)off;
    return text;
}

static void put_label(struct json_writer *writer, const struct encoder_label *label,
                      struct json_text value)
{
    if (OTUS_UNLIKELY(json_room(writer) < ENCODER_LABEL_SLOT)) {
        json_put(writer, label->json, label->json_len);
    } else {
        memcpy(writer->at, label->json, 16);
        if (label->json_len > 16)
            memcpy(writer->at + 16, label->json + 16, ENCODER_LABEL_SLOT - 16);
        writer->at += label->json_len;
    }
    json_string(writer, value);
    JSON_LITERAL(writer, "\",");
}

static void put_labels(struct json_writer *writer, const struct otus_encoder *encoder,
                       const struct otus_encode_input *input)
{
    JSON_LITERAL(writer, "\"labels\":{");
    for (uint32_t word = 0; word < OTUS_MAX_LABELS / 64; word++) {
        uint64_t left = input->labels->present[word];
        while (left != 0) {
            uint32_t id = word * 64 + (uint32_t)__builtin_ctzll(left);
            left &= left - 1;
            const struct encoder_label *label = &encoder->labels[id];
            if (OTUS_LIKELY(label->json_len != 0))
                put_label(writer, label, label_text(input->labels->value[id], input->payload));
        }
    }
    json_close(writer, '}');
    JSON_LITERAL(writer, ",");
}

static void put_rtp(struct json_writer *writer, const struct otus_rtp_header *rtp)
{
    JSON_NUMBER(writer, "ssrc", rtp->ssrc);
    JSON_NUMBER(writer, "sequence", rtp->sequence);
    JSON_NUMBER(writer, "timestamp", rtp->timestamp);
    JSON_NUMBER(writer, "payload_type", rtp->payload_type);
    if (rtp->marker)
        JSON_LITERAL(writer, "\"marker\":true,");
    else
        JSON_LITERAL(writer, "\"marker\":false,");
    JSON_NUMBER(writer, "num_csrc", rtp->num_csrc);
    if (rtp->has_extension)
        JSON_LITERAL(writer, "\"has_extension\":true,");
    else
        JSON_LITERAL(writer, "\"has_extension\":false,");
    JSON_NUMBER(writer, "payload_len", rtp->payload.len);
}

static void put_rtcp(struct json_writer *writer, const struct otus_rtcp_header *rtcp)
{
    JSON_NUMBER(writer, "ssrc", rtcp->ssrc);
    JSON_NUMBER(writer, "packet_type", rtcp->packet_type);
    JSON_NUMBER(writer, "count", rtcp->count);
    JSON_NUMBER(writer, "num_packets", rtcp->num_packets);
}

static void put_payload(struct json_writer *writer, const struct otus_encode_input *input)
{
    if (OTUS_UNLIKELY(input->payload_json.len != 0)) {
        json_put(writer, input->payload_json.at, input->payload_json.len);
        return;
    }
    JSON_LITERAL(writer, "{");
    if (input->sip != NULL)
        json_sip_members(writer, input->sip);
    else if (input->rtp != NULL)
        put_rtp(writer, input->rtp);
    else if (input->rtcp != NULL)
        put_rtcp(writer, input->rtcp);
    else
        JSON_NUMBER(writer, "len", input->payload.len);
    json_close(writer, '}');
}

static void put_raw_payload(struct json_writer *writer, struct otus_slice payload)
{
    JSON_LITERAL(writer, ",\"raw_payload\":\"");
    uint64_t len = ((uint64_t)payload.len + 2) / 3 * 4;
    if (OTUS_UNLIKELY(json_room(writer) < len)) {
        writer->full = true;
        return;
    }
    writer->at += encode_base64(writer->at, payload.at, payload.len);
    JSON_LITERAL(writer, "\"");
}

static void put_payload_type(struct json_writer *writer, const struct otus_encode_input *input)
{
    if (OTUS_LIKELY(input->payload_type == OTUS_PAYLOAD_SIP)) {
        JSON_LITERAL(writer, "\"payload_type\":\"sip\",\"payload\":");
        return;
    }
    struct json_text name = input->payload_type == OTUS_PAYLOAD_PLUGIN
                                ? json_text_of(input->payload_name)
                                : static_text(encode_payload_type_name(input->payload_type));
    JSON_MEMBER(writer, "payload_type", name);
    JSON_LITERAL(writer, "\"payload\":");
}

static void put_record(struct json_writer *writer, struct otus_encoder *encoder,
                       const struct otus_encode_input *input)
{
    const struct otus_packet_meta *meta = input->meta;
    put_timestamp(writer, encoder, meta->ts_ns);
    json_put(writer, encoder->json_head, encoder->json_head_len);
    put_network(writer, meta);
    put_vlans(writer, meta);
    put_tunnels(writer, input);
    put_flags(writer, meta->flags);
    JSON_NUMBER(writer, "caplen", meta->caplen);
    JSON_NUMBER(writer, "wirelen", meta->wirelen);
    put_labels(writer, encoder, input);
    put_payload_type(writer, input);
    put_payload(writer, input);
    if (OTUS_UNLIKELY(encoder->raw_payload))
        put_raw_payload(writer, input->payload);
    JSON_LITERAL(writer, "}");
}

static struct json_writer writer_of(const struct otus_arena *arena)
{
    struct json_writer writer = {arena->base + arena->used, arena->base + arena->size, false};
    return writer;
}

static enum otus_status finish(struct otus_arena *arena, struct otus_span *out_span,
                               const struct json_writer *writer)
{
    if (OTUS_UNLIKELY(writer->full))
        return OTUS_E_LIMIT;
    uint32_t end = (uint32_t)(writer->at - arena->base);
    *out_span = (struct otus_span){arena->used, end - arena->used};
    arena->used = end;
    return OTUS_OK;
}

enum otus_status otus_encode_json(struct otus_arena *arena, struct otus_span *out_span,
                                  struct otus_encoder *encoder,
                                  const struct otus_encode_input *input)
{
    struct json_writer writer = writer_of(arena);
    put_record(&writer, encoder, input);
    return finish(arena, out_span, &writer);
}

enum otus_status otus_encode_payload_json(struct otus_arena *arena, struct otus_span *out_span,
                                          const struct otus_encode_input *input)
{
    struct json_writer writer = writer_of(arena);
    put_payload(&writer, input);
    return finish(arena, out_span, &writer);
}
