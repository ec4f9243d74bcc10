/* One record as one JSON object: docs/reference/record.md lists its members. */
#ifndef OTUS_JSON_RECORD_H
#define OTUS_JSON_RECORD_H

#include "json_sip.h"

static inline uint8_t *put_timestamp(uint8_t *at, const struct otus_encoder *encoder,
                                     uint64_t ts_ns)
{
    at = JSON_LITERAL(at, "{\"timestamp\":\"");
    memcpy(at, encoder->date, OTUS_TEXT_SECOND);
    at += OTUS_TEXT_SECOND;
    *at++ = '.';
    otus_text_fraction(at, (uint32_t)(ts_ns - encoder->second_ns));
    return at + OTUS_TEXT_FRACTION;
}

/* Who saw it. */
static inline uint8_t *put_head(uint8_t *at, uint8_t *end, const struct otus_encoder *encoder)
{
    uint32_t len = encoder->json_head_len;
    if (OTUS_UNLIKELY(end - at <= (ptrdiff_t)len))
        return end;
    for (uint32_t done = 0; done < len; done += ENCODER_HEAD_STEP)
        json_move32(at + done, encoder->json_head + done);
    return at + len;
}

static inline uint8_t *put_network(uint8_t *at, uint8_t *end, const struct otus_packet_meta *meta)
{
    at += otus_text_ip(at, meta->ip_version, meta->src_ip);
    at = JSON_LITERAL(at, "\",\"dst_ip\":\"");
    at += otus_text_ip(at, meta->ip_version, meta->dst_ip);
    at = JSON_LITERAL(at, "\",");
    at = JSON_NUMBER(at, end, "src_port", meta->src_port);
    at = JSON_NUMBER(at, end, "dst_port", meta->dst_port);
    if (OTUS_LIKELY(meta->protocol == 17))
        return JSON_LITERAL(at, "\"protocol\":\"udp\",");
    at = JSON_LITERAL(at, "\"protocol\":\"");
    at += otus_text_protocol(at, meta->protocol);
    return JSON_LITERAL(at, "\",");
}

static __attribute__((noinline)) uint8_t *put_vlans(uint8_t *at, uint8_t *end,
                                                    const struct otus_packet_meta *meta)
{
    uint32_t num = meta->num_vlans < OTUS_MAX_VLANS ? meta->num_vlans : OTUS_MAX_VLANS;
    at = JSON_LITERAL(at, "\"vlans\":[");
    for (uint32_t i = 0; i < num; i++)
        at = json_number(at, end, JSON_PADDING, 0, meta->vlans[i]);
    return JSON_CLOSE(at, "],");
}

static uint8_t *put_tunnel(uint8_t *at, uint8_t *end, const struct otus_tunnel *tunnel)
{
    at = JSON_LITERAL(at, "{");
    at = JSON_NAME(at, end, "kind", otus_tunnel_kind_name(tunnel->kind));
    if (tunnel->flags & OTUS_TUNNEL_HAS_KEY)
        at = JSON_NUMBER(at, end, "key", tunnel->key);
    at = JSON_LITERAL(at, "\"src_ip\":\"");
    at += otus_text_ip(at, tunnel->ip_version, tunnel->src_ip);
    at = JSON_LITERAL(at, "\",\"dst_ip\":\"");
    at += otus_text_ip(at, tunnel->ip_version, tunnel->dst_ip);
    at = JSON_LITERAL(at, "\",");
    if (tunnel->src_port != 0 || tunnel->dst_port != 0) {
        at = JSON_NUMBER(at, end, "src_port", tunnel->src_port);
        at = JSON_NUMBER(at, end, "dst_port", tunnel->dst_port);
    }
    at = JSON_NUMBER(at, end, "version", tunnel->version);
    return JSON_CLOSE(at, "},");
}

static __attribute__((noinline)) uint8_t *put_tunnels(uint8_t *at, uint8_t *end,
                                                      const struct otus_encode_input *input)
{
    at = JSON_LITERAL(at, "\"tunnels\":[");
    for (uint32_t i = 0; i < input->meta->num_tunnels && i < OTUS_MAX_TUNNELS; i++)
        at = put_tunnel(at, end, &input->tunnels[i]);
    return JSON_CLOSE(at, "],");
}

enum {
    TOLD_FLAGS = OTUS_PACKET_TRUNCATED | OTUS_PACKET_REASSEMBLED | OTUS_PACKET_STREAM |
                 OTUS_PACKET_WEBSOCKET | OTUS_PACKET_OUTGOING,
};

static __attribute__((noinline)) uint8_t *put_flags(uint8_t *at, uint32_t flags)
{
    at = JSON_LITERAL(at, "\"flags\":[");
    if (flags & OTUS_PACKET_TRUNCATED)
        at = JSON_LITERAL(at, "\"truncated\",");
    if (flags & OTUS_PACKET_REASSEMBLED)
        at = JSON_LITERAL(at, "\"reassembled\",");
    if (flags & OTUS_PACKET_STREAM)
        at = JSON_LITERAL(at, "\"stream\",");
    if (flags & OTUS_PACKET_WEBSOCKET)
        at = JSON_LITERAL(at, "\"websocket\",");
    if (flags & OTUS_PACKET_OUTGOING)
        at = JSON_LITERAL(at, "\"outgoing\",");
    return JSON_CLOSE(at, "],");
}

