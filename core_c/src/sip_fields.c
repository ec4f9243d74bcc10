/* Values of header fields into the message: what is there, and what is wrong with it
 * (RFC 3261 20). */
#include <assert.h>
#include <stddef.h>

#include "sip_internal.h"

static inline struct otus_span span_of(uint32_t from, uint32_t to)
{
    return (struct otus_span){from, to - from};
}

static inline bool span_equals(const struct otus_lines *lines, struct otus_span span,
                               const char *lower, uint32_t len)
{
    return otus_equals_nocase(lines->octets + span.off, span.len, lower, len);
}

bool otus_sip_parse_number(uint64_t *out_number, const uint8_t *octets, struct otus_span value,
                           uint64_t max)
{
    enum { SAFE_DIGITS = 19 }; /* 10^19 - 1 is below 2^64 */
    const uint8_t *at = octets + value.off;
    uint64_t number = 0;
    uint32_t safe = value.len < SAFE_DIGITS ? value.len : SAFE_DIGITS;
    for (uint32_t i = 0; OTUS_LIKELY(i < safe); i++) {
        uint32_t digit = at[i] - (uint32_t)'0';
        if (digit > 9)
            return false;
        number = number * 10 + digit;
    }
    for (uint32_t i = safe; OTUS_UNLIKELY(i < value.len); i++) {
        uint64_t digit = at[i] - (uint64_t)'0';
        if (digit > 9 || max < digit || number > (max - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    if (value.len == 0 || number > max)
        return false;
    *out_number = number;
    return true;
}

/* RFC 3986 3.1: scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." ), then a colon. */
bool otus_sip_has_scheme(const uint8_t *octets, struct otus_span uri)
{
    const uint8_t *at = octets + uri.off;
    if (uri.len < 2 || !((at[0] | 0x20) >= 'a' && (at[0] | 0x20) <= 'z'))
        return false;
    for (uint32_t i = 1; i < uri.len; i++) {
        uint8_t lower = otus_lower(at[i]);
        if (lower == ':')
            return i + 1 < uri.len;
        if (!((lower >= 'a' && lower <= 'z') || otus_is_digit(lower) || lower == '+' ||
              lower == '-' || lower == '.'))
            return false;
    }
    return false;
}

static void flag_field(struct otus_sip_message *message, uint32_t flags,
                       enum otus_sip_anomaly anomaly)
{
    if (OTUS_LIKELY(flags == 0))
        return;
    if (flags & OTUS_SIP_FIELD_BAD)
        otus_sip_flag(message, anomaly);
    if (flags & OTUS_SIP_FIELD_UNTERMINATED)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_UNTERMINATED_QUOTE);
}

static void take_vias(struct otus_sip_message *message, const struct otus_lines *lines,
                      struct otus_span value, bool is_first)
{
    uint32_t pos = value.off;
    uint32_t end = value.off + value.len;
    uint32_t flags = 0;
    if (OTUS_LIKELY(is_first)) {
        flags = otus_sip_parse_via(&message->via, lines, &pos, end);
        /* RFC 3261 8.1.1.7: the branch starts with the cookie, and something must follow. */
        if (message->via.branch.len == 7 && span_equals(lines, message->via.branch, "z9hg4bk", 7))
            otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_BRANCH);
        if (OTUS_LIKELY(pos == end)) {
            flag_field(message, flags, OTUS_SIP_ANOMALY_BAD_VIA);
            return;
        }
        pos++; /* the comma */
    }
    do {
        struct otus_sip_via other;
        flags |= otus_sip_parse_via(&other, lines, &pos, end);
    } while (pos++ < end);
    flag_field(message, flags, OTUS_SIP_ANOMALY_BAD_VIA);
}

static bool spans_equal(const uint8_t *octets, struct otus_span a, struct otus_span b)
{
    return a.len == b.len && memcmp(octets + a.off, octets + b.off, a.len) == 0;
}

/* What stands in CSeq as a method; false where it is no token. RFC 3261 8.1.1.5: the method part
 * of CSeq MUST match that of the request. */
static bool take_cseq_method(struct otus_sip_message *message, const struct otus_lines *lines,
                             struct otus_span method)
{
    struct otus_sip_text text = {lines->octets, lines->len};
    uint8_t id = otus_sip_method_id(text, method);
    bool is_known = id != OTUS_SIP_METHOD_OTHER;
    message->cseq_method = method;
    if (!message->is_request)
        message->method_id = id;
    else if (method.len != 0 && (id != message->method_id ||
                                 (!is_known && !spans_equal(text.octets, method, message->method))))
        otus_sip_flag(message, OTUS_SIP_ANOMALY_CSEQ_METHOD_MISMATCH);
    return OTUS_LIKELY(is_known) ||
           otus_sip_is_token(text.octets, method.off, method.off + method.len);
}

/* RFC 3261 20.16: CSeq = 1*DIGIT LWS Method, below 2**32. A number stays readable whatever
 * stands behind it, and "1INVITE" has both. */
static void take_cseq(struct otus_sip_message *message, const struct otus_lines *lines,
                      struct otus_span value)
{
    uint32_t from = value.off;
    uint32_t end = value.off + value.len;
    uint32_t digits_end = from;
    while (digits_end < end && otus_is_digit(lines->octets[digits_end]))
        digits_end++;
    bool is_glued = false;
    if (OTUS_UNLIKELY(
            digits_end == from || digits_end == end ||
            (lines->octets[digits_end] != ' ' && !otus_is_space(lines->octets[digits_end])))) {
        uint32_t space = otus_find_mark4(lines, from, end, ' ', '\t', '\r', '\n');
        is_glued = space == end && digits_end != from;
        digits_end = space != end ? space : digits_end;
    }
    uint32_t method = otus_skip_space(lines->octets, digits_end, end);
    uint64_t number = 0;
    message->has_cseq =
        otus_sip_parse_number(&number, lines->octets, span_of(from, digits_end), UINT32_MAX);
    message->cseq = (uint32_t)number;
    if (!take_cseq_method(message, lines, span_of(method, end)) || is_glued || !message->has_cseq)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_CSEQ);
}

