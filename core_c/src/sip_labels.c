/* Labels of a SIP message: see sip_labels.h. */
#include "otus/sip_labels.h"

#include <strings.h>

#include "sip_internal.h"

static struct otus_slice slice_of(const struct otus_sip_message *message, struct otus_span span)
{
    return (struct otus_slice){message->octets + span.off, span.len};
}

struct otus_slice otus_sip_unfold(struct otus_label_set *labels, struct otus_arena *arena,
                                  struct otus_slice value)
{
    if (OTUS_LIKELY(otus_find2(value.at, value.len, 0, value.len, '\r', '\n') == value.len))
        return value;
    uint8_t *at = otus_arena_take(arena, value.len);
    if (OTUS_UNLIKELY(at == NULL)) {
        labels->incomplete = true;
        return value;
    }
    uint32_t num = 0;
    for (uint32_t i = 0; i < value.len;) {
        uint32_t next = otus_skip_space(value.at, i, value.len);
        if (otus_find(value.at, value.len, i, next, '\n') != next) {
            at[num++] = ' ';
        } else { /* white space as it stands, or the octets up to the next */
            if (next == i)
                next = otus_find4(value.at, value.len, i, value.len, ' ', '\t', '\r', '\n');
            memcpy(at + num, value.at + i, next - i);
            num += next - i;
        }
        i = next;
    }
    arena->used -= value.len - num; /* unfolding never makes a value longer */
    return (struct otus_slice){at, num};
}

/* Labels as they are added: aside, since for all that the compiler knows each label stored may
 * change the set's numbers. */
struct added {
    struct otus_label *at; /* the next */
    uint32_t base;         /* of the message, in the arena */
    uint64_t present;
    uint64_t octets; /* of all values */
};

/* By rising id. Stores it whether the message has it or not, so that no branch asks what differs
 * from message to message; what is not there is stored over. */
static inline void add(struct added *added, uint32_t id, struct otus_span value)
{
    static_assert(OTUS_NUM_LABELS <= 64, "built-in labels are in the first word");
    size_t is_there = value.len != 0;
    added->at->id = id;
    added->at->off = added->base + value.off;
    added->at->len = value.len;
    added->at += is_there;
    added->present |= (uint64_t)is_there << id;
    added->octets += value.len;
}

/* As otus_label_copy(), of three octets nearly always: a call would take longer. */
static inline void add_transport(struct added *added, struct otus_label_set *labels,
                                 struct otus_arena *arena, struct otus_slice transport)
{
    uint32_t off = arena->used;
    uint8_t *at = otus_arena_take(arena, transport.len);
    if (OTUS_UNLIKELY(at == NULL)) {
        labels->incomplete = true;
        return;
    }
    if (OTUS_LIKELY(transport.len == 3))
        memcpy(at, transport.at, 3);
    else
        memcpy(at, transport.at, transport.len);
    add(added, OTUS_LABEL_SIP_TRANSPORT, (struct otus_span){off - added->base, transport.len});
}

/* Values without the line breaks that they have in the message. */
static __attribute__((noinline)) void unfold_labels(struct otus_label_set *labels,
                                                    struct otus_arena *arena)
{
    for (uint32_t i = 0; i < labels->num; i++) {
        struct otus_label *label = &labels->label[i];
        struct otus_slice value = otus_sip_unfold(labels, arena, otus_label_value(labels, label));
        labels->value_octets -= label->len - value.len; /* unfolding never makes it longer */
        label->off = (uint32_t)(value.at - labels->octets);
        label->len = value.len;
    }
}

