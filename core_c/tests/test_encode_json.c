/* The JSON form of records: expectations written by hand, any octets valid, no
 * octet outside the room, every form of the encoder the same. */
#include <stdlib.h>

#include "check.h"
#include "encode_sample.h"
#include "encoder.h"
#include "guard.h"

static const struct otus_envelope envelope = {
    .task_id = "task \"1\"", .agent_id = "agent", .pipeline_id = "0"};

static struct otus_encoder *encoder_new(bool raw_payload)
{
    struct otus_envelope with = envelope;
    with.raw_payload = raw_payload;
    struct otus_encoder *encoder;
    if (otus_encoder_new(&encoder, &with) != OTUS_OK)
        abort();
    return encoder;
}

#define SAMPLE_HEAD                                                                                \
    "{\"timestamp\":\"2026-11-24T08:28:37.000000042Z\",\"task_id\":\"task \\\"1\\\"\","            \
    "\"agent_id\":\"agent\",\"pipeline_id\":\"0\",\"src_ip\":\"10.0.0.1\","                        \
    "\"dst_ip\":\"192.168.100.255\",\"src_port\":5060,\"dst_port\":80,\"protocol\":\"udp\","

static const char sample_json[] =
    SAMPLE_HEAD "\"flags\":[\"truncated\"],\"caplen\":600,\"wirelen\":700,"
                "\"labels\":{\"sip.method\":\"INVITE\",\"sip.call_id\":\"c1@10.0.0.1\"},"
                "\"payload_type\":\"sip\",\"payload\":{\"type\":\"request\",\"method\":\"INVITE\","
                "\"request_uri\":\"sip:bob@example.net\",\"call_id\":\"c1@10.0.0.1\",\"cseq\":7,"
                "\"cseq_method\":\"INVITE\",\"from\":{\"display_name\":\"A \\\\\\\"l\\\\\\\" ice\","
                "\"uri\":\"sip:alice@example.com\",\"tag\":\"a1\",\"params\":\";tag=a1\"},"
                "\"to\":{\"uri\":\"sip:bob@example.net\"},\"via\":{\"transport\":\"UDP\","
                "\"sent_by\":\"10.0.0.1:5060\",\"branch\":\"z9hG4bKx\",\"rport\":\"\"},"
                "\"content_type\":\"application/sdp\",\"content_length\":75,\"headers\":["
                "[\"Via\",\"SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKx;rport\"],"
                "[\"From\",\"\\\"A \\\\\\\"l\\\\\\\" ice\\\" <sip:alice@example.com>;tag=a1\"],"
                "[\"To\",\"<sip:bob@example.net>\"],[\"Call-ID\",\"c1@10.0.0.1\"],"
                "[\"CSeq\",\"7 INVITE\"],[\"Subject\",\"one two\"],"
                "[\"X-Note\",\"\xc3\xa9 and \xef\xbf\xbd\"],[\"Content-Type\",\"application/sdp\"],"
                "[\"Content-Length\",\"75\"]],"
                "\"body\":\"v=0\\r\\no=- 1 1 IN IP4 10.0.0.1\\r\\ns=-\\r\\nc=IN IP4 10.0.0.1\\r\\n"
                "m=audio 4000 RTP/AVP 0 101\\r\\n\",\"offer_answer\":\"offer\","
                "\"sdp\":{\"origin\":\"- 1 1 IN IP4 10.0.0.1\",\"session_name\":\"-\","
                "\"address\":\"10.0.0.1\",\"media\":[{\"media\":\"audio\",\"port\":4000,"
                "\"protocol\":\"RTP/AVP\",\"address\":\"10.0.0.1\",\"direction\":\"sendrecv\","
                "\"rtcp_port\":4001,\"codecs\":[{\"payload_type\":0,\"encoding\":\"PCMU/8000\"},"
                "{\"payload_type\":101}]}]}}}";

/* The forms that this machine runs, NULL behind the last. */
static const struct json_form *const *forms(void)
{
    static const struct json_form *all[5];
    all[0] = &json_form_portable;
    all[1] = &json_form_baseline;
    all[2] = json_form_avx2();
    all[all[2] != NULL ? 3 : 2] = json_form_avx512();
    return all;
}

