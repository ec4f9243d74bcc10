/* One pipeline: capture to batch in one call, no lock held, nothing allocated. */
#ifndef OTUS_PIPELINE_H
#define OTUS_PIPELINE_H

#include <stdbool.h>

#include "otus/batch.h"
#include "otus/bpf.h"
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

/* Where a packet's time goes, measured on one packet in OTUS_LATENCY_SAMPLE so
 * that the clock is not what is measured. */
enum otus_latency_stage {
    OTUS_LATENCY_DECODE = 0,
    OTUS_LATENCY_PARSE,
    OTUS_LATENCY_PROCESS,
    OTUS_LATENCY_ENCODE,
    OTUS_LATENCY_CAPTURE, /* from the kernel's timestamp to the pipeline (live only) */
    OTUS_NUM_LATENCY_STAGES,
};

enum {
    OTUS_LATENCY_SAMPLE = 1024,
    OTUS_LATENCY_BUCKETS = 32, /* bucket i counts durations below 2^(i+4) ns, the last all others */
};

struct otus_latency {
    uint64_t bucket[OTUS_LATENCY_BUCKETS];
    uint64_t sum_ns;
    uint64_t count;
};

struct otus_pipeline_config {
    struct otus_envelope envelope;
    struct otus_decoder_config decoder;
    struct otus_stream_config streams;
    struct otus_flow_registry *flows;         /* NULL: no registry */
    const struct otus_bpf_insn *exact_filter; /* run over the decoded packet as exact_view says */
    uint32_t exact_filter_len;
    uint32_t exact_view; /* bits of enum otus_exact_view */
    const struct otus_stage *stages;
    uint32_t num_stages;
    /* Names of the labels with ids from OTUS_NUM_LABELS on; at most
     * OTUS_MAX_LABELS - OTUS_NUM_LABELS of at most OTUS_MAX_LABEL_NAME octets. Copied. */
    const char *const *label_names;
    uint32_t num_label_names;
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

/* Gives the memory of the batch in hand away, as otus_batch_open() took it, and
 * goes on with an empty batch: in *memory, which an earlier call has given, or in new
 * memory where that is NULL. Returns OTUS_E_NOMEM where there is none, and the batch
 * then stays. The new owner calls free(). */
OTUS_MUST_CHECK enum otus_status otus_pipeline_exchange(struct otus_pipeline *pipeline,
                                                        void **memory);

/* What Python stages say of the batch in hand, between poll() and resume(). */

/* Drops the records whose octet in keep is 0 and counts them under reason
 * (a counter of the groups PROCESS and PARSE_ERROR). keep has num_records octets. */
void otus_pipeline_keep(struct otus_pipeline *pipeline, const uint8_t *keep,
                        enum otus_counter reason);

/* A Python parser took the record: its payload_type and its payload as JSON.
 * Returns OTUS_E_LIMIT, and drops and counts the record, where the arena is full. */
OTUS_MUST_CHECK enum otus_status otus_pipeline_take(struct otus_pipeline *pipeline, uint32_t record,
                                                    uint32_t stage, struct otus_slice payload_name,
                                                    struct otus_slice payload_json);

/* Sets one label; an interned name that is new costs an id. A label that finds
 * no room is counted under labels_dropped. */
void otus_pipeline_label(struct otus_pipeline *pipeline, uint32_t record, struct otus_slice name,
                         struct otus_slice value);

/* The name behind a label id of this pipeline, NULL where unused. From any thread. */
const char *otus_pipeline_label_name(const struct otus_pipeline *pipeline, uint32_t id);

/* Ends intake: the source gives up what it holds and then says OTUS_E_END. */
void otus_pipeline_finish(struct otus_pipeline *pipeline);
void otus_pipeline_interrupt(struct otus_pipeline *pipeline); /* from any thread */
const char *otus_pipeline_error(const struct otus_pipeline *pipeline);

/* The next three from any thread while the pipeline is open. */
void otus_pipeline_get_counters(const struct otus_pipeline *pipeline,
                                uint64_t out_values[OTUS_NUM_COUNTERS]);
void otus_pipeline_get_latency(const struct otus_pipeline *pipeline,
                               struct otus_latency out_stages[OTUS_NUM_LATENCY_STAGES]);
void otus_pipeline_capture_stats(const struct otus_pipeline *pipeline,
                                 struct otus_capture_stats *out_stats);
uint64_t otus_pipeline_position(const struct otus_pipeline *pipeline); /* octets of the file read */
uint16_t otus_pipeline_fanout_id(const struct otus_pipeline *pipeline);

#endif
