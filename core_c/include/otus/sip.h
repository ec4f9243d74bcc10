/* SIP messages (RFC 3261 and common extensions), parsed leniently into spans.
 *
 * Every span is relative to the message's first octet. A span of length 0 at
 * offset 0 means absent. Defects never stop the parse where a reading exists:
 * they are named in `anomalies`. */
#ifndef OTUS_SIP_H
#define OTUS_SIP_H

#include <stdbool.h>

#include "otus/cursor.h"
#include "otus/sdp.h"

/* Methods with an id; any other token is OTUS_SIP_METHOD_OTHER.
 * RFC 3261, 3262, 3265/6665, 3311, 3428, 3515, 3903, 6086. */
/* clang-format off */
#define OTUS_SIP_METHODS(X) \
    X(INVITE) X(ACK) X(BYE) X(CANCEL) X(OPTIONS) X(REGISTER) X(PRACK) \
    X(SUBSCRIBE) X(NOTIFY) X(PUBLISH) X(INFO) X(REFER) X(MESSAGE) X(UPDATE)
/* clang-format on */

enum otus_sip_method {
    OTUS_SIP_METHOD_OTHER = 0,
#define OTUS_SIP_METHOD_ENUM(name) OTUS_SIP_METHOD_##name,
    OTUS_SIP_METHODS(OTUS_SIP_METHOD_ENUM)
#undef OTUS_SIP_METHOD_ENUM
};

/* Header fields with an id: X(id, name, compact form or 0). */
#define OTUS_SIP_HEADERS(X)                                                                        \
    X(VIA, "Via", 'v')                                                                             \
    X(FROM, "From", 'f')                                                                           \
    X(TO, "To", 't')                                                                               \
    X(CALL_ID, "Call-ID", 'i')                                                                     \
    X(CSEQ, "CSeq", 0)                                                                             \
    X(CONTACT, "Contact", 'm')                                                                     \
    X(CONTENT_LENGTH, "Content-Length", 'l')                                                       \
    X(CONTENT_TYPE, "Content-Type", 'c')                                                           \
    X(CONTENT_ENCODING, "Content-Encoding", 'e')                                                   \
    X(MAX_FORWARDS, "Max-Forwards", 0)                                                             \
    X(ROUTE, "Route", 0)                                                                           \
    X(RECORD_ROUTE, "Record-Route", 0)                                                             \
    X(USER_AGENT, "User-Agent", 0)                                                                 \
    X(SERVER, "Server", 0)                                                                         \
    X(REASON, "Reason", 0)                                                                         \
    X(P_ASSERTED_IDENTITY, "P-Asserted-Identity", 0)                                               \
    X(SESSION_ID, "Session-ID", 0)                                                                 \
    X(SUPPORTED, "Supported", 'k')                                                                 \
    X(SUBJECT, "Subject", 's')                                                                     \
    X(REFER_TO, "Refer-To", 'r')                                                                   \
    X(REFERRED_BY, "Referred-By", 'b')                                                             \
    X(EVENT, "Event", 'o')                                                                         \
    X(ALLOW_EVENTS, "Allow-Events", 'u')                                                           \
    X(SESSION_EXPIRES, "Session-Expires", 'x')                                                     \
    X(ACCEPT_CONTACT, "Accept-Contact", 'a')                                                       \
    X(REJECT_CONTACT, "Reject-Contact", 'j')                                                       \
    X(REQUEST_DISPOSITION, "Request-Disposition", 'd')                                             \
    X(IDENTITY, "Identity", 'y')                                                                   \
    X(EXPIRES, "Expires", 0)                                                                       \
    X(WARNING, "Warning", 0)                                                                       \
    X(DATE, "Date", 0)                                                                             \
    X(RETRY_AFTER, "Retry-After", 0)                                                               \
    X(MIN_EXPIRES, "Min-Expires", 0)                                                               \
    X(IDENTITY_INFO, "Identity-Info", 'n')                                                         \
    X(ALLOW, "Allow", 0)                                                                           \
    X(REQUIRE, "Require", 0)                                                                       \
    X(PROXY_REQUIRE, "Proxy-Require", 0)                                                           \
    X(ACCEPT, "Accept", 0)                                                                         \
    X(AUTHORIZATION, "Authorization", 0)                                                           \
    X(WWW_AUTHENTICATE, "WWW-Authenticate", 0)                                                     \
    X(RSEQ, "RSeq", 0)                                                                             \
    X(RACK, "RAck", 0)                                                                             \
    X(DIVERSION, "Diversion", 0)                                                                   \
    X(CONTENT_DISPOSITION, "Content-Disposition", 0)

enum otus_sip_header_id {
    OTUS_SIP_HEADER_OTHER = 0,
#define OTUS_SIP_HEADER_ENUM(id, name, compact) OTUS_SIP_HEADER_##id,
    OTUS_SIP_HEADERS(OTUS_SIP_HEADER_ENUM)
#undef OTUS_SIP_HEADER_ENUM
        OTUS_SIP_NUM_HEADER_IDS,
};

