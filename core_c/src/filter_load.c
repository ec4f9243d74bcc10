/* Reads and verifies filter programs. docs/internals/filter-bytecode.md is the
 * format; all numbers are little-endian. */
#include <stdio.h>
#include <stdlib.h>

#include "filter_internal.h"

struct loader {
    struct otus_filter *filter;
    struct otus_cursor at;
    char *message;
    size_t message_len;
};

static enum otus_status refuse(struct loader *loader, const char *what, uint32_t index)
{
    if (loader->message_len != 0)
        snprintf(loader->message, loader->message_len, "filter program: %s %u is invalid", what,
                 index);
    return OTUS_E_INVALID;
}

static bool read_le16(struct otus_cursor *at, uint16_t *out_value)
{
    uint8_t octets[2];
    if (!otus_cursor_copy(at, octets, sizeof octets))
        return false;
    *out_value = (uint16_t)(octets[0] | octets[1] << 8);
    return true;
}

static bool read_le32(struct otus_cursor *at, uint32_t *out_value)
{
    uint16_t low, high;
    if (!read_le16(at, &low) || !read_le16(at, &high))
        return false;
    *out_value = (uint32_t)high << 16 | low;
    return true;
}

static bool read_le64(struct otus_cursor *at, int64_t *out_value)
{
    uint32_t low, high;
    if (!read_le32(at, &low) || !read_le32(at, &high))
        return false;
    *out_value = (int64_t)((uint64_t)high << 32 | low);
    return true;
}

static enum otus_status read_head(struct loader *loader)
{
    struct otus_filter *filter = loader->filter;
    uint8_t magic[4];
    uint16_t version, reserved;
    struct otus_cursor *at = &loader->at;
    if (!otus_cursor_copy(at, magic, sizeof magic) || memcmp(magic, "OTUF", sizeof magic) != 0 ||
        !read_le16(at, &version) || version != 1 || !read_le16(at, &filter->num_code) ||
        !read_le16(at, &filter->num_strings) || !read_le16(at, &filter->num_ints) ||
        !read_le16(at, &filter->num_lists) || !read_le16(at, &filter->num_ips) ||
        !read_le16(at, &filter->num_automata) || !read_le16(at, &reserved))
        return refuse(loader, "header", 0);
    if (filter->num_code == 0 || filter->num_code > FILTER_MAX_INSTRUCTIONS ||
        filter->num_strings > FILTER_MAX_POOL || filter->num_ints > FILTER_MAX_POOL ||
        filter->num_lists > FILTER_MAX_POOL || filter->num_ips > FILTER_MAX_POOL ||
        filter->num_automata > FILTER_MAX_POOL)
        return refuse(loader, "header", 1);
    return OTUS_OK;
}

/* One more than asked for: an allocation of nothing may be NULL. */
static void *pool(uint32_t num, size_t size)
{
    return calloc((size_t)num + 1, size);
}

static enum otus_status take_memory(struct otus_filter *filter, size_t len)
{
    filter->code = pool(filter->num_code, sizeof *filter->code);
    filter->strings = pool(filter->num_strings, sizeof *filter->strings);
    filter->ints = pool(filter->num_ints, sizeof *filter->ints);
    filter->lists = pool(filter->num_lists, sizeof *filter->lists);
    filter->ips = pool(filter->num_ips, sizeof *filter->ips);
    filter->automata = pool(filter->num_automata, sizeof *filter->automata);
    filter->transitions = pool((uint32_t)(len / 2), sizeof *filter->transitions);
    bool whole = filter->code != NULL && filter->strings != NULL && filter->ints != NULL &&
                 filter->lists != NULL && filter->ips != NULL && filter->automata != NULL &&
                 filter->transitions != NULL;
    return whole ? OTUS_OK : OTUS_E_NOMEM;
}

static enum otus_status read_code(struct loader *loader)
{
    for (uint32_t i = 0; i < loader->filter->num_code; i++) {
        struct filter_instruction *one = &loader->filter->code[i];
        uint8_t reserved;
        uint16_t left, right, padding;
        if (!otus_cursor_u8(&loader->at, &one->operation) ||
            !otus_cursor_u8(&loader->at, &reserved) || !read_le16(&loader->at, &left) ||
            !read_le16(&loader->at, &right) || !read_le16(&loader->at, &one->holds) ||
            !read_le16(&loader->at, &one->fails) || !read_le16(&loader->at, &padding))
            return refuse(loader, "instruction", i);
        one->left_from = (uint8_t)(left >> 12);
        one->left = left & 0xfff;
        one->right_from = (uint8_t)(right >> 12);
        one->right = right & 0xfff;
    }
    return OTUS_OK;
}

