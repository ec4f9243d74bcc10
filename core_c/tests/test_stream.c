/* TCP streams: order, gaps, framing, WebSocket, bounds. */
#include "stream_fixture.h"

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
    test_bad_config();
    return check_summary();
}
