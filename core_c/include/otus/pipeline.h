/* One pipeline: capture to batch in one call, no lock held, nothing allocated. */
#ifndef OTUS_PIPELINE_H
#define OTUS_PIPELINE_H

#include <stdbool.h>

#include "otus/batch.h"
#include "otus/capture.h"
#include "otus/counters.h"
#include "otus/decode.h"
#include "otus/encode.h"
#include "otus/filter.h"
#include "otus/flow.h"
#include "otus/stream.h"

enum otus_stage_kind {
    OTUS_STAGE_PARSE_SIP = 1,
    OTUS_STAGE_PARSE_RTP = 2,    /* RTP and RTCP of flows in the registry */
    OTUS_STAGE_PARSE_PYTHON = 3, /* the call stops here: Python asks its parser */
    OTUS_STAGE_FILTER = 4,
    OTUS_STAGE_LABEL = 5,
    OTUS_STAGE_PROCESS_PYTHON = 6, /* the call stops here: Python asks its processor */
};

enum otus_filter_action {
    OTUS_FILTER_DROP_IF = 0,
    OTUS_FILTER_KEEP_IF = 1,
};

/* Parsers come first, then processors; the task's order otherwise. Everything
 * pointed to is borrowed and must outlive the pipeline. */
struct otus_stage {
    enum otus_stage_kind kind;
    enum otus_filter_action action;         /* FILTER */
    const struct otus_filter *filter;       /* FILTER */
    const struct otus_static_label *labels; /* LABEL */
    uint32_t num_labels;
    const struct otus_header_label *header_labels; /* PARSE_SIP */
    uint32_t num_header_labels;
};

struct otus_static_label {
    uint32_t id; /* interned: OTUS_NUM_LABELS and up */
    const char *value;
};

/* A SIP header that the task wants as a label, matched by name without case. */
struct otus_header_label {
    uint32_t id;
    const char *name;
};

enum otus_output {
    OTUS_OUTPUT_JSON = 1 << 0,
    OTUS_OUTPUT_PROTOBUF = 1 << 1,
    OTUS_OUTPUT_FRAME = 1 << 2,        /* copy the captured frame as well */
    OTUS_OUTPUT_PAYLOAD_JSON = 1 << 3, /* payload as JSON for Python stages */
};

struct otus_pipeline_config {
    struct otus_envelope envelope;
    struct otus_decoder_config decoder;
    struct otus_stream_config streams;
    struct otus_flow_registry *flows; /* NULL: no registry */
    const struct otus_bpf_insn
        *exact_filter; /* run on the innermost datagram as an Ethernet frame */
    uint32_t exact_filter_len;
    const struct otus_stage *stages;
    uint32_t num_stages;
    bool forward_unmatched;
    uint32_t outputs; /* bits of enum otus_output */
    uint32_t max_records;
    uint32_t arena_octets;
};

struct otus_pipeline;

/* The pipeline owns capture from here on, also on failure. */
OTUS_MUST_CHECK enum otus_status otus_pipeline_open(struct otus_pipeline **out_pipeline,
                                                    struct otus_capture *capture,
                                                    const struct otus_pipeline_config *config);
void otus_pipeline_close(struct otus_pipeline *pipeline); /* NULL-safe */

/* Fills the batch until it is full or nothing more is there, running the stages
 * up to the first Python one, or to the end with encoding.
 *
 * Returns OTUS_OK (the batch may be empty: nothing came within timeout_ms);
 * OTUS_E_END with a last batch, what was held being flushed and counted;
 * OTUS_E_SYSTEM or OTUS_E_MALFORMED when the source failed: see
 * otus_pipeline_error(). Ring blocks are not referenced by the batch. */
OTUS_MUST_CHECK enum otus_status otus_pipeline_poll(struct otus_pipeline *pipeline,
                                                    uint32_t *out_next_stage, int timeout_ms);

/* Goes on with the batch at stage first_stage, after Python has set records'
 * states, labels and payloads, up to the next Python stage or the end. */
OTUS_MUST_CHECK enum otus_status otus_pipeline_resume(struct otus_pipeline *pipeline,
                                                      uint32_t *out_next_stage,
                                                      uint32_t first_stage);

struct otus_batch *otus_pipeline_batch(struct otus_pipeline *pipeline);
void otus_pipeline_interrupt(struct otus_pipeline *pipeline); /* from any thread */
const char *otus_pipeline_error(const struct otus_pipeline *pipeline);
const struct otus_counters *otus_pipeline_counters(const struct otus_pipeline *pipeline);
void otus_pipeline_capture_stats(const struct otus_pipeline *pipeline,
                                 struct otus_capture_stats *out_stats);

#endif
