/* TCP streams: order, gaps, framing, WebSocket, bounds. Segments are written as
 * (sequence number, text); what comes out is compared as text. */
#include "check.h"
#include "otus/stream.h"

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10 };

#define OPTIONS                                                                                    \
    "OPTIONS sip:b@example.com SIP/2.0\r\n"                                                        \
    "Via: SIP/2.0/TCP a;branch=z9hG4bK1\r\nCall-ID: one\r\nCSeq: 1 OPTIONS\r\n"
#define MESSAGE_LINE "OPTIONS sip:b@example.com SIP/2.0\r\n\r\n" /* 37 octets */
#define MESSAGE_EMPTY OPTIONS "Content-Length: 0\r\n\r\n"
#define MESSAGE_BODY OPTIONS "Content-Length: 5\r\n\r\nhello"

struct fixture {
    struct otus_counters counters;
    struct otus_streams *streams;
    uint64_t ts_ns;
    char got[65536 * 2]; /* the messages, each followed by | */
    size_t got_len;
    uint32_t num;
    struct otus_packet last;
};

static void open_with(struct fixture *f, const struct otus_stream_config *config)
{
    memset(f, 0, sizeof *f);
    f->ts_ns = 1000000000;
    CHECK_EQ(otus_streams_new(&f->streams, config, &f->counters), OTUS_OK);
}

static void open_default(struct fixture *f)
{
    struct otus_stream_config config;
    otus_stream_config_init(&config);
    config.ports[0] = 5060;
    config.num_ports = 1;
    config.max_streams = 64;
    open_with(f, &config);
}

static uint64_t count(const struct fixture *f, enum otus_counter id)
{
    return f->counters.value[id];
}

/* Every segment put in is in exactly one counter or held. */
static void check_ledger(const struct fixture *f, uint64_t num_put)
{
    uint64_t sum = count(f, OTUS_COUNT_SEGMENTS_HELD);
    for (int id = OTUS_COUNT_SEGMENT_CONSUMED; id <= OTUS_COUNT_SEGMENT_CLOSED; id++)
        sum += f->counters.value[id];
    CHECK_EQ(sum, num_put);
}

static void drain(struct fixture *f)
{
    struct otus_packet packet;
    while (otus_streams_next(f->streams, &packet)) {
        memcpy(f->got + f->got_len, packet.payload.at, packet.payload.len);
        f->got_len += packet.payload.len;
        f->got[f->got_len++] = '|';
        f->num++;
        f->last = packet;
    }
}

static void put_octets(struct fixture *f, uint16_t src_port, uint32_t seq, uint8_t flags,
                       const void *octets, size_t len)
{
    struct otus_packet packet;
    memset(&packet, 0, sizeof packet);
    packet.meta.ts_ns = f->ts_ns;
    packet.meta.protocol = 6;
    packet.meta.ip_version = 4;
    packet.meta.flags = OTUS_PACKET_TRANSPORT;
    packet.meta.src_port = src_port;
    packet.meta.dst_port = 5060;
    packet.meta.tcp_seq = seq;
    packet.meta.tcp_flags = flags;
    packet.meta.src_ip[0] = 10;
    packet.payload = (struct otus_slice){octets, (uint32_t)len};
    CHECK(otus_streams_wants(f->streams, &packet));
    otus_streams_put(f->streams, &packet);
    drain(f);
}

static void put(struct fixture *f, uint32_t seq, const char *text)
{
    put_octets(f, 40000, seq, ACK, text, strlen(text));
}

static void check_got(struct fixture *f, const char *want)
{
    CHECK_TEXT(f->got, f->got_len, want);
    f->got_len = 0;
}

static void finish(struct fixture *f, uint64_t num_put)
{
    check_ledger(f, num_put);
    otus_streams_flush(f->streams);
    CHECK_EQ(count(f, OTUS_COUNT_SEGMENTS_HELD), 0);
    CHECK_EQ(count(f, OTUS_COUNT_STREAMS_ACTIVE), 0);
    check_ledger(f, num_put);
    otus_streams_free(f->streams);
}

static void test_one_segment_one_message(void)
{
    check_about = "one message in one segment, after the handshake";
    struct fixture f;
    open_default(&f);
    put_octets(&f, 40000, 99, SYN, NULL, 0);
    put(&f, 100, MESSAGE_BODY);
    check_got(&f, MESSAGE_BODY "|");
    CHECK(f.last.meta.flags & OTUS_PACKET_STREAM);
    CHECK_EQ(f.last.meta.src_port, 40000);
    CHECK_EQ(count(&f, OTUS_COUNT_STREAM_MIDSTREAM), 0);
    CHECK_EQ(count(&f, OTUS_COUNT_SEGMENT_EMPTY), 1);
    finish(&f, 2);
}

