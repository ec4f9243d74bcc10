/* The pipeline from octets to records: order, full batches, the ledger. */
#include <stdlib.h>

#include "check.h"
#include "filter_internal.h"
#include "guard.h"
#include "otus/pipeline.h"

enum { ETHERNET = 14, IP_HEADER = 20, UDP_HEADER = 8, MAX_FILE = 1 << 20 };

/* A pcap file put together in memory: little-endian, microseconds, Ethernet. */
struct file {
    uint8_t octets[MAX_FILE];
    size_t len;
    uint32_t num_frames;
};

static void le32(struct file *file, uint32_t value)
{
    for (int shift = 0; shift < 32; shift += 8)
        file->octets[file->len++] = (uint8_t)(value >> shift);
}

static void be16(struct file *file, uint32_t value)
{
    file->octets[file->len++] = (uint8_t)(value >> 8);
    file->octets[file->len++] = (uint8_t)value;
}

static void append(struct file *file, const void *octets, size_t len)
{
    memcpy(file->octets + file->len, octets, len);
    file->len += len;
}

static struct file *new_file(void)
{
    struct file *file = calloc(1, sizeof *file);
    if (file == NULL)
        abort();
    le32(file, 0xa1b2c3d4);
    le32(file, 0x00040002);
    le32(file, 0);
    le32(file, 0);
    le32(file, 65535);
    le32(file, 1);
    return file;
}

static void add_udp(struct file *file, const char *payload)
{
    static const uint8_t link[] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0};
    static const uint8_t addresses[] = {10, 0, 0, 1, 10, 0, 0, 2};
    size_t len = strlen(payload);
    size_t frame = ETHERNET + IP_HEADER + UDP_HEADER + len;
    le32(file, 1700000000);
    le32(file, file->num_frames++);
    le32(file, (uint32_t)frame);
    le32(file, (uint32_t)frame);
    append(file, link, sizeof link);
    be16(file, 0x4500);
    be16(file, (uint32_t)(IP_HEADER + UDP_HEADER + len));
    be16(file, 0);
    be16(file, 0);
    be16(file, 0x4011);
    be16(file, 0);
    append(file, addresses, sizeof addresses);
    be16(file, 5060);
    be16(file, 5062);
    be16(file, (uint32_t)(UDP_HEADER + len));
    be16(file, 0);
    append(file, payload, len);
}

/* With more header lines behind the others. */
static void add_sip_with(struct file *file, int number, const char *more)
{
    char text[1024];
    snprintf(text, sizeof text,
             "OPTIONS sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK%d\r\n"
             "From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>\r\n"
             "Call-ID: call-%d\r\nCSeq: %d OPTIONS\r\n%sContent-Length: 0\r\n\r\n",
             number, number, number, more);
    add_udp(file, text);
}

static void add_sip(struct file *file, int number)
{
    add_sip_with(file, number, "");
}

static const struct otus_stage sip_stage[] = {{.kind = OTUS_STAGE_PARSE_SIP}};

static struct otus_pipeline_config default_config(void)
{
    struct otus_pipeline_config config = {
        .envelope = {.task_id = "t", .agent_id = "a", .pipeline_id = "p"},
        .stages = sip_stage,
        .num_stages = 1,
        .outputs = OTUS_OUTPUT_JSON,
    };
    otus_decoder_config_init(&config.decoder);
    otus_stream_config_init(&config.streams);
    return config;
}

static struct otus_pipeline *open_over(const struct file *file,
                                       const struct otus_pipeline_config *config)
{
    struct otus_capture *capture = NULL;
    struct otus_pipeline *pipeline = NULL;
    char message[256] = "";
    struct otus_memory_config memory = {file->octets, file->len, 1};
    CHECK_EQ(otus_capture_open_memory(&capture, message, sizeof message, &memory), OTUS_OK);
    CHECK_EQ(otus_pipeline_open(&pipeline, capture, config), OTUS_OK);
    return pipeline;
}

static uint64_t count(const struct otus_pipeline *pipeline, enum otus_counter id)
{
    uint64_t values[OTUS_NUM_COUNTERS];
    otus_pipeline_get_counters(pipeline, values);
    return values[id];
}

static void check_text(const struct otus_batch *batch, struct otus_span span, const char *want)
{
    CHECK_TEXT(batch->arena.base + span.off, span.len, want);
}

