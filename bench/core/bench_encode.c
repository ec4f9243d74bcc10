/* Nanoseconds of CPU a record in the encoders alone, each form of them.
 *
 *     bench_encode FILE.pcap ROUNDS
 *
 * The first MESSAGES SIP packets of the file are parsed beforehand and encoded in
 * turn. The least of several rounds is shown: what the machine can do when nothing
 * else runs. */
#include <fcntl.h>

#include "bench.h"
#include "encoder.h"
#include "otus/sip_labels.h"

enum { MESSAGES = 256, ROOM = 1 << 20, TURNS = 40, NUMBERS = 64 /* octets of labels */ };

struct message {
    struct otus_packet_meta meta;
    struct otus_label_set labels;
    struct otus_sip_message sip;
    struct otus_encode_input input;
};

static struct message messages[MESSAGES];
static uint32_t num_messages;

static void keep(const struct otus_record *record, const uint8_t *base)
{
    struct message *message = &messages[num_messages++];
    uint32_t len = record->payload.len;
    uint8_t *octets = bench_or_exit(malloc(len + NUMBERS + OTUS_ENCODE_BEHIND));
    memcpy(octets, base + record->payload.off, len);
    struct otus_arena arena = {octets, len, len + NUMBERS};
    struct otus_sip_parser *parser;
    if (otus_sip_parser_new(&parser) != OTUS_OK ||
        otus_sip_parse(parser, &message->sip, octets, record->payload.len, 0) != OTUS_OK)
        exit(1);
    otus_label_clear(&message->labels, octets);
    otus_sip_labels(&message->sip, (struct otus_slice){(const uint8_t *)"udp", 3}, &message->labels,
                    &arena);
    message->meta = record->meta;
    message->input = (struct otus_encode_input){
        .meta = &message->meta,
        .labels = &message->labels,
        .payload_type = OTUS_PAYLOAD_SIP,
        .payload = {octets, record->payload.len},
        .sip = &message->sip,
    };
}

static void read_messages(const char *path)
{
    static const struct otus_stage stages[] = {{.kind = OTUS_STAGE_PARSE_SIP}};
    struct otus_file_config file = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    struct otus_pipeline_config config;
    struct otus_capture *capture = NULL;
    struct otus_pipeline *pipeline = NULL;
    char error[256];
    if (file.fd < 0) {
        perror(path);
        exit(1);
    }
    bench_config_init(&config);
    config.stages = stages;
    config.num_stages = 1;
    if (otus_capture_open_file(&capture, error, sizeof error, &file) != OTUS_OK ||
        otus_pipeline_open(&pipeline, capture, &config) != OTUS_OK) {
        fprintf(stderr, "%s\n", error);
        exit(1);
    }
    uint32_t next;
    enum otus_status status = otus_pipeline_poll(pipeline, &next, 0);
    if (status != OTUS_OK && status != OTUS_E_END)
        exit(1);
    const struct otus_batch *batch = otus_pipeline_batch(pipeline);
    for (uint32_t i = 0; i < batch->num_records && num_messages < MESSAGES; i++)
        keep(&batch->records[i], batch->arena.base);
    otus_pipeline_close(pipeline);
}

typedef enum otus_status (*encode_record)(struct otus_arena *arena, struct otus_span *out_span,
                                          struct otus_encoder *encoder,
                                          const struct otus_encode_input *input);

static void run(const char *name, encode_record encode, struct otus_encoder *encoder,
                uint32_t rounds)
{
    struct otus_arena arena = {bench_or_exit(malloc(ROOM)), 0, ROOM};
    double least = 0;
    double octets = 0;
    for (uint32_t round = 0; round < rounds; round++) {
        double start = bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        octets = 0;
        for (uint32_t turn = 0; turn < TURNS; turn++) {
            for (uint32_t i = 0; i < num_messages; i++) {
                struct otus_span span;
                if (encode(&arena, &span, encoder, &messages[i].input) != OTUS_OK) {
                    arena.used = 0;
                    continue;
                }
                octets += span.len;
            }
        }
        double took = bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start;
        least = round == 0 || took < least ? took : least;
    }
    double records = (double)num_messages * TURNS;
    printf("%-16s %7.1f ns a record of %.0f octets\n", name, least / records, octets / records);
    free(arena.base);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: bench_encode FILE.pcap ROUNDS\n");
        return 2;
    }
    read_messages(argv[1]);
    uint32_t rounds = (uint32_t)strtoul(argv[2], NULL, 10);
    struct otus_envelope envelope = {
        .task_id = "bench", .agent_id = "bench", .pipeline_id = "bench-0"};
    struct otus_encoder *encoder;
    if (num_messages == 0 || otus_encoder_new(&encoder, &envelope) != OTUS_OK)
        return 1;
    const struct json_form *forms[] = {&json_form_portable, &json_form_baseline, json_form_avx2(),
                                       json_form_avx512()};
    for (uint32_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (forms[i] == NULL)
            continue;
        char name[32];
        snprintf(name, sizeof name, "JSON, %s", forms[i]->name);
        encoder->json = forms[i];
        run(name, otus_encode_json, encoder, rounds);
    }
    run("Protobuf", otus_encode_protobuf, encoder, rounds);
    return 0;
}
