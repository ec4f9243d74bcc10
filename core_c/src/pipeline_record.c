/* Records: what a packet leaves in the batch. All octets that a record names
 * are copied into the arena, so a batch outlives the frames it came from. */
#include <time.h>

#include "pipeline_internal.h"

/* One comparison: a pointer below base wraps to a huge distance. */
static inline bool lies_in(const uint8_t *at, const uint8_t *base, uint32_t len)
{
    return (uintptr_t)at - (uintptr_t)base < len;
}

/* Where a label's octets are in the arena. Mostly they are part of the payload,
 * which is there already. */
static inline bool place_value(struct otus_arena *arena, struct otus_span *out_span,
                               struct otus_slice value, struct otus_slice payload,
                               uint32_t payload_off)
{
    if (OTUS_LIKELY(lies_in(value.at, payload.at, payload.len))) {
        *out_span = (struct otus_span){payload_off + (uint32_t)(value.at - payload.at), value.len};
        return true;
    }
    if (lies_in(value.at, arena->base, arena->used)) {
        *out_span = (struct otus_span){(uint32_t)(value.at - arena->base), value.len};
        return true;
    }
    return otus_arena_put(arena, out_span, value);
}

/* The label that is the record's key; OTUS_MAX_LABELS where there is none. */
static uint32_t key_label(uint8_t payload_type)
{
    switch (payload_type) {
    case OTUS_PAYLOAD_SIP:
        return OTUS_LABEL_SIP_CALL_ID;
    case OTUS_PAYLOAD_RTP:
        return OTUS_LABEL_RTP_CALL_ID;
    case OTUS_PAYLOAD_RTCP:
        return OTUS_LABEL_RTCP_CALL_ID;
    default:
        return OTUS_MAX_LABELS;
    }
}

bool otus_record_write_labels(struct otus_pipeline *pipeline, struct otus_record *record,
                              struct otus_slice payload)
{
    const struct otus_label_set *set = &pipeline->labels;
    struct otus_arena *arena = &pipeline->batch.arena;
    uint32_t num = 0;
    for (uint32_t word = 0; word < OTUS_MAX_LABELS / 64; word++)
        num += (uint32_t)__builtin_popcountll(set->present[word]);
    uint32_t off = arena->used;
    uint32_t len = num * (uint32_t)sizeof(struct otus_label);
    uint8_t *at = otus_arena_take(arena, len);
    if (at == NULL)
        return false;
    uint32_t key = key_label(record->payload_type);
    for (uint32_t word = 0; word < OTUS_MAX_LABELS / 64; word++) {
        for (uint64_t bits = set->present[word]; bits != 0; bits &= bits - 1) {
            uint32_t id = word * 64 + (uint32_t)__builtin_ctzll(bits);
            struct otus_span value;
            if (!place_value(arena, &value, set->value[id], payload, record->payload.off))
                return false;
            if (id == key)
                record->key = value;
            struct otus_label label = {id, value.off, value.len};
            memcpy(at, &label, sizeof label); /* the arena is not aligned */
            at += sizeof label;
        }
    }
    record->labels = (struct otus_span){off, len};
    return true;
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