/* What is wrong with a message: X(id, name, meaning). Reported in the payload. */
#define OTUS_SIP_ANOMALIES(X)                                                                      \
    X(BAD_VERSION, "bad_version", "SIP version is not 2.0")                                        \
    X(BAD_START_LINE, "bad_start_line", "superfluous white space or malformed start line")         \
    X(BAD_REQUEST_URI, "bad_request_uri", "Request-URI is no URI, or is in angle brackets")        \
    X(BAD_STATUS_CODE, "bad_status_code", "status code is not three digits 100 to 699")            \
    X(BARE_LF, "bare_lf", "lines end in LF alone")                                                 \
    X(NO_HEADER_END, "no_header_end", "no empty line after the header fields")                     \
    X(BAD_HEADER_LINE, "bad_header_line", "a header line without a colon or with a bad name")      \
    X(MISSING_VIA, "missing_via", "no Via")                                                        \
    X(MISSING_FROM, "missing_from", "no From")                                                     \
    X(MISSING_TO, "missing_to", "no To")                                                           \
    X(MISSING_CALL_ID, "missing_call_id", "no Call-ID")                                            \
    X(MISSING_CSEQ, "missing_cseq", "no CSeq")                                                     \
    X(DUPLICATE_HEADER, "duplicate_header", "a header field that may stand once is repeated")      \
    X(BAD_VIA, "bad_via", "Via can't be read")                                                     \
    X(BAD_FROM, "bad_from", "From can't be read as an address")                                    \
    X(BAD_TO, "bad_to", "To can't be read as an address")                                          \
    X(BAD_CONTACT, "bad_contact", "Contact can't be read as addresses")                            \
    X(BAD_CSEQ, "bad_cseq", "CSeq is no 32-bit number and method")                                 \
    X(CSEQ_METHOD_MISMATCH, "cseq_method_mismatch", "CSeq method differs from the request's")      \
    X(BAD_CONTENT_LENGTH, "bad_content_length", "Content-Length is no number")                     \
    X(MISSING_CONTENT_LENGTH, "missing_content_length", "no Content-Length on a stream")           \
    X(BODY_TRUNCATED, "body_truncated", "fewer octets than Content-Length says")                   \
    X(BODY_TRAILING, "body_trailing", "more octets than Content-Length says")                      \
    X(UNTERMINATED_QUOTE, "unterminated_quote", "a quoted string or < never ends")                 \
    X(BAD_SDP, "bad_sdp", "SDP lines that can't be read")                                          \
    X(TOO_MANY_HEADERS, "too_many_headers", "header fields beyond the parser's memory")            \
    X(TRUNCATED, "truncated", "captured short")                                                    \
    X(CONTROL_OCTETS, "control_octets", "NUL or control octets, or a lone CR, in the header")      \
    X(BAD_CALL_ID, "bad_call_id", "Call-ID is empty or holds white space")                         \
    X(BAD_BRANCH, "bad_branch", "topmost Via branch is the magic cookie and nothing more")         \
    X(BAD_MAX_FORWARDS, "bad_max_forwards", "Max-Forwards is no number from 0 to 255")             \
    X(BAD_EXPIRES, "bad_expires", "Expires or Min-Expires is no number below 2^32")                \
    X(BAD_DATE, "bad_date", "Date is no RFC 1123 date in GMT")                                     \
    X(BAD_WARNING, "bad_warning", "Warning has no three-digit code")                               \
    X(BAD_RETRY_AFTER, "bad_retry_after", "Retry-After is no number below 2^32")                   \
    X(BAD_CONTENT_TYPE, "bad_content_type", "Content-Type is no type/subtype")                     \
    X(MISSING_CONTENT_TYPE, "missing_content_type", "a body without Content-Type")                 \
    X(MISSING_FROM_TAG, "missing_from_tag", "From without a tag (RFC 2543)")                       \
    X(MISSING_MAX_FORWARDS, "missing_max_forwards", "a request without Max-Forwards")              \
    X(BAD_MULTIPART, "bad_multipart", "multipart body without boundary or without its end")

enum otus_sip_anomaly {
#define OTUS_SIP_ANOMALY_ENUM(id, name, meaning) OTUS_SIP_ANOMALY_##id,
    OTUS_SIP_ANOMALIES(OTUS_SIP_ANOMALY_ENUM)
#undef OTUS_SIP_ANOMALY_ENUM
        OTUS_SIP_NUM_ANOMALIES,
};

struct otus_sip_header {
    struct otus_span name;
    struct otus_span
        value;       /* white space around it and the line end cut off; folds inside remain */
    uint16_t id;     /* enum otus_sip_header_id */
    uint16_t folded; /* 1: value holds line breaks that the reader must unfold */
    uint32_t next;   /* index of the next header of this id, 0 where none (0 is never a next) */
};

/* From, To, Contact, ...: name-addr or addr-spec with parameters (RFC 3261 25.1). */
struct otus_sip_address {
    struct otus_span display_name; /* quotes cut off, escapes inside remain */
    struct otus_span uri;          /* without angle brackets */
    struct otus_span params;       /* header parameters, from the first ';' on */
    struct otus_span tag;
};

