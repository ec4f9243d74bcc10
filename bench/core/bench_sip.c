/* What one SIP message costs, in nanoseconds of processor time:
 *
 *   bench_sip [CAPTURE.pcap]
 *
 * Typical messages one by one, then, with a capture made by bench/traffic.py, its messages in
 * their order (so that nothing is predicted from the message before). Build with optimisation
 * and all of core_c/src linked in. */
#include <string.h>

#include "bench.h"
#include "otus/sip_labels.h"

enum { ROUNDS = 7, MAX_MESSAGES = 1 << 20 };

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
    static uint8_t memory[1 << 17];
    struct otus_arena arena = {memory, 0, sizeof memory};
    struct otus_label_set labels;
    const struct otus_slice udp = {(const uint8_t *)"UDP", 3};
    for (uint32_t r = 0; r < work->repeat; r++)
        for (uint32_t i = 0; i < work->num; i++)
            if (otus_sip_parse(work->parser, &work->message, work->at[i], work->len[i], 0) ==
                OTUS_OK) {
                arena.used = work->len[i];
                memcpy(memory, work->at[i], work->len[i]);
                work->message.octets = memory;
                otus_label_clear(&labels, memory);
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
        double before = bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        run(work);
        double each = (bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - before) /
                      ((double)work->num * work->repeat);
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
    struct bench_octets file = bench_read_file(path);
    const uint8_t *octets = file.octets;
    size_t size = file.len;
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
    otus_sip_parser_free(work.parser);
    return 0;
}