/* Octets with what the encoders may read behind them, and then a guard page. What
 * lies behind would show in any text that it was taken for. */
static struct guard_buffer text_copy(const void *octets, size_t len)
{
    struct guard_buffer buffer = guard_new(len + OTUS_ENCODE_BEHIND);
    if (len != 0)
        memcpy(buffer.octets, octets, len);
    memset(buffer.octets + len, '"', OTUS_ENCODE_BEHIND);
    return buffer;
}

/* A record of a SIP request, member by member, with room to spare; and in every
 * smaller room E_LIMIT, the arena as it was and no octet written behind it. */
static void check_sample_in_every_room(const struct json_form *form)
{
    check_about = form->name;
    struct guard_buffer text = text_copy(sample_text, sizeof sample_text - 1);
    struct sample sample;
    sample_fill(&sample, text.octets, sizeof sample_text - 1);
    struct otus_encoder *encoder = encoder_new(false);
    encoder->json = form;
    const uint32_t want = sizeof sample_json - 1;
    for (uint32_t room = 0; room <= want + JSON_SLACK + 100; room++) {
        struct guard_buffer out = guard_new(room + 1);
        out.octets[0] = ',';
        struct otus_arena arena = {out.octets, 1, room + 1};
        struct otus_span span = {77, 77};
        enum otus_status status = otus_encode_json(&arena, &span, encoder, &sample.input);
        CHECK_EQ(out.octets[0], ',');
        if (room <= want + JSON_SLACK) {
            CHECK_EQ(status, OTUS_E_LIMIT);
            CHECK_EQ(arena.used, 1);
            CHECK_EQ(span.off, 77);
        } else if (CHECK_EQ(status, OTUS_OK)) {
            CHECK_OCTETS(out.octets + span.off, span.len, sample_json, want);
            CHECK_EQ(arena.used, span.off + span.len);
        }
        guard_free(&out);
    }
    otus_encoder_free(encoder);
    guard_free(&text);
    check_about = "";
}

static void check_string(const void *octets, size_t len, const char *want)
{
    struct guard_buffer in = text_copy(octets, len);
    for (const struct json_form *const *form = forms(); *form != NULL; form++) {
        uint8_t out[4096];
        struct otus_slice text = {in.octets, (uint32_t)len};
        check_about = (*form)->name;
        uint8_t *at = (*form)->string(out, out + sizeof out - JSON_SLACK, text);
        CHECK_TEXT(out, (size_t)(at - out), want);
    }
    check_about = "";
    guard_free(&in);
}

#define FFFD "\xef\xbf\xbd"

