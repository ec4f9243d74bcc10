/* One record as one otus.v1.Record: configs/otus.proto has the schema. */
#include "protobuf_writer.h"

#include <stdlib.h>

/* Field numbers of message Record. */
enum {
    RECORD_TASK_ID = 1,
    RECORD_AGENT_ID = 2,
    RECORD_PIPELINE_ID = 3,
    RECORD_TIMESTAMP_NS = 4,
    RECORD_SRC_IP = 5,
    RECORD_DST_IP = 6,
    RECORD_SRC_PORT = 7,
    RECORD_DST_PORT = 8,
    RECORD_PROTOCOL = 9,
    RECORD_VLANS = 10,
    RECORD_TUNNELS = 11,
    RECORD_FLAGS = 12,
    RECORD_CAPLEN = 13,
    RECORD_WIRELEN = 14,
    RECORD_LABELS = 15,
    RECORD_PAYLOAD_TYPE = 16,
    RECORD_SIP = 17,
    RECORD_RTP = 18,
    RECORD_RTCP = 19,
    RECORD_PAYLOAD_JSON = 20,
    RECORD_RAW_PAYLOAD = 21,
};

enum { MAP_KEY = 1, MAP_VALUE = 2 };

void protobuf_put_text(struct protobuf_writer *writer, const uint8_t *octets, uint32_t len)
{
    static const uint8_t replacement[3] = {0xef, 0xbf, 0xbd};
    const uint8_t *end = octets + len;
    while (octets < end) {
        int step = *octets < 0x80 ? 1 : encode_utf8_character(octets, end);
        bool valid = step > 0;
        const uint8_t *from = valid ? octets : replacement;
        uint32_t num = valid ? (uint32_t)step : (uint32_t)sizeof replacement;
        if (!protobuf_fits(writer, num))
            return;
        memcpy(writer->at, from, num);
        writer->at += num;
        octets += valid ? step : -step;
    }
}

void protobuf_put_repaired(struct protobuf_writer *writer, uint32_t field, struct otus_slice text)
{
    if (encode_is_utf8(text.at, text.len)) {
        protobuf_put_octets(writer, field, text.at, text.len);
        return;
    }
    uint8_t *start = protobuf_begin(writer, field, 1);
    protobuf_put_text(writer, text.at, text.len);
    protobuf_finish(writer, start, 1);
}

static void put_id(struct protobuf_writer *writer, uint32_t field, const char *id)
{
    struct otus_slice text = {(const uint8_t *)id, (uint32_t)strlen(id)};
    if (text.len != 0)
        protobuf_put_repaired(writer, field, text);
}

enum otus_status encoder_render_protobuf(struct otus_encoder *encoder,
                                         const struct otus_envelope *envelope)
{
    /* Every octet may become three. */
    size_t room = 3 * (strlen(envelope->task_id) + strlen(envelope->agent_id) +
                       strlen(envelope->pipeline_id)) +
                  64;
    encoder->protobuf_head = malloc(room + PROTOBUF_SLACK);
    if (encoder->protobuf_head == NULL)
        return OTUS_E_NOMEM;
    struct protobuf_writer writer = {encoder->protobuf_head, encoder->protobuf_head + room, false};
    put_id(&writer, RECORD_TASK_ID, envelope->task_id);
    put_id(&writer, RECORD_AGENT_ID, envelope->agent_id);
    put_id(&writer, RECORD_PIPELINE_ID, envelope->pipeline_id);
    encoder->protobuf_head_len = (uint32_t)(writer.at - encoder->protobuf_head);
    return OTUS_OK;
}

static void put_head(struct protobuf_writer *writer, const struct otus_encoder *encoder,
                     uint64_t ts_ns)
{
    if (!protobuf_fits(writer, encoder->protobuf_head_len))
        return;
    memcpy(writer->at, encoder->protobuf_head, encoder->protobuf_head_len);
    writer->at += encoder->protobuf_head_len;
    writer->at = protobuf_tag(writer->at, RECORD_TIMESTAMP_NS, PROTOBUF_WIRE_FIXED64);
    for (int shift = 0; shift < 64; shift += 8)
        *writer->at++ = (uint8_t)(ts_ns >> shift);
}

