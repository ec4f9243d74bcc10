/* Records: what a packet leaves in the batch. All octets that a record names
 * are copied into the arena, so a batch outlives the frames it came from. */
#include <time.h>

#include "ask_ahead.h"
#include "clear.h"
#include "pipeline_internal.h"

/* Where octets are in the arena, put there where they are not yet. */
static inline bool place(struct otus_arena *arena, struct otus_span *out_span,
                         struct otus_slice octets)
{
    if (!otus_lies_in(arena, octets.at))
        return otus_arena_put(arena, out_span, octets);
    *out_span = (struct otus_span){(uint32_t)(octets.at - arena->base), octets.len};
    return true;
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

bool otus_record_write_labels(struct otus_pipeline *pipeline, struct otus_record *record)
{
    const struct otus_label_set *set = &pipeline->labels;
    struct otus_arena *arena = &pipeline->batch.arena;
    struct otus_slice labels = {(const uint8_t *)set->label,
                                set->num * (uint32_t)sizeof(struct otus_label)};
    if (OTUS_UNLIKELY(set->incomplete || !otus_arena_put(arena, &record->labels, labels)))
        return false;
    record->labels_octets =
        set->value_octets < UINT32_MAX ? (uint32_t)set->value_octets : UINT32_MAX;
    uint32_t key_id = key_label(record->payload_type);
    const struct otus_label *key = key_id != OTUS_MAX_LABELS ? otus_label_find(set, key_id) : NULL;
    if (key != NULL)
        record->key = (struct otus_span){key->off, key->len};
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
        .sip = OTUS_LIKELY(work->payload_type == OTUS_PAYLOAD_SIP && work->sip_ready)
                   ? &pipeline->sip
                   : NULL,
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
    if (OTUS_LIKELY((outputs & OTUS_OUTPUT_JSON) != 0) &&
        otus_encode_json(arena, &record->json, pipeline->encoder, &input) != OTUS_OK)
        return false;
    if (outputs & OTUS_OUTPUT_PROTOBUF &&
        otus_encode_protobuf(arena, &record->protobuf, pipeline->encoder, &input) != OTUS_OK)
        return false;
    if (OTUS_UNLIKELY(work->sampled))
        otus_latency_add(&pipeline->latency[OTUS_LATENCY_ENCODE],
                         otus_now_ns(CLOCK_MONOTONIC) - start);
    return true;
}

/* Asks for the lines that records to come are written to: a batch is larger than the second-level
 * cache, and their stores would wait for memory. May be behind the batch's end. */
static inline void ask_ahead(const struct otus_arena *arena, const struct otus_record *record,
                             uint32_t len)
{
    enum { RECORDS = 2, OCTETS = 2048, LABELS = 256 };
    otus_ask_to_write((uintptr_t)arena->base + arena->used + OCTETS, len + LABELS);
    otus_ask_to_write((uintptr_t)record + RECORDS * sizeof *record, sizeof *record);
}

static bool write_tunnels(struct otus_arena *arena, struct otus_record *record,
                          const struct otus_work *work)
{
    otus_arena_align(arena, _Alignof(struct otus_tunnel));
    struct otus_slice tunnels = {(const uint8_t *)work->tunnels,
                                 work->meta->num_tunnels * (uint32_t)sizeof(struct otus_tunnel)};
    return otus_arena_put(arena, &record->tunnels, tunnels);
}

bool otus_record_write(struct otus_pipeline *pipeline, struct otus_record *record,
                       const struct otus_work *work, bool complete)
{
    struct otus_arena *arena = &pipeline->batch.arena;
    ask_ahead(arena, record, work->payload.len);
    record->meta = *work->meta;
    otus_clear(&record->frame, sizeof *record - offsetof(struct otus_record, frame));
    record->state = work->state;
    record->payload_type = work->payload_type;
    record->parser = work->parser;
    if (!place(arena, &record->payload, work->payload))
        return false;
    if (OTUS_UNLIKELY(work->meta->num_tunnels != 0) && !write_tunnels(arena, record, work))
        return false;
    if (OTUS_UNLIKELY((pipeline->config.outputs & OTUS_OUTPUT_FRAME) != 0) &&
        !otus_arena_put(arena, &record->frame, work->frame))
        return false;
    if (!otus_record_write_labels(pipeline, record))
        return false;
    if (OTUS_LIKELY(work->sip_ready))
        record->sip_anomalies = pipeline->sip.anomalies;
    if (OTUS_UNLIKELY((pipeline->config.outputs & OTUS_OUTPUT_PAYLOAD_JSON) != 0) &&
        work->state == OTUS_RECORD_PARSED) {
        struct otus_encode_input input = encode_input(pipeline, work);
        if (otus_encode_payload_json(arena, &record->payload_json, pipeline->encoder, &input) !=
            OTUS_OK)
            return false;
    }
    return OTUS_UNLIKELY(!complete) || otus_record_finish(pipeline, record, work);
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
    otus_label_clear(&pipeline->labels, batch->arena.base);
    const uint8_t *at = batch->arena.base + record->labels.off;
    for (uint32_t off = 0; off < record->labels.len; off += sizeof(struct otus_label)) {
        struct otus_label label;
        memcpy(&label, at + off, sizeof label);
        otus_label_put(&pipeline->labels, label.id,
                       (struct otus_slice){batch->arena.base + label.off, label.len});
    }
}