/* Escapes of RFC 8259, and one U+FFFD for each maximal subpart. */
static void test_strings(void)
{
    check_string("", 0, "");
    check_string("plain, longer than one step of the fast path", 44,
                 "plain, longer than one step of the fast path");
    check_string("\0\x01\x1f\x7f\"\\/", 7, "\\u0000\\u0001\\u001f\x7f\\\"\\\\/");
    check_string("\b\f\n\r\t\r\n", 7, "\\b\\f\\n\\r\\t\\r\\n");
    check_string("exactly sixteen!", 16, "exactly sixteen!");
    check_string("fifteen octets\"", 15, "fifteen octets\\\"");
    check_string("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    check_string("\xc3", 1, FFFD);
    check_string("\xe2\x82", 2, FFFD);
    check_string("\xf0\x9f\x98", 3, FFFD);
    check_string("\xf0\x9f\x98X", 4, FFFD "X");
    check_string("\xc0\xaf", 2, FFFD FFFD);
    check_string("\xe0\x80\xaf", 3, FFFD FFFD FFFD);
    check_string("\xed\xa0\x80", 3, FFFD FFFD FFFD);
    check_string("\xf4\x90\x80\x80", 4, FFFD FFFD FFFD FFFD);
    check_string("\x80\xff\xfe", 3, FFFD FFFD FFFD);
    check_string("\xe2\x82\"", 3, FFFD "\\\"");
}

/* A string octet by octet: what the forms are held against. */
static uint32_t escape(uint8_t *out, const uint8_t *from, const uint8_t *stop)
{
    uint8_t *at = out;
    while (from < stop)
        at = json_escape_one(at, &from, stop);
    return (uint32_t)(at - out);
}

/* Strings of every length up to three steps, of octets that need an escape more
 * often than not: each form in each room writes what the octets one by one become,
 * or says that the room is too small. */
static void test_forms_are_equal(void)
{
    enum { MAX = 100, ROOM = 6 * MAX + JSON_SLACK };
    static const uint8_t edges[] = {0x1f, 0x20, 0x7f, 0x80, '"',  '\\',
                                    0xff, 0,    '\r', '\n', 0xc3, 0xa9};
    srand(1);
    for (uint32_t round = 0; round < 20000; round++) {
        uint8_t octets[MAX];
        uint8_t want[6 * MAX];
        uint32_t len = round % (MAX + 1);
        for (uint32_t i = 0; i < len; i++) {
            int value = rand();
            octets[i] = (value & 0x700) == 0 ? edges[value % (int)sizeof edges] : 'a';
            if ((value & 0x3800) == 0)
                octets[i] = (uint8_t)value;
        }
        uint32_t want_len = escape(want, octets, octets + len);
        struct guard_buffer in = text_copy(octets, len);
        struct otus_slice text = {in.octets, len};
        uint32_t room = (uint32_t)rand() % (6 * MAX);
        for (const struct json_form *const *form = forms(); *form != NULL; form++) {
            struct guard_buffer out = guard_new(ROOM);
            uint8_t *end = out.octets + room;
            check_about = (*form)->name;
            uint8_t *at = (*form)->string(out.octets, end, text);
            if (at < end)
                CHECK_OCTETS(out.octets, (size_t)(at - out.octets), want, want_len);
            else
                CHECK(want_len >= room);
            guard_free(&out);
        }
        guard_free(&in);
    }
    check_about = "";
}

static void check_record(const struct otus_encode_input *input, bool raw_payload, const char *want)
{
    static uint8_t room[8192];
    struct otus_arena arena = {room, 0, sizeof room};
    struct otus_span span;
    struct otus_encoder *encoder = encoder_new(raw_payload);
    for (const struct json_form *const *form = forms(); *form != NULL; form++) {
        arena.used = 0;
        encoder->json = *form;
        if (CHECK_EQ(otus_encode_json(&arena, &span, encoder, input), OTUS_OK))
            CHECK_TEXT(room + span.off, span.len, want);
    }
    otus_encoder_free(encoder);
}

/* VLANs, tunnels with and without key, flags, IPv6, a protocol without a name. */
static void test_network_members(void)
{
    static const struct otus_label_set no_labels;
    struct otus_packet_meta meta = {
        .ts_ns = 951782400000000000, /* 2000-02-29 */
        .caplen = 1,
        .wirelen = 1234567,
        .flags = OTUS_PACKET_REASSEMBLED | OTUS_PACKET_STREAM | OTUS_PACKET_WEBSOCKET |
                 OTUS_PACKET_OUTGOING,
        .vlans = {4095, 7},
        .num_vlans = 2,
        .num_tunnels = 2,
        .ip_version = 6,
        .protocol = 200,
        .src_ip = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1},
        .dst_ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4},
    };
    const struct otus_tunnel tunnels[2] = {
        {.kind = OTUS_TUNNEL_VXLAN,
         .ip_version = 4,
         .flags = OTUS_TUNNEL_HAS_KEY,
         .key = 42,
         .src_port = 40000,
         .dst_port = 4789,
         .src_ip = {1, 2, 3, 4},
         .dst_ip = {5, 6, 7, 8}},
        {.kind = OTUS_TUNNEL_GRE,
         .ip_version = 4,
         .version = 1,
         .src_ip = {9, 9, 9, 9},
         .dst_ip = {8, 8, 8, 8}},
    };
    struct otus_encode_input input = {
        .meta = &meta,
        .tunnels = tunnels,
        .labels = &no_labels,
        .payload_type = OTUS_PAYLOAD_RAW,
        .payload = {(const uint8_t *)"\0\xff"
                                     "ab",
                    4},
    };
    check_record(
        &input, true,
        "{\"timestamp\":\"2000-02-29T00:00:00.000000000Z\",\"task_id\":\"task \\\"1\\\"\","
        "\"agent_id\":\"agent\",\"pipeline_id\":\"0\",\"src_ip\":\"2001:db8::1:0:0:1\","
        "\"dst_ip\":\"::ffff:1.2.3.4\",\"src_port\":0,\"dst_port\":0,\"protocol\":\"200\","
        "\"vlans\":[4095,7],\"tunnels\":[{\"kind\":\"vxlan\",\"key\":42,\"src_ip\":\"1.2.3.4\","
        "\"dst_ip\":\"5.6.7.8\",\"src_port\":40000,\"dst_port\":4789,\"version\":0},"
        "{\"kind\":\"gre\",\"src_ip\":\"9.9.9.9\",\"dst_ip\":\"8.8.8.8\",\"version\":1}],"
        "\"flags\":[\"reassembled\",\"stream\",\"websocket\",\"outgoing\"],"
        "\"caplen\":1,\"wirelen\":1234567,\"labels\":{},\"payload_type\":\"raw\","
        "\"payload\":{\"len\":4},\"raw_payload\":\"AP9hYg==\"}");
}

