/* One datagram: every span lies inside it, vector and portable code agree, and labels, values
 * and media stand up to whatever was read. */
#include <stdlib.h>

#include "otus/sip_labels.h"
#include "sip_internal.h"

static void expect(bool holds)
{
    if (!holds)
        abort();
}

static void check_span(const struct otus_sip_message *message, struct otus_span span)
{
    /* Empty ones as well: the encoders read where they start. */
    expect(span.off <= message->len && span.len <= message->len - span.off);
}

static void check_spans(const struct otus_sip_message *m)
{
    const struct otus_span spans[] = {
        m->start_line,      m->method,
        m->request_uri,     m->reason,
        m->call_id,         m->cseq_method,
        m->from.uri,        m->from.tag,
        m->from.params,     m->from.display_name,
        m->to.uri,          m->to.tag,
        m->to.params,       m->contact.uri,
        m->contact.params,  m->via.transport,
        m->via.sent_by,     m->via.branch,
        m->via.received,    m->via.rport,
        m->user_agent,      m->body,
        m->content_type,    m->contact.tag,
        m->to.display_name, m->contact.display_name,
    };
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++)
        check_span(m, spans[i]);
    for (uint32_t i = 0; i < m->num_headers; i++) {
        check_span(m, m->headers[i].name);
        check_span(m, m->headers[i].value);
        expect(m->headers[i].next == 0 ||
               (m->headers[i].next > i && m->headers[i].next < m->num_headers));
    }
}

static void check_sdp(const struct otus_sip_message *m)
{
    const struct otus_sdp *sdp = m->sdp;
    if (sdp == NULL)
        return;
    expect(sdp->num_media <= OTUS_SDP_MAX_MEDIA && sdp->num_codecs <= OTUS_SDP_MAX_CODECS &&
           sdp->num_candidates <= OTUS_SDP_MAX_CANDIDATES);
    check_span(m, sdp->origin);
    check_span(m, sdp->session_name);
    check_span(m, sdp->address);
    check_span(m, sdp->bundle);
    for (uint32_t i = 0; i < sdp->num_codecs; i++)
        check_span(m, sdp->codecs[i].encoding);
    for (uint32_t i = 0; i < sdp->num_candidates; i++)
        check_span(m, sdp->candidates[i]);
    for (uint32_t i = 0; i < sdp->num_media; i++) {
        const struct otus_sdp_media *media = &sdp->media[i];
        check_span(m, media->address);
        check_span(m, media->media);
        check_span(m, media->protocol);
        check_span(m, media->rtcp_address);
        check_span(m, media->mid);
        expect(media->first_codec + media->num_codecs <= sdp->num_codecs);
        expect(media->first_candidate + media->num_candidates <= sdp->num_candidates);
    }
}

static void check_values(const struct otus_sip_message *m)
{
    for (uint32_t id = 1; id < OTUS_SIP_NUM_HEADER_IDS; id++) {
        struct otus_sip_values values;
        struct otus_span value;
        otus_sip_values_init(&values, m, id);
        while (otus_sip_values_next(&values, &value))
            check_span(m, value);
    }
}

static struct otus_span first_value(const struct otus_sip_message *m, uint32_t id)
{
    return m->first[id] != 0 ? m->headers[m->first[id] - 1].value : (struct otus_span){0, 0};
}

static void check_address(const struct otus_lines *lines, const struct otus_sip_address *got,
                          struct otus_span value, bool is_list)
{
    struct otus_sip_address want;
    uint32_t end = value.off + value.len;
    uint32_t pos = otus_skip_space(lines->octets, value.off, end);
    (void)otus_sip_parse_any_address(&want, lines, &pos, end, is_list);
    expect(memcmp(got, &want, sizeof want) == 0);
}

/* The code for any value reads what the short ways read. */
static void check_plain(const struct otus_sip_parser *parser, const struct otus_sip_message *m)
{
    const struct otus_lines *lines = &parser->lines;
    struct otus_span via = first_value(m, OTUS_SIP_HEADER_VIA);
    struct otus_sip_via want;
    uint32_t pos = otus_skip_space(lines->octets, via.off, via.off + via.len);
    memset(&want, 0, sizeof want);
    if (m->first[OTUS_SIP_HEADER_VIA] != 0) {
        (void)otus_sip_parse_any_via(&want, lines, &pos, via.off + via.len);
        expect(memcmp(&m->via, &want, sizeof want) == 0);
    }
    if (m->first[OTUS_SIP_HEADER_FROM] != 0)
        check_address(lines, &m->from, first_value(m, OTUS_SIP_HEADER_FROM), false);
    if (m->first[OTUS_SIP_HEADER_TO] != 0)
        check_address(lines, &m->to, first_value(m, OTUS_SIP_HEADER_TO), false);
    if (m->first[OTUS_SIP_HEADER_CONTACT] != 0)
        check_address(lines, &m->contact, first_value(m, OTUS_SIP_HEADER_CONTACT), true);
}

/* The same octets by the portable scan give the same message. */
static void check_portable(struct otus_sip_parser *parser, const struct otus_sip_message *want,
                           const uint8_t *data, size_t size)
{
    struct otus_sip_message got;
    memset(&got, 0, sizeof got);
    parser->scan = otus_lines_scan_portable;
    expect(otus_sip_parse(parser, &got, data, (uint32_t)size, OTUS_SIP_ON_STREAM) == OTUS_OK);
    got.headers = want->headers;
    got.sdp = want->sdp == NULL ? NULL : got.sdp == NULL ? got.sdp : want->sdp;
    expect(memcmp(&got, want, sizeof got) == 0);
}

/* What a pipeline does with a message, which it moves to its arena first. */
static void use(const struct otus_sip_message *parsed)
{
    static uint8_t memory[1 << 21];
    struct otus_sip_message moved = *parsed;
    const struct otus_sip_message *m = &moved;
    expect(m->len < sizeof memory / 2);
    struct otus_arena arena = {memory, m->len, sizeof memory};
    memcpy(memory, m->octets, m->len);
    moved.octets = memory;
    struct otus_label_set labels;
    struct otus_slice value;
    otus_label_clear(&labels, memory);
    otus_sip_labels(m, (struct otus_slice){(const uint8_t *)"UDP", 3}, &labels, &arena);
    (void)!otus_sip_find_header(m, "X-Cid", 5, &value);
    (void)!otus_sip_find_header(m, "i", 1, &value);
    struct otus_flow_registry *registry;
    if (otus_flow_registry_new(&registry, 64, 1000) != OTUS_OK)
        return;
    otus_sip_register_media(registry, m, true, 1, NULL);
    otus_flow_registry_free(registry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct otus_sip_parser *fast, *plain;
    static struct otus_sip_message message;
    if (fast == NULL &&
        (otus_sip_parser_new(&fast) != OTUS_OK || otus_sip_parser_new(&plain) != OTUS_OK))
        abort();
    bool can_handle = otus_sip_can_handle(data, (uint32_t)size);
    memset(&message, 0, sizeof message);
    if (otus_sip_parse(fast, &message, data, (uint32_t)size, OTUS_SIP_ON_STREAM) != OTUS_OK)
        return 0;
    (void)can_handle;
    expect(message.len <= size);
    check_spans(&message);
    check_sdp(&message);
    check_values(&message);
    check_plain(fast, &message);
    use(&message);
    check_portable(plain, &message, data, size);
    return 0;
}
