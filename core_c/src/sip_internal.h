/* What the parts of the SIP parser share. */
#ifndef OTUS_SIP_INTERNAL_H
#define OTUS_SIP_INTERNAL_H

#include "lines.h"
#include "octet_search.h"
#include "otus/sip.h"

enum {
    /* The shortest header field is "a:" and LF, so no message of 64 KiB, whatever it
     * holds, has more. */
    OTUS_SIP_MAX_HEADERS = 65536 / 3 + 1,
    OTUS_SIP_NAME_SLOTS = 128,
    OTUS_SIP_NAME_WORDS = 3, /* of eight octets: the longest name is 19 */
    OTUS_SIP_MAX_MULTIPART_DEPTH = 4,
};

/* A header name as it is compared: `fold` sets the case bit of letters only. */
struct otus_sip_name {
    uint64_t word[OTUS_SIP_NAME_WORDS];
    uint64_t fold[OTUS_SIP_NAME_WORDS];
    uint64_t mask[OTUS_SIP_NAME_WORDS];
    uint32_t len;
    uint32_t id;
};

struct otus_sip_names {
    uint8_t slot[OTUS_SIP_NAME_SLOTS]; /* index + 1 into name, by hash; 0: none */
    struct otus_sip_name name[OTUS_SIP_NUM_HEADER_IDS];
    uint8_t compact[32]; /* header id by the letter's low five bits */
};

struct otus_sip_parser {
    otus_lines_scan scan;
    struct otus_sip_header *headers;
    uint32_t max_headers;
    uint32_t last[OTUS_SIP_NUM_HEADER_IDS]; /* of each id seen in this message */
    struct otus_sip_names names;
    struct otus_lines lines;
    struct otus_sdp sdp;
};

/* Octets of a message with the length that bounds every read. */
struct otus_sip_text {
    const uint8_t *octets;
    uint32_t len;
};

static inline void otus_sip_flag(struct otus_sip_message *message, enum otus_sip_anomaly anomaly)
{
    message->anomalies |= (uint64_t)1 << anomaly;
}

/* --- sip_names.c --- */
void otus_sip_names_init(struct otus_sip_names *out_names);

/* The id of a name of len octets at off, in whichever case and form. */
uint32_t otus_sip_name_id(const struct otus_sip_names *names, struct otus_sip_text text,
                          uint32_t off, uint32_t len);
uint8_t otus_sip_method_id(struct otus_sip_text text, struct otus_span method);

/* RFC 3261 25.1 token. */
bool otus_sip_is_token_octet(uint8_t octet);
bool otus_sip_is_token(struct otus_sip_text text, uint32_t from, uint32_t to);

/* --- sip_start_line.c --- */
/* Reads the line into out_message; false where it starts no SIP message. */
bool otus_sip_parse_start_line(struct otus_sip_message *out_message, struct otus_sip_text text,
                               struct otus_span line);

/* --- sip_fields.c --- */
/* One `;name[=value]` of a header field. */
struct otus_sip_param {
    struct otus_span name;
    struct otus_span value; /* quotes included */
    bool has_value;
};

enum otus_sip_field_flag {
    OTUS_SIP_FIELD_BAD = 1 << 0,
    OTUS_SIP_FIELD_UNTERMINATED = 1 << 1,
};

/* Reads one address from value and moves *pos behind it: to the comma that ends
 * it or to the value's end. Returns bits of enum otus_sip_field_flag. */
uint32_t otus_sip_parse_address(struct otus_sip_address *out_address, struct otus_sip_text text,
                                uint32_t *pos, uint32_t end, bool is_list);
uint32_t otus_sip_parse_via(struct otus_sip_via *out_via, struct otus_sip_text text, uint32_t *pos,
                            uint32_t end);

/* 1*DIGIT up to max; false on anything else. */
bool otus_sip_parse_number(uint64_t *out_number, struct otus_sip_text text, struct otus_span value,
                           uint64_t max);
bool otus_sip_is_uri(struct otus_sip_text text, struct otus_span uri);

/* Fills the message's field of this header and names what is wrong with it. */
void otus_sip_take_field(struct otus_sip_message *message, struct otus_sip_text text,
                         const struct otus_sip_header *header, bool is_first);

/* --- sip_body.c --- */
/* Limits the body by Content-Length and reads the SDP in it. */
void otus_sip_take_body(struct otus_sip_parser *parser, struct otus_sip_message *message,
                        uint32_t body_off, uint32_t flags);

/* --- sdp.c --- */
/* As otus_sdp_parse(), over lines that are scanned already; lines->start is the body's. */
void otus_sdp_parse_lines(struct otus_sdp *out_sdp, struct otus_lines *lines,
                          struct otus_span body);

#endif