static void test_records_in_order(void)
{
    check_about = "every message becomes one record, in order, keyed by its Call-ID";
    struct file *file = new_file();
    for (int i = 0; i < 10; i++)
        add_sip(file, i);
    add_udp(file, "this is no SIP");
    struct otus_pipeline_config config = default_config();
    struct otus_pipeline *pipeline = open_over(file, &config);
    uint32_t next = 0;
    CHECK_EQ(otus_pipeline_poll(pipeline, &next, 0), OTUS_E_END);
    CHECK_EQ(next, 1);
    const struct otus_batch *batch = otus_pipeline_batch(pipeline);
    CHECK_EQ(batch->num_records, 10);
    for (uint32_t i = 0; i < batch->num_records; i++) {
        char want[32];
        snprintf(want, sizeof want, "call-%u", i);
        check_text(batch, batch->records[i].key, want);
        CHECK(batch->records[i].json.len > 0);
        CHECK_EQ(batch->records[i].payload_type, OTUS_PAYLOAD_SIP);
        CHECK_EQ(batch->records[i].meta.src_port, 5060);
    }
    CHECK_EQ(count(pipeline, OTUS_COUNT_RECEIVED), 11);
    CHECK_EQ(count(pipeline, OTUS_COUNT_PARSED_SIP), 10);
    CHECK_EQ(count(pipeline, OTUS_COUNT_UNMATCHED), 1);
    CHECK_EQ(count(pipeline, OTUS_COUNT_EMITTED), 10);
    otus_pipeline_close(pipeline);
    free(file);
}

/* Polls to the end; every one of the num messages of the file comes out once, in its order. */
static void check_all_come(const struct file *file, const struct otus_pipeline_config *config,
                           uint32_t num)
{
    struct otus_pipeline *pipeline = open_over(file, config);
    enum otus_status status = OTUS_OK;
    uint32_t come = 0;
    uint32_t next;
    while (status == OTUS_OK) {
        status = otus_pipeline_poll(pipeline, &next, 0);
        const struct otus_batch *batch = otus_pipeline_batch(pipeline);
        for (uint32_t i = 0; i < batch->num_records; i++) {
            char want[32];
            snprintf(want, sizeof want, "call-%u", come++);
            check_text(batch, batch->records[i].key, want);
        }
    }
    CHECK_EQ(status, OTUS_E_END);
    CHECK_EQ(come, num);
    CHECK_EQ(count(pipeline, OTUS_COUNT_PARSED_SIP), num);
    CHECK_EQ(count(pipeline, OTUS_COUNT_EMITTED), num);
    otus_pipeline_close(pipeline);
}

/* The same wherever a batch is full. */
static void check_all_come_through_full_batches(const struct file *file,
                                                struct otus_pipeline_config config, uint32_t num)
{
    for (config.arena_octets = 1024; config.arena_octets < 2048; config.arena_octets++)
        check_all_come(file, &config, num);
}

static void test_small_batches(void)
{
    check_about = "a batch too small for all loses none and repeats none, at every arena size";
    struct file *file = new_file();
    enum { NUM = 40 };
    for (int i = 0; i < NUM; i++)
        add_sip(file, i);
    for (uint32_t arena = 4096; arena < 12000; arena += 97) {
        struct otus_pipeline_config config = default_config();
        config.arena_octets = arena;
        config.max_records = 7;
        check_all_come(file, &config, NUM);
    }
    free(file);
}

/* The program of `LABEL == 'TEXT'`. */
static struct otus_filter *filter_of(uint32_t label, const char *text)
{
    const uint16_t len = (uint16_t)strlen(text);
    const uint16_t words[] = {1,
                              1,
                              1,
                              0,
                              0,
                              0,
                              0,
                              0, /* counts: one instruction, one string */
                              FILTER_STRING_EQUAL,
                              (uint16_t)(FILTER_FROM_LABEL << 12 | label),
                              FILTER_FROM_STRINGS << 12,
                              FILTER_HOLDS,
                              FILTER_FAILS,
                              0, /* the instruction */
                              len,
                              0};
    struct otus_filter *filter = NULL;
    uint8_t program[4 + sizeof words + 16] = "OTUF";
    char message[80];
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        program[4 + 2 * i] = (uint8_t)words[i];
        program[5 + 2 * i] = (uint8_t)(words[i] >> 8);
    }
    memcpy(program + 4 + sizeof words, text, len);
    CHECK_EQ(otus_filter_load(&filter, message, sizeof message, program, 4 + sizeof words + len),
             OTUS_OK);
    return filter;
}