static void test_several_in_one_segment(void)
{
    check_about = "several messages in one segment, keep-alives between (RFC 5626 3.5.1)";
    struct fixture f;
    open_default(&f);
    put(&f, 1, MESSAGE_BODY "\r\n\r\n" MESSAGE_EMPTY "\r\n" MESSAGE_BODY);
    check_got(&f, MESSAGE_BODY "|" MESSAGE_EMPTY "|" MESSAGE_BODY "|");
    CHECK_EQ(count(&f, OTUS_COUNT_STREAM_KEEPALIVE), 2);
    finish(&f, 1);
}

static void test_every_split(void)
{
    check_about = "two messages cut in two segments at every octet";
    const char *text = MESSAGE_BODY MESSAGE_EMPTY;
    size_t len = strlen(text);
    for (size_t cut = 1; cut < len; cut++) {
        struct fixture f;
        open_default(&f);
        put_octets(&f, 40000, 7, ACK, text, cut);
        put_octets(&f, 40000, 7 + (uint32_t)cut, ACK, text + cut, len - cut);
        check_got(&f, MESSAGE_BODY "|" MESSAGE_EMPTY "|");
        finish(&f, 2);
    }
}

static void test_octet_by_octet(void)
{
    check_about = "a message in segments of one octet, across the sequence wrap (RFC 9293 3.4)";
    const char *text = MESSAGE_BODY MESSAGE_BODY;
    struct fixture f;
    open_default(&f);
    uint32_t seq = 0xfffffff0;
    for (size_t i = 0; i < strlen(text); i++)
        put_octets(&f, 40000, seq++, ACK, text + i, 1);
    check_got(&f, MESSAGE_BODY "|" MESSAGE_BODY "|");
    finish(&f, strlen(text));
}

static void test_any_order(void)
{
    check_about = "segments in reverse order after a SYN";
    const char *text = MESSAGE_BODY MESSAGE_EMPTY;
    size_t len = strlen(text);
    enum { PIECE = 16 };
    struct fixture f;
    open_default(&f);
    put_octets(&f, 40000, 999, SYN, NULL, 0);
    uint64_t num = 1;
    for (size_t end = len; end > 0; num++) {
        size_t start = end > PIECE ? end - PIECE : 0;
        put_octets(&f, 40000, 1000 + (uint32_t)start, ACK, text + start, end - start);
        end = start;
    }
    check_got(&f, MESSAGE_BODY "|" MESSAGE_EMPTY "|");
    finish(&f, num);
}

static void test_retransmission(void)
{
    check_about = "retransmitted and overlapping segments are reported once";
    struct fixture f;
    open_default(&f);
    put(&f, 1, MESSAGE_EMPTY);
    put(&f, 1, MESSAGE_EMPTY);
    CHECK_EQ(count(&f, OTUS_COUNT_SEGMENT_DUPLICATE), 1);
    /* Overlaps the first by all its octets and brings a second message. */
    put(&f, 1, MESSAGE_EMPTY MESSAGE_BODY);
    check_got(&f, MESSAGE_EMPTY "|" MESSAGE_BODY "|");
    /* After the end of the connection as well. */
    put_octets(&f, 40000, 1 + (uint32_t)strlen(MESSAGE_EMPTY MESSAGE_BODY), FIN | ACK, NULL, 0);
    put(&f, 1, MESSAGE_EMPTY MESSAGE_BODY);
    check_got(&f, "");
    finish(&f, 5);
}

static void test_first_octets_win(void)
{
    check_about = "what waits behind a gap is not overwritten by a later copy";
    struct fixture f;
    open_default(&f);
    put_octets(&f, 40000, 0, SYN, NULL, 0);
    uint32_t head = (uint32_t)strlen(OPTIONS "Content-Length: 5\r\n\r\n");
    put(&f, 1 + head + 2, "llo");
    put(&f, 1 + head, "HELLO");
    put(&f, 1, OPTIONS "Content-Length: 5\r\n\r\n");
    check_got(&f, OPTIONS "Content-Length: 5\r\n\r\nHEllo|");
    finish(&f, 4);
}