struct otus_sip_via {
    struct otus_span transport; /* "UDP" of "SIP/2.0/UDP" */
    struct otus_span sent_by;   /* host[:port] */
    struct otus_span branch;
    struct otus_span received;
    struct otus_span rport; /* value; present and empty when requested only: see has_rport */
    bool has_rport;
};

struct otus_sip_message {
    const uint8_t *octets; /* borrowed from the caller of otus_sip_parse() */
    uint32_t len;          /* of header and body; trailing octets are not part of it */
    bool is_request;
    bool has_folds;       /* a header value holds line breaks: see otus_sip_header.folded */
    uint8_t method_id;    /* enum otus_sip_method; of the CSeq in a response */
    uint16_t status_code; /* 0 for a request, and where it isn't three digits */
    uint32_t cseq;        /* 0 where has_cseq is false */
    bool has_cseq;        /* CSeq has a number below 2^32 */
    struct otus_span start_line;
    struct otus_span method; /* of a request */
    struct otus_span request_uri;
    struct otus_span reason; /* of a response */
    struct otus_span call_id;
    struct otus_span cseq_method;
    struct otus_sip_address from;
    struct otus_sip_address to;
    struct otus_sip_address contact; /* the first; uri "*" possible */
    struct otus_sip_via via;         /* topmost */
    struct otus_span user_agent;     /* or Server in a response */
    struct otus_span content_type;
    struct otus_span body;
    int64_t content_length;                /* -1 where the field is missing or unreadable */
    uint64_t anomalies;                    /* bit (1 << enum otus_sip_anomaly) */
    const struct otus_sip_header *headers; /* in the order of the message */
    uint32_t num_headers;
    uint32_t first[OTUS_SIP_NUM_HEADER_IDS]; /* index + 1 of the first of each id, 0: none */
    const struct otus_sdp *sdp;              /* NULL where the body holds none */
    bool is_delayed_offer; /* false; for who knows the call: see otus_sip_is_delayed_offer() */
};

/* Memory that parses reuse: header and SDP arrays. One owner at a time. */
struct otus_sip_parser;

OTUS_MUST_CHECK enum otus_status otus_sip_parser_new(struct otus_sip_parser **out_parser);
void otus_sip_parser_free(struct otus_sip_parser *parser); /* NULL-safe */

/* Whether these octets start a SIP message: a token and " ... SIP/" or "SIP/".
 * Looks at few octets, allocates nothing, knows no ports. */
bool otus_sip_can_handle(const uint8_t *octets, uint32_t len);

enum otus_sip_parse_flag {
    OTUS_SIP_ON_STREAM = 1 << 0, /* Content-Length is mandatory there (RFC 3261 18.3) */
    OTUS_SIP_TRUNCATED = 1 << 1, /* the capture cut the datagram short */
};

/* Parses one message.
 *
 * Returns OTUS_OK with *out_message filled, defects named in anomalies;
 * OTUS_E_MALFORMED where there is no start line to speak of: *out_message then
 * holds nothing to rely on.
 *
 * Lifetime: out_message borrows octets and the parser's arrays until the next
 * call on the parser. */
OTUS_MUST_CHECK enum otus_status otus_sip_parse(struct otus_sip_parser *parser,
                                                struct otus_sip_message *out_message,
                                                const uint8_t *octets, uint32_t len,
                                                uint32_t flags);

/* A walk over the values of one header field: its fields in the order of the message,
 * those that commas join (RFC 3261 7.3.1) one by one. Commas in quotes and angle brackets
 * join nothing. */
struct otus_sip_values {
    const struct otus_sip_message *message;
    uint32_t header; /* index + 1 of the field in hand, 0: none left */
    uint32_t pos;    /* in the message */
};

void otus_sip_values_init(struct otus_sip_values *out_values,
                          const struct otus_sip_message *message, uint32_t id);
/* False when there are no more. White space around a value is cut off. */
OTUS_MUST_CHECK bool otus_sip_values_next(struct otus_sip_values *values,
                                          struct otus_span *out_value);

const char *otus_sip_header_name(uint32_t id);  /* canonical long form; NULL for OTHER */
char otus_sip_header_compact(uint32_t id);      /* lower-case compact form, 0 where none */
const char *otus_sip_anomaly_name(uint32_t id); /* NULL beyond the last */
const char *otus_sip_anomaly_meaning(uint32_t id);

/* Where a message ends in a stream (RFC 3261 18.3): *out_len octets from the start.
 * Returns OTUS_E_PARTIAL until the header and the body are there (*out_len: how long the
 * message will be, 0 while the header has no end), OTUS_E_MALFORMED where no SIP message
 * starts here, OTUS_E_LIMIT where the message would be longer than max_len. */
OTUS_MUST_CHECK enum otus_status otus_sip_frame(uint32_t *out_len, const uint8_t *octets,
                                                uint32_t len, uint32_t max_len);

#endif
