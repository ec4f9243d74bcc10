/* SIP messages: what the golden cases do not say, and what no input may do. */
#include "otus/sip.h"

#include <stdlib.h>

#include "guard.h"
#include "sip_sample.h"

static struct otus_sip_message parse(struct otus_sip_parser *parser, const char *text,
                                     uint32_t flags)
{
    struct otus_sip_message message;
    memset(&message, 0, sizeof message);
    CHECK(otus_sip_parse(parser, &message, (const uint8_t *)text, (uint32_t)strlen(text), flags) ==
          OTUS_OK);
    return message;
}

/* Every field of a plain message is where it belongs, and nothing is wrong with it. */
static void test_plain(struct otus_sip_parser *parser)
{
    struct otus_sip_message m = parse(parser, SAMPLE_INVITE, 0);
    CHECK(m.is_request);
    CHECK_EQ(m.method_id, OTUS_SIP_METHOD_INVITE);
    CHECK_EQ(m.cseq, 314159);
    CHECK_EQ(m.anomalies, 0);
    CHECK_EQ(m.num_headers, 12);
    CHECK_EQ(m.content_length, 126);
    CHECK_EQ(m.len, strlen(SAMPLE_INVITE));
    CHECK_SPAN(&m, m.request_uri, "sip:bob@example.com");
    CHECK_SPAN(&m, m.from.display_name, "Alice, \\\"A\\\"");
    CHECK_SPAN(&m, m.from.uri, "sip:alice@example.com");
    CHECK_SPAN(&m, m.from.tag, "from1");
    CHECK_SPAN(&m, m.to.uri, "tel:+1-201-555-0123");
    CHECK_EQ(m.to.tag.len, 0);
    CHECK_SPAN(&m, m.contact.uri, "sip:alice@192.0.2.1");
    CHECK_SPAN(&m, m.contact.params, ";expires=60");
    CHECK_SPAN(&m, m.via.transport, "UDP");
    CHECK_SPAN(&m, m.via.sent_by, "192.0.2.1:5060");
    CHECK_SPAN(&m, m.via.branch, "z9hG4bK1");
    CHECK(m.via.has_rport);
    CHECK_SPAN(&m, m.user_agent, "sample");
    CHECK_SPAN(&m, m.body, SAMPLE_SDP);
    CHECK(m.sdp != NULL && m.sdp->num_media == 1);
}

/* Comma-joined and repeated values come one by one, in the order of the message. */
static void test_values(struct otus_sip_parser *parser)
{
    struct otus_sip_message m = parse(parser, SAMPLE_INVITE, 0);
    static const char *const vias[] = {"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport",
                                       "SIP/2.0/TCP [2001:db8::1]", "SIP/2.0/TLS last.example.com"};
    static const char *const contacts[] = {"<sip:alice@192.0.2.1>;expires=60",
                                           "\"x, y\" <sip:b@[::1]>"};
    struct otus_sip_values values;
    struct otus_span value;
    otus_sip_values_init(&values, &m, OTUS_SIP_HEADER_VIA);
    for (int i = 0; i < 3 && CHECK(otus_sip_values_next(&values, &value)); i++)
        CHECK_SPAN(&m, value, vias[i]);
    CHECK(!otus_sip_values_next(&values, &value));
    otus_sip_values_init(&values, &m, OTUS_SIP_HEADER_CONTACT);
    for (int i = 0; i < 2 && CHECK(otus_sip_values_next(&values, &value)); i++)
        CHECK_SPAN(&m, value, contacts[i]);
    CHECK(!otus_sip_values_next(&values, &value));
    otus_sip_values_init(&values, &m, OTUS_SIP_HEADER_ROUTE);
    CHECK(!otus_sip_values_next(&values, &value));
    otus_sip_values_init(&values, &m, 9999);
    CHECK(!otus_sip_values_next(&values, &value));
}

