/* A SIP message and its parse, put together by hand: encoder tests must not
 * depend on the parser. */
#ifndef OTUS_TEST_ENCODE_SAMPLE_H
#define OTUS_TEST_ENCODE_SAMPLE_H

#include <string.h>

#include "otus/encode.h"

static const char sample_text[] = "INVITE sip:bob@example.net SIP/2.0\r\n"
                                  "Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKx;rport\r\n"
                                  "f: \"A \\\"l\\\" ice\" <sip:alice@example.com>;tag=a1\r\n"
                                  "To: <sip:bob@example.net>\r\n"
                                  "Call-ID: c1@10.0.0.1\r\n"
                                  "CSeq: 7 INVITE\r\n"
                                  "Subject: one\r\n\t two\r\n"
                                  "X-Note: \xc3\xa9 and \xff\r\n"
                                  "Content-Type: application/sdp\r\n"
                                  "Content-Length: 75\r\n"
                                  "\r\n"
                                  "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\n"
                                  "c=IN IP4 10.0.0.1\r\nm=audio 4000 RTP/AVP 0 101\r\n";

struct sample {
    const uint8_t *octets;
    uint32_t len;
    struct otus_sip_header headers[16];
    struct otus_sdp sdp;
    struct otus_sip_message message;
    struct otus_packet_meta meta;
    struct otus_label_set labels;
    struct otus_encode_input input;
};

/* Where needle stands for the first time; a span of nothing where it does not. */
static inline struct otus_span sample_find(const struct sample *sample, const char *needle)
{
    struct otus_span none = {0, 0};
    const uint8_t *at = memmem(sample->octets, sample->len, needle, strlen(needle));
    if (at == NULL)
        return none;
    struct otus_span span = {(uint32_t)(at - sample->octets), (uint32_t)strlen(needle)};
    return span;
}

static inline void sample_label(struct sample *sample, uint32_t id, struct otus_span span)
{
    struct otus_slice slice = {sample->octets + span.off, span.len};
    otus_label_put(&sample->labels, id, slice);
}

static inline void sample_header(struct sample *sample, uint16_t id, const char *name,
                                 const char *value, bool folded)
{
    uint32_t index = sample->message.num_headers++;
    sample->headers[index] = (struct otus_sip_header){
        .name = sample_find(sample, name),
        .value = sample_find(sample, value),
        .id = id,
        .folded = folded,
    };
    if (sample->message.first[id] == 0)
        sample->message.first[id] = index + 1;
}

static inline void sample_headers(struct sample *sample)
{
    sample_header(sample, OTUS_SIP_HEADER_VIA, "Via",
                  "SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKx;rport", false);
    sample_header(sample, OTUS_SIP_HEADER_FROM, "f",
                  "\"A \\\"l\\\" ice\" <sip:alice@example.com>;tag=a1", false);
    sample_header(sample, OTUS_SIP_HEADER_TO, "To", "<sip:bob@example.net>", false);
    sample_header(sample, OTUS_SIP_HEADER_CALL_ID, "Call-ID", "c1@10.0.0.1", false);
    sample_header(sample, OTUS_SIP_HEADER_CSEQ, "CSeq", "7 INVITE", false);
    sample_header(sample, OTUS_SIP_HEADER_SUBJECT, "Subject", "one\r\n\t two", true);
    sample_header(sample, OTUS_SIP_HEADER_OTHER, "X-Note", "\xc3\xa9 and \xff", false);
    sample_header(sample, OTUS_SIP_HEADER_CONTENT_TYPE, "Content-Type", "application/sdp", false);
    sample_header(sample, OTUS_SIP_HEADER_CONTENT_LENGTH, "Content-Length", "75", false);
}

static inline void sample_sdp(struct sample *sample)
{
    sample->sdp.origin = sample_find(sample, "- 1 1 IN IP4 10.0.0.1");
    sample->sdp.session_name = (struct otus_span){sample_find(sample, "s=-").off + 2, 1};
    sample->sdp.num_media = 1;
    sample->sdp.num_codecs = 2;
    struct otus_span connection = sample_find(sample, "c=IN IP4 10.0.0.1");
    sample->sdp.address = (struct otus_span){connection.off + 9, 8};
    sample->sdp.media[0] = (struct otus_sdp_media){
        .media = sample_find(sample, "audio"),
        .protocol = sample_find(sample, "RTP/AVP"),
        .address = sample->sdp.address,
        .port = 4000,
        .num_ports = 1,
        .rtcp_port = 4001,
        .num_codecs = 2,
    };
    sample->sdp.codecs[1].payload_type = 101;
}

/* octets: a copy of sample_text. */
static inline void sample_fill(struct sample *sample, const uint8_t *octets, uint32_t len)
{
    memset(sample, 0, sizeof *sample);
    sample->octets = octets;
    sample->len = len;
    struct otus_sip_message *message = &sample->message;
    message->octets = octets;
    message->len = len;
    message->is_request = true;
    message->method_id = OTUS_SIP_METHOD_INVITE;
    message->cseq = 7;
    message->start_line = sample_find(sample, "INVITE sip:bob@example.net SIP/2.0");
    message->method = sample_find(sample, "INVITE");
    message->request_uri = sample_find(sample, "sip:bob@example.net");
    message->call_id = sample_find(sample, "c1@10.0.0.1");
    message->cseq_method = sample_find(sample, "INVITE");
    message->from.display_name = sample_find(sample, "A \\\"l\\\" ice");
    message->from.uri = sample_find(sample, "sip:alice@example.com");
    message->from.params = sample_find(sample, ";tag=a1");
    message->from.tag = sample_find(sample, "a1");
    message->to.uri = message->request_uri;
    message->via.transport = sample_find(sample, "UDP");
    message->via.sent_by = sample_find(sample, "10.0.0.1:5060");
    message->via.branch = sample_find(sample, "z9hG4bKx");
    message->via.has_rport = true;
    message->content_type = sample_find(sample, "application/sdp");
    message->content_length = 75;
    uint32_t body = sample_find(sample, "v=0").off;
    message->body = (struct otus_span){body, len - body};
    message->headers = sample->headers;
    sample_headers(sample);
    sample_sdp(sample);
    message->sdp = &sample->sdp;
    sample->meta = (struct otus_packet_meta){
        .ts_ns = 1795508917000000042,
        .caplen = 600,
        .wirelen = 700,
        .flags = OTUS_PACKET_TRUNCATED | OTUS_PACKET_TRANSPORT,
        .src_port = 5060,
        .dst_port = 80,
        .ip_version = 4,
        .protocol = 17,
        .src_ip = {10, 0, 0, 1},
        .dst_ip = {192, 168, 100, 255},
    };
    otus_label_clear(&sample->labels, octets);
    sample_label(sample, OTUS_LABEL_SIP_METHOD, message->method);
    sample_label(sample, OTUS_LABEL_SIP_CALL_ID, message->call_id);
    sample->input = (struct otus_encode_input){
        .meta = &sample->meta,
        .labels = &sample->labels,
        .payload_type = OTUS_PAYLOAD_SIP,
        .payload = {octets, len},
        .sip = message,
    };
}

#endif