static void take_content_length(struct otus_sip_message *message, const struct otus_lines *lines,
                                struct otus_span value)
{
    uint64_t number;
    if (otus_sip_parse_number(&number, lines->octets, value, INT64_MAX))
        message->content_length = (int64_t)number;
    else
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_CONTENT_LENGTH);
}

/* RFC 3261 25.1: delta-seconds = 1*DIGIT; 20.19: between 0 and (2**32)-1. Retry-After may
 * go on with a comment and parameters. */
static void check_seconds(struct otus_sip_message *message, const struct otus_lines *lines,
                          struct otus_span value, bool may_go_on, enum otus_sip_anomaly anomaly)
{
    uint32_t end = value.off + value.len;
    if (may_go_on) {
        uint32_t stop = otus_find4(lines->octets, lines->len, value.off, end, ' ', '\t', '(', ';');
        value.len = otus_trim_space(lines->octets, value.off, stop) - value.off;
    }
    uint64_t number;
    if (!otus_sip_parse_number(&number, lines->octets, value, UINT32_MAX))
        otus_sip_flag(message, anomaly);
}

/* RFC 3261 20.17: SIP-date is rfc1123-date: "Sat, 13 Nov 2010 23:29:00 GMT". */
static bool is_date(const struct otus_lines *lines, struct otus_span value)
{
    static const char pattern[] = "aaa, dd aaa dddd dd:dd:dd GMT";
    if (value.len != sizeof pattern - 1)
        return false;
    for (uint32_t i = 0; i < value.len; i++) {
        uint8_t octet = lines->octets[value.off + i];
        uint8_t lower = otus_lower(octet);
        bool fits = pattern[i] == 'a'   ? lower >= 'a' && lower <= 'z'
                    : pattern[i] == 'd' ? otus_is_digit(octet)
                                        : octet == (uint8_t)pattern[i];
        if (!fits)
            return false;
    }
    return true;
}

/* RFC 3261 20.43: warn-code = 3DIGIT, then SP. */
static bool is_warning(const struct otus_lines *lines, struct otus_span value)
{
    const uint8_t *at = lines->octets + value.off;
    return value.len > 4 && otus_is_digit(at[0]) && otus_is_digit(at[1]) && otus_is_digit(at[2]) &&
           otus_is_space(at[3]);
}

/* RFC 3261 25.1: media-type = m-type SLASH m-subtype *(SEMI m-parameter) */
static bool is_content_type(const struct otus_lines *lines, struct otus_span value)
{
    uint32_t end = value.off + value.len;
    uint32_t stop = otus_find_mark(lines, value.off, end, ';');
    uint32_t slash = otus_find(lines->octets, lines->len, value.off, stop, '/');
    if (slash == stop)
        return false;
    uint32_t subtype = otus_skip_space(lines->octets, slash + 1, stop);
    return otus_sip_is_token(lines->octets, value.off,
                             otus_trim_space(lines->octets, value.off, slash)) &&
           otus_sip_is_token(lines->octets, subtype, otus_trim_space(lines->octets, subtype, stop));
}