static void test_full_batch_decides_nothing(void)
{
    check_about = "a batch without room for a message or its labels filters nothing, at every size";
    struct file *file = new_file();
    enum { NUM = 6 };
    for (int i = 0; i < NUM; i++)
        add_sip(file, i);
    char site[201];
    const char *name = "tag.site";
    memset(site, 's', sizeof site - 1);
    site[sizeof site - 1] = '\0';
    const struct otus_static_label label = {OTUS_NUM_LABELS, site};
    struct otus_filter *filter = filter_of(OTUS_LABEL_SIP_METHOD, "OPTIONS");
    const struct otus_stage stages[] = {
        {.kind = OTUS_STAGE_PARSE_SIP},
        {.kind = OTUS_STAGE_LABEL, .labels = &label, .num_labels = 1},
        {.kind = OTUS_STAGE_FILTER, .action = OTUS_FILTER_KEEP_IF, .filter = filter},
    };
    struct otus_pipeline_config config = default_config();
    config.stages = stages;
    config.num_stages = 3;
    config.label_names = &name;
    config.num_label_names = 1;
    config.outputs = 0;
    check_all_come_through_full_batches(file, config, NUM);
    otus_filter_free(filter);
    free(file);
}

static void test_too_large(void)
{
    check_about = "a record that no batch can hold is counted and stops nothing";
    struct file *file = new_file();
    add_sip(file, 1);
    struct otus_pipeline_config config = default_config();
    config.arena_octets = 200;
    struct otus_pipeline *pipeline = open_over(file, &config);
    uint32_t next;
    CHECK_EQ(otus_pipeline_poll(pipeline, &next, 0), OTUS_E_END);
    CHECK_EQ(otus_pipeline_batch(pipeline)->num_records, 0);
    CHECK_EQ(count(pipeline, OTUS_COUNT_PARSED_SIP), 1);
    CHECK_EQ(count(pipeline, OTUS_COUNT_EMIT_TOO_LARGE), 1);
    otus_pipeline_close(pipeline);
    free(file);
}

static void test_too_large_for_a_python_parser(void)
{
    check_about =
        "what no batch can bring before a Python parser is a parse error, not an emit error";
    static const struct otus_stage stages[] = {{.kind = OTUS_STAGE_PARSE_PYTHON},
                                               {.kind = OTUS_STAGE_PARSE_SIP}};
    struct file *file = new_file();
    add_sip(file, 1);
    struct otus_pipeline_config config = default_config();
    config.stages = stages;
    config.num_stages = 2;
    config.arena_octets = 100;
    struct otus_pipeline *pipeline = open_over(file, &config);
    uint32_t next;
    CHECK_EQ(otus_pipeline_poll(pipeline, &next, 0), OTUS_E_END);
    CHECK_EQ(count(pipeline, OTUS_COUNT_OFFERED_PACKET), 1);
    CHECK_EQ(count(pipeline, OTUS_COUNT_PARSE_TOO_LARGE), 1);
    CHECK_EQ(count(pipeline, OTUS_COUNT_EMIT_TOO_LARGE), 0);
    otus_pipeline_close(pipeline);
    free(file);
}

static void test_pending_is_counted(void)
{
    check_about = "the packet that finds a batch full is in the ledger meanwhile";
    struct file *file = new_file();
    for (int i = 0; i < 3; i++)
        add_sip(file, i);
    struct otus_pipeline_config config = default_config();
    config.max_records = 1;
    struct otus_pipeline *pipeline = open_over(file, &config);
    uint32_t next;
    for (uint64_t i = 1; i <= 3; i++) {
        enum otus_status status = otus_pipeline_poll(pipeline, &next, 0);
        CHECK(status == OTUS_OK || status == OTUS_E_END);
        CHECK_EQ(count(pipeline, OTUS_COUNT_EMITTED), i);
        CHECK_EQ(count(pipeline, OTUS_COUNT_OFFERED_PACKET),
                 i + count(pipeline, OTUS_COUNT_PENDING));
    }
    CHECK_EQ(otus_pipeline_poll(pipeline, &next, 0), OTUS_E_END);
    CHECK_EQ(count(pipeline, OTUS_COUNT_PENDING), 0);
    otus_pipeline_close(pipeline);
    free(file);
}

