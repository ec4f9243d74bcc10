/* Records: what a packet leaves in the batch. All octets that a record names
 * are copied into the arena, so a batch outlives the frames it came from. */
#include <time.h>

#include "pipeline_internal.h"

static bool lies_in(struct otus_slice part, const uint8_t *base, uint32_t len)
{
    return part.at >= base && part.at + part.len <= base + len;
}

/* A label's octets mostly lie in the payload, which is in the arena already. */
static bool put_label(struct otus_pipeline *pipeline, struct otus_label *label,
                      struct otus_slice value, struct otus_slice payload, uint32_t payload_off)
{
    struct otus_arena *arena = &pipeline->batch.arena;
    struct otus_span span;
    if (lies_in(value, payload.at, payload.len)) {
        span = (struct otus_span){payload_off + (uint32_t)(value.at - payload.at), value.len};
    } else if (lies_in(value, arena->base, arena->used)) {
        span = (struct otus_span){(uint32_t)(value.at - arena->base), value.len};
    } else if (!otus_arena_put(arena, &span, value)) {
        return false;
    }
    label->off = span.off;
    label->len = span.len;
    return true;
}

bool otus_record_write_labels(struct otus_pipeline *pipeline, struct otus_record *record,
                              struct otus_slice payload)
{
    const struct otus_label_set *set = &pipeline->labels;
    struct otus_label found[OTUS_MAX_LABELS];
    uint32_t num = 0;
    for (uint32_t word = 0; word < OTUS_MAX_LABELS / 64; word++) {
        for (uint64_t bits = set->present[word]; bits != 0; bits &= bits - 1) {
            uint32_t id = word * 64 + (uint32_t)__builtin_ctzll(bits);
            found[num].id = id;
            if (!put_label(pipeline, &found[num], set->value[id], payload, record->payload.off))
                return false;
            num++;
        }
    }
    struct otus_slice octets = {(const uint8_t *)found, num * (uint32_t)sizeof found[0]};
    return otus_arena_put(&pipeline->batch.arena, &record->labels, octets);
}

static struct otus_encode_input encode_input(struct otus_pipeline *pipeline,
                                             const struct otus_work *work)
{
    return (struct otus_encode_input){
        .meta = work->meta,
        .tunnels = work->tunnels,
        .labels = &pipeline->labels,
        .payload_type = work->payload_type,
        .payload_name = work->payload_name,
        .payload = work->payload,
        .payload_json = work->payload_json,
        .sip = work->payload_type == OTUS_PAYLOAD_SIP && work->sip_ready ? &pipeline->sip : NULL,
        .rtp = work->payload_type == OTUS_PAYLOAD_RTP && work->rtp_ready ? &pipeline->rtp : NULL,
        .rtcp = work->payload_type == OTUS_PAYLOAD_RTCP && work->rtp_ready ? &pipeline->rtcp : NULL,
    };
}

static void put_key(struct otus_record *record, const struct otus_pipeline *pipeline,
                    const struct otus_work *work)
{
    static const uint8_t key_label[] = {
        [OTUS_PAYLOAD_SIP] = OTUS_LABEL_SIP_CALL_ID,
        [OTUS_PAYLOAD_RTP] = OTUS_LABEL_RTP_CALL_ID,
        [OTUS_PAYLOAD_RTCP] = OTUS_LABEL_RTCP_CALL_ID,
    };
    record->key = (struct otus_span){0, 0};
    if (work->payload_type < OTUS_PAYLOAD_SIP || work->payload_type > OTUS_PAYLOAD_RTCP)
        return;
    /* The label's octets are in the arena: point where the label points. */
    uint32_t id = key_label[work->payload_type];
    if (!otus_label_has(&pipeline->labels, id))
        return;
    const uint8_t *at = pipeline->batch.arena.base + record->labels.off;
    for (uint32_t off = 0; off < record->labels.len; off += sizeof(struct otus_label)) {
        struct otus_label label;
        memcpy(&label, at + off, sizeof label);
        if (label.id == id)
            record->key = (struct otus_span){label.off, label.len};
    }
}