/* Each name with an id is known in every case, long and compact; no other name is. */
static void test_names(struct otus_sip_parser *parser)
{
    for (uint32_t id = 1; id < OTUS_SIP_NUM_HEADER_IDS; id++) {
        char text[256];
        const char *name = otus_sip_header_name(id);
        char upper[64];
        size_t len = strlen(name);
        for (size_t i = 0; i <= len; i++)
            upper[i] = (char)(name[i] >= 'a' && name[i] <= 'z' ? name[i] - 32 : name[i]);
        check_about = name;
        snprintf(text, sizeof text, "SIP/2.0 200 OK\r\n%s: 1\r\n%s : 2\r\n%sx: 3\r\n%c: 4\r\n\r\n",
                 name, upper, name,
                 otus_sip_header_compact(id) != 0 ? otus_sip_header_compact(id) : 'z');
        struct otus_sip_message m = parse(parser, text, 0);
        CHECK_EQ(m.num_headers, 4);
        CHECK_EQ(m.headers[0].id, id);
        CHECK_EQ(m.headers[1].id, id);
        CHECK_EQ(m.headers[2].id, OTUS_SIP_HEADER_OTHER);
        CHECK_EQ(m.headers[3].id, otus_sip_header_compact(id) != 0 ? id : OTUS_SIP_HEADER_OTHER);
        CHECK_EQ(m.first[id], 1);
        CHECK_EQ(m.headers[0].next, 1);
    }
    check_about = "";
    struct otus_sip_message m =
        parse(parser, "SIP/2.0 200 OK\r\nCall\rID: a\r\nC\xc1ll-ID: b\r\nVi\x01: c\r\n\r\n", 0);
    for (uint32_t i = 0; i < m.num_headers; i++) /* a bit that differs is another name */
        CHECK_EQ(m.headers[i].id, OTUS_SIP_HEADER_OTHER);
    CHECK(otus_sip_header_name(OTUS_SIP_NUM_HEADER_IDS) == NULL);
    CHECK(otus_sip_anomaly_name(OTUS_SIP_NUM_ANOMALIES) == NULL);
    CHECK(otus_sip_anomaly_meaning(0) != NULL);
}

