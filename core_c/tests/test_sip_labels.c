/* Labels, headers by name, and media endpoints in the registry. */
#include "otus/sip_labels.h"

#include "sip_sample.h"

static struct otus_sip_parser *parser;

static struct otus_sip_message parse(const char *text)
{
    struct otus_sip_message message;
    memset(&message, 0, sizeof message);
    CHECK(otus_sip_parse(parser, &message, (const uint8_t *)text, (uint32_t)strlen(text), 0) ==
          OTUS_OK);
    return message;
}

struct label_want {
    enum otus_label_id id;
    const char *value;
};

static uint64_t octets_of(const struct otus_label_set *labels)
{
    uint64_t octets = 0;
    for (uint32_t i = 0; i < labels->num; i++)
        octets += labels->label[i].len;
    return octets;
}

/* Labels of a message that lies in an arena with `room` octets behind it, and nothing else. */
static void check_labels(const char *text, const struct label_want *wants, size_t num,
                         uint32_t room)
{
    static uint8_t memory[8192];
    uint32_t len = (uint32_t)strlen(text);
    struct otus_arena arena = {memory, len, len + room};
    struct otus_label_set labels;
    struct otus_sip_message message = parse(text);
    memcpy(memory, text, len);
    message.octets = memory;
    otus_label_clear(&labels, memory);
    otus_sip_labels(&message, (struct otus_slice){(const uint8_t *)"UDP", 3}, &labels, &arena);
    for (size_t i = 0; i < num; i++) {
        const struct otus_label *label = otus_label_find(&labels, wants[i].id);
        check_about = otus_label_name(wants[i].id);
        if (CHECK(label != NULL)) {
            struct otus_slice value = otus_label_value(&labels, label);
            CHECK_TEXT(value.at, value.len, wants[i].value);
        }
    }
    check_about = "";
    CHECK_EQ(labels.num, num);
    CHECK_EQ(labels.incomplete, room == 0);
    for (uint32_t i = 0; i < labels.num; i++)
        CHECK(i == 0 || labels.label[i - 1].id < labels.label[i].id);
    CHECK_EQ(labels.value_octets, octets_of(&labels));
}

/* Every label of a request, and no other. */
static void test_request_labels(void)
{
    static const struct label_want wants[] = {
        {OTUS_LABEL_SIP_METHOD, "INVITE"},
        {OTUS_LABEL_SIP_REQUEST_URI, "sip:bob@example.com"},
        {OTUS_LABEL_SIP_CALL_ID, "call-1@192.0.2.1"},
        {OTUS_LABEL_SIP_FROM_URI, "sip:alice@example.com"},
        {OTUS_LABEL_SIP_FROM_TAG, "from1"},
        {OTUS_LABEL_SIP_TO_URI, "tel:+1-201-555-0123"},
        {OTUS_LABEL_SIP_CSEQ, "314159"},
        {OTUS_LABEL_SIP_CSEQ_METHOD, "INVITE"},
        {OTUS_LABEL_SIP_CONTACT_URI, "sip:alice@192.0.2.1"},
        {OTUS_LABEL_SIP_VIA_BRANCH, "z9hG4bK1"},
        {OTUS_LABEL_SIP_USER_AGENT, "sample"},
        {OTUS_LABEL_SIP_CONTENT_TYPE, "application/sdp"},
        {OTUS_LABEL_SIP_TRANSPORT, "UDP"},
    };
    check_labels(SAMPLE_INVITE, wants, sizeof wants / sizeof wants[0], 4096);
}

/* Of a response; numbers in their shortest form, folds undone. */
static void test_response_labels(void)
{
    static const struct label_want wants[] = {
        {OTUS_LABEL_SIP_STATUS_CODE, "486"},  {OTUS_LABEL_SIP_REASON, "Busy Here"},
        {OTUS_LABEL_SIP_CSEQ, "9"},           {OTUS_LABEL_SIP_CSEQ_METHOD, "INVITE"},
        {OTUS_LABEL_SIP_TO_URI, "sip:b"},     {OTUS_LABEL_SIP_TO_TAG, "t"},
        {OTUS_LABEL_SIP_USER_AGENT, "a b c"}, {OTUS_LABEL_SIP_TRANSPORT, "UDP"},
    };
    check_labels("SIP/2.0 486 Busy Here\r\nt: <sip:b>;tag=t\r\nCSeq: 0009\r\n INVITE\r\n"
                 "Server: a\r\n \tb \r\n c\r\n\r\n",
                 wants, sizeof wants / sizeof wants[0], 4096);
}