static void test_gap_times_out(void)
{
    check_about = "a lost segment costs its message and no other";
    struct fixture f;
    open_default(&f);
    put(&f, 1, MESSAGE_EMPTY);
    uint32_t at = 1 + (uint32_t)strlen(MESSAGE_EMPTY);
    put(&f, at + 100, "lost start\r\n" MESSAGE_BODY MESSAGE_EMPTY);
    check_got(&f, MESSAGE_EMPTY "|");
    CHECK_EQ(count(&f, OTUS_COUNT_SEGMENTS_HELD), 1);
    f.ts_ns += 5 * 1000000000ull;
    otus_streams_expire(f.streams, f.ts_ns);
    drain(&f);
    check_got(&f, MESSAGE_BODY "|" MESSAGE_EMPTY "|");
    CHECK_EQ(count(&f, OTUS_COUNT_STREAM_GAP), 1);
    finish(&f, 2);
}

static void test_gap_of_another_stream(void)
{
    check_about = "a gap times out while only other streams have traffic, under its own addresses";
    struct fixture f;
    open_default(&f);
    put_octets(&f, 41000, 0, SYN, NULL, 0);
    put_octets(&f, 41000, 50, ACK, MESSAGE_BODY, strlen(MESSAGE_BODY));
    f.ts_ns += 5 * 1000000000ull;
    put(&f, 1, MESSAGE_EMPTY);
    check_got(&f, MESSAGE_EMPTY "|" MESSAGE_BODY "|");
    CHECK_EQ(f.last.meta.src_port, 41000);
    finish(&f, 3);
}

static void test_psh_is_no_boundary(void)
{
    check_about = "PSH ends no message, also where it comes before what fills the gap";
    const char *text = MESSAGE_BODY MESSAGE_EMPTY;
    uint32_t len = (uint32_t)strlen(text);
    struct fixture f;
    open_default(&f);
    put_octets(&f, 40000, 0, SYN, NULL, 0);
    put_octets(&f, 40000, 1, ACK | PSH, text, 20);
    put_octets(&f, 40000, 61, ACK | PSH, text + 60, len - 60);
    check_got(&f, "");
    put_octets(&f, 40000, 21, ACK | PSH, text + 20, 40);
    check_got(&f, MESSAGE_BODY "|" MESSAGE_EMPTY "|");
    finish(&f, 4);
}

static void test_keepalive_first(void)
{
    check_about = "a thousand messages behind a keep-alive that came first";
    struct fixture f;
    open_default(&f);
    put(&f, 1, "\r\n\r\n");
    uint32_t seq = 5;
    for (int i = 0; i < 1000; i++) {
        put(&f, seq, MESSAGE_EMPTY);
        seq += (uint32_t)strlen(MESSAGE_EMPTY);
        check_got(&f, MESSAGE_EMPTY "|");
    }
    CHECK_EQ(count(&f, OTUS_COUNT_STREAM_KEEPALIVE), 1);
    CHECK_EQ(count(&f, OTUS_COUNT_STREAM_RESYNC), 0);
    finish(&f, 1001);
}

static void test_pings_that_are_no_sip(void)
{
    check_about = "NUL octets, text and STUN between messages cost no message";
    static const struct otus_slice pings[] = {
        {(const uint8_t *)"\0\0\0\0", 4},
        {(const uint8_t *)"hello\r\n", 7},
        {(const uint8_t *)"\0\1\0\0\x21\x12\xa4\x42\1\2\3\4\5\6\7\10\11\12\13\14", 20},
    };
    struct fixture f;
    open_default(&f);
    put(&f, 1, MESSAGE_EMPTY);
    uint32_t seq = 1 + (uint32_t)strlen(MESSAGE_EMPTY);
    for (size_t i = 0; i < 3; i++) {
        put_octets(&f, 40000, seq, ACK, pings[i].at, pings[i].len);
        seq += pings[i].len;
        put(&f, seq, MESSAGE_BODY);
        seq += (uint32_t)strlen(MESSAGE_BODY);
    }
    check_got(&f, MESSAGE_EMPTY "|" MESSAGE_BODY "|" MESSAGE_BODY "|" MESSAGE_BODY "|");
    finish(&f, 7);
}

static void test_bodies_that_are_no_sdp(void)
{
    check_about = "Content-Length ends a message, whatever its body holds (PIDF, ISUP, a message)";
#define PUBLISH(len) OPTIONS "Content-Type: application/isup\r\nContent-Length: " len "\r\n\r\n"
    static const char text[] = PUBLISH("7") "\1\0\r\n\r\nx" MESSAGE_EMPTY;
    struct fixture f;
    open_default(&f);
    put_octets(&f, 40000, 1, ACK, text, sizeof text - 1);
    CHECK_EQ(f.num, 2);
    size_t head = strlen(PUBLISH("7"));
    CHECK_EQ(f.got_len, head + 7 + 1 + strlen(MESSAGE_EMPTY "|"));
    CHECK_TEXT(f.got + head + 8, f.got_len - head - 8, MESSAGE_EMPTY "|");
    f.got_len = 0;
    put_octets(&f, 40000, sizeof text, ACK, PUBLISH("37") MESSAGE_LINE MESSAGE_EMPTY,
               strlen(PUBLISH("37") MESSAGE_LINE MESSAGE_EMPTY));
    check_got(&f, PUBLISH("37") MESSAGE_LINE "|" MESSAGE_EMPTY "|");
    finish(&f, 2);
#undef PUBLISH
}

