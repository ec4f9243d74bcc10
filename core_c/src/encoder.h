/* What both encoders keep between records. */
#ifndef OTUS_ENCODER_H
#define OTUS_ENCODER_H

#include "json_writer.h"
#include "otus/encode.h"

enum {
    /* `"name":"` padded to whole steps. */
    ENCODER_LABEL_SLOT = 80,
};

struct encoder_label {
    uint8_t json[ENCODER_LABEL_SLOT]; /* `"sip.method":"` */
    uint8_t json_len;                 /* 0: the id has no name */
    uint8_t name_len;                 /* the name is json[1 .. 1 + name_len) */
};

struct otus_encoder {
    uint64_t second; /* whose date is rendered */
    uint8_t date[OTUS_TEXT_SECOND];
    bool has_date;
    bool raw_payload;
    uint8_t *json_head; /* `Z","task_id":...,"pipeline_id":"..."` */
    uint32_t json_head_len;
    uint8_t *protobuf_head; /* fields task_id, agent_id, pipeline_id */
    uint32_t protobuf_head_len;
    struct encoder_label labels[OTUS_MAX_LABELS];
};

/* Renders the envelope as Protobuf fields into a new block. */
OTUS_MUST_CHECK enum otus_status encoder_render_protobuf(struct otus_encoder *encoder,
                                                         const struct otus_envelope *envelope);

/* The inside of the SIP payload's object, commas behind every member. */
void json_sip_members(struct json_writer *writer, const struct otus_sip_message *message);
void json_sdp_members(struct json_writer *writer, const struct otus_sdp *sdp, const uint8_t *octets,
                      uint32_t len);

/* Static names, shared by the encoders. */
const char *encode_offer_answer(const struct otus_sip_message *message); /* NULL: neither */
const char *encode_direction(uint32_t direction);                        /* "sendrecv", ... */
/* The codec of a static payload type (RFC 3551 section 6); "" where there is none. */
const char *encode_static_codec(uint32_t payload_type);
const char *encode_payload_type_name(uint32_t payload_type); /* "raw", "sip", ...; "" for plugins */

/* How many octets from at form a well-formed character (Unicode table 3-7), or
 * minus the number that a U+FFFD replaces. at < end, *at >= 0x80. */
int encode_utf8_character(const uint8_t *at, const uint8_t *end);

/* Whether an anomaly says that the start line is worth seeing as it came. */
bool encode_start_line_deviates(const struct otus_sip_message *message);
const char *encode_anomaly_name(uint32_t id);

/* RTP/AVP, UDP/TLS/RTP/SAVPF, TCP/RTP/AVP, ...: static payload types apply. */
bool encode_carries_rtp(const uint8_t *protocol, uint32_t len);

/* Whether octets are UTF-8 in full. */
bool encode_is_utf8(const uint8_t *octets, uint32_t len);

/* base64 (RFC 4648 section 4) of octets; out has room for 4 * ceil(len / 3). */
uint32_t encode_base64(uint8_t *out, const uint8_t *octets, uint32_t len);

/* The next piece of a folded header value: RFC 3261 7.3.1 reads a line end and
 * the white space around it as one space. *at moves on; false after the last. */
bool encode_next_line(struct otus_cursor *value, struct otus_cursor *out_line);

/* The next word between spaces; false after the last. */
bool encode_next_word(struct otus_cursor *list, struct otus_cursor *out_word);

#endif