static void take_call_id(struct otus_sip_message *message, const struct otus_lines *lines,
                         struct otus_span value)
{
    message->call_id = value;
    uint32_t end = value.off + value.len;
    if (value.len == 0 || otus_find_mark4(lines, value.off, end, ' ', '\t', '\r', '\n') != end)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_CALL_ID);
}

/* Fields that RFC 3261 20 lets stand once only and that tell messages apart. */
static const uint64_t single_fields =
    OTUS_SIP_BIT(OTUS_SIP_HEADER_FROM) | OTUS_SIP_BIT(OTUS_SIP_HEADER_TO) |
    OTUS_SIP_BIT(OTUS_SIP_HEADER_CALL_ID) | OTUS_SIP_BIT(OTUS_SIP_HEADER_CSEQ) |
    OTUS_SIP_BIT(OTUS_SIP_HEADER_CONTENT_LENGTH) | OTUS_SIP_BIT(OTUS_SIP_HEADER_CONTENT_TYPE) |
    OTUS_SIP_BIT(OTUS_SIP_HEADER_MAX_FORWARDS) | OTUS_SIP_BIT(OTUS_SIP_HEADER_EXPIRES) |
    OTUS_SIP_BIT(OTUS_SIP_HEADER_MIN_EXPIRES) | OTUS_SIP_BIT(OTUS_SIP_HEADER_RETRY_AFTER) |
    OTUS_SIP_BIT(OTUS_SIP_HEADER_DATE);

static_assert(OTUS_SIP_NUM_HEADER_IDS <= 64, "ids are bits of one number");

static inline bool has(const struct otus_sip_message *message, uint32_t id)
{
    return message->first[id] != 0;
}

/* The value of the first field of this id, which is there. */
static inline struct otus_span first_value(const struct otus_sip_message *message, uint32_t id)
{
    return message->headers[message->first[id] - 1].value;
}

/* The next field of the same id, NULL after the last. */
static inline const struct otus_sip_header *next_header(const struct otus_sip_message *message,
                                                        const struct otus_sip_header *header)
{
    return OTUS_UNLIKELY(header->next != 0) ? &message->headers[header->next] : NULL;
}

/* Fields that few messages have. */
static void take_rare_fields(struct otus_sip_message *message, const struct otus_lines *lines)
{
    if (has(message, OTUS_SIP_HEADER_EXPIRES))
        check_seconds(message, lines, first_value(message, OTUS_SIP_HEADER_EXPIRES), false,
                      OTUS_SIP_ANOMALY_BAD_EXPIRES);
    if (has(message, OTUS_SIP_HEADER_MIN_EXPIRES))
        check_seconds(message, lines, first_value(message, OTUS_SIP_HEADER_MIN_EXPIRES), false,
                      OTUS_SIP_ANOMALY_BAD_EXPIRES);
    if (has(message, OTUS_SIP_HEADER_RETRY_AFTER))
        check_seconds(message, lines, first_value(message, OTUS_SIP_HEADER_RETRY_AFTER), true,
                      OTUS_SIP_ANOMALY_BAD_RETRY_AFTER);
    if (has(message, OTUS_SIP_HEADER_DATE) &&
        !is_date(lines, first_value(message, OTUS_SIP_HEADER_DATE)))
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_DATE);
    if (!has(message, OTUS_SIP_HEADER_WARNING))
        return;
    const struct otus_sip_header *header =
        &message->headers[message->first[OTUS_SIP_HEADER_WARNING] - 1];
    for (; header != NULL; header = next_header(message, header))
        if (!is_warning(lines, header->value))
            otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_WARNING);
}

/* The first User-Agent or Server that says something. */
static void take_user_agent(struct otus_sip_message *message)
{
    uint32_t agent = message->first[OTUS_SIP_HEADER_USER_AGENT];
    uint32_t server = message->first[OTUS_SIP_HEADER_SERVER];
    uint32_t first = agent == 0 || (server != 0 && server < agent) ? server : agent;
    for (uint32_t i = first - 1; i < message->num_headers; i++) {
        const struct otus_sip_header *header = &message->headers[i];
        bool is_agent =
            header->id == OTUS_SIP_HEADER_USER_AGENT || header->id == OTUS_SIP_HEADER_SERVER;
        if (is_agent && header->value.len != 0) {
            message->user_agent = header->value;
            return;
        }
    }
}

/* Reads the first address of the fields of one id into *out_address, and says what is wrong with
 * all of them: a list's values behind commas, and the fields that repeat it. */
