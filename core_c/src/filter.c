/* Runs a verified filter program over one packet. */
#include "filter_internal.h"
#include "text.h"

/* Text that is made for a test lives here until the test is done. */
struct scratch {
    uint8_t text[OTUS_TEXT_IP];
};

static struct otus_slice slice_of(const char *string)
{
    struct otus_slice slice = {(const uint8_t *)string, (uint32_t)strlen(string)};
    return slice;
}

static struct otus_slice network_string(const struct otus_filter_input *input, uint16_t field,
                                        struct scratch *scratch)
{
    const struct otus_packet_meta *meta = input->meta;
    struct otus_slice made = {scratch->text, 0};
    switch (field) {
    case FILTER_SRC_IP:
        made.len = otus_text_ip(scratch->text, meta->ip_version, meta->src_ip);
        return made;
    case FILTER_DST_IP:
        made.len = otus_text_ip(scratch->text, meta->ip_version, meta->dst_ip);
        return made;
    case FILTER_PROTOCOL:
        made.len = otus_text_protocol(scratch->text, meta->protocol);
        return made;
    case FILTER_TUNNEL:
        return slice_of(meta->num_tunnels == 0 ? ""
                                               : otus_tunnel_kind_name(input->tunnels[0].kind));
    default:
        return input->payload_type;
    }
}

static inline struct otus_slice string_operand(const struct otus_filter *filter,
                                               const struct otus_filter_input *input, uint8_t from,
                                               uint16_t index, struct scratch *scratch)
{
    if (OTUS_LIKELY(from == FILTER_FROM_STRINGS))
        return filter->strings[index];
    if (OTUS_LIKELY(from == FILTER_FROM_LABEL))
        return otus_label_text(input->labels, index);
    return network_string(input, index, scratch);
}

/* 1 to 18 digits, '-' allowed in front; -1 for anything else. */
static int64_t int_of_text(struct otus_slice text)
{
    uint32_t at = text.len != 0 && text.at[0] == '-';
    if (text.len - at - 1 >= 18)
        return -1;
    int64_t value = 0;
    for (uint32_t i = at; i < text.len; i++) {
        uint32_t digit = (uint32_t)text.at[i] - '0';
        if (digit > 9)
            return -1;
        value = value * 10 + digit;
    }
    return at != 0 ? -value : value;
}

static int64_t network_int(const struct otus_packet_meta *meta, uint16_t field)
{
    switch (field) {
    case FILTER_SRC_PORT:
        return meta->src_port;
    case FILTER_DST_PORT:
        return meta->dst_port;
    case FILTER_IP_VERSION:
        return meta->ip_version;
    case FILTER_TTL:
        return meta->ttl;
    case FILTER_VLAN:
        return meta->num_vlans == 0 ? 0 : meta->vlans[0];
    case FILTER_CAPLEN:
        return meta->caplen;
    default:
        return meta->wirelen;
    }
}

static inline int64_t int_operand(const struct otus_filter *filter,
                                  const struct otus_filter_input *input, uint8_t from,
                                  uint16_t index)
{
    if (OTUS_LIKELY(from == FILTER_FROM_INTS))
        return filter->ints[index];
    if (from == FILTER_FROM_NETWORK)
        return network_int(input->meta, index);
    return int_of_text(otus_label_text(input->labels, index));
}

/* memcmp() of no octets must not see NULL. */
static inline bool same_octets(const uint8_t *one, const uint8_t *other, uint32_t len)
{
    return len == 0 || memcmp(one, other, len) == 0;
}

static inline bool strings_equal(struct otus_slice left, struct otus_slice right)
{
    return left.len == right.len && same_octets(left.at, right.at, left.len);
}

static int compare_strings(struct otus_slice left, struct otus_slice right)
{
    uint32_t len = left.len < right.len ? left.len : right.len;
    int order = len == 0 ? 0 : memcmp(left.at, right.at, len);
    if (order != 0)
        return order;
    return left.len < right.len ? -1 : left.len > right.len;
}

static bool test_strings(uint8_t operation, struct otus_slice left, struct otus_slice right)
{
    switch (operation) {
    case FILTER_STRING_EQUAL:
        return strings_equal(left, right);
    case FILTER_STRING_BELOW:
        return compare_strings(left, right) < 0;
    case FILTER_STRING_AT_MOST:
        return compare_strings(left, right) <= 0;
    case FILTER_STARTS_WITH:
        return left.len >= right.len && same_octets(left.at, right.at, right.len);
    case FILTER_ENDS_WITH:
        return left.len >= right.len && (right.len == 0 || memcmp(left.at + (left.len - right.len),
                                                                  right.at, right.len) == 0);
    default:
        /* glibc's memmem is linear (two-way) for long needles. */
        return right.len == 0 ||
               (left.len >= right.len && memmem(left.at, left.len, right.at, right.len) != NULL);
    }
}

