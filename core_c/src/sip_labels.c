/* Labels of a SIP message: see sip_labels.h. */
#include "otus/sip_labels.h"

#include <strings.h>

#include "sip_internal.h"

static struct otus_slice slice_of(const struct otus_sip_message *message, struct otus_span span)
{
    return (struct otus_slice){message->octets + span.off, span.len};
}

struct otus_slice otus_sip_unfold(struct otus_arena *arena, struct otus_slice value)
{
    if (OTUS_LIKELY(otus_find2(value.at, value.len, 0, value.len, '\r', '\n') == value.len))
        return value;
    if (otus_arena_left(arena) < value.len)
        return value;
    uint8_t *at = otus_arena_take(arena, value.len);
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

/* Whether it is there or not, so that no branch asks what differs from message to message;
 * returns its bit in the set where it is. */
static inline uint64_t put_span(const struct otus_sip_message *message,
                                struct otus_label_set *labels, uint32_t id, struct otus_span span)
{
    static_assert(OTUS_NUM_LABELS <= 64, "built-in labels are in the first word");
    labels->value[id] = slice_of(message, span);
    return (uint64_t)(span.len != 0) << id;
}

/* Values without the line breaks that they have in the message. */
static __attribute__((noinline)) void unfold_labels(struct otus_label_set *labels,
                                                    struct otus_arena *arena, uint64_t ids)
{
    for (; ids != 0; ids &= ids - 1) {
        struct otus_slice *value = &labels->value[__builtin_ctzll(ids)];
        *value = otus_sip_unfold(arena, *value);
    }
}

static void put_number(struct otus_label_set *labels, struct otus_arena *arena, uint32_t id,
                       uint32_t number)
{
    uint8_t digits[10];
    uint32_t at = sizeof digits;
    do {
        digits[--at] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    uint32_t len = (uint32_t)sizeof digits - at;
    uint8_t *copy = otus_arena_take(arena, len);
    if (copy == NULL)
        return;
    memcpy(copy, digits + at, len);
    otus_label_put(labels, id, (struct otus_slice){copy, len});
}

/* The number of the CSeq as it stands, where it stands in its shortest form. */
static void put_cseq(const struct otus_sip_message *message, struct otus_label_set *labels,
                     struct otus_arena *arena)
{
    if (!message->has_cseq)
        return;
    struct otus_span value = message->headers[message->first[OTUS_SIP_HEADER_CSEQ] - 1].value;
    const uint8_t *at = message->octets + value.off;
    uint32_t len = 0;
    while (len < value.len && otus_is_digit(at[len]))
        len++;
    if (len > 1 && at[0] == '0') /* "0009" is 9 */
        put_number(labels, arena, OTUS_LABEL_SIP_CSEQ, message->cseq);
    else
        otus_label_put(labels, OTUS_LABEL_SIP_CSEQ, (struct otus_slice){at, len});
}

static void put_status_code(const struct otus_sip_message *message, struct otus_label_set *labels,
                            struct otus_arena *arena)
{
    if (message->status_code == 0)
        return;
    /* Three digits behind the version: RFC 3261 7.2. */
    const uint8_t *code = message->octets + message->reason.off - 4;
    if (message->status_code >= 100 && message->reason.off >= message->start_line.off + 4)
        otus_label_put(labels, OTUS_LABEL_SIP_STATUS_CODE, (struct otus_slice){code, 3});
    else
        put_number(labels, arena, OTUS_LABEL_SIP_STATUS_CODE, message->status_code);
}

/* To a set that is not empty: what the message does not have stays. */
static void add_labels(const struct otus_sip_message *message, struct otus_slice transport,
                       struct otus_label_set *out_labels, struct otus_arena *arena)
{
    struct otus_label_set own;
    otus_label_clear(&own);
    otus_sip_labels(message, transport, &own, arena);
    for (uint64_t ids = own.present[0]; ids != 0; ids &= ids - 1) {
        uint32_t id = (uint32_t)__builtin_ctzll(ids);
        otus_label_put(out_labels, id, own.value[id]);
    }
}

void otus_sip_labels(const struct otus_sip_message *message, struct otus_slice transport,
                     struct otus_label_set *out_labels, struct otus_arena *arena)
{
    const struct otus_sip_message *m = message;
    if (OTUS_UNLIKELY(out_labels->present[0] != 0)) {
        add_labels(message, transport, out_labels, arena);
        return;
    }
    uint64_t put = 0;
    if (m->is_request) {
        put |= put_span(m, out_labels, OTUS_LABEL_SIP_METHOD, m->method);
        put |= put_span(m, out_labels, OTUS_LABEL_SIP_REQUEST_URI, m->request_uri);
    } else {
        put_status_code(m, out_labels, arena);
        put |= put_span(m, out_labels, OTUS_LABEL_SIP_REASON, m->reason);
    }
    put |= put_span(m, out_labels, OTUS_LABEL_SIP_CALL_ID, m->call_id);
    put |= put_span(m, out_labels, OTUS_LABEL_SIP_FROM_URI, m->from.uri);
    put |= put_span(m, out_labels, OTUS_LABEL_SIP_FROM_TAG, m->from.tag);
    put |= put_span(m, out_labels, OTUS_LABEL_SIP_TO_URI, m->to.uri);
    put |= put_span(m, out_labels, OTUS_LABEL_SIP_TO_TAG, m->to.tag);
    put |= put_span(m, out_labels, OTUS_LABEL_SIP_CSEQ_METHOD, m->cseq_method);
    put |= put_span(m, out_labels, OTUS_LABEL_SIP_CONTACT_URI, m->contact.uri);
    put |= put_span(m, out_labels, OTUS_LABEL_SIP_VIA_BRANCH, m->via.branch);
    put |= put_span(m, out_labels, OTUS_LABEL_SIP_USER_AGENT, m->user_agent);
    put |= put_span(m, out_labels, OTUS_LABEL_SIP_CONTENT_TYPE, m->content_type);
    if (OTUS_UNLIKELY(m->has_folds))
        unfold_labels(out_labels, arena, put);
    out_labels->present[0] |= put;
    put_cseq(m, out_labels, arena);
    if (transport.len != 0)
        otus_label_put(out_labels, OTUS_LABEL_SIP_TRANSPORT, transport);
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