/* What can't be read is no label; a full arena loses what needs it and breaks nothing. */
static void test_no_labels(void)
{
    static const struct label_want wants[] = {
        {OTUS_LABEL_SIP_CSEQ_METHOD, "INVITE"},
        {OTUS_LABEL_SIP_TRANSPORT, "UDP"},
        {OTUS_LABEL_SIP_REASON, "x"},
    };
    check_labels("SIP/2.0 4294967301 x\r\nCSeq: 99999999999 INVITE\r\n\r\n", wants, 3, 4096);
    static const struct label_want full[] = {
        {OTUS_LABEL_SIP_CSEQ_METHOD, "INVITE"},
        {OTUS_LABEL_SIP_USER_AGENT, "a\r\n b"},
    };
    check_labels("SIP/2.0 4294967301 \r\nCSeq: 09 INVITE\r\nServer: a\r\n b\r\n\r\n", full, 2, 0);
}

/* Labels put in any order lie by rising id and are found; a second value takes the first's place;
 * one that does not fit is missed. */
static void test_set_of_labels(void)
{
    static uint8_t memory[3 * OTUS_MAX_LABELS + 2];
    struct otus_arena arena = {memory, 0, sizeof memory};
    struct otus_label_set labels;
    otus_label_clear(&labels, memory);
    for (uint32_t i = 0; i < OTUS_MAX_LABELS; i++) {
        uint8_t text[3] = {'a', (uint8_t)i, 'z'};
        uint32_t id = i * 77 % OTUS_MAX_LABELS; /* each once */
        CHECK(otus_label_find(&labels, id) == NULL);
        otus_label_copy(&labels, &arena, id, (struct otus_slice){text, 1 + i % 3});
        CHECK_EQ(labels.value_octets, octets_of(&labels));
        otus_label_put(&labels, id, (struct otus_slice){arena.base + arena.used - 1 - i % 3, 1});
        CHECK_EQ(labels.num, i + 1);
        CHECK_EQ(labels.value_octets, i + 1);
    }
    for (uint32_t i = 0; i < OTUS_MAX_LABELS; i++) {
        uint32_t id = i * 77 % OTUS_MAX_LABELS;
        const struct otus_label *label = otus_label_find(&labels, id);
        if (!CHECK(label != NULL))
            return;
        CHECK_EQ(label - labels.label, id);
        CHECK_EQ(label->id, id);
        CHECK_EQ(otus_label_value(&labels, label).at[0], 'a');
        CHECK_EQ(otus_label_value(&labels, label).at[1], i % 3 != 0 ? i : 'a');
        CHECK_EQ(label->len, 1);
    }
    CHECK(!labels.incomplete);
    otus_label_copy(&labels, &arena, 3, (struct otus_slice){memory, otus_arena_left(&arena) + 1});
    CHECK(labels.incomplete);
    otus_label_clear(&labels, memory);
    CHECK(!labels.incomplete && otus_label_find(&labels, 3) == NULL);
}