static enum otus_status read_values(struct loader *loader)
{
    struct otus_filter *filter = loader->filter;
    struct otus_cursor *at = &loader->at;
    for (uint32_t i = 0; i < filter->num_strings; i++) {
        uint32_t len;
        struct otus_cursor text;
        if (!read_le32(at, &len) || !otus_cursor_take(at, &text, len))
            return refuse(loader, "string", i);
        filter->strings[i] = (struct otus_slice){text.at, len};
    }
    for (uint32_t i = 0; i < filter->num_ints; i++) {
        if (!read_le64(at, &filter->ints[i]))
            return refuse(loader, "number", i);
    }
    for (uint32_t i = 0; i < filter->num_lists; i++) {
        if (!read_le16(at, &filter->lists[i].first) || !read_le16(at, &filter->lists[i].num))
            return refuse(loader, "list", i);
    }
    for (uint32_t i = 0; i < filter->num_ips; i++) {
        struct filter_ip *ip = &filter->ips[i];
        if (!otus_cursor_u8(at, &ip->version) || !otus_cursor_copy(at, ip->octets, 16))
            return refuse(loader, "address", i);
    }
    return OTUS_OK;
}

static enum otus_status read_automata(struct loader *loader)
{
    uint16_t *transitions = loader->filter->transitions;
    for (uint32_t i = 0; i < loader->filter->num_automata; i++) {
        struct filter_automaton *one = &loader->filter->automata[i];
        uint16_t reserved;
        struct otus_cursor at_end;
        if (!read_le16(&loader->at, &one->num_states) ||
            !read_le16(&loader->at, &one->num_classes) || !read_le16(&loader->at, &one->start) ||
            !read_le16(&loader->at, &reserved) ||
            !otus_cursor_copy(&loader->at, one->classes, sizeof one->classes) ||
            !otus_cursor_take(&loader->at, &at_end, one->num_states))
            return refuse(loader, "automaton", i);
        one->accepts_at_end = at_end.at;
        one->next = transitions;
        uint32_t num = (uint32_t)one->num_states * one->num_classes;
        for (uint32_t k = 0; k < num; k++) {
            /* transitions has room for half of the program's octets. */
            if (!read_le16(&loader->at, transitions))
                return refuse(loader, "automaton", i);
            transitions++;
        }
        if (!filter_automaton_is_sound(one))
            return refuse(loader, "automaton", i);
    }
    return otus_cursor_left(&loader->at) == 0 ? OTUS_OK : refuse(loader, "end", 0);
}

static bool is_string(const struct otus_filter *filter, uint8_t from, uint16_t index)
{
    return (from == FILTER_FROM_LABEL && index < OTUS_MAX_LABELS) ||
           (from == FILTER_FROM_NETWORK && index < FILTER_NUM_STRING_FIELDS) ||
           (from == FILTER_FROM_STRINGS && index < filter->num_strings);
}

static bool is_int(const struct otus_filter *filter, uint8_t from, uint16_t index)
{
    return (from == FILTER_FROM_LABEL && index < OTUS_MAX_LABELS) ||
           (from == FILTER_FROM_NETWORK && index >= FILTER_SRC_PORT &&
            index < FILTER_END_OF_INT_FIELDS) ||
           (from == FILTER_FROM_INTS && index < filter->num_ints);
}

static bool is_ip(uint8_t from, uint16_t index)
{
    return from == FILTER_FROM_NETWORK && (index == FILTER_SRC_IP || index == FILTER_DST_IP);
}

static bool is_list(const struct otus_filter *filter, const struct filter_instruction *one,
                    uint32_t pool_len)
{
    if (one->right_from != 0 || one->right >= filter->num_lists)
        return false;
    const struct filter_list *list = &filter->lists[one->right];
    return (uint32_t)list->first + list->num <= pool_len;
}