static bool string_in(const struct otus_filter *filter, const struct filter_list *list,
                      struct otus_slice text)
{
    for (uint32_t i = 0; i < list->num; i++) {
        if (strings_equal(text, filter->strings[list->first + i]))
            return true;
    }
    return false;
}

static bool int_in(const struct otus_filter *filter, const struct filter_list *list, int64_t value)
{
    for (uint32_t i = 0; i < list->num; i++) {
        if (filter->ints[list->first + i] == value)
            return true;
    }
    return false;
}

static bool ip_equals(const struct otus_packet_meta *meta, uint16_t field,
                      const struct filter_ip *ip)
{
    const uint8_t *octets = field == FILTER_SRC_IP ? meta->src_ip : meta->dst_ip;
    return meta->ip_version == ip->version &&
           memcmp(octets, ip->octets, ip->version == 4 ? 4 : 16) == 0;
}

static bool ip_in(const struct otus_filter *filter, const struct filter_list *list,
                  const struct otus_packet_meta *meta, uint16_t field)
{
    for (uint32_t i = 0; i < list->num; i++) {
        if (ip_equals(meta, field, &filter->ips[list->first + i]))
            return true;
    }
    return false;
}

static bool has_flag(const struct otus_packet_meta *meta, uint16_t field)
{
    uint32_t flag = field == FILTER_TRUNCATED ? OTUS_PACKET_TRUNCATED : OTUS_PACKET_REASSEMBLED;
    return (meta->flags & flag) != 0;
}

static bool test_string(const struct otus_filter *filter, const struct otus_filter_input *input,
                        const struct filter_instruction *one)
{
    struct scratch left_scratch, right_scratch;
    struct otus_slice left =
        string_operand(filter, input, one->left_from, one->left, &left_scratch);
    if (one->operation == FILTER_STRING_IN)
        return string_in(filter, &filter->lists[one->right], left);
    if (one->operation == FILTER_MATCHES)
        return filter_automaton_run(&filter->automata[one->right], left);
    struct otus_slice right =
        string_operand(filter, input, one->right_from, one->right, &right_scratch);
    return test_strings(one->operation, left, right);
}

static bool test_int(const struct otus_filter *filter, const struct otus_filter_input *input,
                     const struct filter_instruction *one)
{
    int64_t left = int_operand(filter, input, one->left_from, one->left);
    if (one->operation == FILTER_INT_IN)
        return int_in(filter, &filter->lists[one->right], left);
    int64_t right = int_operand(filter, input, one->right_from, one->right);
    if (one->operation == FILTER_INT_EQUAL)
        return left == right;
    return one->operation == FILTER_INT_BELOW ? left < right : left <= right;
}

/* Aside, so that otus_filter_run() has few registers to save. */
static __attribute__((noinline)) bool run_other(const struct otus_filter *filter,
                                                const struct otus_filter_input *input,
                                                const struct filter_instruction *one)
{
    switch (one->operation) {
    case FILTER_STRING_EQUAL:
    case FILTER_STRING_BELOW:
    case FILTER_STRING_AT_MOST:
    case FILTER_STRING_IN:
    case FILTER_STARTS_WITH:
    case FILTER_ENDS_WITH:
    case FILTER_CONTAINS:
    case FILTER_MATCHES:
        return test_string(filter, input, one);
    case FILTER_INT_EQUAL:
    case FILTER_INT_BELOW:
    case FILTER_INT_AT_MOST:
    case FILTER_INT_IN:
        return test_int(filter, input, one);
    case FILTER_IP_EQUAL:
        return ip_equals(input->meta, one->left, &filter->ips[one->right]);
    case FILTER_IP_IN:
        return ip_in(filter, &filter->lists[one->right], input->meta, one->left);
    case FILTER_HAS:
        return otus_label_has(input->labels, one->left);
    case FILTER_FLAG:
        return has_flag(input->meta, one->left);
    default:
        return true; /* ALWAYS */
    }
}

static inline bool run_one(const struct otus_filter *filter, const struct otus_filter_input *input,
                           const struct filter_instruction *one)
{
    if (OTUS_LIKELY(one->operation == FILTER_LABEL_IS))
        return strings_equal(otus_label_text(input->labels, one->left),
                             filter->strings[one->right]);
    if (OTUS_LIKELY(one->operation == FILTER_LABEL_INT_IS))
        return int_of_text(otus_label_text(input->labels, one->left)) == filter->ints[one->right];
    return run_other(filter, input, one);
}

bool otus_filter_run(const struct otus_filter *filter, const struct otus_filter_input *input)
{
    uint32_t at = 0;
    for (;;) {
        const struct filter_instruction *one = &filter->code[at];
        at = run_one(filter, input, one) ? one->holds : one->fails;
        if (at >= FILTER_FAILS)
            return at == FILTER_HOLDS;
    }
}