static void put_ip(struct protobuf_writer *writer, uint32_t field, uint8_t version,
                   const uint8_t ip[16])
{
    uint8_t text[OTUS_TEXT_IP];
    uint32_t len = otus_text_ip(text, version, ip);
    if (len != 0)
        protobuf_put_octets(writer, field, text, len);
}

static void put_vlans(struct protobuf_writer *writer, const struct otus_packet_meta *meta)
{
    uint32_t num = meta->num_vlans < OTUS_MAX_VLANS ? meta->num_vlans : OTUS_MAX_VLANS;
    if (OTUS_LIKELY(num == 0))
        return;
    uint8_t *start = protobuf_begin(writer, RECORD_VLANS, 1);
    for (uint32_t i = 0; i < num && protobuf_fits(writer, 0); i++)
        writer->at = protobuf_varint(writer->at, meta->vlans[i]);
    protobuf_finish(writer, start, 1);
}

static void put_network(struct protobuf_writer *writer, const struct otus_packet_meta *meta)
{
    uint8_t protocol[OTUS_TEXT_PROTOCOL];
    put_ip(writer, RECORD_SRC_IP, meta->ip_version, meta->src_ip);
    put_ip(writer, RECORD_DST_IP, meta->ip_version, meta->dst_ip);
    protobuf_number(writer, RECORD_SRC_PORT, meta->src_port);
    protobuf_number(writer, RECORD_DST_PORT, meta->dst_port);
    protobuf_put_octets(writer, RECORD_PROTOCOL, protocol,
                        otus_text_protocol(protocol, meta->protocol));
    put_vlans(writer, meta);
}

static void put_tunnel(struct protobuf_writer *writer, const struct otus_tunnel *tunnel)
{
    enum { KIND = 1, KEY, SRC_IP, DST_IP, SRC_PORT, DST_PORT, VERSION };
    uint8_t *start = protobuf_begin(writer, RECORD_TUNNELS, 1);
    protobuf_name(writer, KIND, otus_tunnel_kind_name(tunnel->kind));
    if (tunnel->flags & OTUS_TUNNEL_HAS_KEY)
        protobuf_put_number(writer, KEY, tunnel->key);
    put_ip(writer, SRC_IP, tunnel->ip_version, tunnel->src_ip);
    put_ip(writer, DST_IP, tunnel->ip_version, tunnel->dst_ip);
    protobuf_number(writer, SRC_PORT, tunnel->src_port);
    protobuf_number(writer, DST_PORT, tunnel->dst_port);
    protobuf_number(writer, VERSION, tunnel->version);
    protobuf_finish(writer, start, 1);
}

static void put_flags(struct protobuf_writer *writer, uint32_t flags)
{
    static const struct {
        uint32_t flag;
        const char *name;
    } names[] = {
        {OTUS_PACKET_TRUNCATED, "truncated"}, {OTUS_PACKET_REASSEMBLED, "reassembled"},
        {OTUS_PACKET_STREAM, "stream"},       {OTUS_PACKET_WEBSOCKET, "websocket"},
        {OTUS_PACKET_OUTGOING, "outgoing"},
    };
    for (size_t i = 0; flags != 0 && i < sizeof names / sizeof names[0]; i++) {
        if (flags & names[i].flag)
            protobuf_name(writer, RECORD_FLAGS, names[i].name);
    }
}

static void put_labels(struct protobuf_writer *writer, const struct otus_encoder *encoder,
                       const struct otus_label_set *labels)
{
    const struct otus_label *stop = labels->label + labels->num;
    for (const struct otus_label *label = labels->label; label < stop; label++) {
        const struct encoder_label *known = &encoder->labels[label->id];
        if (known->json_len == 0)
            continue;
        struct otus_slice name = {known->json + 1, known->name_len};
        uint8_t *start = protobuf_begin(writer, RECORD_LABELS, 1);
        protobuf_put_string(writer, MAP_KEY, name);
        protobuf_put_string(writer, MAP_VALUE, otus_label_value(labels, label));
        protobuf_finish(writer, start, 1);
    }
}

