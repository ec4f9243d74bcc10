/* Labels: short strings by which a packet is filtered, routed and found again.
 *
 * A label has a small integer id. The ids below OTUS_NUM_LABELS are built in;
 * those above belong to the pipeline that interned them (headers that a task
 * asked for, tags, labels of Python plugins). */
#ifndef OTUS_LABELS_H
#define OTUS_LABELS_H

#include "otus/cursor.h"

/* X(id, name, type): type is STRING or INT; it is what filter expressions see.
 * Values are always text. SPEC section 2 fixes the names. */
#define OTUS_LABELS(X)                                                                             \
    X(SIP_METHOD, "sip.method", STRING)                                                            \
    X(SIP_CALL_ID, "sip.call_id", STRING)                                                          \
    X(SIP_FROM_URI, "sip.from_uri", STRING)                                                        \
    X(SIP_TO_URI, "sip.to_uri", STRING)                                                            \
    X(SIP_STATUS_CODE, "sip.status_code", INT)                                                     \
    X(SIP_REASON, "sip.reason", STRING)                                                            \
    X(SIP_CSEQ, "sip.cseq", INT)                                                                   \
    X(SIP_CSEQ_METHOD, "sip.cseq_method", STRING)                                                  \
    X(SIP_FROM_TAG, "sip.from_tag", STRING)                                                        \
    X(SIP_TO_TAG, "sip.to_tag", STRING)                                                            \
    X(SIP_REQUEST_URI, "sip.request_uri", STRING)                                                  \
    X(SIP_CONTACT_URI, "sip.contact_uri", STRING)                                                  \
    X(SIP_VIA_BRANCH, "sip.via_branch", STRING)                                                    \
    X(SIP_USER_AGENT, "sip.user_agent", STRING)                                                    \
    X(SIP_CONTENT_TYPE, "sip.content_type", STRING)                                                \
    X(SIP_TRANSPORT, "sip.transport", STRING)                                                      \
    X(RTP_CALL_ID, "rtp.call_id", STRING)                                                          \
    X(RTP_SSRC, "rtp.ssrc", INT)                                                                   \
    X(RTP_PAYLOAD_TYPE, "rtp.payload_type", INT)                                                   \
    X(RTCP_CALL_ID, "rtcp.call_id", STRING)                                                        \
    X(RTCP_SSRC, "rtcp.ssrc", INT)                                                                 \
    X(RTCP_PACKET_TYPE, "rtcp.packet_type", INT)

enum otus_label_id {
#define OTUS_LABEL_ENUM(id, name, type) OTUS_LABEL_##id,
    OTUS_LABELS(OTUS_LABEL_ENUM)
#undef OTUS_LABEL_ENUM
        OTUS_NUM_LABELS,
};

enum {
    OTUS_MAX_LABELS = 128,    /* ids a pipeline can hold, built-in ones included */
    OTUS_MAX_LABEL_NAME = 63, /* octets of a label's name */
};

enum otus_label_type {
    OTUS_LABEL_STRING = 0,
    OTUS_LABEL_INT = 1,
};

/* The labels of the packet in hand. value[id] is meaningful where present has
 * bit id; octets are borrowed from the packet or the arena. */
struct otus_label_set {
    uint64_t present[OTUS_MAX_LABELS / 64];
    struct otus_slice value[OTUS_MAX_LABELS];
};

static inline bool otus_label_has(const struct otus_label_set *set, uint32_t id)
{
    return (set->present[id / 64] >> (id % 64)) & 1;
}

static inline void otus_label_put(struct otus_label_set *set, uint32_t id, struct otus_slice value)
{
    set->present[id / 64] |= (uint64_t)1 << (id % 64);
    set->value[id] = value;
}

static inline void otus_label_clear(struct otus_label_set *set)
{
    memset(set->present, 0, sizeof set->present);
}

/* Name and type of a built-in label; NULL above OTUS_NUM_LABELS. Static storage. */
const char *otus_label_name(uint32_t id);
enum otus_label_type otus_label_type(uint32_t id);

/* One label of a record, as it lies in a batch's arena. Python reads this layout. */
struct otus_label {
    uint32_t id;
    uint32_t off; /* of the value, in the arena */
    uint32_t len;
};

#endif
