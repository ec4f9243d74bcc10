/* What one SIP message costs, in nanoseconds of processor time:
 *
 *   bench_sip [CAPTURE.pcap]
 *
 * Typical messages one by one, then, with a capture made by bench/traffic.py, its messages in
 * their order (so that nothing is predicted from the message before), and flow lookups. Build
 * with optimisation and all of core_c/src linked in. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "otus/rtp.h"
#include "otus/sip_labels.h"

enum { ROUNDS = 7, MAX_MESSAGES = 1 << 20 };

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

#define HEAD(start, cseq, to_tag)                                                                  \
    start "\r\n"                                                                                   \
          "Via: SIP/2.0/UDP 10.1.2.3:5060;branch=z9hG4bK776asdhds8ffaa01;rport\r\n"                \
          "Max-Forwards: 70\r\n"                                                                   \
          "From: \"+49301234567\" <sip:+49301234567@carrier.example;user=phone>;tag=a6c85cf\r\n"   \
          "To: <sip:+49897654321@carrier.example;user=phone>" to_tag "\r\n"                        \
          "Call-ID: a84b4c76e66710a84b4c76e6@10.1.2.3\r\n"                                         \
          "CSeq: " cseq "\r\n"                                                                     \
          "Contact: <sip:+49301234567@10.1.2.3:5060;transport=udp>\r\n"                            \
          "User-Agent: Carrier-SBC/7.2.4 (build 20240117)\r\n"
#define SDP                                                                                        \
    "v=0\r\no=- 1234577 1 IN IP4 10.1.2.3\r\ns=call\r\nc=IN IP4 10.1.2.3\r\nt=0 0\r\n"             \
    "m=audio 10000 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"            \
    "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\n"

static const struct {
    const char *name;
    const char *text;
} typical[] = {
    {"INVITE with SDP",
     HEAD("INVITE sip:+49897654321@192.0.2.10:5060 SIP/2.0", "1 INVITE",
          "") "Content-Type: application/sdp\r\nContent-Length: 220\r\n\r\n" SDP},
    {"BYE", HEAD("BYE sip:+49897654321@192.0.2.10:5060 SIP/2.0", "2 BYE",
                 ";tag=as6f5e4d") "Content-Length: 0\r\n\r\n"},
    {"180 Ringing",
     HEAD("SIP/2.0 180 Ringing", "1 INVITE",
          ";tag=as6f5e4d") "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER\r\n"
                           "Supported: replaces, timer\r\nContent-Length: 0\r\n\r\n"},
    {"200 OK with SDP",
     HEAD("SIP/2.0 200 OK", "1 INVITE",
          ";tag=as6f5e4d") "Content-Type: application/sdp\r\nContent-Length: 220\r\n\r\n" SDP},
};

struct work {
    struct otus_sip_parser *parser;
    struct otus_sip_message message;
    const uint8_t **at;
    uint32_t *len;
    uint32_t num;
    uint32_t repeat;
    uint64_t sum;
};

static void run_parse(struct work *work)
{
    for (uint32_t r = 0; r < work->repeat; r++)
        for (uint32_t i = 0; i < work->num; i++)
            if (otus_sip_parse(work->parser, &work->message, work->at[i], work->len[i], 0) ==
                OTUS_OK)
                work->sum += work->message.num_headers + work->message.anomalies;
}

static void run_parse_and_label(struct work *work)
{
    static uint8_t memory[4096];
    struct otus_arena arena = {memory, 0, sizeof memory};
    struct otus_label_set labels;
    const struct otus_slice udp = {(const uint8_t *)"UDP", 3};
    for (uint32_t r = 0; r < work->repeat; r++)
        for (uint32_t i = 0; i < work->num; i++)
            if (otus_sip_parse(work->parser, &work->message, work->at[i], work->len[i], 0) ==
                OTUS_OK) {
                arena.used = 0;
                otus_label_clear(&labels);
                otus_sip_labels(&work->message, udp, &labels, &arena);
                work->sum += labels.present[0];
            }
}

static void run_can_handle(struct work *work)
{
    for (uint32_t r = 0; r < work->repeat; r++)
        for (uint32_t i = 0; i < work->num; i++)
            work->sum += otus_sip_can_handle(work->at[i], work->len[i]) ? 1 : 0;
}

/* The best of a few rounds, in ns a message: what the machine can do, not what disturbed it. */
static double best_of(struct work *work, void (*run)(struct work *))
{
    double best = 1e18;
    for (int i = 0; i < ROUNDS; i++) {
        double before = now_ns();
        run(work);
        double each = (now_ns() - before) / ((double)work->num * work->repeat);
        best = each < best ? each : best;
    }
    return best;
}

static void bench_typical(struct work *work)
{
    for (size_t i = 0; i < sizeof typical / sizeof typical[0]; i++) {
        const uint8_t *at = (const uint8_t *)typical[i].text;
        uint32_t len = (uint32_t)strlen(typical[i].text);
        struct work one = {
            .parser = work->parser, .at = &at, .len = &len, .num = 1, .repeat = 300000};
        double parse = best_of(&one, run_parse);
        printf("%-18s %4u octets  parse %6.1f ns  can_handle %5.2f ns  anomalies %llx\n",
               typical[i].name, len, parse, best_of(&one, run_can_handle),
               (unsigned long long)one.message.anomalies);
    }
    static const char rtp[172] = "\x80\x08";
    const uint8_t *at = (const uint8_t *)rtp;
    uint32_t len = sizeof rtp;
    struct work one = {.at = &at, .len = &len, .num = 1, .repeat = 300000};
    printf("%-18s %4u octets  can_handle %5.2f ns\n", "RTP", len, best_of(&one, run_can_handle));
}