static void test_midstream(void)
{
    check_about = "joined in the middle of a message, without its SYN";
    struct fixture f;
    open_default(&f);
    put(&f, 5000, "anches=3\r\nContent-Length: 0\r\n\r\n" MESSAGE_BODY);
    check_got(&f, MESSAGE_BODY "|");
    CHECK_EQ(count(&f, OTUS_COUNT_STREAM_MIDSTREAM), 1);
    finish(&f, 1);
}

static void test_absurd_content_length(void)
{
    check_about = "an absurd Content-Length does not swallow what follows";
    struct fixture f;
    open_default(&f);
    put(&f, 1, OPTIONS "Content-Length: 999999999\r\n\r\n" MESSAGE_BODY);
    check_got(&f, OPTIONS "Content-Length: 999999999\r\n\r\n|" MESSAGE_BODY "|");
    finish(&f, 1);
}

static void test_content_length_forms(void)
{
    check_about = "Content-Length in any case, compact, with white space";
    static const char *const forms[] = {"CONTENT-LENGTH: 5", "l:5", "L : 5", "content-length:\t5"};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        char text[512];
        char want[512];
        snprintf(text, sizeof text, OPTIONS "%s\r\n\r\nl: 99" MESSAGE_EMPTY, forms[i]);
        snprintf(want, sizeof want, OPTIONS "%s\r\n\r\nl: 99|" MESSAGE_EMPTY "|", forms[i]);
        struct fixture f;
        open_default(&f);
        put(&f, 1, text);
        check_got(&f, want);
        finish(&f, 1);
    }
}

static void test_garbage(void)
{
    check_about = "what is no SIP is skipped, counted and bounded";
    struct fixture f;
    open_default(&f);
    uint32_t seq = 1;
    char noise[1400];
    for (int i = 0; i < 200; i++) {
        for (size_t j = 0; j < sizeof noise; j++)
            noise[j] = (char)(33 + (i * 7 + (int)j * 13) % 90);
        put_octets(&f, 40000, seq, ACK, noise, sizeof noise);
        seq += sizeof noise;
    }
    put(&f, seq, "\r\n" MESSAGE_EMPTY);
    CHECK(f.got_len >= strlen(MESSAGE_EMPTY) + 1);
    CHECK_TEXT(f.got + f.got_len - strlen(MESSAGE_EMPTY "|"), strlen(MESSAGE_EMPTY "|"),
               MESSAGE_EMPTY "|");
    finish(&f, 201);
}

/* A WebSocket frame (RFC 6455 5.2) around text, masked where mask is not 0. */
static size_t ws_frame(uint8_t *out, uint8_t first, const char *text, uint32_t mask)
{
    size_t len = strlen(text);
    size_t at = 0;
    out[at++] = first;
    out[at++] = (uint8_t)((mask ? 0x80 : 0) | (len < 126 ? len : 126));
    if (len >= 126) {
        out[at++] = (uint8_t)(len >> 8);
        out[at++] = (uint8_t)len;
    }
    uint8_t key[4] = {(uint8_t)(mask >> 24), (uint8_t)(mask >> 16), (uint8_t)(mask >> 8),
                      (uint8_t)mask};
    if (mask) {
        memcpy(out + at, key, 4);
        at += 4;
    }
    for (size_t i = 0; i < len; i++)
        out[at + i] = (uint8_t)((uint8_t)text[i] ^ (mask ? key[i % 4] : 0));
    return at + len;
}

#define UPGRADE "GET /ws HTTP/1.1\r\nUpgrade: WebSocket\r\nSec-WebSocket-Protocol: sip\r\n\r\n"

