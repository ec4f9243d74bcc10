/* Messages that the SIP tests share. */
#ifndef OTUS_TEST_SIP_SAMPLE_H
#define OTUS_TEST_SIP_SAMPLE_H

#include "check.h"
#include "otus/sip.h"

#define SAMPLE_SDP                                                                                 \
    "v=0\r\n"                                                                                      \
    "o=- 1 1 IN IP4 192.0.2.1\r\n"                                                                 \
    "s=-\r\n"                                                                                      \
    "c=IN IP4 192.0.2.1\r\n"                                                                       \
    "t=0 0\r\n"                                                                                    \
    "m=audio 4000 RTP/AVP 0 101\r\n"                                                               \
    "a=rtpmap:101 telephone-event/8000\r\n"

/* 126 octets of SDP above. */
#define SAMPLE_HEAD                                                                                \
    "INVITE sip:bob@example.com SIP/2.0\r\n"                                                       \
    "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\n"                                    \
    "Via: SIP/2.0/TCP [2001:db8::1], SIP/2.0/TLS last.example.com\r\n"                             \
    "Max-Forwards: 70\r\n"                                                                         \
    "From: \"Alice, \\\"A\\\"\" <sip:alice@example.com>;tag=from1\r\n"                             \
    "To: <tel:+1-201-555-0123>\r\n"                                                                \
    "Call-ID: call-1@192.0.2.1\r\n"                                                                \
    "CSeq: 314159 INVITE\r\n"                                                                      \
    "Contact: <sip:alice@192.0.2.1>;expires=60, \"x, y\" <sip:b@[::1]>\r\n"                        \
    "User-Agent: sample\r\n"                                                                       \
    "X-Cid: other call\r\n"

#define SAMPLE_INVITE                                                                              \
    SAMPLE_HEAD "Content-Type: application/sdp\r\nContent-Length: 126\r\n\r\n" SAMPLE_SDP

static inline struct otus_sip_parser *sample_parser(void)
{
    struct otus_sip_parser *parser = NULL;
    CHECK(otus_sip_parser_new(&parser) == OTUS_OK);
    return parser;
}

static inline bool has_anomaly(const struct otus_sip_message *message, enum otus_sip_anomaly id)
{
    return (message->anomalies >> id & 1) != 0;
}

#define CHECK_SPAN(message, span, want) CHECK_TEXT((message)->octets + (span).off, (span).len, want)

#endif