static void check_payload(const struct otus_encode_input *input, const char *want)
{
    uint8_t room[2048];
    struct otus_arena arena = {room, 0, sizeof room};
    struct otus_span span;
    struct otus_encoder *encoder = encoder_new(false);
    for (const struct json_form *const *form = forms(); *form != NULL; form++) {
        arena.used = 0;
        encoder->json = *form;
        if (CHECK_EQ(otus_encode_payload_json(&arena, &span, encoder, input), OTUS_OK))
            CHECK_TEXT(room + span.off, span.len, want);
    }
    otus_encoder_free(encoder);
}

static void test_rtp_and_rtcp(void)
{
    struct guard_buffer text = text_copy(sample_text, sizeof sample_text - 1);
    struct sample sample;
    sample_fill(&sample, text.octets, sizeof sample_text - 1);
    otus_label_clear(&sample.labels, text.octets);
    sample.meta.flags = 0;
    sample.input.sip = NULL;
    const struct otus_rtp_header rtp = {.ssrc = 4294967295,
                                        .timestamp = 160,
                                        .sequence = 65535,
                                        .payload_type = 8,
                                        .marker = true,
                                        .payload = {12, 160}};
    sample.input.payload_type = OTUS_PAYLOAD_RTP;
    sample.input.rtp = &rtp;
    check_record(&sample.input, false,
                 SAMPLE_HEAD "\"caplen\":600,\"wirelen\":700,\"labels\":{},"
                             "\"payload_type\":\"rtp\",\"payload\":{\"ssrc\":4294967295,"
                             "\"sequence\":65535,\"timestamp\":160,\"payload_type\":8,"
                             "\"marker\":true,\"num_csrc\":0,\"has_extension\":false,"
                             "\"payload_len\":160}}");
    const struct otus_rtcp_header rtcp = {
        .ssrc = 5, .packet_type = 200, .count = 1, .num_packets = 2};
    sample.input.payload_type = OTUS_PAYLOAD_RTCP;
    sample.input.rtp = NULL;
    sample.input.rtcp = &rtcp;
    check_record(&sample.input, false,
                 SAMPLE_HEAD "\"caplen\":600,\"wirelen\":700,\"labels\":{},"
                             "\"payload_type\":\"rtcp\",\"payload\":{\"ssrc\":5,"
                             "\"packet_type\":200,\"count\":1,\"num_packets\":2}}");
    static const uint8_t plugin[6 + OTUS_ENCODE_BEHIND] = "my\"own";
    sample.input.payload_type = OTUS_PAYLOAD_PLUGIN;
    sample.input.rtcp = NULL;
    sample.input.payload_name = (struct otus_slice){plugin, 6};
    sample.input.payload_json = (struct otus_slice){(const uint8_t *)"{\"a\":1}", 7};
    check_record(&sample.input, false,
                 SAMPLE_HEAD "\"caplen\":600,\"wirelen\":700,\"labels\":{},"
                             "\"payload_type\":\"my\\\"own\",\"payload\":{\"a\":1}}");
    guard_free(&text);
}

