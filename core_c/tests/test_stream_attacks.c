/* TCP streams under attack: absurd lengths, clocks, floods, forged and random segments. */
#include "stream_fixture.h"

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

static void open_small(struct fixture *f)
{
    struct otus_stream_config config;
    otus_stream_config_init(&config);
    config.ports[0] = 5060;
    config.num_ports = 1;
    config.max_streams = 4;
    config.max_stream_octets = 4096;
    config.max_message_octets = 4096;
    open_with(f, &config);
}

static void test_overflow_then_recovery(void)
{
    check_about = "a message too long for the buffer is given up, and the next segment is in order";
    struct fixture f;
    open_small(&f);
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

static void test_segment_larger_than_any_buffer(void)
{
    check_about = "what is left of an oversized segment finds no room: the next message is found";
    static char text[9000];
    struct fixture f;
    open_small(&f);
    memset(text, 'x', sizeof text);
    memcpy(text, OPTIONS "l: 4000\r\n", strlen(OPTIONS "l: 4000\r\n"));
    put_octets(&f, 40000, 1, ACK, text, sizeof text);
    put(&f, 1 + sizeof text, MESSAGE_EMPTY);
    check_got(&f, MESSAGE_EMPTY "|");
    /* The same as WebSocket: there, the end of what follows can only be found by searching. */
    memcpy(text, UPGRADE "\x01\x7e\x20\x00", strlen(UPGRADE) + 4);
    put_octets(&f, 41000, 1, ACK, text, sizeof text);
    put(&f, 1 + sizeof text + (uint32_t)strlen(MESSAGE_EMPTY), MESSAGE_BODY);
    check_got(&f, MESSAGE_BODY "|");
    put_octets(&f, 41000, 1 + sizeof text, ACK, "\r\n", 2);
    put_octets(&f, 41000, 3 + sizeof text, ACK, MESSAGE_EMPTY, strlen(MESSAGE_EMPTY));
    check_got(&f, MESSAGE_EMPTY "|");
    CHECK_EQ(count(&f, OTUS_COUNT_STREAM_GAP), 1);
    finish(&f, 6);
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

int main(void)
{
    test_websocket_absurd_length();
    test_websocket_tiny_fragments();
    test_clock_set_back();
    test_time_stamp_from_the_future();
    test_slightly_reordered_time();
    test_overflow_then_recovery();
    test_segment_larger_than_any_buffer();
    test_full_buffer_of_small_messages();
    test_after_the_end();
    test_random_segments();
    test_syn_flood();
    return check_summary();
}