static inline uint32_t take_address(struct otus_sip_address *out_address,
                                    const struct otus_sip_message *message,
                                    const struct otus_lines *lines,
                                    const struct otus_sip_header *header, bool is_list)
{
    struct otus_sip_address other;
    uint32_t flags = 0;
    do {
        uint32_t pos = header->value.off;
        uint32_t end = pos + header->value.len;
        do {
            flags |= otus_sip_parse_address(out_address, lines, &pos, end, is_list);
            out_address = &other;
        } while (is_list && pos++ < end);
        header = is_list ? next_header(message, header) : NULL;
    } while (OTUS_UNLIKELY(header != NULL));
    return flags;
}

/* A loop, so that the code that reads an address is there once, and not behind a call. */
static void take_addresses(struct otus_sip_message *message, const struct otus_lines *lines)
{
    static const struct {
        uint8_t id;
        uint8_t anomaly;
        bool is_list;
        size_t at; /* in the message */
    } fields[] = {
        {OTUS_SIP_HEADER_FROM, OTUS_SIP_ANOMALY_BAD_FROM, false,
         offsetof(struct otus_sip_message, from)},
        {OTUS_SIP_HEADER_TO, OTUS_SIP_ANOMALY_BAD_TO, false, offsetof(struct otus_sip_message, to)},
        {OTUS_SIP_HEADER_CONTACT, OTUS_SIP_ANOMALY_BAD_CONTACT, true,
         offsetof(struct otus_sip_message, contact)},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        uint32_t first = message->first[fields[i].id];
        if (first == 0)
            continue;
        uint32_t flags = take_address((void *)((uint8_t *)message + fields[i].at), message, lines,
                                      &message->headers[first - 1], fields[i].is_list);
        flag_field(message, flags, (enum otus_sip_anomaly)fields[i].anomaly);
    }
}

static void take_all_vias(struct otus_sip_message *message, const struct otus_lines *lines)
{
    const struct otus_sip_header *header =
        &message->headers[message->first[OTUS_SIP_HEADER_VIA] - 1];
    for (bool is_first = true; header != NULL; header = next_header(message, header)) {
        take_vias(message, lines, header->value, is_first);
        is_first = false;
    }
}

void otus_sip_take_fields(struct otus_sip_message *message, const struct otus_lines *lines,
                          uint64_t repeated)
{
    uint64_t number;
    if (OTUS_LIKELY(has(message, OTUS_SIP_HEADER_VIA)))
        take_all_vias(message, lines);
    take_addresses(message, lines);
    if (OTUS_LIKELY(has(message, OTUS_SIP_HEADER_CALL_ID)))
        take_call_id(message, lines, first_value(message, OTUS_SIP_HEADER_CALL_ID));
    if (OTUS_LIKELY(has(message, OTUS_SIP_HEADER_CSEQ)))
        take_cseq(message, lines, first_value(message, OTUS_SIP_HEADER_CSEQ));
    if (OTUS_LIKELY(has(message, OTUS_SIP_HEADER_CONTENT_LENGTH)))
        take_content_length(message, lines, first_value(message, OTUS_SIP_HEADER_CONTENT_LENGTH));
    if (has(message, OTUS_SIP_HEADER_CONTENT_TYPE)) {
        message->content_type = first_value(message, OTUS_SIP_HEADER_CONTENT_TYPE);
        if (!is_content_type(lines, message->content_type))
            otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_CONTENT_TYPE);
    }
    if (OTUS_LIKELY(has(message, OTUS_SIP_HEADER_MAX_FORWARDS)) &&
        !otus_sip_parse_number(&number, lines->octets,
                               first_value(message, OTUS_SIP_HEADER_MAX_FORWARDS), 255))
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_MAX_FORWARDS);
    if (has(message, OTUS_SIP_HEADER_USER_AGENT) || has(message, OTUS_SIP_HEADER_SERVER))
        take_user_agent(message);
    const uint32_t *first = message->first;
    if (OTUS_UNLIKELY((first[OTUS_SIP_HEADER_EXPIRES] | first[OTUS_SIP_HEADER_MIN_EXPIRES] |
                       first[OTUS_SIP_HEADER_RETRY_AFTER] | first[OTUS_SIP_HEADER_DATE] |
                       first[OTUS_SIP_HEADER_WARNING]) != 0))
        take_rare_fields(message, lines);
    if (OTUS_UNLIKELY(repeated & single_fields))
        otus_sip_flag(message, OTUS_SIP_ANOMALY_DUPLICATE_HEADER);
}