static void put_rtp(struct protobuf_writer *writer, const struct otus_rtp_header *rtp)
{
    enum { SSRC = 1, SEQUENCE, TIMESTAMP, PAYLOAD_TYPE, MARKER, NUM_CSRC, HAS_EXTENSION, LEN };
    uint8_t *start = protobuf_begin(writer, RECORD_RTP, 1);
    protobuf_number(writer, SSRC, rtp->ssrc);
    protobuf_number(writer, SEQUENCE, rtp->sequence);
    protobuf_number(writer, TIMESTAMP, rtp->timestamp);
    protobuf_number(writer, PAYLOAD_TYPE, rtp->payload_type);
    protobuf_number(writer, MARKER, rtp->marker);
    protobuf_number(writer, NUM_CSRC, rtp->num_csrc);
    protobuf_number(writer, HAS_EXTENSION, rtp->has_extension);
    protobuf_number(writer, LEN, rtp->payload.len);
    protobuf_finish(writer, start, 1);
}

static void put_rtcp(struct protobuf_writer *writer, const struct otus_rtcp_header *rtcp)
{
    enum { SSRC = 1, PACKET_TYPE, COUNT, NUM_PACKETS };
    uint8_t *start = protobuf_begin(writer, RECORD_RTCP, 1);
    protobuf_number(writer, SSRC, rtcp->ssrc);
    protobuf_number(writer, PACKET_TYPE, rtcp->packet_type);
    protobuf_number(writer, COUNT, rtcp->count);
    protobuf_number(writer, NUM_PACKETS, rtcp->num_packets);
    protobuf_finish(writer, start, 1);
}

static void put_payload(struct protobuf_writer *writer, const struct otus_encode_input *input)
{
    if (input->payload_type == OTUS_PAYLOAD_PLUGIN)
        protobuf_string(writer, RECORD_PAYLOAD_TYPE, input->payload_name);
    else
        protobuf_name(writer, RECORD_PAYLOAD_TYPE, encode_payload_type_name(input->payload_type));
    if (input->sip != NULL) {
        /* 128 octets to 16 KiB, mostly. */
        uint8_t *start = protobuf_begin(writer, RECORD_SIP, 2);
        protobuf_sip_fields(writer, input->sip);
        protobuf_finish(writer, start, 2);
    } else if (input->rtp != NULL) {
        put_rtp(writer, input->rtp);
    } else if (input->rtcp != NULL) {
        put_rtcp(writer, input->rtcp);
    } else if (input->payload_json.len != 0) {
        protobuf_put_repaired(writer, RECORD_PAYLOAD_JSON, input->payload_json);
    }
}

static void put_record(struct protobuf_writer *writer, const struct otus_encoder *encoder,
                       const struct otus_encode_input *input)
{
    const struct otus_packet_meta *meta = input->meta;
    put_head(writer, encoder, meta->ts_ns);
    put_network(writer, meta);
    if (input->tunnels != NULL) {
        for (uint32_t i = 0; i < meta->num_tunnels && i < OTUS_MAX_TUNNELS; i++)
            put_tunnel(writer, &input->tunnels[i]);
    }
    put_flags(writer, meta->flags);
    protobuf_number(writer, RECORD_CAPLEN, meta->caplen);
    protobuf_number(writer, RECORD_WIRELEN, meta->wirelen);
    put_labels(writer, encoder, input->labels);
    put_payload(writer, input);
    if (encoder->raw_payload)
        protobuf_put_octets(writer, RECORD_RAW_PAYLOAD, input->payload.at, input->payload.len);
}

enum otus_status otus_encode_protobuf(struct otus_arena *arena, struct otus_span *out_span,
                                      struct otus_encoder *encoder,
                                      const struct otus_encode_input *input)
{
    if (OTUS_UNLIKELY(otus_arena_left(arena) < PROTOBUF_SLACK))
        return OTUS_E_LIMIT;
    struct protobuf_writer writer = {arena->base + arena->used,
                                     arena->base + arena->size - PROTOBUF_SLACK, false};
    put_record(&writer, encoder, input);
    if (OTUS_UNLIKELY(writer.full))
        return OTUS_E_LIMIT;
    uint32_t end = (uint32_t)(writer.at - arena->base);
    *out_span = (struct otus_span){arena->used, end - arena->used};
    arena->used = end;
    return OTUS_OK;
}
