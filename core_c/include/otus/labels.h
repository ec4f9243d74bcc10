/* Labels: short strings by which a packet is filtered, routed and found again.
 *
 * A label has a small integer id. The ids below OTUS_NUM_LABELS are built in;
 * those above belong to the pipeline that interned them (headers that a task
 * asked for, tags, labels of Python plugins). */
#ifndef OTUS_LABELS_H
#define OTUS_LABELS_H

#include "otus/arena.h"

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

/* One label of a record, as it lies in a batch's arena. Python reads this layout. */
struct otus_label {
    uint32_t id;
    uint32_t off; /* of the value, in the arena */
    uint32_t len;
};

/* Not every processor that this is compiled for counts bits by an instruction. */
static inline uint32_t otus_count_bits(uint64_t bits)
{
    bits -= bits >> 1 & 0x5555555555555555u;
    bits = (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
    bits = (bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (uint32_t)(bits * 0x0101010101010101u >> 56);
}

/* The labels of the packet in hand, as its record will hold them: their values lie in the arena,
 * where the message does, and are named by offsets from its base. */
struct otus_label_set {
    const uint8_t *octets; /* the arena's base */
    uint64_t present[OTUS_MAX_LABELS / 64];
    uint64_t value_octets; /* of all values together */
    uint32_t num;
    bool incomplete; /* a value found no room in the arena: the record has none either */
    struct otus_label label[OTUS_MAX_LABELS]; /* num of them, by rising id */
};

static inline bool otus_label_has(const struct otus_label_set *set, uint32_t id)
{
    return (set->present[id / 64] >> (id % 64)) & 1;
}

/* Where the label of an id is, or would be, among those of the set. */
static inline uint32_t otus_label_place(const struct otus_label_set *set, uint32_t id)
{
    uint32_t below = otus_count_bits(set->present[id / 64] & (((uint64_t)1 << id % 64) - 1));
    return OTUS_LIKELY(id < 64) ? below : below + otus_count_bits(set->present[0]);
}

/* NULL where it is not present. */
static inline const struct otus_label *otus_label_find(const struct otus_label_set *set,
                                                       uint32_t id)
{
    return otus_label_has(set, id) ? &set->label[otus_label_place(set, id)] : NULL;
}

static inline struct otus_slice otus_label_value(const struct otus_label_set *set,
                                                 const struct otus_label *label)
{
    return (struct otus_slice){set->octets + label->off, label->len};
}

/* The value of an id, empty where it is not present. Whether it is differs from packet to packet,
 * so that no branch asks. */
static inline struct otus_slice otus_label_text(const struct otus_label_set *set, uint32_t id)
{
    const struct otus_label *label = &set->label[otus_label_place(set, id)];
    uint32_t mask = 0 - (uint32_t)otus_label_has(set, id);
    return (struct otus_slice){set->octets + (label->off & mask), label->len & mask};
}

/* Takes all labels out. octets: the base of the arena that values will lie in. */
static inline void otus_label_clear(struct otus_label_set *set, const uint8_t *octets)
{
    set->octets = octets;
    memset(set->present, 0, sizeof set->present);
    set->value_octets = 0;
    set->num = 0;
    set->incomplete = false;
}

/* Puts a value that lies in the arena, in place of another where there is one. */
void otus_label_put(struct otus_label_set *set, uint32_t id, struct otus_slice value);
/* The same for a value that lies elsewhere and is copied into the arena first. */
void otus_label_copy(struct otus_label_set *set, struct otus_arena *arena, uint32_t id,
                     struct otus_slice value);

/* Name and type of a built-in label; NULL above OTUS_NUM_LABELS. Static storage. */
const char *otus_label_name(uint32_t id);
enum otus_label_type otus_label_type(uint32_t id);

#endif