static void test_websocket(void)
{
    check_about = "WebSocket: several frames a segment, fragments with a ping between, every cut";
    uint8_t octets[4096];
    size_t len = strlen(UPGRADE);
    memcpy(octets, UPGRADE, len);
    len += ws_frame(octets + len, 0x81, MESSAGE_BODY, 0x01020304);
    len += ws_frame(octets + len, 0x81, "\r\n\r\n", 0x55555555);
    len +=
        ws_frame(octets + len, 0x01, "OPTIONS sip:b@example.com SIP/2.0\r\nVia: SIP/", 0xa0b0c0d0);
    len += ws_frame(octets + len, 0x89, "ping", 0x11223344);
    len += ws_frame(octets + len, 0x00, "2.0/WS a;branch=", 0xdeadbeef);
    len += ws_frame(octets + len, 0x80, "z9hG4bK1\r\n\r\n", 0);
    len += ws_frame(octets + len, 0x82, MESSAGE_EMPTY, 0x0f0e0d0c);
    const char *want = MESSAGE_BODY "|OPTIONS sip:b@example.com SIP/2.0\r\n"
                                    "Via: SIP/2.0/WS a;branch=z9hG4bK1\r\n\r\n|" MESSAGE_EMPTY "|";
    for (size_t cut = 1; cut < len; cut++) {
        struct fixture f;
        open_default(&f);
        put_octets(&f, 40000, 1, ACK, octets, cut);
        put_octets(&f, 40000, 1 + (uint32_t)cut, ACK, octets + cut, len - cut);
        if (!CHECK_EQ(f.num, 3))
            fprintf(stderr, "    cut at %zu of %zu\n", cut, len);
        check_got(&f, want);
        CHECK(f.last.meta.flags & OTUS_PACKET_WEBSOCKET);
        finish(&f, 2);
    }
}

static void test_websocket_closed_and_compressed(void)
{
    check_about = "WebSocket: a compressed frame is skipped and counted, the next one is read";
    uint8_t octets[2048];
    size_t len = strlen(UPGRADE);
    memcpy(octets, UPGRADE, len);
    size_t compressed = len;
    len += ws_frame(octets + len, 0xc1, "\x01\x02\x03", 0x01020304);
    struct fixture f;
    open_default(&f);
    put_octets(&f, 40000, 1, ACK, octets, len);
    CHECK_EQ(count(&f, OTUS_COUNT_STREAM_OCTETS_SKIPPED), len - compressed);
    uint32_t seq = 1 + (uint32_t)len;
    len = ws_frame(octets, 0x81, MESSAGE_BODY, 0x01020304);
    len += ws_frame(octets + len, 0x88, "\x03\xe8", 0x01020304); /* close */
    put_octets(&f, 40000, seq, ACK, octets, len);
    check_got(&f, MESSAGE_BODY "|");
    finish(&f, 2);
}

static void test_websocket_midstream(void)
{
    check_about = "WebSocket joined without its handshake";
    uint8_t octets[1024];
    size_t len = ws_frame(octets, 0x81, MESSAGE_BODY, 0x01020304);
    struct fixture f;
    open_default(&f);
    put_octets(&f, 40000, 77, ACK, octets, len);
    check_got(&f, MESSAGE_BODY "|");
    finish(&f, 1);
}

static void test_eviction(void)
{
    check_about = "the oldest stream gives way; a flood of streams leaves memory where it was";
    struct fixture f;
    open_default(&f);
    uint64_t num = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        put_octets(&f, (uint16_t)(10000 + i), 1, ACK, OPTIONS, strlen(OPTIONS));
        put_octets(&f, (uint16_t)(10000 + i), 5000, ACK, "early", 5);
        num += 2;
    }
    CHECK_EQ(count(&f, OTUS_COUNT_STREAMS_ACTIVE), 64);
    CHECK_EQ(count(&f, OTUS_COUNT_STREAMS_EVICTED), 1000 - 64);
    CHECK(count(&f, OTUS_COUNT_SEGMENTS_HELD) <= 64);
    finish(&f, num);
}

static void test_many_gaps(void)
{
    check_about = "more gaps than a stream remembers: counted, and it recovers";
    struct fixture f;
    open_default(&f);
    put_octets(&f, 40000, 0, SYN, NULL, 0);
    for (uint32_t i = 0; i < 100; i++)
        put(&f, 101 + i * 10, "abc");
    CHECK(count(&f, OTUS_COUNT_SEGMENT_LIMIT_OCTETS) > 0);
    f.ts_ns += 10 * 1000000000ull;
    for (int i = 0; i < 40; i++) {
        f.ts_ns += 10 * 1000000000ull;
        otus_streams_expire(f.streams, f.ts_ns);
        drain(&f);
    }
    put(&f, 20000, "\r\n" MESSAGE_EMPTY);
    f.ts_ns += 10 * 1000000000ull;
    otus_streams_expire(f.streams, f.ts_ns);
    drain(&f);
    check_got(&f, MESSAGE_EMPTY "|");
    finish(&f, 102);
}