/* Everything that waits for the last stage: the encoded forms. */
bool otus_record_finish(struct otus_pipeline *pipeline, struct otus_record *record,
                        const struct otus_work *work)
{
    uint32_t outputs = pipeline->config.outputs;
    if (!(outputs & (OTUS_OUTPUT_JSON | OTUS_OUTPUT_PROTOBUF)))
        return true;
    uint64_t start = work->sampled ? otus_now_ns(CLOCK_MONOTONIC) : 0;
    struct otus_encode_input input = encode_input(pipeline, work);
    struct otus_arena *arena = &pipeline->batch.arena;
    if (outputs & OTUS_OUTPUT_JSON &&
        otus_encode_json(arena, &record->json, pipeline->encoder, &input) != OTUS_OK)
        return false;
    if (outputs & OTUS_OUTPUT_PROTOBUF &&
        otus_encode_protobuf(arena, &record->protobuf, pipeline->encoder, &input) != OTUS_OK)
        return false;
    if (work->sampled)
        otus_latency_add(&pipeline->latency[OTUS_LATENCY_ENCODE],
                         otus_now_ns(CLOCK_MONOTONIC) - start);
    return true;
}

bool otus_record_write(struct otus_pipeline *pipeline, struct otus_record *record,
                       const struct otus_work *work, bool complete)
{
    struct otus_arena *arena = &pipeline->batch.arena;
    *record = (struct otus_record){
        .meta = *work->meta,
        .state = work->state,
        .payload_type = work->payload_type,
        .parser = work->parser,
    };
    if (!otus_arena_put(arena, &record->payload, work->payload))
        return false;
    otus_arena_align(arena, _Alignof(struct otus_tunnel));
    struct otus_slice tunnels = {(const uint8_t *)work->tunnels,
                                 work->meta->num_tunnels * (uint32_t)sizeof(struct otus_tunnel)};
    if (!otus_arena_put(arena, &record->tunnels, tunnels))
        return false;
    if (pipeline->config.outputs & OTUS_OUTPUT_FRAME &&
        !otus_arena_put(arena, &record->frame, work->frame))
        return false;
    if (!otus_record_write_labels(pipeline, record, work->payload))
        return false;
    put_key(record, pipeline, work);
    if (work->sip_ready)
        record->sip_anomalies = pipeline->sip.anomalies;
    if (pipeline->config.outputs & OTUS_OUTPUT_PAYLOAD_JSON && work->state == OTUS_RECORD_PARSED) {
        struct otus_encode_input input = encode_input(pipeline, work);
        if (otus_encode_payload_json(arena, &record->payload_json, &input) != OTUS_OK)
            return false;
    }
    return !complete || otus_record_finish(pipeline, record, work);
}

static struct otus_slice slice_of(const struct otus_batch *batch, struct otus_span span)
{
    return (struct otus_slice){batch->arena.base + span.off, span.len};
}

void otus_record_read(struct otus_pipeline *pipeline, struct otus_record *record,
                      struct otus_work *out_work)
{
    const struct otus_batch *batch = &pipeline->batch;
    *out_work = (struct otus_work){
        .meta = &record->meta,
        /* otus_record_write() put them on their alignment. */
        .tunnels = (const void *)(batch->arena.base + record->tunnels.off),
        .frame = slice_of(batch, record->frame),
        .payload = slice_of(batch, record->payload),
        .payload_type = record->payload_type,
        .payload_name = slice_of(batch, record->payload_name),
        .state = record->state,
        .parser = record->parser,
    };
    if (record->payload_type == OTUS_PAYLOAD_PLUGIN)
        out_work->payload_json = slice_of(batch, record->payload_json);
    otus_label_clear(&pipeline->labels);
    const uint8_t *at = batch->arena.base + record->labels.off;
    for (uint32_t off = 0; off < record->labels.len; off += sizeof(struct otus_label)) {
        struct otus_label label;
        memcpy(&label, at + off, sizeof label);
        otus_label_put(&pipeline->labels, label.id,
                       (struct otus_slice){batch->arena.base + label.off, label.len});
    }
}
