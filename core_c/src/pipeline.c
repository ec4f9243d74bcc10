/* The pipeline: takes frames, decodes, offers packets to the stages and keeps
 * the accounts. */
#include "otus/pipeline.h"

#include <stdlib.h>
#include <time.h>

#include "ask_ahead.h"
#include "pipeline_internal.h"

enum {
    DEFAULT_RECORDS = 4096,
    DEFAULT_ARENA = 4 << 20,
    /* JSON of what came in can be six times as long (every octet \u00xx), labels
     * and headers as much again: with Python stages, encoding comes after the
     * batch is filled, and must find room. */
    INGEST_SHARE = 16,
};

uint64_t otus_now_ns(int clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void otus_latency_add(struct otus_latency *latency, uint64_t duration_ns)
{
    uint32_t width = duration_ns == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(duration_ns);
    uint32_t bucket = width > 4 ? width - 4 : 0;
    if (bucket >= OTUS_LATENCY_BUCKETS)
        bucket = OTUS_LATENCY_BUCKETS - 1;
    /* One writer; readers take each word relaxed and tolerate a sample's skew. */
    __atomic_store_n(&latency->bucket[bucket], latency->bucket[bucket] + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&latency->sum_ns, latency->sum_ns + duration_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&latency->count, latency->count + 1, __ATOMIC_RELAXED);
}

/* ---- open and close ---------------------------------------------------- */

static bool is_parser(enum otus_stage_kind kind)
{
    return kind == OTUS_STAGE_PARSE_SIP || kind == OTUS_STAGE_PARSE_RTP ||
           kind == OTUS_STAGE_PARSE_PYTHON;
}

static enum otus_status copy_stages(struct otus_pipeline *pipeline,
                                    const struct otus_pipeline_config *config)
{
    if (config->num_stages > MAX_STAGES)
        return OTUS_E_LIMIT;
    for (uint32_t i = 0; i < config->num_stages; i++) {
        enum otus_stage_kind kind = config->stages[i].kind;
        if (is_parser(kind) && pipeline->num_parsers != i)
            return OTUS_E_INVALID; /* a parser behind a processor */
        pipeline->stages[i] = config->stages[i];
        pipeline->num_parsers += is_parser(kind);
        if (kind == OTUS_STAGE_PARSE_PYTHON || kind == OTUS_STAGE_PROCESS_PYTHON)
            pipeline->has_python = true;
        pipeline->has_rtp = pipeline->has_rtp || kind == OTUS_STAGE_PARSE_RTP;
    }
    pipeline->num_stages = config->num_stages;
    return OTUS_OK;
}

static uint32_t intern(struct otus_pipeline *pipeline, struct otus_slice name)
{
    for (uint32_t id = 0; id < pipeline->num_label_names; id++) {
        const char *known = pipeline->label_names[id];
        if (strlen(known) == name.len && memcmp(known, name.at, name.len) == 0)
            return id;
    }
    if (pipeline->num_label_names == OTUS_MAX_LABELS || name.len > OTUS_MAX_LABEL_NAME)
        return OTUS_MAX_LABELS;
    uint32_t id = pipeline->num_label_names;
    memcpy(pipeline->label_storage[id], name.at, name.len);
    pipeline->label_names[id] = pipeline->label_storage[id];
    if (pipeline->encoder != NULL &&
        otus_encoder_name_label(pipeline->encoder, id, pipeline->label_names[id]) != OTUS_OK)
        return OTUS_MAX_LABELS; /* no label may be called so */
    __atomic_store_n(&pipeline->num_label_names, id + 1, __ATOMIC_RELEASE);
    return id;
}

static enum otus_status intern_labels(struct otus_pipeline *pipeline,
                                      const struct otus_pipeline_config *config)
{
    for (uint32_t id = 0; id < OTUS_NUM_LABELS; id++)
        pipeline->label_names[id] = otus_label_name(id);
    pipeline->num_label_names = OTUS_NUM_LABELS;
    for (uint32_t i = 0; i < config->num_label_names; i++) {
        const char *name = config->label_names[i];
        struct otus_slice octets = {(const uint8_t *)name, (uint32_t)strlen(name)};
        /* Stages name labels by position, so a name twice would shift the rest. */
        if (intern(pipeline, octets) != OTUS_NUM_LABELS + i)
            return OTUS_E_INVALID;
    }
    pipeline->config.envelope.label_names = pipeline->label_names;
    return OTUS_OK;
}

static enum otus_status take_batch(struct otus_pipeline *pipeline)
{
    const struct otus_pipeline_config *config = &pipeline->config;
    uint32_t max_records = config->max_records ? config->max_records : DEFAULT_RECORDS;
    uint32_t octets = config->arena_octets ? config->arena_octets : DEFAULT_ARENA;
    pipeline->ingest_limit = pipeline->has_python ? octets / INGEST_SHARE : octets;
    return otus_batch_open(&pipeline->batch, max_records, octets);
}

static enum otus_status load_exact_filter(struct otus_pipeline *pipeline,
                                          const struct otus_pipeline_config *config)
{
    char message[128]; /* the kernel or the file source has refused a bad program before */
    return otus_bpf_load(&pipeline->exact_filter, message, sizeof message, config->exact_filter,
                         config->exact_filter_len);
}

static enum otus_status open_parts(struct otus_pipeline *pipeline,
                                   const struct otus_pipeline_config *config)
{
    enum otus_status status = copy_stages(pipeline, config);
    if (status == OTUS_OK)
        status = intern_labels(pipeline, config);
    if (status == OTUS_OK)
        status = take_batch(pipeline);
    if (status == OTUS_OK)
        status = otus_decoder_new(&pipeline->decoder, &config->decoder, &pipeline->counters);
    if (status == OTUS_OK && config->streams.num_ports != 0)
        status = otus_streams_new(&pipeline->streams, &config->streams, &pipeline->counters);
    if (status == OTUS_OK)
        status = otus_sip_parser_new(&pipeline->sip_parser);
    if (status == OTUS_OK && config->exact_filter_len != 0)
        status = load_exact_filter(pipeline, config);
    if (status == OTUS_OK)
        status = otus_encoder_new(&pipeline->encoder, &pipeline->config.envelope);
    return status;
}

enum otus_status otus_pipeline_open(struct otus_pipeline **out_pipeline,
                                    struct otus_capture *capture,
                                    const struct otus_pipeline_config *config)
{
    struct otus_pipeline *pipeline = aligned_alloc(64, (sizeof *pipeline + 63) / 64 * 64);
    if (pipeline == NULL) {
        otus_capture_close(capture);
        return OTUS_E_NOMEM;
    }
    memset(pipeline, 0, sizeof *pipeline);
    pipeline->capture = capture;
    pipeline->config = *config;
    enum otus_status status = open_parts(pipeline, config);
    if (status != OTUS_OK) {
        otus_pipeline_close(pipeline);
        return status;
    }
    *out_pipeline = pipeline;
    return OTUS_OK;
}

void otus_pipeline_close(struct otus_pipeline *pipeline)
{
    if (pipeline == NULL)
        return;
    otus_capture_close(pipeline->capture);
    otus_encoder_free(pipeline->encoder);
    otus_bpf_free(pipeline->exact_filter);
    otus_sip_parser_free(pipeline->sip_parser);
    otus_streams_free(pipeline->streams);
    otus_decoder_free(pipeline->decoder);
    free(pipeline->batch.records);
    free(pipeline);
}

/* ---- one packet -------------------------------------------------------- */

static bool batch_is_full(const struct otus_pipeline *pipeline)
{
    const struct otus_batch *batch = &pipeline->batch;
    return OTUS_UNLIKELY(batch->num_records == batch->max_records ||
                         batch->arena.used >= pipeline->ingest_limit);
}

/* A record that no batch has room for: dropped in the equation where it is. */
static void count_too_large(struct otus_pipeline *pipeline, const struct otus_work *work,
                            struct otus_tally *tally)
{
    bool waits_for_parser = work->state == OTUS_RECORD_OFFERED;
    otus_tally_add(tally,
                   waits_for_parser ? OTUS_COUNT_PARSE_TOO_LARGE : OTUS_COUNT_EMIT_TOO_LARGE);
    otus_tally_commit(&pipeline->counters, tally);
}

/* Runs the packet in hand through the stages into the batch. False when the
 * batch has no room for it: the packet then comes first in the next one. */
static bool offer(struct otus_pipeline *pipeline, uint32_t *out_next_stage)
{
    struct otus_batch *batch = &pipeline->batch;
    struct otus_packet *packet = &pipeline->packet;
    struct otus_arena before = batch->arena;
    struct otus_tally tally = {0};
    struct otus_work work = {
        .meta = &packet->meta,
        .tunnels = packet->tunnels,
        .frame = packet->frame,
        .payload = packet->payload,
        .sampled = pipeline->num_seen % OTUS_LATENCY_SAMPLE == 0,
    };
    otus_label_clear(&pipeline->labels, batch->arena.base);
    uint32_t stopped = otus_run_stages(pipeline, &work, 0, &tally);
    if (OTUS_UNLIKELY(work.state == OTUS_RECORD_DROPPED)) {
        batch->arena = before;
        otus_tally_commit(&pipeline->counters, &tally);
        return true;
    }
    bool complete = stopped == pipeline->num_stages;
    struct otus_record *record = &batch->records[batch->num_records];
    if (OTUS_UNLIKELY(!otus_record_write(pipeline, record, &work, complete))) {
        batch->arena = before;
        if (batch->num_records != 0)
            return false;
        count_too_large(pipeline, &work, &tally);
        return true;
    }
    batch->num_records++;
    if (OTUS_LIKELY(complete))
        otus_tally_add(&tally, OTUS_COUNT_EMITTED);
    otus_tally_commit(&pipeline->counters, &tally);
    *out_next_stage = stopped;
    return true;
}

/* Offers the packet in hand; false when the batch is full. */
static bool offer_or_keep(struct otus_pipeline *pipeline, uint32_t *out_next_stage)
{
    bool pending = batch_is_full(pipeline) || !offer(pipeline, out_next_stage);
    if (OTUS_UNLIKELY(pending != pipeline->pending)) {
        pipeline->pending = pending;
        otus_count_set(&pipeline->counters, OTUS_COUNT_PENDING, pending);
    }
    return !pending;
}

/* Offers the messages that the streams have ready. */
static bool drain_streams(struct otus_pipeline *pipeline, uint32_t *out_next_stage)
{
    while (pipeline->draining) {
        pipeline->draining = otus_streams_next(pipeline->streams, &pipeline->packet);
        if (pipeline->draining && !offer_or_keep(pipeline, out_next_stage))
            return false;
    }
    return true;
}

static void sample_capture(struct otus_pipeline *pipeline, const struct otus_raw_packet *raw)
{
    uint64_t now = otus_now_ns(CLOCK_REALTIME);
    if (now > raw->ts_ns && now - raw->ts_ns < 60u * 1000000000u)
        otus_latency_add(&pipeline->latency[OTUS_LATENCY_CAPTURE], now - raw->ts_ns);
}

static enum otus_status decode(struct otus_pipeline *pipeline, const struct otus_raw_packet *raw)
{
    pipeline->last_ts_ns = raw->ts_ns;
    if (OTUS_LIKELY(pipeline->num_seen++ % OTUS_LATENCY_SAMPLE != OTUS_LATENCY_SAMPLE - 1))
        return otus_decode(pipeline->decoder, &pipeline->packet, raw);
    sample_capture(pipeline, raw);
    uint64_t start = otus_now_ns(CLOCK_MONOTONIC);
    enum otus_status status = otus_decode(pipeline->decoder, &pipeline->packet, raw);
    otus_latency_add(&pipeline->latency[OTUS_LATENCY_DECODE], otus_now_ns(CLOCK_MONOTONIC) - start);
    return status;
}

/* One frame; false when the batch is full. */
static bool ingest(struct otus_pipeline *pipeline, const struct otus_raw_packet *raw,
                   uint32_t *out_next_stage)
{
    if (decode(pipeline, raw) != OTUS_OK)
        return true; /* held or undecodable: the decoder has counted it */
    const struct otus_packet *packet = &pipeline->packet;
    if (OTUS_UNLIKELY(pipeline->exact_filter != NULL) &&
        !otus_exact_filter_match(pipeline->exact_filter, pipeline->config.exact_view, packet,
                                 raw)) {
        otus_count(&pipeline->counters, OTUS_COUNT_FILTERED);
        return true;
    }
    if (pipeline->streams != NULL && OTUS_UNLIKELY(otus_streams_wants(pipeline->streams, packet))) {
        otus_streams_put(pipeline->streams, packet);
        pipeline->draining = true;
        return drain_streams(pipeline, out_next_stage);
    }
    otus_count(&pipeline->counters, OTUS_COUNT_OFFERED_PACKET);
    return offer_or_keep(pipeline, out_next_stage);
}

/* ---- poll -------------------------------------------------------------- */

/* Packet time while no packet comes: it goes on with the monotonic clock. */
static void expire(struct otus_pipeline *pipeline)
{
    if (pipeline->last_seen_ns == 0)
        return;
    uint64_t idle = otus_now_ns(CLOCK_MONOTONIC) - pipeline->last_seen_ns;
    uint64_t now = pipeline->last_ts_ns + idle;
    otus_decoder_expire(pipeline->decoder, now);
    if (pipeline->streams != NULL) {
        otus_streams_expire(pipeline->streams, now);
        pipeline->draining = true;
    }
}

/* The source is at its end: gives up gaps so that whole messages behind them
 * still come out, then drops and counts what is left. */
static void flush_held(struct otus_pipeline *pipeline)
{
    if (pipeline->flushed)
        return;
    pipeline->flushed = true;
    otus_decoder_flush(pipeline->decoder);
    if (pipeline->streams != NULL) {
        otus_streams_expire(pipeline->streams, UINT64_MAX);
        pipeline->draining = true;
    }
}

/* Fetches more frames. OTUS_OK: go on; anything else ends the poll. */
static enum otus_status refill(struct otus_pipeline *pipeline, int timeout_ms)
{
    pipeline->burst_next = 0;
    pipeline->burst_num = 0;
    if (pipeline->flushed)
        return OTUS_E_END;
    enum otus_status status = otus_capture_next(pipeline->capture, pipeline->burst,
                                                &pipeline->burst_num, BURST, timeout_ms);
    if (status == OTUS_OK) {
        pipeline->last_seen_ns = otus_now_ns(CLOCK_MONOTONIC);
        pipeline->burst_octets = otus_burst_octets(pipeline->burst, pipeline->burst_num);
        otus_ahead_start(pipeline);
        return OTUS_OK;
    }
    if (status == OTUS_E_AGAIN)
        expire(pipeline);
    else
        flush_held(pipeline);
    return status;
}

static bool take_burst(struct otus_pipeline *pipeline, uint32_t *out_next_stage)
{
    while (pipeline->burst_next < pipeline->burst_num) {
        otus_ask_next_burst(&pipeline->burst[pipeline->burst_next], pipeline->burst_octets);
        if (pipeline->looks_ahead)
            otus_ahead_next(pipeline, pipeline->burst_next);
        if (!ingest(pipeline, &pipeline->burst[pipeline->burst_next++], out_next_stage))
            return false;
    }
    return true;
}

enum otus_status otus_pipeline_poll(struct otus_pipeline *pipeline, uint32_t *out_next_stage,
                                    int timeout_ms)
{
    pipeline->batch.num_records = 0;
    pipeline->batch.arena.used = 0;
    *out_next_stage = pipeline->num_stages;
    /* What was left of the last call comes first, in its order. */
    if (pipeline->pending && !offer_or_keep(pipeline, out_next_stage))
        return OTUS_OK;
    for (;;) {
        if (!drain_streams(pipeline, out_next_stage) || !take_burst(pipeline, out_next_stage))
            return OTUS_OK;
        if (batch_is_full(pipeline))
            return OTUS_OK;
        /* Wait only with empty hands. */
        int wait = pipeline->batch.num_records == 0 ? timeout_ms : 0;
        enum otus_status status = refill(pipeline, wait);
        if (status == OTUS_OK)
            continue;
        if (!drain_streams(pipeline, out_next_stage))
            return OTUS_OK;
        if (status == OTUS_E_AGAIN)
            return OTUS_OK;
        if (pipeline->streams != NULL)
            otus_streams_flush(pipeline->streams);
        return status;
    }
}

/* ---- between Python stages --------------------------------------------- */

static void resume_record(struct otus_pipeline *pipeline, struct otus_record *record,
                          uint32_t first_stage, uint32_t *out_next_stage)
{
    struct otus_work work;
    struct otus_tally tally = {0};
    otus_record_read(pipeline, record, &work);
    uint32_t stopped = otus_run_stages(pipeline, &work, first_stage, &tally);
    record->state = work.state;
    record->payload_type = work.payload_type;
    record->parser = work.parser;
    bool room = work.state == OTUS_RECORD_DROPPED || otus_record_write_labels(pipeline, record);
    if (room && work.state != OTUS_RECORD_DROPPED && stopped == pipeline->num_stages) {
        otus_restore_payload(pipeline, &work);
        room = otus_record_finish(pipeline, record, &work);
        if (room)
            otus_tally_add(&tally, OTUS_COUNT_EMITTED);
    }
    if (!room) {
        record->state = OTUS_RECORD_DROPPED;
        count_too_large(pipeline, &work, &tally);
        return;
    }
    otus_tally_commit(&pipeline->counters, &tally);
    if (work.state != OTUS_RECORD_DROPPED)
        *out_next_stage = stopped;
}

enum otus_status otus_pipeline_resume(struct otus_pipeline *pipeline, uint32_t *out_next_stage,
                                      uint32_t first_stage)
{
    if (first_stage > pipeline->num_stages)
        return OTUS_E_INVALID;
    *out_next_stage = pipeline->num_stages;
    for (uint32_t i = 0; i < pipeline->batch.num_records; i++) {
        struct otus_record *record = &pipeline->batch.records[i];
        if (record->state != OTUS_RECORD_DROPPED)
            resume_record(pipeline, record, first_stage, out_next_stage);
    }
    return OTUS_OK;
}

void otus_pipeline_keep(struct otus_pipeline *pipeline, const uint8_t *keep,
                        enum otus_counter reason)
{
    for (uint32_t i = 0; i < pipeline->batch.num_records; i++) {
        struct otus_record *record = &pipeline->batch.records[i];
        if (keep[i] || record->state == OTUS_RECORD_DROPPED)
            continue;
        record->state = OTUS_RECORD_DROPPED;
        otus_count(&pipeline->counters, reason);
    }
}

enum otus_status otus_pipeline_take(struct otus_pipeline *pipeline, uint32_t index, uint32_t stage,
                                    struct otus_slice payload_name, struct otus_slice payload_json)
{
    struct otus_batch *batch = &pipeline->batch;
    if (index >= batch->num_records || batch->records[index].state != OTUS_RECORD_OFFERED)
        return OTUS_E_INVALID;
    struct otus_record *record = &batch->records[index];
    otus_count(&pipeline->counters, OTUS_COUNT_PARSED_PLUGIN);
    if (!otus_arena_put(&batch->arena, &record->payload_name, payload_name) ||
        !otus_arena_put(&batch->arena, &record->payload_json, payload_json)) {
        record->state = OTUS_RECORD_DROPPED;
        otus_count(&pipeline->counters, OTUS_COUNT_EMIT_TOO_LARGE);
        return OTUS_E_LIMIT;
    }
    record->state = OTUS_RECORD_PARSED;
    record->payload_type = OTUS_PAYLOAD_PLUGIN;
    record->parser = (uint16_t)stage;
    return OTUS_OK;
}

void otus_pipeline_label(struct otus_pipeline *pipeline, uint32_t index, struct otus_slice name,
                         struct otus_slice value)
{
    struct otus_batch *batch = &pipeline->batch;
    uint32_t id = intern(pipeline, name);
    struct otus_span span;
    if (index >= batch->num_records)
        return;
    if (id == OTUS_MAX_LABELS || !otus_arena_put(&batch->arena, &span, value)) {
        otus_count(&pipeline->counters, OTUS_COUNT_LABELS_DROPPED);
        return;
    }
    struct otus_record *record = &batch->records[index];
    struct otus_work work;
    otus_record_read(pipeline, record, &work);
    otus_label_put(&pipeline->labels, id,
                   (struct otus_slice){batch->arena.base + span.off, span.len});
    struct otus_span before = record->labels;
    if (!otus_record_write_labels(pipeline, record)) {
        record->labels = before;
        otus_count(&pipeline->counters, OTUS_COUNT_LABELS_DROPPED);
    }
}

/* ---- looking on -------------------------------------------------------- */

struct otus_batch *otus_pipeline_batch(struct otus_pipeline *pipeline)
{
    return &pipeline->batch;
}

enum otus_status otus_pipeline_exchange(struct otus_pipeline *pipeline, void **memory)
{
    struct otus_batch *batch = &pipeline->batch;
    struct otus_batch next = *batch;
    if (*memory == NULL) {
        enum otus_status status = otus_batch_open(&next, batch->max_records, batch->arena.size);
        if (status != OTUS_OK)
            return status;
    } else {
        size_t arena_at = (size_t)batch->max_records * sizeof(struct otus_record);
        next.records = *memory;
        next.arena.base = (uint8_t *)*memory + arena_at;
    }
    next.num_records = 0;
    next.arena.used = 0;
    *memory = batch->records;
    *batch = next;
    return OTUS_OK;
}

const char *otus_pipeline_label_name(const struct otus_pipeline *pipeline, uint32_t id)
{
    uint32_t num = __atomic_load_n(&pipeline->num_label_names, __ATOMIC_ACQUIRE);
    return id < num ? pipeline->label_names[id] : NULL;
}

void otus_pipeline_finish(struct otus_pipeline *pipeline)
{
    otus_capture_stop(pipeline->capture);
}

void otus_pipeline_interrupt(struct otus_pipeline *pipeline)
{
    otus_capture_interrupt(pipeline->capture);
}

const char *otus_pipeline_error(const struct otus_pipeline *pipeline)
{
    return otus_capture_error(pipeline->capture);
}

void otus_pipeline_get_counters(const struct otus_pipeline *pipeline,
                                uint64_t out_values[OTUS_NUM_COUNTERS])
{
    for (uint32_t i = 0; i < OTUS_NUM_COUNTERS; i++)
        out_values[i] = __atomic_load_n(&pipeline->counters.value[i], __ATOMIC_RELAXED);
}

void otus_pipeline_get_latency(const struct otus_pipeline *pipeline,
                               struct otus_latency out_stages[OTUS_NUM_LATENCY_STAGES])
{
    for (uint32_t s = 0; s < OTUS_NUM_LATENCY_STAGES; s++) {
        const struct otus_latency *stage = &pipeline->latency[s];
        for (uint32_t b = 0; b < OTUS_LATENCY_BUCKETS; b++)
            out_stages[s].bucket[b] = __atomic_load_n(&stage->bucket[b], __ATOMIC_RELAXED);
        out_stages[s].sum_ns = __atomic_load_n(&stage->sum_ns, __ATOMIC_RELAXED);
        out_stages[s].count = __atomic_load_n(&stage->count, __ATOMIC_RELAXED);
    }
}

void otus_pipeline_capture_stats(const struct otus_pipeline *pipeline,
                                 struct otus_capture_stats *out_stats)
{
    otus_capture_get_stats(pipeline->capture, out_stats);
}

uint64_t otus_pipeline_position(const struct otus_pipeline *pipeline)
{
    return otus_capture_position(pipeline->capture);
}

uint16_t otus_pipeline_fanout_id(const struct otus_pipeline *pipeline)
{
    return otus_capture_fanout_id(pipeline->capture);
}