static void test_reset_and_reuse(void)
{
    check_about = "ports used again after a reset start a new stream";
    struct fixture f;
    open_default(&f);
    put_octets(&f, 40000, 0, SYN, NULL, 0);
    put(&f, 500, "held");
    put_octets(&f, 40000, 1, RST, NULL, 0);
    CHECK_EQ(count(&f, OTUS_COUNT_SEGMENT_CLOSED), 1);
    put_octets(&f, 40000, 0x80000000, SYN, NULL, 0);
    put(&f, 0x80000001, MESSAGE_BODY);
    check_got(&f, MESSAGE_BODY "|");
    finish(&f, 5);
}

/* A frame with an extended length (RFC 6455 5.2) and no payload behind it. */
static size_t ws_header64(uint8_t *out, uint64_t len)
{
    out[0] = 0x81;
    out[1] = 127;
    for (int i = 0; i < 8; i++)
        out[2 + i] = (uint8_t)(len >> (56 - 8 * i));
    return 10;
}

static void test_websocket_absurd_length(void)
{
    check_about = "WebSocket frames of absurd length end it; SIP behind them is found";
    static const uint64_t lengths[] = {UINT64_MAX, 1ull << 63,    (1ull << 63) - 1,
                                       1ull << 32, 0xffffffffull, 65537};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t octets[1024];
        size_t len = strlen(UPGRADE);
        memcpy(octets, UPGRADE, len);
        len += ws_frame(octets + len, 0x01, "OPTIONS sip:b@example.com SIP/2.0\r\n", 7);
        len += ws_header64(octets + len, lengths[i]);
        struct fixture f;
        open_default(&f);
        put_octets(&f, 40000, 1, ACK, octets, len);
        put(&f, 1 + (uint32_t)len, "\r\n" MESSAGE_EMPTY);
        check_got(&f, MESSAGE_EMPTY "|");
        CHECK(count(&f, OTUS_COUNT_STREAM_RESYNC) > 0);
        finish(&f, 2);
    }
}

static void test_websocket_tiny_fragments(void)
{
    check_about = "a WebSocket message in fragments of one octet, empty ones and pings between";
    static uint8_t octets[16384];
    const char *text = MESSAGE_BODY;
    size_t len = strlen(UPGRADE);
    memcpy(octets, UPGRADE, len);
    for (size_t i = 0; i < strlen(text); i++) {
        char one[2] = {text[i], 0};
        len += ws_frame(octets + len, i == 0 ? 0x01 : 0x00, one, 0x01020304);
        len += ws_frame(octets + len, 0x00, "", 0);
        len += ws_frame(octets + len, 0x8a, "pong", 0x55555555);
    }
    len += ws_frame(octets + len, 0x80, "", 0x01020304);
    len += ws_frame(octets + len, 0x81, MESSAGE_EMPTY, 0);
    for (size_t piece = 1; piece < 100; piece += 7) {
        struct fixture f;
        open_default(&f);
        uint64_t num = 0;
        for (size_t at = 0; at < len; at += piece, num++)
            put_octets(&f, 40000, (uint32_t)(1 + at), ACK, octets + at,
                       len - at < piece ? len - at : piece);
        check_got(&f, MESSAGE_BODY "|" MESSAGE_EMPTY "|");
        finish(&f, num);
    }
}

static void test_clock_set_back(void)
{
    check_about = "a gap from before the clock was set back keeps no other waiting";
    struct fixture f;
    open_default(&f);
    f.ts_ns = 7200 * 1000000000ull;
    put_octets(&f, 41000, 0, SYN, NULL, 0);
    put_octets(&f, 41000, 50, ACK, MESSAGE_BODY, strlen(MESSAGE_BODY));
    f.ts_ns = 3600 * 1000000000ull;
    put_octets(&f, 42000, 0, SYN, NULL, 0);
    check_got(&f, MESSAGE_BODY "|"); /* nobody knows how long it has waited: no longer */
    put_octets(&f, 42000, 50, ACK, MESSAGE_EMPTY, strlen(MESSAGE_EMPTY));
    check_got(&f, "");
    f.ts_ns += 3 * 1000000000ull;
    put_octets(&f, 43000, 0, SYN, NULL, 0);
    check_got(&f, MESSAGE_EMPTY "|");
    finish(&f, 5);
}

