/* can_handle and the framing of streams: what is SIP, and where it ends. */
#include <stdlib.h>

#include "guard.h"
#include "sip_sample.h"

struct octets {
    const char *at;
    uint32_t len;
};
#define OCTETS(text)                                                                               \
    {                                                                                              \
        (text), sizeof(text) - 1                                                                   \
    }

static bool can_handle(struct octets input)
{
    struct guard_buffer buffer = guard_copy(input.at, input.len);
    bool result = otus_sip_can_handle(buffer.octets, input.len);
    guard_free(&buffer);
    return result;
}

/* What comes to port 5060 and is no SIP. */
static void test_not_sip(void)
{
    static const struct octets inputs[] = {
        OCTETS(""),
        OCTETS("\r\n"),
        OCTETS("\r\n\r\n"),
        OCTETS("\r\n\r\n\r\n\r\n\r\n\r\n"),
        OCTETS("\0\0\0\0"),
        OCTETS("\0\0\0\0\0\0\0\0\0\0\0\0"),
        OCTETS("hello"),
        OCTETS("hello world, hello"),
        OCTETS("jaK\r\n\r\n"),
        /* RTP (PCMU), RTCP (SR), STUN binding request. */
        OCTETS("\x80\x00\x12\x34\x00\x00\x00\xa0\xde\xad\xbe\xef INVITE sip:a SIP/2.0\r\n"),
        OCTETS("\x80\xc8\x00\x06\xde\xad\xbe\xef\x00\x00\x00\x00\x00\x00\x00\x00"),
        OCTETS("\x00\x01\x00\x00\x21\x12\xa4\x42\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c"),
        /* DNS for "sip.a", TLS client hello, SSH. */
        OCTETS("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03sip\x01\x61\x00\x00\x01\x00"),
        OCTETS("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        OCTETS("SSH-2.0-OpenSSH_9.2p1\r\n"),
        /* HTTP, with methods that SIP has too. */
        OCTETS("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"),
        OCTETS("OPTIONS * HTTP/1.1\r\nHost: example.com:5060\r\n\r\n"),
        OCTETS("POST /RPC2 HTTP/1.0\r\nSIP/2.0: no\r\n\r\n"),
        OCTETS("CONNECT sip.example.com:5060 HTTP/1.1\r\n\r\n"),
        OCTETS("GET sip:alice@example.com HTTP/1.1\r\n\r\n"),
        OCTETS("GET /SIP/2.0 HTTP/1.1\r\n\r\n"),
        OCTETS("HTTP/1.1 200 OK\r\n\r\n"),
        OCTETS("OPTIONS rtsp://example.com/ RTSP/1.0\r\n\r\n"),
        OCTETS("M-SEARCH * HTTP/1.1\r\n\r\n"),
        OCTETS("MSRP a786hjs2 SEND\r\n"),
        OCTETS("SIP"),
        OCTETS("SIP/"),
        OCTETS("SIP/two\r\n"),
        OCTETS("INVITE"),
        OCTETS("INVITE nowhere"),
        OCTETS("IN VITE sip:a SIP/x.0\r\n"),
        OCTETS("INVITE\r\nsip:a SIP/2.0\r\n"),
        OCTETS("{\"INVITE\": 1} SIP/2.0\r\n"),
    };
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        check_about = inputs[i].at;
        CHECK(!can_handle(inputs[i]));
    }
    check_about = "";
}

/* What is SIP on whichever port, well written or not. */
static void test_sip(void)
{
    static const struct octets inputs[] = {
        OCTETS("INVITE sip:a SIP/2.0\r\n"),
        OCTETS("INVITE sip:bob@example.com SIP/2.0"),
        OCTETS("INVITE sip:bob@exam"), /* cut short */
        OCTETS("REGISTER sips:example.com SIP/2.0\r\n"),
        OCTETS("INVITE tel:+12015550123 SIP/2.0\r\n"),
        OCTETS("OPTIONS urn:service:sos SIP/2.0\r\n"),
        OCTETS("OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0\r\n"),
        OCTETS("NEWMETHOD sip:a SIP/2.0\r\n"),
        OCTETS("KDMQ sip:dmq@example.com SIP/2.0\r\n"),
        OCTETS("RE%47IST%45R sip:registrar.example.com SIP/2.0\r\n"),
        OCTETS("!interesting-Method0123456789_*+`.%indeed'~ sip:a SIP/2.0\r\n"),
        OCTETS("invite sip:a SIP/2.0\r\n"),
        OCTETS("invite sip:a sip/2.0\r\n"),
        OCTETS("INVITE  sip:user@example.com  SIP/2.0\r\n"),
        OCTETS("OPTIONS sip:remote-target@example.com SIP/2.0  \r\n"),
        OCTETS("INVITE\tsip:a\tSIP/2.0\r\n"),
        OCTETS("INVITE <sip:user@example.com> SIP/2.0\r\n"),
        OCTETS("INVITE sip:user@example.com; lr SIP/2.0\r\n"),
        OCTETS("OPTIONS sip:a SIP/7.0\n"),
        OCTETS("\r\nINVITE sip:a SIP/2.0\r\n"),
        OCTETS("\r\n\r\nSIP/2.0 200 OK\r\n"),
        OCTETS("SIP/2.0 100 "),
        OCTETS("SIP/2.0 200 OK\r\n"),
        OCTETS("SIP/2.0 4294967301 better not break the receiver\r\n"),
        OCTETS("sip/2.0 200 OK\r\n"),
    };
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        check_about = inputs[i].at;
        CHECK(can_handle(inputs[i]));
    }
    check_about = "";
}

struct frame_case {
    struct octets input;
    enum otus_status status;
    uint32_t len;
};