static void test_find_header(void)
{
    struct otus_sip_message message = parse(SAMPLE_INVITE);
    struct otus_slice value;
    static const struct {
        const char *name;
        const char *value;
    } cases[] = {
        {"X-Cid", "other call"},
        {"x-cid", "other call"},
        {"X-CID", "other call"},
        {"i", "call-1@192.0.2.1"},
        {"call-id", "call-1@192.0.2.1"},
        {"I", "call-1@192.0.2.1"},
        {"Max-Forwards", "70"},
        {"X", NULL},
        {"X-Ci", NULL},
        {"Route", NULL},
        {"", NULL},
        {"q", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_about = cases[i].name;
        bool found = otus_sip_find_header(&message, cases[i].name, strlen(cases[i].name), &value);
        CHECK_EQ(found, cases[i].value != NULL);
        if (found)
            CHECK_TEXT(value.at, value.len, cases[i].value);
    }
    check_about = "";
}

/* --- media --- */

static struct otus_flow_registry *registry;

static void show(const char *text)
{
    struct otus_sip_message message = parse(text);
    otus_sip_register_media(registry, &message, true, 1000, NULL);
}

/* The kind of flow at an IPv4 endpoint, 0 for none. */
static int kind_at(uint8_t last_octet, uint16_t port)
{
    struct otus_flow_key key = {.ip_version = 4, .protocol = 17, .port = port};
    struct otus_flow_value value;
    memcpy(key.ip, (uint8_t[]){192, 0, 2, last_octet}, 4);
    return otus_flow_get(registry, &value, &key, 1000) ? value.kind : 0;
}

#define RESPONSE(status, method, sdp)                                                              \
    "SIP/2.0 " status " x\r\nCall-ID: call-1@192.0.2.1\r\nCSeq: 1 " method                         \
    "\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nf: <sip:a>;tag=from1\r\nt: <sip:b>;tag=to1"         \
    "\r\nContent-Type: application/sdp\r\n\r\n" sdp
#define REQUEST(method, sdp)                                                                       \
    method " sip:a SIP/2.0\r\nCall-ID: call-1@192.0.2.1\r\nCSeq: 1 " method                        \
           "\r\nContent-Type: application/sdp\r\n\r\n" sdp
#define ANSWER "v=0\r\nc=IN IP4 192.0.2.2\r\nm=audio 5000 RTP/AVP 0\r\n"

/* A call's endpoints live from the offer to the answer to BYE, not to BYE or CANCEL. */
static void test_dialog(void)
{
    CHECK(otus_flow_registry_new(&registry, 100, 1000000) == OTUS_OK);
    show(SAMPLE_INVITE);
    CHECK_EQ(kind_at(1, 4000), OTUS_FLOW_RTP);
    CHECK_EQ(kind_at(1, 4001), OTUS_FLOW_RTCP);
    CHECK_EQ(otus_flow_count(registry), 2);
    show(RESPONSE("183", "INVITE", ANSWER)); /* early media */
    CHECK_EQ(kind_at(2, 5000), OTUS_FLOW_RTP);
    show(REQUEST("CANCEL", ""));
    show(RESPONSE("200", "CANCEL", ""));
    CHECK_EQ(otus_flow_count(registry), 4);
    show(RESPONSE("200", "INVITE", ANSWER));
    show(RESPONSE("488", "INVITE", "")); /* of a re-INVITE */
    CHECK_EQ(otus_flow_count(registry), 4);
    show(REQUEST("BYE", ""));
    show(RESPONSE("407", "BYE", "")); /* asked again */
    CHECK_EQ(otus_flow_count(registry), 4);
    show(RESPONSE("200", "BYE", ""));
    CHECK_EQ(otus_flow_count(registry), 0);

    show(SAMPLE_INVITE);
    show(RESPONSE("401", "INVITE", ""));
    CHECK_EQ(otus_flow_count(registry), 2);
    show(RESPONSE("486", "INVITE", ""));
    CHECK_EQ(otus_flow_count(registry), 0);
    otus_flow_registry_free(registry);
}

/* The description in a response is an offer where the INVITE of that CSeq made none. */
static void test_delayed_offer(void)
{
    static const struct {
        const char *request;
        const char *response;
        bool is_offer;
    } cases[] = {
        {REQUEST("INVITE", ""), RESPONSE("200", "INVITE", ANSWER), true},
        {REQUEST("INVITE", ""), RESPONSE("183", "INVITE", ANSWER), true},
        {REQUEST("INVITE", ""), RESPONSE("200", "INVITE", ""), false},
        {REQUEST("INVITE", ANSWER), RESPONSE("200", "INVITE", ANSWER), false},
        {REQUEST("UPDATE", ""), RESPONSE("200", "UPDATE", ANSWER), false},
        {REQUEST("OPTIONS", ""), RESPONSE("200", "INVITE", ANSWER), false}, /* INVITE not seen */
        {SAMPLE_HEAD "\r\n", RESPONSE("200", "INVITE", ANSWER), false},     /* another CSeq */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK(otus_flow_registry_new(&registry, 100, 1000000) == OTUS_OK);
        show(cases[i].request);
        struct otus_sip_message message = parse(cases[i].response);
        CHECK_EQ(otus_sip_is_delayed_offer(registry, &message), cases[i].is_offer);
        otus_flow_registry_free(registry);
    }
}

/* Which endpoints a description names. */
static void test_endpoints(void)
{
    static const struct {
        const char *sdp;
        uint32_t num;
        uint16_t port;
        int kind;
    } cases[] = {
        {"m=audio 4000 RTP/AVP 0\r\n", 2, 4001, OTUS_FLOW_RTCP},
        {"m=audio 4000 RTP/AVP 0\r\na=rtcp-mux\r\n", 1, 4000, OTUS_FLOW_RTP_RTCP_MUX},
        {"m=audio 4000 RTP/AVP 0\r\na=rtcp:4100\r\n", 2, 4100, OTUS_FLOW_RTCP},
        {"m=audio 4000 RTP/AVP 0\r\na=rtcp:4100 IN IP4 192.0.2.9\r\n", 2, 4000, OTUS_FLOW_RTP},
        {"m=audio 4000 RTP/AVP 0\r\na=rtcp:4001 IN IP4 192.0.2.1\r\n", 2, 4001, OTUS_FLOW_RTCP},
        {"m=audio 4000 RTP/AVP 0\r\na=rtcp:4001 IN IP4 192.0.2.9\r\n", 2, 4001, 0},
        {"m=audio 4000 RTP/AVP 0\r\na=rtcp:4001 IN IP6 2001:db8::1\r\n", 2, 4001, 0},
        /* c000:201:: has the octets of 192.0.2.1, and zeros. */
        {"m=audio 4000 RTP/AVP 0\r\na=rtcp:4001 IN IP6 c000:201::\r\n", 2, 4001, 0},
        {"m=audio 4000 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\na=rtcp:4100 IN IP4 192.0.2.1\r\n", 2,
         4100, OTUS_FLOW_RTCP},
        {"m=audio 4000/2 RTP/AVP 0\r\n", 4, 4002, OTUS_FLOW_RTP},
        {"m=audio 4000/65535 RTP/AVP 0\r\n", 16, 4014, OTUS_FLOW_RTP},
        {"m=audio 65535 RTP/AVP 0\r\n", 1, 65535, OTUS_FLOW_RTP},
        {"m=audio 65534/2 RTP/AVP 0\r\n", 2, 65534, OTUS_FLOW_RTP},
        {"m=audio 0 RTP/AVP 0\r\n", 0, 0, 0},
        {"m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n", 0, 4000, 0},
        {"m=audio 4000 RTP/AVP 0\r\nc=IN IP6 ::\r\n", 0, 4000, 0},
        {"m=audio 4000 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\n", 2, 4000, 0},
        {"m=audio 4000 RTP/AVP 0\r\nc=IN IP4 host.example.com\r\n", 0, 4000, 0},
        {"m=audio 4000 UDP/TLS/RTP/SAVPF 0\r\n", 2, 4000, OTUS_FLOW_RTP},
        {"m=image 4000 udptl t38\r\n", 0, 4000, 0},
        {"m=audio 4000 RTP/AVP 0\r\nm=video 4000 RTP/AVP 31\r\n", 2, 4000, OTUS_FLOW_RTP},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        CHECK(otus_flow_registry_new(&registry, 100, 1000000) == OTUS_OK);
        check_about = cases[i].sdp;
        snprintf(text, sizeof text, REQUEST("INVITE", "v=0\r\nc=IN IP4 192.0.2.1\r\n%s"),
                 cases[i].sdp);
        show(text);
        CHECK_EQ(otus_flow_count(registry), cases[i].num);
        CHECK_EQ(kind_at(1, cases[i].port), cases[i].kind);
        otus_flow_registry_free(registry);
    }
    check_about = "";
}

int main(void)
{
    parser = sample_parser();
    test_request_labels();
    test_response_labels();
    test_no_labels();
    test_set_of_labels();
    test_find_header();
    test_dialog();
    test_delayed_offer();
    test_endpoints();
    otus_sip_parser_free(parser);
    return check_summary();
}
