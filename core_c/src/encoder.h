/* What both encoders keep between records. */
#ifndef OTUS_ENCODER_H
#define OTUS_ENCODER_H

#include "json_form.h"
#include "otus/encode.h"
#include "text.h"

enum {
    /* `"name":"` padded, so that it is copied without looking at its length. */
    ENCODER_LABEL_SLOT = 94,
    ENCODER_HEAD_STEP = 32,
};

struct encoder_label {
    uint8_t json[ENCODER_LABEL_SLOT]; /* `"sip.method":"` */
    uint8_t json_len;                 /* 0: the id has no name */
    uint8_t name_len;                 /* the name is json[1 .. 1 + name_len) */
};

static_assert(sizeof(struct encoder_label) % 32 == 0, "an index is a shift and an addition");

struct otus_encoder {
    const struct json_form *json;
    uint64_t second_ns; /* the second whose date is rendered */
    uint8_t date[OTUS_TEXT_SECOND];
    bool has_date;
    bool raw_payload;
    uint8_t *json_head; /* `Z","task_id":...,"src_ip":"`, read in whole steps */
    uint32_t json_head_len;
    uint8_t *protobuf_head; /* fields task_id, agent_id, pipeline_id */
    uint32_t protobuf_head_len;
    struct encoder_label labels[OTUS_MAX_LABELS];
};

/* Renders the envelope as Protobuf fields into a new block. */
OTUS_MUST_CHECK enum otus_status encoder_render_protobuf(struct otus_encoder *encoder,
                                                         const struct otus_envelope *envelope);

/* Static names, shared by the encoders. */
const char *encode_offer_answer(const struct otus_sip_message *message); /* NULL: neither */
const char *encode_direction(uint32_t direction);                        /* "sendrecv", ... */
/* The codec of a static payload type (RFC 3551 section 6); "" where there is none. */
const char *encode_static_codec(uint32_t payload_type);
const char *encode_payload_type_name(uint32_t payload_type); /* "raw", "sip", ...; "" for plugins */

/* A span of a message's octets, within which its parser has put it. */
static inline struct otus_slice encode_part(const uint8_t *octets, struct otus_span span)
{
    return (struct otus_slice){octets + span.off, span.len};
}

/* How many octets from at form a well-formed character (Unicode table 3-7), or
 * minus the number that a U+FFFD replaces. at < end, *at >= 0x80. */
int encode_utf8_character(const uint8_t *at, const uint8_t *end);

/* Whether an anomaly says that the start line is worth seeing as it came. */
static inline bool encode_start_line_deviates(const struct otus_sip_message *message)
{
    const uint64_t deviates = (uint64_t)1 << OTUS_SIP_ANOMALY_BAD_VERSION |
                              (uint64_t)1 << OTUS_SIP_ANOMALY_BAD_START_LINE |
                              (uint64_t)1 << OTUS_SIP_ANOMALY_BAD_REQUEST_URI |
                              (uint64_t)1 << OTUS_SIP_ANOMALY_BAD_STATUS_CODE;
    return (message->anomalies & deviates) != 0;
}

const char *encode_anomaly_name(uint32_t id);

/* RTP/AVP, UDP/TLS/RTP/SAVPF, TCP/RTP/AVP, ...: static payload types apply. */
bool encode_carries_rtp(const uint8_t *protocol, uint32_t len);

/* Whether octets are UTF-8 in full. */
bool encode_is_utf8(const uint8_t *octets, uint32_t len);

static inline uint64_t encode_base64_len(uint32_t len)
{
    return ((uint64_t)len + 2) / 3 * 4;
}

/* base64 (RFC 4648 section 4) of octets; out has room for encode_base64_len(). */
uint32_t encode_base64(uint8_t *out, const uint8_t *octets, uint32_t len);

/* The next piece of a folded header value: RFC 3261 7.3.1 reads a line end and
 * the white space around it as one space. *at moves on; false after the last. */
bool encode_next_line(struct otus_cursor *value, struct otus_cursor *out_line);

/* The next word between spaces; false after the last. */
bool encode_next_word(struct otus_cursor *list, struct otus_cursor *out_word);

#endif