static struct otus_slice slice(const char *text)
{
    return (struct otus_slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static void test_python_stages(void)
{
    check_about = "a Python parser before sip takes some, sip the rest, a processor drops one";
    struct file *file = new_file();
    add_sip(file, 0);
    add_udp(file, "mine 1");
    add_sip(file, 2);
    add_udp(file, "nobody's");
    static const struct otus_stage stages[] = {{.kind = OTUS_STAGE_PARSE_PYTHON},
                                               {.kind = OTUS_STAGE_PARSE_SIP},
                                               {.kind = OTUS_STAGE_PROCESS_PYTHON}};
    struct otus_pipeline_config config = default_config();
    config.stages = stages;
    config.num_stages = 3;
    struct otus_pipeline *pipeline = open_over(file, &config);
    struct otus_batch *batch = otus_pipeline_batch(pipeline);
    uint32_t next = 99;
    CHECK_EQ(otus_pipeline_poll(pipeline, &next, 0), OTUS_E_END);
    CHECK_EQ(next, 0);
    CHECK_EQ(batch->num_records, 4);
    CHECK_EQ(otus_pipeline_take(pipeline, 1, 0, slice("mine"), slice("{\"number\":1}")), OTUS_OK);
    otus_pipeline_label(pipeline, 1, slice("mine.number"), slice("1"));
    CHECK_EQ(otus_pipeline_resume(pipeline, &next, 1), OTUS_OK);
    CHECK_EQ(next, 2);
    CHECK_EQ(batch->records[0].payload_type, OTUS_PAYLOAD_SIP);
    CHECK_EQ(batch->records[1].payload_type, OTUS_PAYLOAD_PLUGIN);
    CHECK_EQ(batch->records[3].state, OTUS_RECORD_DROPPED);
    static const uint8_t keep[] = {1, 1, 0, 1};
    otus_pipeline_keep(pipeline, keep, OTUS_COUNT_PROCESS_PLUGIN);
    CHECK_EQ(otus_pipeline_resume(pipeline, &next, 3), OTUS_OK);
    CHECK_EQ(next, 3);
    CHECK(batch->records[0].json.len > 0);
    CHECK(batch->records[1].json.len > 0);
    CHECK_EQ(batch->records[2].json.len, 0);
    CHECK_EQ(count(pipeline, OTUS_COUNT_PARSED_SIP), 2);
    CHECK_EQ(count(pipeline, OTUS_COUNT_PARSED_PLUGIN), 1);
    CHECK_EQ(count(pipeline, OTUS_COUNT_UNMATCHED), 1);
    CHECK_EQ(count(pipeline, OTUS_COUNT_PROCESS_PLUGIN), 1);
    CHECK_EQ(count(pipeline, OTUS_COUNT_EMITTED), 2);
    otus_pipeline_close(pipeline);
    free(file);
}

static void test_memory_is_given_away(void)
{
    check_about = "a batch given away stays as it is while the next ones are filled, in turn";
    struct file *file = new_file();
    for (int i = 0; i < 6; i++)
        add_sip(file, i);
    struct otus_pipeline_config config = default_config();
    config.max_records = 2;
    struct otus_pipeline *pipeline = open_over(file, &config);
    struct otus_batch *batch = otus_pipeline_batch(pipeline);
    uint32_t next = 0;
    CHECK_EQ(otus_pipeline_poll(pipeline, &next, 0), OTUS_OK);
    struct otus_batch first = *batch;
    void *memory = NULL;
    CHECK_EQ(otus_pipeline_exchange(pipeline, &memory), OTUS_OK);
    CHECK(memory == first.records);
    CHECK_EQ(batch->num_records + batch->arena.used, 0);
    CHECK_EQ(batch->max_records, 2);
    CHECK_EQ(batch->arena.size, first.arena.size);
    CHECK_EQ(otus_pipeline_poll(pipeline, &next, 0), OTUS_OK);
    check_text(batch, batch->records[0].key, "call-2");
    check_text(&first, first.records[1].key, "call-1");
    void *second = memory;
    CHECK_EQ(otus_pipeline_exchange(pipeline, &second), OTUS_OK);
    CHECK(batch->records == memory);
    CHECK_EQ(otus_pipeline_poll(pipeline, &next, 0), OTUS_OK);
    check_text(batch, batch->records[0].key, "call-4");
    CHECK_EQ(count(pipeline, OTUS_COUNT_EMITTED), 6);
    otus_pipeline_close(pipeline);
    free(second);
    free(file);
}

static void test_bad_stages(void)
{
    check_about = "a parser behind a processor is refused";
    struct file *file = new_file();
    static const struct otus_stage stages[] = {{.kind = OTUS_STAGE_LABEL},
                                               {.kind = OTUS_STAGE_PARSE_SIP}};
    struct otus_pipeline_config config = default_config();
    config.stages = stages;
    config.num_stages = 2;
    struct otus_capture *capture = NULL;
    struct otus_pipeline *pipeline = NULL;
    char message[256];
    struct otus_memory_config memory = {file->octets, file->len, 1};
    CHECK_EQ(otus_capture_open_memory(&capture, message, sizeof message, &memory), OTUS_OK);
    CHECK_EQ(otus_pipeline_open(&pipeline, capture, &config), OTUS_E_INVALID);
    CHECK(pipeline == NULL);
    free(file);
}

/* The frame that was added last, once more: with a VLAN tag, and with len octets captured. */
static void add_again(struct file *file, size_t frame_len, bool tagged, size_t len)
{
    static const uint8_t tag[] = {0x81, 0, 0, 7};
    uint8_t frame[256];
    size_t whole = frame_len + (tagged ? sizeof tag : 0);
    const uint8_t *from = file->octets + file->len - frame_len;
    memcpy(frame, from, 12);
    memcpy(frame + 12, tag, sizeof tag);
    memcpy(frame + (tagged ? 16 : 12), from + 12, frame_len - 12);
    le32(file, 1700000000);
    le32(file, file->num_frames++);
    le32(file, (uint32_t)(len < whole ? len : whole));
    le32(file, (uint32_t)whole);
    append(file, frame, len < whole ? len : whole);
}

static void test_media_in_bursts(void)
{
    check_about =
        "RTP to or from a known endpoint is found in every place of a burst, in frames of "
        "any length";
    enum { NUM = 70, PAYLOAD = 14, FRAME = ETHERNET + IP_HEADER + UDP_HEADER + PAYLOAD };
    static const char rtp[] = "\x80\x08\x01\x02\x01\x01\x01\x01\x01\x01\x01\x01\x55\x55";
    static const struct otus_stage both[] = {{.kind = OTUS_STAGE_PARSE_SIP},
                                             {.kind = OTUS_STAGE_PARSE_RTP}};
    const struct otus_flow_key ends[2] = {
        {.ip_version = 4, .protocol = 17, .port = 5062, .ip = {10, 0, 0, 2}},
        {.ip_version = 4, .protocol = 17, .port = 5060, .ip = {10, 0, 0, 1}},
    };
    struct otus_flow_value value = {.kind = OTUS_FLOW_RTP, .len = 4, .octets = "call"};
    for (size_t cut = 0; cut <= FRAME; cut++) {
        struct file *file = new_file();
        for (int i = 0; i < NUM; i++)
            add_udp(file, rtp);
        add_again(file, FRAME, true, SIZE_MAX);
        add_udp(file, rtp);
        add_again(file, FRAME, cut % 2 != 0, cut);
        struct guard_buffer octets = guard_new(file->len);
        memcpy(octets.octets, file->octets, file->len);
        struct otus_pipeline_config config = default_config();
        CHECK_EQ(otus_flow_registry_new(&config.flows, 4096, 1000000), OTUS_OK);
        for (uint16_t i = 0; i < 1000; i++) { /* many: few are not asked for ahead */
            struct otus_flow_key key = ends[cut % 3 == 0];
            key.port = (uint16_t)(key.port + i);
            otus_flow_put(config.flows, &key, &value, (struct otus_slice){NULL, 0},
                          1700000000000000000u, NULL);
        }
        config.stages = both;
        config.num_stages = 2;
        struct otus_capture *capture = NULL;
        struct otus_pipeline *pipeline = NULL;
        char message[256] = "";
        struct otus_memory_config memory = {octets.octets, octets.len, 1};
        CHECK_EQ(otus_capture_open_memory(&capture, message, sizeof message, &memory), OTUS_OK);
        CHECK_EQ(otus_pipeline_open(&pipeline, capture, &config), OTUS_OK);
        uint32_t next;
        CHECK_EQ(otus_pipeline_poll(pipeline, &next, 0), OTUS_E_END);
        /* RFC 3550 5.1: twelve octets are a header, so two may be missing. */
        bool is_there = cut >= FRAME - 2u + (cut % 2 != 0 ? 4 : 0);
        CHECK_EQ(count(pipeline, OTUS_COUNT_PARSED_RTP), NUM + 2 + (is_there ? 1 : 0));
        CHECK_EQ(count(pipeline, OTUS_COUNT_RECEIVED), NUM + 3);
        const struct otus_batch *batch = otus_pipeline_batch(pipeline);
        for (uint32_t i = 0; i < batch->num_records; i++)
            check_text(batch, batch->records[i].key, "call");
        otus_pipeline_close(pipeline);
        otus_flow_registry_free(config.flows);
        guard_free(&octets);
        free(file);
    }
}

static void test_full_batch_decides_nothing_about_folds(void)
{
    check_about = "a batch without room for a value without its folds filters nothing";
    struct file *file = new_file();
    enum { NUM = 6 };
    for (int i = 0; i < NUM; i++)
        add_sip_with(file, i, "User-Agent: one\r\n two\r\n");
    struct otus_filter *filter = filter_of(OTUS_LABEL_SIP_USER_AGENT, "one two");
    const struct otus_stage stages[] = {
        {.kind = OTUS_STAGE_PARSE_SIP},
        {.kind = OTUS_STAGE_FILTER, .action = OTUS_FILTER_KEEP_IF, .filter = filter},
    };
    struct otus_pipeline_config config = default_config();
    config.stages = stages;
    config.num_stages = 2;
    config.outputs = 0;
    check_all_come_through_full_batches(file, config, NUM);
    otus_filter_free(filter);
    free(file);
}

static void test_full_batch_decides_nothing_about_media(void)
{
    check_about = "a batch without room for a number of an RTP packet filters nothing";
    enum { NUM = 6 };
    static const char rtp[] = "\x80\x08\x01\x02\x01\x01\x01\x01\x01\x01\x01\x01\x55\x55";
    struct file *file = new_file();
    for (int i = 0; i < NUM; i++)
        add_udp(file, rtp);
    struct otus_filter *filter = filter_of(OTUS_LABEL_RTP_SSRC, "16843009"); /* 0x01010101 */
    const struct otus_stage stages[] = {
        {.kind = OTUS_STAGE_PARSE_RTP},
        {.kind = OTUS_STAGE_FILTER, .action = OTUS_FILTER_KEEP_IF, .filter = filter},
    };
    const struct otus_flow_key key = {
        .ip_version = 4, .protocol = 17, .port = 5062, .ip = {10, 0, 0, 2}};
    const struct otus_flow_value value = {.kind = OTUS_FLOW_RTP, .len = 4, .octets = "call"};
    for (uint32_t arena = 256; arena < 512; arena++) {
        struct otus_pipeline_config config = default_config();
        CHECK_EQ(otus_flow_registry_new(&config.flows, 8, 1000000), OTUS_OK);
        otus_flow_put(config.flows, &key, &value, (struct otus_slice){NULL, 0},
                      1700000000000000000u, NULL);
        config.stages = stages;
        config.num_stages = 2;
        config.outputs = 0;
        config.arena_octets = arena;
        struct otus_pipeline *pipeline = open_over(file, &config);
        uint32_t next, num = 0;
        enum otus_status status;
        do {
            status = otus_pipeline_poll(pipeline, &next, 0);
            num += otus_pipeline_batch(pipeline)->num_records;
        } while (status == OTUS_OK);
        CHECK_EQ(status, OTUS_E_END);
        CHECK_EQ(num, NUM);
        CHECK_EQ(count(pipeline, OTUS_COUNT_PROCESS_FILTER), 0);
        otus_pipeline_close(pipeline);
        otus_flow_registry_free(config.flows);
    }
    otus_filter_free(filter);
    free(file);
}

int main(void)
{
    test_records_in_order();
    test_media_in_bursts();
    test_small_batches();
    test_full_batch_decides_nothing();
    test_full_batch_decides_nothing_about_folds();
    test_full_batch_decides_nothing_about_media();
    test_too_large();
    test_too_large_for_a_python_parser();
    test_pending_is_counted();
    test_python_stages();
    test_memory_is_given_away();
    test_bad_stages();
    return check_summary();
}