static bool operands_are_sound(const struct otus_filter *filter,
                               const struct filter_instruction *one)
{
    bool left_string = is_string(filter, one->left_from, one->left);
    bool left_int = is_int(filter, one->left_from, one->left);
    switch ((enum filter_operation)one->operation) {
    case FILTER_ALWAYS:
        return true;
    case FILTER_HAS:
        return one->left_from == FILTER_FROM_LABEL && one->left < OTUS_MAX_LABELS;
    case FILTER_FLAG:
        return one->left_from == FILTER_FROM_NETWORK && one->left >= FILTER_TRUNCATED &&
               one->left < FILTER_END_OF_FLAGS;
    case FILTER_STRING_EQUAL:
    case FILTER_STRING_BELOW:
    case FILTER_STRING_AT_MOST:
    case FILTER_STARTS_WITH:
    case FILTER_ENDS_WITH:
    case FILTER_CONTAINS:
        return left_string && is_string(filter, one->right_from, one->right);
    case FILTER_STRING_IN:
        return left_string && is_list(filter, one, filter->num_strings);
    case FILTER_MATCHES:
        return left_string && one->right_from == 0 && one->right < filter->num_automata;
    case FILTER_INT_EQUAL:
    case FILTER_INT_BELOW:
    case FILTER_INT_AT_MOST:
        return left_int && is_int(filter, one->right_from, one->right);
    case FILTER_INT_IN:
        return left_int && is_list(filter, one, filter->num_ints);
    case FILTER_IP_EQUAL:
        return is_ip(one->left_from, one->left) && one->right_from == 0 &&
               one->right < filter->num_ips;
    case FILTER_IP_IN:
        return is_ip(one->left_from, one->left) && is_list(filter, one, filter->num_ips);
    case FILTER_NUM_OPERATIONS:
    case FILTER_LABEL_IS: /* the loader alone makes these */
    case FILTER_LABEL_INT_IS:
        break;
    }
    return false;
}

/* Forward only: so a run ends after at most num_code tests. */
static bool target_is_sound(const struct otus_filter *filter, uint32_t from, uint16_t target)
{
    return target == FILTER_HOLDS || target == FILTER_FAILS ||
           (target > from && target < filter->num_code);
}

static enum otus_status verify(struct loader *loader)
{
    for (uint32_t i = 0; i < loader->filter->num_code; i++) {
        const struct filter_instruction *one = &loader->filter->code[i];
        if (!target_is_sound(loader->filter, i, one->holds) ||
            !target_is_sound(loader->filter, i, one->fails) ||
            !operands_are_sound(loader->filter, one))
            return refuse(loader, "instruction", i);
    }
    return OTUS_OK;
}

/* Tests of a shape that is run without a look at its operands. */
static void specialize(struct otus_filter *filter)
{
    for (uint32_t i = 0; i < filter->num_code; i++) {
        struct filter_instruction *one = &filter->code[i];
        if (one->left_from != FILTER_FROM_LABEL)
            continue;
        if (one->operation == FILTER_STRING_EQUAL && one->right_from == FILTER_FROM_STRINGS)
            one->operation = FILTER_LABEL_IS;
        else if (one->operation == FILTER_INT_EQUAL && one->right_from == FILTER_FROM_INTS)
            one->operation = FILTER_LABEL_INT_IS;
    }
}

static enum otus_status load(struct loader *loader, size_t len)
{
    enum otus_status status = read_head(loader);
    if (status == OTUS_OK)
        status = take_memory(loader->filter, len);
    if (status == OTUS_OK)
        status = read_code(loader);
    if (status == OTUS_OK)
        status = read_values(loader);
    if (status == OTUS_OK)
        status = read_automata(loader);
    if (status == OTUS_OK)
        status = verify(loader);
    if (status == OTUS_OK)
        specialize(loader->filter);
    return status;
}

enum otus_status otus_filter_load(struct otus_filter **out_filter, char *message,
                                  size_t message_len, const uint8_t *program, size_t len)
{
    struct loader loader = {.message = message, .message_len = message_len};
    if (message_len != 0)
        message[0] = '\0';
    if (len > FILTER_MAX_PROGRAM)
        return refuse(&loader, "length", FILTER_MAX_PROGRAM);
    struct otus_filter *filter = calloc(1, sizeof *filter);
    uint8_t *octets = malloc(len + 1);
    if (filter == NULL || octets == NULL) {
        free(filter);
        free(octets);
        return OTUS_E_NOMEM;
    }
    if (len != 0)
        memcpy(octets, program, len);
    filter->octets = octets;
    loader.filter = filter;
    loader.at = otus_cursor_of(octets, len);
    enum otus_status status = load(&loader, len);
    if (status != OTUS_OK) {
        otus_filter_free(filter);
        return status;
    }
    *out_filter = filter;
    return OTUS_OK;
}

void otus_filter_free(struct otus_filter *filter)
{
    if (filter == NULL)
        return;
    free(filter->octets);
    free(filter->transitions);
    free(filter->code);
    free(filter->strings);
    free(filter->ints);
    free(filter->lists);
    free(filter->ips);
    free(filter->automata);
    free(filter);
}