/* A number as text in the arena; a span from `base` on. */
static __attribute__((noinline)) struct otus_span number_span(struct otus_label_set *labels,
                                                              struct otus_arena *arena,
                                                              uint32_t base, uint32_t number)
{
    uint8_t digits[10];
    uint32_t at = sizeof digits;
    do {
        digits[--at] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    uint32_t len = (uint32_t)sizeof digits - at;
    struct otus_span span;
    if (!otus_arena_put(arena, &span, (struct otus_slice){digits + at, len})) {
        labels->incomplete = true;
        return (struct otus_span){0, 0};
    }
    return (struct otus_span){span.off - base, len};
}

/* The number of the CSeq as it stands, where it stands in its shortest form. */
static inline struct otus_span cseq_span(const struct otus_sip_message *message,
                                         struct otus_label_set *labels, struct otus_arena *arena,
                                         uint32_t base)
{
    if (!message->has_cseq)
        return (struct otus_span){0, 0};
    struct otus_span value = message->headers[message->first[OTUS_SIP_HEADER_CSEQ] - 1].value;
    const uint8_t *at = message->octets + value.off;
    uint32_t len = 0;
    while (len < value.len && otus_is_digit(at[len]))
        len++;
    if (OTUS_UNLIKELY(len > 1 && at[0] == '0')) /* "0009" is 9 */
        return number_span(labels, arena, base, message->cseq);
    return (struct otus_span){value.off, len};
}

static inline struct otus_span status_code_span(const struct otus_sip_message *message,
                                                struct otus_label_set *labels,
                                                struct otus_arena *arena, uint32_t base)
{
    if (message->status_code == 0)
        return (struct otus_span){0, 0};
    /* Three digits behind the version: RFC 3261 7.2. */
    if (OTUS_LIKELY(message->status_code >= 100 &&
                    message->reason.off >= message->start_line.off + 4))
        return (struct otus_span){message->reason.off - 4, 3};
    return number_span(labels, arena, base, message->status_code);
}

/* To a set that is not empty: what the message does not have stays. */
static __attribute__((noinline)) void add_labels(const struct otus_sip_message *message,
                                                 struct otus_slice transport,
                                                 struct otus_label_set *out_labels,
                                                 struct otus_arena *arena)
{
    struct otus_label_set own;
    otus_label_clear(&own, out_labels->octets);
    otus_sip_labels(message, transport, &own, arena);
    for (uint32_t i = 0; i < own.num; i++)
        otus_label_put(out_labels, own.label[i].id, otus_label_value(&own, &own.label[i]));
    out_labels->incomplete |= own.incomplete;
}

void otus_sip_labels(const struct otus_sip_message *message, struct otus_slice transport,
                     struct otus_label_set *out_labels, struct otus_arena *arena)
{
    const struct otus_sip_message *m = message;
    if (OTUS_UNLIKELY(out_labels->num != 0)) {
        add_labels(message, transport, out_labels, arena);
        return;
    }
    struct added added = {out_labels->label, (uint32_t)(m->octets - out_labels->octets), 0, 0};
    add(&added, OTUS_LABEL_SIP_METHOD, m->method);
    add(&added, OTUS_LABEL_SIP_CALL_ID, m->call_id);
    add(&added, OTUS_LABEL_SIP_FROM_URI, m->from.uri);
    add(&added, OTUS_LABEL_SIP_TO_URI, m->to.uri);
    add(&added, OTUS_LABEL_SIP_STATUS_CODE, status_code_span(m, out_labels, arena, added.base));
    add(&added, OTUS_LABEL_SIP_REASON, m->reason);
    add(&added, OTUS_LABEL_SIP_CSEQ, cseq_span(m, out_labels, arena, added.base));
    add(&added, OTUS_LABEL_SIP_CSEQ_METHOD, m->cseq_method);
    add(&added, OTUS_LABEL_SIP_FROM_TAG, m->from.tag);
    add(&added, OTUS_LABEL_SIP_TO_TAG, m->to.tag);
    add(&added, OTUS_LABEL_SIP_REQUEST_URI, m->request_uri);
    add(&added, OTUS_LABEL_SIP_CONTACT_URI, m->contact.uri);
    add(&added, OTUS_LABEL_SIP_VIA_BRANCH, m->via.branch);
    add(&added, OTUS_LABEL_SIP_USER_AGENT, m->user_agent);
    add(&added, OTUS_LABEL_SIP_CONTENT_TYPE, m->content_type);
    add_transport(&added, out_labels, arena, transport);
    out_labels->num = (uint32_t)(added.at - out_labels->label);
    out_labels->present[0] = added.present;
    out_labels->value_octets = added.octets;
    if (OTUS_UNLIKELY(m->has_folds))
        unfold_labels(out_labels, arena);
}

/* The id of a name given as text, in either form; OTHER for an unknown one. */
static uint32_t id_of_name(const char *name, size_t name_len)
{
    for (uint32_t id = 1; id < OTUS_SIP_NUM_HEADER_IDS; id++) {
        const char *known = otus_sip_header_name(id);
        bool is_compact = name_len == 1 && otus_sip_header_compact(id) != 0 &&
                          otus_lower((uint8_t)name[0]) == (uint8_t)otus_sip_header_compact(id);
        if (is_compact || (strlen(known) == name_len && strncasecmp(known, name, name_len) == 0))
            return id;
    }
    return OTUS_SIP_HEADER_OTHER;
}

bool otus_sip_find_header(const struct otus_sip_message *message, const char *name, size_t name_len,
                          struct otus_slice *out_value)
{
    uint32_t id = id_of_name(name, name_len);
    if (message->first[id] == 0)
        return false;
    uint32_t index = message->first[id] - 1;
    for (;;) {
        const struct otus_sip_header *header = &message->headers[index];
        const char *at = (const char *)message->octets + header->name.off;
        if (id != OTUS_SIP_HEADER_OTHER ||
            (header->name.len == name_len && strncasecmp(at, name, name_len) == 0)) {
            *out_value = slice_of(message, header->value);
            return true;
        }
        if (header->next == 0)
            return false;
        index = header->next;
    }
}
