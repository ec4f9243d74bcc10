/* Records: what a packet leaves in the batch. All octets that a record names
 * are copied into the arena, so a batch outlives the frames it came from. */
#include <time.h>

#include "pipeline_internal.h"

/* One comparison: a pointer below base wraps to a huge distance. */
static inline bool lies_in(const uint8_t *at, const uint8_t *base, uint32_t len)
{
    return (uintptr_t)at - (uintptr_t)base < len;
}

/* Where octets are in the arena that are no part of the payload. */
static bool place_elsewhere(struct otus_arena *arena, struct otus_span *out_span,
                            struct otus_slice value)
{
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

/* Puts the payload into the arena and lets the parsed message point there. */
static bool write_payload(struct otus_pipeline *pipeline, struct otus_record *record,
                          const struct otus_work *work)
{
    struct otus_arena *arena = &pipeline->batch.arena;
    if (!otus_arena_put(arena, &record->payload, work->payload))
        return false;
    if (work->sip_ready) {
        struct otus_sip_message *sip = &pipeline->sip;
        sip->octets = arena->base + record->payload.off + (sip->octets - work->payload.at);
    }
    return true;
}

/* The labels of one word of ids, at at; NULL where the arena is full. Mostly their
 * values are part of the payload, which is in the arena already. They are left
 * pointing there: encoders read whole vectors, and may do so in the arena alone. */
static uint8_t *write_word(struct otus_label_set *set, struct otus_arena *arena, uint8_t *at,
                           uint32_t word, struct otus_slice payload, uint32_t payload_off)
{
    uint8_t *base = arena->base;
    for (uint64_t bits = set->present[word]; bits != 0; bits &= bits - 1) {
        uint32_t id = word * 64 + (uint32_t)__builtin_ctzll(bits);
        struct otus_slice *value = &set->value[id];
        struct otus_span place = {payload_off + (uint32_t)(value->at - payload.at), value->len};
        if (OTUS_UNLIKELY(!lies_in(value->at, payload.at, payload.len)) &&
            !place_elsewhere(arena, &place, *value))
            return NULL;
        value->at = base + place.off;
        /* A struct otus_label, member by member: the arena is not aligned, and a copy
         * of a whole one waits for its members to be stored. */
        memcpy(at + offsetof(struct otus_label, id), &id, sizeof id);
        memcpy(at + offsetof(struct otus_label, off), &place.off, sizeof place.off);
        memcpy(at + offsetof(struct otus_label, len), &place.len, sizeof place.len);
        at += sizeof(struct otus_label);
    }
    return at;
}

/* Not every processor that this is compiled for counts bits by an instruction. */
static inline uint32_t count_bits(uint64_t bits)
{
    uint32_t num = 0;
    for (; bits != 0; bits &= bits - 1)
        num++;
    return num;
}

static void write_key(struct otus_record *record, const struct otus_label_set *set,
                      const struct otus_arena *arena)
{
    uint32_t key = key_label(record->payload_type);
    if (key == OTUS_MAX_LABELS || !otus_label_has(set, key))
        return;
    const struct otus_slice *value = &set->value[key];
    record->key = (struct otus_span){(uint32_t)(value->at - arena->base), value->len};
}

bool otus_record_write_labels(struct otus_pipeline *pipeline, struct otus_record *record,
                              struct otus_slice payload)
{
    struct otus_label_set *set = &pipeline->labels;
    struct otus_arena *arena = &pipeline->batch.arena;
    uint32_t num = 0;
    for (uint32_t word = 0; word < OTUS_MAX_LABELS / 64; word++)
        num += count_bits(set->present[word]);
    uint32_t off = arena->used;
    uint32_t len = num * (uint32_t)sizeof(struct otus_label);
    uint8_t *at = otus_arena_take(arena, len);
    for (uint32_t word = 0; at != NULL && word < OTUS_MAX_LABELS / 64; word++)
        at = write_word(set, arena, at, word, payload, record->payload.off);
    if (at == NULL)
        return false;
    record->labels = (struct otus_span){off, len};
    write_key(record, set, arena);
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
    if (!write_payload(pipeline, record, work))
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
        if (otus_encode_payload_json(arena, &record->payload_json, pipeline->encoder, &input) !=
            OTUS_OK)
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