static void test_anomalies(struct otus_sip_parser *parser)
{
    static const struct {
        const char *text;
        enum otus_sip_anomaly anomaly;
        uint32_t flags;
    } cases[] = {
        {"\r\nOPTIONS sip:a SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_START_LINE, 0},
        {"SIP/2.0 200\r\n\r\n", OTUS_SIP_ANOMALY_BAD_START_LINE, 0},
        {"SIP/2.0  200 OK\r\n\r\n", OTUS_SIP_ANOMALY_BAD_START_LINE, 0},
        {"SIP/2.0 99 OK\r\n\r\n", OTUS_SIP_ANOMALY_BAD_STATUS_CODE, 0},
        {"SIP/2.0 700 OK\r\n\r\n", OTUS_SIP_ANOMALY_BAD_STATUS_CODE, 0},
        {"SIP/2.0 0200 OK\r\n\r\n", OTUS_SIP_ANOMALY_BAD_STATUS_CODE, 0},
        {"INVITE sip:a\r\n\r\n", OTUS_SIP_ANOMALY_BAD_VERSION, 0},
        {"INVITE nothing SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"INVITE sip:a@ SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"INVITE sip:a@b:x SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"INVITE sip:a@[::1 SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"INVITE sip:a@[::1?x=y] SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"INVITE sip:a@b:65536 SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"INVITE sip:a@b:4294967297 SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"INVITE sip:a@b:5060x SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"INVITE sip:a@b:;lr SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"INVITE sip:a@b:5060?x=y SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"INVITE sip:a@b:5060;lr?x=y SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"INVITE sip:a@b;lr?x=y SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI, 0},
        {"OPTIONS sip:a SIP/2.0\n\n", OTUS_SIP_ANOMALY_BARE_LF, 0},
        {"OPTIONS sip:a SIP/2.0\r\nTo: <sip:a>\r\n", OTUS_SIP_ANOMALY_NO_HEADER_END, 0},
        {"OPTIONS sip:a SIP/2.0\r\nTo: <sip:a>", OTUS_SIP_ANOMALY_NO_HEADER_END, 0},
        {"OPTIONS sip:a SIP/2.0\r\nnonsense\r\n\r\n", OTUS_SIP_ANOMALY_BAD_HEADER_LINE, 0},
        {"OPTIONS sip:a SIP/2.0\r\n: x\r\n\r\n", OTUS_SIP_ANOMALY_BAD_HEADER_LINE, 0},
        {"OPTIONS sip:a SIP/2.0\r\nTwo words: x\r\n\r\n", OTUS_SIP_ANOMALY_BAD_HEADER_LINE, 0},
        {"OPTIONS sip:a SIP/2.0\r\n To: <sip:a>\r\n\r\n", OTUS_SIP_ANOMALY_BAD_HEADER_LINE, 0},
        {"OPTIONS sip:a SIP/2.0\r\nCSeq: 1\r\n\r\n", OTUS_SIP_ANOMALY_BAD_CSEQ, 0},
        {"OPTIONS sip:a SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n", OTUS_SIP_ANOMALY_CSEQ_METHOD_MISMATCH,
         0},
        {"OPTIONS sip:a SIP/2.0\r\nCSeq: 1 OTHER\r\n\r\n", OTUS_SIP_ANOMALY_CSEQ_METHOD_MISMATCH,
         0},
        {"OTHER sip:a SIP/2.0\r\nCSeq: 1 OTHERS\r\n\r\n", OTUS_SIP_ANOMALY_CSEQ_METHOD_MISMATCH, 0},
        {"OTHER sip:a SIP/2.0\r\nCSeq: 1 Other\r\n\r\n", OTUS_SIP_ANOMALY_CSEQ_METHOD_MISMATCH, 0},
        {"OPTIONS sip:a SIP/2.0\r\nCSeq: 4294967296 OPTIONS\r\n\r\n", OTUS_SIP_ANOMALY_BAD_CSEQ, 0},
        {"OPTIONS sip:a SIP/2.0\r\nl: 18446744073709551621\r\n\r\n",
         OTUS_SIP_ANOMALY_BAD_CONTENT_LENGTH, 0},
        {"OPTIONS sip:a SIP/2.0\r\nl: 4294967301\r\n\r\nhello", OTUS_SIP_ANOMALY_BODY_TRUNCATED, 0},
        {"OPTIONS sip:a SIP/2.0\r\nl: 5, 5\r\n\r\nhello", OTUS_SIP_ANOMALY_BAD_CONTENT_LENGTH, 0},
        {"OPTIONS sip:a SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_MISSING_CONTENT_LENGTH,
         OTUS_SIP_ON_STREAM},
        {"OPTIONS sip:a SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_TRUNCATED, OTUS_SIP_TRUNCATED},
        {"OPTIONS sip:a SIP/2.0\r\n\r\nx", OTUS_SIP_ANOMALY_MISSING_CONTENT_TYPE, 0},
        {"OPTIONS sip:a SIP/2.0\r\nc: text\r\n\r\n", OTUS_SIP_ANOMALY_BAD_CONTENT_TYPE, 0},
        {"OPTIONS sip:a SIP/2.0\r\nTo: <sip:a\r\n\r\n", OTUS_SIP_ANOMALY_UNTERMINATED_QUOTE, 0},
        {"OPTIONS sip:a SIP/2.0\r\nTo: <sip:a>;x=\"y\r\n\r\n", OTUS_SIP_ANOMALY_UNTERMINATED_QUOTE,
         0},
        {"OPTIONS sip:a SIP/2.0\r\nTo: <>\r\n\r\n", OTUS_SIP_ANOMALY_BAD_TO, 0},
        {"OPTIONS sip:a SIP/2.0\r\nTo:\r\n\r\n", OTUS_SIP_ANOMALY_BAD_TO, 0},
        {"OPTIONS sip:a SIP/2.0\r\nFrom: <sip:a> junk\r\n\r\n", OTUS_SIP_ANOMALY_BAD_FROM, 0},
        {"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_VIA, 0},
        {"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP\r\n\r\n", OTUS_SIP_ANOMALY_BAD_VIA, 0},
        {"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a b;x\r\n\r\n", OTUS_SIP_ANOMALY_BAD_VIA, 0},
        {"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nv: x\r\n\r\n", OTUS_SIP_ANOMALY_BAD_VIA,
         0},
        {"OPTIONS sip:a SIP/2.0\r\ni:\r\n\r\n", OTUS_SIP_ANOMALY_BAD_CALL_ID, 0},
        {"OPTIONS sip:a SIP/2.0\r\ni: a b\r\n\r\n", OTUS_SIP_ANOMALY_BAD_CALL_ID, 0},
        {"OPTIONS sip:a SIP/2.0\r\nWarning:\r\n\r\n", OTUS_SIP_ANOMALY_BAD_WARNING, 0},
        {"OPTIONS sip:a SIP/2.0\r\nX: \r\r\n\r\n", OTUS_SIP_ANOMALY_CONTROL_OCTETS, 0},
        {"OPTIONS sip:a SIP/2.0\r\nX: \x01\n\r\n", OTUS_SIP_ANOMALY_CONTROL_OCTETS, 0},
        {"OPTIONS sip:a SIP/2.0\r\nc: multipart/mixed\r\n\r\nx", OTUS_SIP_ANOMALY_BAD_MULTIPART, 0},
        {"OPTIONS sip:a SIP/2.0\r\nc: multipart/mixed;boundary=a\r\n\r\n--a\r\n\r\nx",
         OTUS_SIP_ANOMALY_BAD_MULTIPART, 0},
        {"OPTIONS sip:a SIP/2.0\r\nc: application/sdp\r\n\r\nx=\r\nnothing\r\n",
         OTUS_SIP_ANOMALY_BAD_SDP, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_about = cases[i].text;
        struct otus_sip_message m = parse(parser, cases[i].text, cases[i].flags);
        CHECK(has_anomaly(&m, cases[i].anomaly));
    }
    check_about = "";
}

/* What is unusual and still right is not called wrong. */
static void test_no_false_anomalies(struct otus_sip_parser *parser)
{
    static const struct {
        const char *text;
        enum otus_sip_anomaly anomaly;
    } cases[] = {
        {"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a;rport=\r\n\r\n", OTUS_SIP_ANOMALY_BAD_VIA},
        {"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a : 5060;x\r\n\r\n", OTUS_SIP_ANOMALY_BAD_VIA},
        {"OPTIONS sip:a SIP/2.0\r\nContact: *\r\n\r\n", OTUS_SIP_ANOMALY_BAD_CONTACT},
        {"OPTIONS sip:a SIP/2.0\r\nX: a\tb\r\n\r\n", OTUS_SIP_ANOMALY_CONTROL_OCTETS},
        {"OPTIONS tel:+1 SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI},
        {"OPTIONS sip:a?b@c SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI},
        {"OPTIONS sip:[::1]:5060;lr SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI},
        {"OPTIONS sip:a:secret@b SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI},
        {"OPTIONS sip:a@b:65535;lr SIP/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_REQUEST_URI},
        {"OTHER sip:a SIP/2.0\r\nCSeq: 1 OTHER\r\n\r\n", OTUS_SIP_ANOMALY_CSEQ_METHOD_MISMATCH},
        {"OPTIONS sip:a sip/2.0\r\n\r\n", OTUS_SIP_ANOMALY_BAD_VERSION},
        {"SIP/2.0 200 \r\n\r\n", OTUS_SIP_ANOMALY_BAD_START_LINE},
        {"OPTIONS sip:a SIP/2.0\r\nRetry-After: 5 (busy);duration=1\r\n\r\n",
         OTUS_SIP_ANOMALY_BAD_RETRY_AFTER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_about = cases[i].text;
        struct otus_sip_message m = parse(parser, cases[i].text, 0);
        CHECK(!has_anomaly(&m, cases[i].anomaly));
    }
    check_about = "";
}

/* The one-packet kill of another agent: an empty body behind an empty line. */
static void test_known_killers(struct otus_sip_parser *parser)
{
    struct otus_sip_message m = parse(parser, "OPTIONS sip:a SIP/2.0\r\nVia: x\n\r\n\r\n", 0);
    CHECK_EQ(m.num_headers, 1);
    /* CVE class of sngrep: an empty Warning, Call-IDs and lengths beyond fixed buffers. */
    m = parse(parser, "SIP/2.0 200 OK\r\nWarning: \r\nContent-Length: 99999999999999999999\r\n\r\n",
              0);
    CHECK(has_anomaly(&m, OTUS_SIP_ANOMALY_BAD_CONTENT_LENGTH));
    CHECK_EQ(m.content_length, -1);
}

/* No header field of a message of 64 KiB is lost, however short they are. */
static void test_64_kib_of_headers(struct otus_sip_parser *parser)
{
    enum { LEN = 65535 };
    static const char start[] = "OPTIONS sip:a SIP/2.0\r\n";
    char *text = malloc(LEN + 1);
    uint32_t len = (uint32_t)strlen(start);
    uint32_t num = 0;
    memcpy(text, start, len);
    for (; len + 3 <= LEN - 1; len += 3, num++)
        memcpy(text + len, "x:\n", 3);
    text[len] = '\n';
    text[len + 1] = '\0';
    struct otus_sip_message m = parse(parser, text, 0);
    CHECK_EQ(m.num_headers, num);
    CHECK(!has_anomaly(&m, OTUS_SIP_ANOMALY_TOO_MANY_HEADERS));
    CHECK_EQ(m.headers[num - 2].next, num - 1);
    free(text);
}

/* One value of 60 KiB is one value. */
static void test_long_value(struct otus_sip_parser *parser)
{
    char *text = malloc(65536);
    int head = snprintf(text, 65536, "OPTIONS sip:a SIP/2.0\r\nCall-ID: ");
    memset(text + head, 'x', 60000);
    memcpy(text + head + 60000, "\r\n\r\n", 5);
    struct otus_sip_message m = parse(parser, text, 0);
    CHECK_EQ(m.call_id.len, 60000);
    free(text);
}

/* SDP is found in a part of a multipart body, nested ones included, at any delimiter. */
static void test_multipart(struct otus_sip_parser *parser)
{
    struct otus_sip_message m =
        parse(parser,
              "INVITE sip:a SIP/2.0\r\nContent-Type: multipart/mixed; boundary=\"b 1\"\r\n\r\n"
              "preamble\r\n--b 1\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
              "--b 1\r\nContent-Type: multipart/alternative;x=y;boundary=c\r\n\r\n"
              "--c\r\nc : Application/SDP;x=1\r\n\r\n" SAMPLE_SDP "\r\n--c--\r\n--b 1--\r\nend",
              0);
    CHECK(!has_anomaly(&m, OTUS_SIP_ANOMALY_BAD_MULTIPART));
    if (CHECK(m.sdp != NULL)) {
        CHECK_EQ(m.sdp->num_media, 1);
        CHECK_EQ(m.sdp->media[0].port, 4000);
        CHECK(!m.sdp->bad);
    }
    /* Nested deeper than is followed: no SDP, and no recursion without end. */
    char text[4096] = "INVITE sip:a SIP/2.0\r\nContent-Type: multipart/mixed;boundary=b\r\n\r\n";
    for (int i = 0; i < 50; i++)
        strcat(text, "--b\r\nContent-Type: multipart/mixed;boundary=b\r\n\r\n");
    m = parse(parser, text, 0);
    CHECK(m.sdp == NULL);
    /* A compressed body is not read. */
    m = parse(parser,
              "INVITE sip:a SIP/2.0\r\nContent-Type: application/sdp\r\n"
              "Content-Encoding: gzip\r\n\r\nv=0\r\n",
              0);
    CHECK(m.sdp == NULL);
}

static void test_malformed(struct otus_sip_parser *parser)
{
    static const char *const texts[] = {
        "",
        "\r\n\r\n",
        "hello",
        "SIP/2.0",
        "SIP/2.0\r\n\r\n",
        "INVITE",
        "INVITE ",
        "INVITE x",
        "GET / HTTP/1.1\r\n\r\n",
        "\xff\xfe SIP/2.0\r\n",
    };
    struct otus_sip_message message;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        check_about = texts[i];
        CHECK(otus_sip_parse(parser, &message, (const uint8_t *)texts[i],
                             (uint32_t)strlen(texts[i]), 0) == OTUS_E_MALFORMED);
    }
    check_about = "";
}

static void parse_truncated(void *context, const uint8_t *octets, size_t len)
{
    struct otus_sip_message message;
    uint32_t frame_len;
    enum otus_status status = otus_sip_parse(context, &message, octets, (uint32_t)len, 0);
    CHECK(status == OTUS_OK || status == OTUS_E_MALFORMED);
    if (status == OTUS_OK)
        CHECK(message.body.off + message.body.len <= len);
    (void)otus_sip_can_handle(octets, (uint32_t)len);
    CHECK(otus_sip_frame(&frame_len, octets, (uint32_t)len, 65536) != OTUS_OK || frame_len <= len);
}

#define CROOKED_MULTIPART                                                                          \
    "SIP/2.0 200 OK\nl:3\nFrom: \"a\\\"b\" <sip:x>; tag = \"q\\\"\"\n"                             \
    "v : SIP / 2.0 / UDP a\nm:*\nc:multipart/mixed;boundary=\"x\"\n\n"                             \
    "--x\nc:application/sdp\n\nv=0\nm=a 1 b 0\n--x--"

/* No truncation of any of these is read past its end. */
static void test_truncations(struct otus_sip_parser *parser)
{
    static const char *const texts[] = {
        SAMPLE_INVITE,
        CROOKED_MULTIPART,
        "R sip:\"<>[:::]@?;,=\\ SIP/2.0  \r\nDate: Sat, 13 Nov 2010 23:29:00 GMT\r\n \t\r\n,;:\r\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        guard_every_truncation(parse_truncated, parser, texts[i], strlen(texts[i]));
}

/* A snapshot length that ends between CR and LF makes no control octet of the CR. */
static void test_cut_line_end(struct otus_sip_parser *parser)
{
    static const uint64_t control = (uint64_t)1 << OTUS_SIP_ANOMALY_CONTROL_OCTETS;
    const uint8_t *octets = (const uint8_t *)SAMPLE_INVITE;
    struct otus_sip_message message;
    for (uint32_t len = 40; len < strlen(SAMPLE_INVITE); len++) {
        CHECK(otus_sip_parse(parser, &message, octets, len, OTUS_SIP_TRUNCATED) == OTUS_OK);
        CHECK_EQ(message.anomalies & control, 0);
    }
    message = parse(parser, "OPTIONS sip:a SIP/2.0\r\nTo: a\001\r", OTUS_SIP_TRUNCATED);
    CHECK_EQ(message.anomalies & control, control);
    message = parse(parser, "OPTIONS sip:a SIP/2.0\r\nTo: a\r", 0);
    CHECK_EQ(message.anomalies & control, control);
}

int main(void)
{
    struct otus_sip_parser *parser = sample_parser();
    test_plain(parser);
    test_values(parser);
    test_names(parser);
    test_anomalies(parser);
    test_no_false_anomalies(parser);
    test_known_killers(parser);
    test_64_kib_of_headers(parser);
    test_long_value(parser);
    test_multipart(parser);
    test_malformed(parser);
    test_truncations(parser);
    test_cut_line_end(parser);
    otus_sip_parser_free(parser);
    otus_sip_parser_free(NULL);
    return check_summary();
}
