/* A capture through the whole pipeline, with streams, reassembly, flows and stages
 * between that answer as Python ones do: the ledger holds after every batch, and
 * what records name lies in the batch's arena.
 *
 * Input: a classic pcap file, so that captures are seeds; its two unused header
 * words choose the configuration. */
#include <stdlib.h>

#include "otus/pipeline.h"

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

enum { FILE_HEADER_LEN = 24, UNUSED_AT = 8, FIRST_PYTHON = 0, LAST_PYTHON = 4 };

static const struct otus_stage stages[] = {
    [FIRST_PYTHON] = {.kind = OTUS_STAGE_PARSE_PYTHON},
    {.kind = OTUS_STAGE_PARSE_SIP},
    {.kind = OTUS_STAGE_PARSE_RTP},
    {.kind = OTUS_STAGE_LABEL},
    [LAST_PYTHON] = {.kind = OTUS_STAGE_PROCESS_PYTHON},
};
enum { NUM_STAGES = sizeof stages / sizeof stages[0] };

static const enum otus_counter_group group_of[] = {
#define GROUP(id, group, reason, meaning) OTUS_GROUP_##group,
    OTUS_COUNTERS(GROUP)
#undef GROUP
};

static uint64_t total(const uint64_t *values, enum otus_counter_group group)
{
    uint64_t sum = 0;
    for (uint32_t id = 0; id < OTUS_NUM_COUNTERS; id++)
        sum += group_of[id] == group ? values[id] : 0;
    return sum;
}

/* The equations of otus/counters.h. */
static void check_ledger(const struct otus_pipeline *pipeline, uint64_t num_kept)
{
    uint64_t values[OTUS_NUM_COUNTERS];
    otus_pipeline_get_counters(pipeline, values);
#define TOTAL(group) total(values, OTUS_GROUP_##group)
    REQUIRE(TOTAL(RECEIVED) == TOTAL(DECODED) + TOTAL(UNDECODABLE) + TOTAL(FRAGMENT) +
                                   values[OTUS_COUNT_FRAGMENTS_HELD]);
    REQUIRE(TOTAL(DECODED) ==
            TOTAL(FILTERED) + TOTAL(SEGMENT) + TOTAL(OFFERED) + values[OTUS_COUNT_SEGMENTS_HELD]);
    REQUIRE(TOTAL(OFFERED) + TOTAL(MESSAGE) == TOTAL(PARSED) + TOTAL(UNMATCHED) +
                                                   TOTAL(PARSE_ERROR) + TOTAL(FORWARDED) +
                                                   values[OTUS_COUNT_PENDING]);
    REQUIRE(TOTAL(PARSED) + TOTAL(FORWARDED) ==
            TOTAL(PROCESS) + TOTAL(EMIT_ERROR) + TOTAL(EMITTED));
    REQUIRE(TOTAL(EMITTED) == num_kept);
#undef TOTAL
}

static void check_span(const struct otus_batch *batch, struct otus_span span)
{
    REQUIRE(span.len == 0 ||
            (span.off <= batch->arena.used && span.len <= batch->arena.used - span.off));
}

static uint64_t check_records(const struct otus_batch *batch)
{
    uint64_t kept = 0;
    for (uint32_t i = 0; i < batch->num_records; i++) {
        const struct otus_record *record = &batch->records[i];
        if (record->state == OTUS_RECORD_DROPPED)
            continue;
        kept++;
        check_span(batch, record->payload);
        check_span(batch, record->key);
        check_span(batch, record->labels);
        check_span(batch, record->tunnels);
        check_span(batch, record->frame);
        check_span(batch, record->json);
        check_span(batch, record->protobuf);
        check_span(batch, record->payload_json);
        check_span(batch, record->payload_name);
    }
    return kept;
}

static struct otus_slice text(const char *octets)
{
    return (struct otus_slice){(const uint8_t *)octets, (uint32_t)strlen(octets)};
}

static uint8_t first_octet(const struct otus_batch *batch, const struct otus_record *record)
{
    return record->payload.len != 0 ? batch->arena.base[record->payload.off] : 0;
}