static void test_time_stamp_from_the_future(void)
{
    check_about = "a segment from the far future makes no gap wait for that time";
    struct fixture f;
    open_default(&f);
    put_octets(&f, 41000, 0, SYN, NULL, 0);
    uint64_t now = f.ts_ns;
    f.ts_ns = UINT64_MAX - 1;
    put_octets(&f, 41000, 50, ACK, MESSAGE_BODY, strlen(MESSAGE_BODY));
    f.ts_ns = now;
    put_octets(&f, 42000, 0, SYN, NULL, 0);
    check_got(&f, MESSAGE_BODY "|");
    put_octets(&f, 42000, 50, ACK, MESSAGE_EMPTY, strlen(MESSAGE_EMPTY));
    otus_streams_expire(f.streams, now + 3 * 1000000000ull); /* no segment: the clock goes on */
    drain(&f);
    check_got(&f, MESSAGE_EMPTY "|");
    finish(&f, 4);
}

static void test_slightly_reordered_time(void)
{
    check_about = "time stamps out of order by less than the timeout give no gap up";
    struct fixture f;
    open_default(&f);
    put_octets(&f, 41000, 0, SYN, NULL, 0);
    uint32_t half = 40;
    put_octets(&f, 41000, 1 + half, ACK, &MESSAGE_BODY[half], strlen(MESSAGE_BODY) - half);
    f.ts_ns -= 1000000000ull;
    put_octets(&f, 41000, 1, ACK, MESSAGE_BODY, half);
    check_got(&f, MESSAGE_BODY "|");
    CHECK_EQ(count(&f, OTUS_COUNT_STREAM_GAP), 0);
    finish(&f, 3);
}

static void test_overflow_then_recovery(void)
{
    check_about = "a message too long for the buffer is given up, and the next segment is in order";
    struct otus_stream_config config;
    otus_stream_config_init(&config);
    config.ports[0] = 5060;
    config.num_ports = 1;
    config.max_streams = 4;
    config.max_stream_octets = 4096;
    config.max_message_octets = 4096;
    struct fixture f;
    open_with(&f, &config);
    char filler[3000];
    memset(filler, 'x', sizeof filler);
    put(&f, 1, OPTIONS "X: ");
    uint32_t seq = 1 + (uint32_t)strlen(OPTIONS "X: ");
    put_octets(&f, 40000, seq, ACK, filler, sizeof filler);
    seq += sizeof filler;
    /* Overlaps by 1000 octets, and is more than there is room for. */
    put_octets(&f, 40000, seq - 1000, ACK, filler, sizeof filler);
    seq += sizeof filler - 1000;
    put(&f, seq, "\r\n" MESSAGE_EMPTY);
    check_got(&f, MESSAGE_EMPTY "|");
    CHECK_EQ(count(&f, OTUS_COUNT_STREAM_GAP), 1);
    CHECK_EQ(count(&f, OTUS_COUNT_SEGMENTS_HELD), 0);
    finish(&f, 4);
}

static void test_full_buffer_of_small_messages(void)
{
    check_about = "a buffer full of small messages behind a gap comes out whole and in order";
    enum { NUM = 200, SEGMENT = 1000 };
    static char text[NUM * 64];
    static char want[NUM * 64];
    size_t len = 0;
    size_t want_len = 0;
    for (int i = 0; i < NUM; i++) {
        char one[64];
        int n = snprintf(one, sizeof one, "X%d sip:a SIP/2.0\r\n\r\n", i);
        memcpy(text + len, one, (size_t)n);
        len += (size_t)n;
        want_len += (size_t)snprintf(want + want_len, sizeof want - want_len, "%s|", one);
    }
    struct fixture f;
    open_default(&f);
    put_octets(&f, 40000, 0, SYN, NULL, 0);
    uint64_t num = 1;
    for (size_t at = SEGMENT; at < len; at += SEGMENT, num++)
        put_octets(&f, 40000, 1 + (uint32_t)at, ACK, text + at,
                   len - at < SEGMENT ? len - at : SEGMENT);
    check_got(&f, "");
    put_octets(&f, 40000, 1, ACK, text, SEGMENT);
    check_got(&f, want);
    finish(&f, num + 1);
}

static void test_after_the_end(void)
{
    check_about = "after RST and FIN: late data goes on where it was, copies are known, no growth";
    struct fixture f;
    open_default(&f);
    put_octets(&f, 40000, 0, SYN, NULL, 0);
    put(&f, 1, OPTIONS);
    put_octets(&f, 40000, 1 + (uint32_t)strlen(OPTIONS), RST, NULL, 0);
    /* A forged RST must not cut a message in two. */
    put(&f, 1 + (uint32_t)strlen(OPTIONS), "Content-Length: 0\r\n\r\n");
    check_got(&f, MESSAGE_EMPTY "|");
    uint32_t end = 1 + (uint32_t)strlen(MESSAGE_EMPTY);
    put_octets(&f, 40000, end, FIN | ACK, MESSAGE_BODY, strlen(MESSAGE_BODY));
    check_got(&f, MESSAGE_BODY "|");
    put_octets(&f, 40000, end, FIN | ACK, MESSAGE_BODY, strlen(MESSAGE_BODY));
    check_got(&f, "");
    CHECK_EQ(count(&f, OTUS_COUNT_SEGMENT_DUPLICATE), 1);
    CHECK_EQ(count(&f, OTUS_COUNT_STREAMS_ACTIVE), 1);
    finish(&f, 6);
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull; /* Knuth's MMIX */
    return (uint32_t)(*state >> 33);
}

