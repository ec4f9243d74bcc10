/* What the pipeline's files share. */
#ifndef OTUS_PIPELINE_INTERNAL_H
#define OTUS_PIPELINE_INTERNAL_H

#include "otus/pipeline.h"
#include "otus/sip_labels.h"

enum {
    BURST = 64, /* frames asked of the source at once */
    MAX_STAGES = 64,
};

/* A packet on its way through the stages: fresh from the decoder, or a record
 * that a Python stage has handed back. */
struct otus_work {
    struct otus_packet_meta *meta;
    const struct otus_tunnel *tunnels;
    struct otus_slice frame;
    struct otus_slice payload;
    struct otus_slice payload_json; /* of a Python parser */
    struct otus_slice payload_name;
    uint8_t payload_type; /* enum otus_payload_type */
    uint8_t state;        /* enum otus_record_state */
    uint16_t parser;
    bool sip_ready; /* pipeline->sip holds this packet's message */
    bool rtp_ready; /* pipeline->rtp or ->rtcp does */
    bool sampled;   /* its stages are timed */
};

/* Counters that a packet adds to once its record is in the batch: a packet that
 * finds the batch full comes again, and must not count twice. */
struct otus_tally {
    enum otus_counter id[4];
    uint32_t num;
};

/* What was asked of the flow registry for a frame of the burst: see pipeline_ahead.c. */
struct otus_ahead {
    uint64_t hash;
    uint32_t asked;
};

struct otus_pipeline {
    struct otus_counters counters;
    struct otus_pipeline_config config;
    struct otus_stage stages[MAX_STAGES];
    uint32_t num_stages;
    uint32_t num_parsers;  /* stages [0, num_parsers) parse, the rest process */
    uint32_t ingest_limit; /* octets of arena after which poll() takes no more packets */
    bool has_python;
    bool has_rtp; /* media endpoints are worth keeping */

    struct otus_capture *capture;
    struct otus_decoder *decoder;
    struct otus_streams *streams; /* NULL when no ports are configured */
    struct otus_sip_parser *sip_parser;
    struct otus_bpf *exact_filter;
    struct otus_encoder *encoder;

    struct otus_raw_packet burst[BURST];
    uint32_t burst_next;
    uint32_t burst_num;
    uint32_t burst_octets; /* from the first frame to the last one's end, where they lie so */
    struct otus_ahead ahead[BURST];
    bool looks_ahead;
    struct otus_packet packet; /* in hand */
    bool pending;              /* packet found the batch full and comes first next time */
    bool draining;             /* messages may be left in streams */
    bool flushed;
    uint64_t last_ts_ns;
    uint64_t last_seen_ns; /* monotonic time at which it came */
    uint64_t num_seen;

    struct otus_batch batch;
    struct otus_label_set labels;
    struct otus_sip_message sip;
    struct otus_rtp_header rtp;
    struct otus_rtcp_header rtcp;
    struct otus_flow_value flow;

    const char *label_names[OTUS_MAX_LABELS];
    char label_storage[OTUS_MAX_LABELS][OTUS_MAX_LABEL_NAME + 1];
    uint32_t num_label_names;

    struct otus_latency latency[OTUS_NUM_LATENCY_STAGES];
};

uint64_t otus_now_ns(int clock);
void otus_latency_add(struct otus_latency *latency, uint64_t duration_ns);

static inline void otus_tally_add(struct otus_tally *tally, enum otus_counter id)
{
    tally->id[tally->num++] = id;
}

static inline void otus_tally_commit(struct otus_counters *counters, const struct otus_tally *tally)
{
    for (uint32_t i = 0; i < tally->num; i++)
        otus_count(counters, tally->id[i]);
}

/* One comparison: a pointer below base wraps to a huge distance. */
static inline bool otus_lies_in(const struct otus_arena *arena, const uint8_t *at)
{
    return (uintptr_t)at - (uintptr_t)arena->base < arena->used;
}

/* pipeline_stages.c: runs [first, ...) until a Python stage or the end; returns
 * where it stopped. work->state tells whether the packet goes on. */
uint32_t otus_run_stages(struct otus_pipeline *pipeline, struct otus_work *work, uint32_t first,
                         struct otus_tally *tally);
struct otus_slice otus_payload_type_name(const struct otus_work *work);
/* Parses the payload again for a record that came back from Python. */
void otus_restore_payload(struct otus_pipeline *pipeline, struct otus_work *work);

/* pipeline_ahead.c: a burst has come; its packet at index is next. */
void otus_ahead_start(struct otus_pipeline *pipeline);
void otus_ahead_next(struct otus_pipeline *pipeline, uint32_t index);

/* pipeline_record.c */
OTUS_MUST_CHECK bool otus_record_write(struct otus_pipeline *pipeline, struct otus_record *record,
                                       const struct otus_work *work, bool complete);
OTUS_MUST_CHECK bool otus_record_finish(struct otus_pipeline *pipeline, struct otus_record *record,
                                        const struct otus_work *work);
void otus_record_read(struct otus_pipeline *pipeline, struct otus_record *record,
                      struct otus_work *out_work);
OTUS_MUST_CHECK bool otus_record_write_labels(struct otus_pipeline *pipeline,
                                              struct otus_record *record);

#endif