/* The UDP payloads of a little-endian Ethernet capture without options: bench/traffic.py's. */
static void load_capture(struct work *work, const char *path)
{
    enum { FILE_HEAD = 24, RECORD_HEAD = 16, FRAME_HEAD = 42 };
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return;
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    uint8_t *octets = malloc(size + 1);
    size = octets == NULL ? 0 : fread(octets, 1, size, file);
    fclose(file);
    for (size_t at = FILE_HEAD; at + RECORD_HEAD <= size && work->num < MAX_MESSAGES;) {
        uint32_t caplen;
        memcpy(&caplen, octets + at + 8, 4);
        at += RECORD_HEAD;
        if (caplen > FRAME_HEAD && caplen <= size - at) {
            work->at[work->num] = octets + at + FRAME_HEAD;
            work->len[work->num++] = caplen - FRAME_HEAD;
        }
        at += caplen;
    }
}

static void bench_capture(struct work *work)
{
    double total = 0;
    for (uint32_t i = 0; i < work->num; i++)
        total += work->len[i];
    work->repeat = 1 + 1000000 / work->num;
    printf("capture: %u messages of %.0f octets  parse %.1f ns", work->num, total / work->num,
           best_of(work, run_parse));
    printf("  with labels %.1f ns", best_of(work, run_parse_and_label));
    printf("  can_handle %.2f ns\n", best_of(work, run_can_handle));
}

/* Lookups of endpoints that are there and that are not, in no order that helps a cache. */
static void bench_flows(uint32_t num_flows)
{
    struct otus_flow_registry *registry;
    struct otus_flow_value value = {.kind = OTUS_FLOW_RTP};
    static const char call_id[] = "a84b4c76e66710a84b4c76e6@10.1.2.3";
    if (otus_flow_registry_new(&registry, num_flows * 2, 1000000) != OTUS_OK)
        return;
    otus_flow_set_call_id(&value, (struct otus_slice){(const uint8_t *)call_id, 33});
    struct otus_packet_meta *metas = calloc(num_flows, sizeof *metas);
    for (uint32_t i = 0; i < num_flows && metas != NULL; i++) {
        struct otus_flow_key key = {.ip_version = 4, .protocol = 17, .port = (uint16_t)(i * 2)};
        memcpy(key.ip, &i, sizeof i);
        otus_flow_put(registry, &key, &value, (struct otus_slice){(const uint8_t *)call_id, 8}, 1);
        metas[i] = (struct otus_packet_meta){.ip_version = 4, .protocol = 17, .dst_port = key.port};
        memcpy(metas[i].dst_ip, &i, sizeof i);
    }
    uint64_t hits = 0;
    double best_hit = 1e18, best_miss = 1e18;
    for (int round = 0; round < ROUNDS && metas != NULL; round++) {
        struct otus_rtp_header header;
        static const uint8_t rtp[172] = {0x80, 8};
        double before = now_ns();
        for (uint32_t i = 0, at = 0; i < 1000000; i++, at = (at + 7919) % num_flows) {
            hits += otus_flow_find(registry, &value, &metas[at], 2) ? 1 : 0;
            hits += otus_rtp_parse(&header, rtp, sizeof rtp) == OTUS_OK ? 0 : 1;
        }
        double middle = now_ns();
        for (uint32_t i = 0, at = 0; i < 1000000; i++, at = (at + 7919) % num_flows) {
            struct otus_packet_meta meta = metas[at];
            meta.dst_port ^= 1;
            hits += otus_flow_find(registry, &value, &meta, 2) ? 1 : 0;
        }
        double each_hit = (middle - before) / 1e6, each_miss = (now_ns() - middle) / 1e6;
        best_hit = each_hit < best_hit ? each_hit : best_hit;
        best_miss = each_miss < best_miss ? each_miss : best_miss;
    }
    printf("flows: %7u known  RTP packet found and read %5.1f ns  not found %5.1f ns  (%llu)\n",
           num_flows, best_hit, best_miss, (unsigned long long)hits);
    free(metas);
    otus_flow_registry_free(registry);
}

int main(int argc, char **argv)
{
    struct work work = {0};
    if (otus_sip_parser_new(&work.parser) != OTUS_OK)
        return 1;
    work.at = calloc(MAX_MESSAGES, sizeof *work.at);
    work.len = calloc(MAX_MESSAGES, sizeof *work.len);
    if (work.at == NULL || work.len == NULL)
        return 1;
    bench_typical(&work);
    if (argc > 1)
        load_capture(&work, argv[1]);
    if (work.num != 0)
        bench_capture(&work);
    bench_flows(1000);
    bench_flows(100000);
    otus_sip_parser_free(work.parser);
    return 0;
}