static void test_random_segments(void)
{
    check_about = "random cuts, order, copies and overlaps, across the sequence wrap";
    const char *text = MESSAGE_BODY MESSAGE_EMPTY "\r\n\r\n" MESSAGE_BODY MESSAGE_BODY;
    const uint32_t len = (uint32_t)strlen(text);
    uint64_t random = 1;
    for (int round = 0; round < 400; round++) {
        struct fixture f;
        open_default(&f);
        uint32_t start = 0u - next_random(&random) % (2 * len);
        put_octets(&f, 40000, start - 1, SYN, NULL, 0);
        uint64_t num = 1;
        /* Anything, up to the most runs that a stream remembers; then all of it in order. */
        for (int i = 0; i < 12; i++, num++) {
            uint32_t off = next_random(&random) % len;
            uint32_t size = 1 + next_random(&random) % (len - off);
            put_octets(&f, 40000, start + off, ACK, text + off, size);
        }
        for (uint32_t off = 0; off < len; num++) {
            uint32_t size = 1 + next_random(&random) % (len - off);
            put_octets(&f, 40000, start + off, ACK, text + off, size);
            off += size;
        }
        check_got(&f, MESSAGE_BODY "|" MESSAGE_EMPTY "|" MESSAGE_BODY "|" MESSAGE_BODY "|");
        CHECK_EQ(count(&f, OTUS_COUNT_STREAM_GAP), 0);
        CHECK_EQ(count(&f, OTUS_COUNT_SEGMENTS_HELD), 0);
        finish(&f, num);
    }
}

static void test_syn_flood(void)
{
    check_about = "a flood of SYNs leaves a stream alone that has traffic between them";
    struct fixture f;
    open_default(&f);
    put_octets(&f, 999, 0, SYN, NULL, 0);
    uint32_t seq = 1;
    const char *text = MESSAGE_BODY;
    uint64_t num = 1;
    for (uint32_t i = 0; i < strlen(text); i++, num += 61) {
        put_octets(&f, 999, seq++, ACK, text + i, 1);
        for (uint32_t j = 0; j < 60; j++)
            put_octets(&f, (uint16_t)(1000 + i * 60 + j), j, SYN, NULL, 0);
    }
    check_got(&f, MESSAGE_BODY "|");
    CHECK_EQ(count(&f, OTUS_COUNT_STREAMS_ACTIVE), 64);
    finish(&f, num);
}

static void test_bad_config(void)
{
    check_about = "a configuration that can't work is refused";
    struct otus_counters counters = {0};
    struct otus_streams *streams = NULL;
    struct otus_stream_config config;
    otus_stream_config_init(&config);
    config.max_message_octets = config.max_stream_octets + 1;
    CHECK_EQ(otus_streams_new(&streams, &config, &counters), OTUS_E_INVALID);
    otus_stream_config_init(&config);
    config.max_streams = 0;
    CHECK_EQ(otus_streams_new(&streams, &config, &counters), OTUS_E_INVALID);
    CHECK(streams == NULL);
    otus_streams_free(NULL);
}

int main(void)
{
    test_one_segment_one_message();
    test_several_in_one_segment();
    test_every_split();
    test_octet_by_octet();
    test_any_order();
    test_retransmission();
    test_first_octets_win();
    test_gap_times_out();
    test_gap_of_another_stream();
    test_psh_is_no_boundary();
    test_keepalive_first();
    test_pings_that_are_no_sip();
    test_bodies_that_are_no_sdp();
    test_midstream();
    test_absurd_content_length();
    test_content_length_forms();
    test_garbage();
    test_websocket();
    test_websocket_closed_and_compressed();
    test_websocket_midstream();
    test_eviction();
    test_many_gaps();
    test_reset_and_reuse();
    test_websocket_absurd_length();
    test_websocket_tiny_fragments();
    test_clock_set_back();
    test_time_stamp_from_the_future();
    test_slightly_reordered_time();
    test_overflow_then_recovery();
    test_full_buffer_of_small_messages();
    test_after_the_end();
    test_random_segments();
    test_syn_flood();
    test_bad_config();
    return check_summary();
}