/* A response with a binary body, anomalies and what only they bring. */
static void test_response_payload(void)
{
    static const uint8_t octets[16 + OTUS_ENCODE_BEHIND] = "SIP/2.0 200 OK\xff\xfe";
    struct otus_sip_message message = {
        .octets = octets,
        .len = 16,
        .status_code = 200,
        .content_length = 5000000000,
        .start_line = {0, 14},
        .reason = {12, 2},
        .body = {14, 2},
        .anomalies = (uint64_t)1 << OTUS_SIP_ANOMALY_BAD_VERSION |
                     (uint64_t)1 << OTUS_SIP_ANOMALY_CONTROL_OCTETS,
    };
    struct otus_encode_input input = {.payload_type = OTUS_PAYLOAD_SIP, .sip = &message};
    check_payload(&input,
                  "{\"type\":\"response\",\"status_code\":200,\"reason\":\"OK\","
                  "\"start_line\":\"SIP/2.0 200 OK\",\"content_length\":5000000000,\"headers\":[],"
                  "\"body_base64\":\"//4=\",\"anomalies\":[\"bad_version\",\"control_octets\"]}");
}

/* Numbers of every length against printf(). */
static void test_numbers(void)
{
    static const uint32_t large[] = {65535, 99999, 100000, 999999, 1000000, 2147483648, 4294967295};
    char want[OTUS_TEXT_U32 + 1];
    uint8_t text[OTUS_TEXT_U32];
    for (uint32_t i = 0; i < 12000 + sizeof large / sizeof large[0]; i++) {
        uint32_t value = i < 12000 ? i : large[i - 12000];
        snprintf(want, sizeof want, "%u", value);
        CHECK_TEXT(text, otus_text_u32(text, value), want);
    }
}

/* Octets of every length with something above 0x7f at every place. */
static void test_utf8(void)
{
    enum { MOST = 100 };
    for (uint32_t len = 1; len <= MOST; len++) {
        uint8_t octets[MOST];
        memset(octets, 'a', len);
        CHECK(encode_is_utf8(octets, len));
        for (uint32_t at = 0; at < len; at++) {
            octets[at] = 0xff;
            CHECK(!encode_is_utf8(octets, len));
            octets[at] = 0xc3; /* U+00E9, where its second octet is there */
            CHECK(!encode_is_utf8(octets, len));
            if (at + 1 < len)
                octets[at + 1] = 0xa9;
            CHECK_EQ(encode_is_utf8(octets, len), at + 1 < len);
            memset(octets, 'a', len);
        }
    }
}

/* A label whose id has no name is left out. */
static void test_label_without_name(void)
{
    struct guard_buffer text = text_copy(sample_text, sizeof sample_text - 1);
    struct sample sample;
    sample_fill(&sample, text.octets, sizeof sample_text - 1);
    otus_label_put(&sample.labels, 99, (struct otus_slice){text.octets, 3});
    check_record(&sample.input, false, sample_json);
    guard_free(&text);
}

static void test_label_names(void)
{
    struct otus_encoder *encoder = encoder_new(false);
    CHECK_EQ(otus_encoder_name_label(encoder, 100, "my.label-1_x"), OTUS_OK);
    CHECK_EQ(otus_encoder_name_label(encoder, 100, ""), OTUS_E_INVALID);
    CHECK_EQ(otus_encoder_name_label(encoder, 100, "a\"b"), OTUS_E_INVALID);
    CHECK_EQ(otus_encoder_name_label(encoder, 100, ".a"), OTUS_E_INVALID);
    CHECK_EQ(otus_encoder_name_label(encoder, OTUS_MAX_LABELS, "a"), OTUS_E_INVALID);
    char name[OTUS_MAX_LABEL_NAME + 2];
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    CHECK_EQ(otus_encoder_name_label(encoder, 127, name), OTUS_E_INVALID);
    name[sizeof name - 2] = '\0';
    CHECK_EQ(otus_encoder_name_label(encoder, 127, name), OTUS_OK);
    otus_encoder_free(encoder);
    otus_encoder_free(NULL);
}

int main(void)
{
    test_strings();
    test_forms_are_equal();
    for (const struct json_form *const *form = forms(); *form != NULL; form++)
        check_sample_in_every_room(*form);
    test_network_members();
    test_rtp_and_rtcp();
    test_response_payload();
    test_numbers();
    test_utf8();
    test_label_without_name();
    test_label_names();
    return check_summary();
}