/* Most names fit into one step. */
static inline uint8_t *put_label_head(uint8_t *at, const struct encoder_label *label)
{
    enum { FIRST = 32 };
    json_move32(at, label->json);
    if (OTUS_UNLIKELY(label->json_len > FIRST))
        memcpy(at + FIRST, label->json + FIRST, ENCODER_LABEL_SLOT - FIRST);
    return at + label->json_len;
}

static inline uint8_t *put_labels(uint8_t *at, uint8_t *end, const struct otus_encoder *encoder,
                                  const struct otus_label_set *labels)
{
    at = JSON_LITERAL(at, "\"labels\":{");
    const uint8_t *octets = labels->octets; /* aside: what is written may change it */
    const struct otus_label *stop = labels->label + labels->num;
    for (const struct otus_label *label = labels->label; label < stop; label++) {
        const struct encoder_label *name = &encoder->labels[label->id];
        if (OTUS_UNLIKELY(name->json_len == 0))
            continue;
        at = put_label_head(at, name);
        struct otus_span value = {label->off, label->len};
        at = json_string(at, end, encode_part(octets, value));
        at = JSON_LITERAL(at, "\",");
    }
    at = json_close_any(at, '}');
    return JSON_LITERAL(at, ",");
}

static uint8_t *put_rtp(uint8_t *at, uint8_t *end, const struct otus_rtp_header *rtp)
{
    at = JSON_NUMBER(at, end, "ssrc", rtp->ssrc);
    at = JSON_NUMBER(at, end, "sequence", rtp->sequence);
    at = JSON_NUMBER(at, end, "timestamp", rtp->timestamp);
    at = JSON_NUMBER(at, end, "payload_type", rtp->payload_type);
    at = rtp->marker ? JSON_LITERAL(at, "\"marker\":true,") : JSON_LITERAL(at, "\"marker\":false,");
    at = JSON_NUMBER(at, end, "num_csrc", rtp->num_csrc);
    at = rtp->has_extension ? JSON_LITERAL(at, "\"has_extension\":true,")
                            : JSON_LITERAL(at, "\"has_extension\":false,");
    return JSON_NUMBER(at, end, "payload_len", rtp->payload.len);
}

static uint8_t *put_rtcp(uint8_t *at, uint8_t *end, const struct otus_rtcp_header *rtcp)
{
    at = JSON_NUMBER(at, end, "ssrc", rtcp->ssrc);
    at = JSON_NUMBER(at, end, "packet_type", rtcp->packet_type);
    at = JSON_NUMBER(at, end, "count", rtcp->count);
    return JSON_NUMBER(at, end, "num_packets", rtcp->num_packets);
}

static uint8_t *put_payload(uint8_t *at, uint8_t *end, const struct otus_encode_input *input)
{
    if (OTUS_UNLIKELY(input->payload_json.len != 0))
        return json_text(at, end, input->payload_json.at, input->payload_json.len);
    at = JSON_LITERAL(at, "{");
    if (OTUS_LIKELY(input->sip != NULL))
        at = put_sip_members(at, end, input->sip);
    else if (input->rtp != NULL)
        at = put_rtp(at, end, input->rtp);
    else if (input->rtcp != NULL)
        at = put_rtcp(at, end, input->rtcp);
    else
        at = JSON_NUMBER(at, end, "len", input->payload.len);
    return JSON_CLOSE(at, "}");
}

static uint8_t *put_raw_payload(uint8_t *at, uint8_t *end, struct otus_slice payload)
{
    at = JSON_LITERAL(at, ",\"raw_payload\":\"");
    if (end - at <= (ptrdiff_t)encode_base64_len(payload.len))
        return end;
    at += encode_base64(at, payload.at, payload.len);
    return JSON_LITERAL(at, "\"");
}

static inline uint8_t *put_payload_type(uint8_t *at, uint8_t *end,
                                        const struct otus_encode_input *input)
{
    if (OTUS_LIKELY(input->payload_type == OTUS_PAYLOAD_SIP))
        return JSON_LITERAL(at, "\"payload_type\":\"sip\",\"payload\":");
    if (input->payload_type == OTUS_PAYLOAD_PLUGIN)
        at = JSON_MEMBER(at, end, "payload_type", input->payload_name);
    else
        at = JSON_NAME(at, end, "payload_type", encode_payload_type_name(input->payload_type));
    return JSON_LITERAL(at, "\"payload\":");
}

static uint8_t *put_record(uint8_t *at, uint8_t *end, const struct otus_encoder *encoder,
                           const struct otus_encode_input *input)
{
    const struct otus_packet_meta *meta = input->meta;
    at = put_timestamp(at, encoder, meta->ts_ns);
    at = put_head(at, end, encoder);
    at = put_network(at, end, meta);
    if (OTUS_UNLIKELY(meta->num_vlans != 0))
        at = put_vlans(at, end, meta);
    if (OTUS_UNLIKELY(meta->num_tunnels != 0 && input->tunnels != NULL))
        at = put_tunnels(at, end, input);
    if (OTUS_UNLIKELY((meta->flags & TOLD_FLAGS) != 0))
        at = put_flags(at, meta->flags);
    at = JSON_NUMBER(at, end, "caplen", meta->caplen);
    at = JSON_NUMBER(at, end, "wirelen", meta->wirelen);
    at = put_labels(at, end, encoder, input->labels);
    at = put_payload_type(at, end, input);
    at = put_payload(at, end, input);
    if (OTUS_UNLIKELY(encoder->raw_payload))
        at = put_raw_payload(at, end, input->payload);
    return JSON_LITERAL(at, "}");
}

static uint8_t *put_string(uint8_t *at, uint8_t *end, struct otus_slice text)
{
    return json_string(at, end, text);
}

#endif