/* Where a message ends is said by Content-Length in the header, however it is written. */
static void test_frame(void)
{
#define LINE "MESSAGE sip:a SIP/2.0\r\n"
    static const struct frame_case cases[] = {
        {OCTETS(LINE "Content-Length: 5\r\n\r\nhelloMESSAGE"), OTUS_OK, 23 + 21 + 5},
        {OCTETS(LINE "CONTENT-LENGTH: 5\r\n\r\nhello"), OTUS_OK, 23 + 21 + 5},
        {OCTETS(LINE "content-length:5\r\n\r\nhello"), OTUS_OK, 23 + 20 + 5},
        {OCTETS(LINE "l: 5\r\n\r\nhello"), OTUS_OK, 23 + 8 + 5},
        {OCTETS(LINE "L : 5\r\n\r\nhello"), OTUS_OK, 23 + 9 + 5},
        {OCTETS(LINE "L :\r\n 5\r\n\r\nhello"), OTUS_OK, 23 + 11 + 5},
        {OCTETS(LINE "l: 5\n\nhello"), OTUS_OK, 23 + 6 + 5},
        {OCTETS(LINE "l: 5\r\n\r\nhell"), OTUS_E_PARTIAL, 23 + 8 + 5},
        {OCTETS(LINE "l: 967\r\n\r\n"), OTUS_E_PARTIAL, 1000},
        {OCTETS(LINE "l: 968\r\n\r\n"), OTUS_E_LIMIT, 0},
        {OCTETS(LINE "l: 5\r\n\r"), OTUS_E_PARTIAL, 0},
        {OCTETS(LINE "l: 5\r\n"), OTUS_E_PARTIAL, 0},
        {OCTETS(LINE), OTUS_E_PARTIAL, 0},
        {OCTETS("MESS"), OTUS_E_PARTIAL, 0},
        {OCTETS("SI"), OTUS_E_PARTIAL, 0},
        {OCTETS("SIP/2.0 20"), OTUS_E_PARTIAL, 0},
        {OCTETS(""), OTUS_E_PARTIAL, 0},
        /* None: the body is empty. One in the body is no header field. */
        {OCTETS(LINE "X: y\r\n\r\nl: 5\r\n\r\n"), OTUS_OK, 23 + 8},
        {OCTETS(LINE "l: 0\r\n\r\nl: 5\r\n\r\n"), OTUS_OK, 23 + 8},
        /* A value that goes on is no Content-Length of its own. */
        {OCTETS(LINE "X: y\r\n l: 5\r\n\r\n"), OTUS_OK, 23 + 15},
        {OCTETS(LINE "l: 3\r\nl: 5\r\n\r\nhello"), OTUS_OK, 23 + 14 + 3},
        {OCTETS(LINE "l: -5\r\n\r\n"), OTUS_OK, 23 + 9},
        {OCTETS(LINE "l: 999999999\r\n\r\n"), OTUS_E_LIMIT, 0},
        {OCTETS(LINE "l: 4294967301\r\n\r\nhello"), OTUS_E_LIMIT, 0},
        {OCTETS(LINE "l: 18446744073709551621\r\n\r\nhello"), OTUS_E_LIMIT, 0},
        {OCTETS(LINE "l: 36893488147419103237\r\n\r\nhello"), OTUS_E_LIMIT, 0},
        /* No message starts here. */
        {OCTETS("\r\n\r\n"), OTUS_E_MALFORMED, 0},
        {OCTETS("GET / HTTP/1.1\r\n\r\n"), OTUS_E_MALFORMED, 0},
        {OCTETS("\0\0\0\0"), OTUS_E_MALFORMED, 0},
        {OCTETS("two words\r\n"), OTUS_E_MALFORMED, 0},
    };
#undef LINE
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct guard_buffer buffer = guard_copy(cases[i].input.at, cases[i].input.len);
        uint32_t len = 0;
        check_about = cases[i].input.at;
        CHECK_EQ(otus_sip_frame(&len, buffer.octets, cases[i].input.len, 1000), cases[i].status);
        CHECK_EQ(len, cases[i].len);
        guard_free(&buffer);
    }
    check_about = "";
}

/* A header that never ends and a start line that never ends are given up at the limit. */
static void test_frame_limit(void)
{
    enum { LEN = 5000 };
    char *text = malloc(LEN);
    uint32_t len = 0;
    memset(text, 'a', LEN);
    CHECK_EQ(otus_sip_frame(&len, (const uint8_t *)text, 1000, 1000), OTUS_E_PARTIAL);
    CHECK_EQ(otus_sip_frame(&len, (const uint8_t *)text, LEN, 1000), OTUS_E_LIMIT);
    memcpy(text, "MESSAGE sip:a SIP/2.0\r\n", 23);
    CHECK_EQ(otus_sip_frame(&len, (const uint8_t *)text, 1000, 1000), OTUS_E_PARTIAL);
    CHECK_EQ(otus_sip_frame(&len, (const uint8_t *)text, LEN, 1000), OTUS_E_LIMIT);
    free(text);
}

/* A prefix of a message is never taken for something else, at any octet. */
static void test_frame_prefixes(void)
{
    static const char text[] = "SIP/2.0 200 OK\r\nX: a\r\n b\r\nl : 3\r\n\r\nxyz";
    for (uint32_t n = 0; n + 1 < sizeof text; n++) {
        uint32_t len = 0;
        CHECK_EQ(otus_sip_frame(&len, (const uint8_t *)text, n, 1000), OTUS_E_PARTIAL);
    }
}

int main(void)
{
    test_not_sip();
    test_sip();
    test_frame();
    test_frame_limit();
    test_frame_prefixes();
    return check_summary();
}
