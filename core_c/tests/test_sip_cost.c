/* Hostile messages cost what their octets cost: no shape makes the parser look at the same
 * octets again and again. Nothing here is timed. Each shape is parsed so often that work in
 * proportion to the octets is done in a moment, and work in proportion to their square takes
 * longer than the runner of these tests waits. */
#include <stdlib.h>

#include "otus/sip_labels.h"

#include "check.h"

enum { MESSAGE_OCTETS = 65000, REPEAT = 100 };

struct shape {
    const char *name;
    const char *head;
    const char *unit; /* as often as it fits */
    const char *tail;
};

#define START "INVITE sip:a@b SIP/2.0\r\n"
#define FIELDS "Call-ID: c\r\nCSeq: 1 INVITE\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\n"
#define END "\r\n\r\n"
#define SDP START FIELDS "Content-Type: application/sdp\r\n\r\nv=0\r\nc=IN IP4 192.0.2.1\r\n"
#define MIXED START FIELDS "Content-Type: multipart/mixed;boundary=b\r\n\r\n"

static const struct shape shapes[] = {
    /* Each value was searched for a slash up to the end of the field. */
    {"commas in Via", START FIELDS "Via: ", ",", END},
    {"Via values without a slash", START FIELDS "Via: ", "a,", END},
    {"Via parameters", START FIELDS "Via: SIP/2.0/UDP h", ";a=b", END},
    {"Via values", START FIELDS "Via: SIP/2.0/UDP h", ", SIP/2.0/UDP h", END},
    {"commas in Contact", START FIELDS "Contact: ", ",", END},
    {"quoted names without a URI", START FIELDS "Contact: ", "\"a\",", END},
    {"names with a semicolon", START FIELDS "Contact: ", "a;b,", END},
    {"open brackets", START FIELDS "Contact: ", "<,", END},
    {"quotes", START FIELDS "Contact: ", "\"", END},
    {"escapes", START FIELDS "Contact: \"", "\\\"", END},
    {"semicolons in From", START "From: ", ";", END},
    {"quotes in From", START "From: sip:a", "\"<", END},
    {"a quoted parameter without end", START FIELDS "Contact: <sip:a>", ";a=\"", END},
    /* White space that is no fold was looked at again from each of its octets. */
    {"spaces in a folded value", START FIELDS "User-Agent: a\r\n b", " ", "c" END},
    {"folds", START FIELDS "User-Agent: a", "\r\n b", END},
    {"empty folds", START FIELDS "User-Agent: a", "\r\n ", "b" END},
    {"short fields", START FIELDS, "a:\n", END},
    {"fields of one name", START FIELDS, "Via:\n", END},
    {"lines without a colon", START FIELDS, "a\n", END},
    {"line ends", START FIELDS, "\n", END},
    {"a method", "", "A", " sip:a@b SIP/2.0" END},
    {"words in the start line", "INVITE ", "a ", "SIP/2.0" END},
    {"colons in the URI", "INVITE sip:", ":", " SIP/2.0" END},
    {"SDP lines", SDP, "a\n", ""},
    {"SDP media", SDP, "m=audio 4000/9 RTP/AVP 0\n", ""},
    {"SDP formats and maps", SDP "m=audio 4000 RTP/AVP 1 2 3\n", "a=rtpmap:4 x/1\n", ""},
    {"SDP words", SDP "m=audio 4000 RTP/AVP", " 1", ""},
    {"delimiters", MIXED, "--b\n", "--b--\n"},
    {"near delimiters", MIXED "--b\n", "--a\n", "--b--\n"},
    {"parts in parts", MIXED, "--b\nc:multipart/x;boundary=b\n\n", "--b--\n"},
};

static uint32_t build(uint8_t *octets, const struct shape *shape)
{
    uint32_t unit = (uint32_t)strlen(shape->unit);
    uint32_t tail = (uint32_t)strlen(shape->tail);
    uint32_t len = (uint32_t)strlen(shape->head);
    memcpy(octets, shape->head, len);
    for (; len + unit + tail <= MESSAGE_OCTETS; len += unit)
        memcpy(octets + len, shape->unit, unit);
    memcpy(octets + len, shape->tail, tail);
    return len + tail;
}

/* All that a pipeline does with a message. */
static void use(struct otus_sip_parser *parser, struct otus_flow_registry *registry,
                const uint8_t *octets, uint32_t len)
{
    static uint8_t memory[16 * MESSAGE_OCTETS];
    struct otus_arena arena = {memory, len, sizeof memory};
    struct otus_sip_message message;
    struct otus_label_set labels;
    struct otus_sip_values values;
    struct otus_slice found;
    struct otus_span value;
    uint32_t num = 0;
    (void)otus_sip_can_handle(octets, len);
    if (otus_sip_parse(parser, &message, octets, len, 0) != OTUS_OK)
        return;
    memcpy(memory, octets, len);
    message.octets = memory;
    otus_label_clear(&labels, memory);
    otus_sip_labels(&message, (struct otus_slice){octets, 0}, &labels, &arena);
    CHECK(!otus_sip_find_header(&message, "X-CID", 5, &found));
    otus_sip_values_init(&values, &message, OTUS_SIP_HEADER_CONTACT);
    while (otus_sip_values_next(&values, &value))
        num += value.len;
    CHECK(num <= len);
    otus_sip_register_media(registry, &message, true, 1, NULL);
}

static void test_every_shape(void)
{
    struct otus_sip_parser *parser = NULL;
    struct otus_flow_registry *registry = NULL;
    uint8_t *octets = malloc(MESSAGE_OCTETS + 1);
    if (!CHECK(octets != NULL && otus_sip_parser_new(&parser) == OTUS_OK &&
               otus_flow_registry_new(&registry, 100, 1000000) == OTUS_OK))
        return;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check_about = shapes[i].name;
        uint32_t len = build(octets, &shapes[i]);
        for (int turn = 0; turn < REPEAT; turn++) {
            uint32_t framed = 0;
            use(parser, registry, octets, len);
            CHECK(otus_sip_frame(&framed, octets, len, MESSAGE_OCTETS) != OTUS_OK || framed <= len);
        }
    }
    otus_flow_registry_free(registry);
    otus_sip_parser_free(parser);
    free(octets);
}

int main(void)
{
    test_every_shape();
    return check_summary();
}