/* A parser that takes some packets, or a processor that drops some records; both label. */
static void answer(struct otus_pipeline *pipeline, uint32_t stage)
{
    struct otus_batch *batch = otus_pipeline_batch(pipeline);
    uint8_t *keep = malloc(batch->num_records + 1);
    REQUIRE(keep != NULL);
    for (uint32_t i = 0; i < batch->num_records; i++) {
        const struct otus_record *record = &batch->records[i];
        uint8_t octet = first_octet(batch, record);
        keep[i] = octet % 5 != 0;
        if (record->state == OTUS_RECORD_DROPPED)
            continue;
        if (stage == FIRST_PYTHON && octet % 3 == 0)
            (void)!otus_pipeline_take(pipeline, i, stage, text("mine"), text("{\"a\":1}"));
        otus_pipeline_label(pipeline, i, text("mine.octet"), text("one"));
    }
    if (stage == LAST_PYTHON)
        otus_pipeline_keep(pipeline, keep, OTUS_COUNT_PROCESS_PLUGIN);
    free(keep);
}

static struct otus_pipeline *open_over(const uint8_t *octets, size_t len,
                                       struct otus_flow_registry *flows)
{
    const uint8_t *choice = octets + UNUSED_AT;
    struct otus_pipeline_config config = {
        .envelope = {.task_id = "t", .agent_id = "a", .pipeline_id = "p"},
        .flows = flows,
        .stages = stages,
        .num_stages = NUM_STAGES,
        .forward_unmatched = (choice[0] & 1) != 0,
        .outputs = choice[0] >> 1 & 0xf,
        .max_records = 1 + choice[1] % 32u,
        .arena_octets = 1024u << choice[2] % 8,
    };
    otus_decoder_config_init(&config.decoder);
    config.decoder.tunnels = choice[3];
    config.decoder.ip_reassembly = (choice[0] & 32) != 0;
    config.decoder.max_datagrams = 1 + choice[4] % 8u;
    otus_stream_config_init(&config.streams);
    config.streams.ports[0] = 5060;
    config.streams.ports[1] = 80;
    config.streams.num_ports = choice[5] % 3;
    config.streams.max_streams = 1 + choice[5] / 3;
    config.streams.max_stream_octets = 4096;
    config.streams.max_message_octets = 2048;
    struct otus_memory_config memory = {octets, len, 1};
    struct otus_capture *capture = NULL;
    struct otus_pipeline *pipeline = NULL;
    char message[256];
    if (otus_capture_open_memory(&capture, message, sizeof message, &memory) != OTUS_OK)
        return NULL;
    REQUIRE(otus_pipeline_open(&pipeline, capture, &config) == OTUS_OK);
    return pipeline;
}

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
    if (len < FILE_HEADER_LEN)
        return 0;
    struct otus_flow_registry *flows = NULL;
    REQUIRE(otus_flow_registry_new(&flows, 16, 1000) == OTUS_OK);
    struct otus_pipeline *pipeline = open_over(octets, len, flows);
    uint64_t num_kept = 0;
    enum otus_status status = pipeline != NULL ? OTUS_OK : OTUS_E_END;
    while (status == OTUS_OK) {
        uint32_t next;
        status = otus_pipeline_poll(pipeline, &next, 0);
        while (next < NUM_STAGES) {
            answer(pipeline, next);
            REQUIRE(otus_pipeline_resume(pipeline, &next, next + 1) == OTUS_OK);
        }
        num_kept += check_records(otus_pipeline_batch(pipeline));
        check_ledger(pipeline, num_kept);
    }
    if (pipeline != NULL) {
        uint64_t values[OTUS_NUM_COUNTERS];
        otus_pipeline_get_counters(pipeline, values);
        REQUIRE(status != OTUS_E_END || values[OTUS_COUNT_FRAGMENTS_HELD] +
                                                values[OTUS_COUNT_SEGMENTS_HELD] +
                                                values[OTUS_COUNT_PENDING] ==
                                            0);
    }
    otus_pipeline_close(pipeline);
    otus_flow_registry_free(flows);
    return 0;
}
