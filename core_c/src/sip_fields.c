/* Values of header fields: addresses, Via, CSeq, numbers (RFC 3261 20 and 25.1). */
#include <assert.h>

#include "sip_internal.h"

static inline struct otus_span span_of(uint32_t from, uint32_t to)
{
    return (struct otus_span){from, to - from};
}

/* A display name; {0, 0} where there is nothing. */
static inline struct otus_span name_span(uint32_t from, uint32_t to)
{
    return from == to ? (struct otus_span){0, 0} : span_of(from, to);
}

static inline bool span_equals(struct otus_sip_text text, struct otus_span span, const char *lower,
                               uint32_t len)
{
    return otus_equals_nocase(text.octets + span.off, span.len, lower, len);
}

bool otus_sip_parse_number(uint64_t *out_number, struct otus_sip_text text, struct otus_span value,
                           uint64_t max)
{
    uint64_t number = 0;
    for (uint32_t i = 0; i < value.len; i++) {
        uint8_t octet = text.octets[value.off + i];
        if (!otus_is_digit(octet))
            return false;
        uint64_t digit = (uint64_t)(octet - '0');
        if (number > (max - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *out_number = number;
    return value.len != 0;
}

/* RFC 3986 3.1: scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." ), then a colon. */
bool otus_sip_is_uri(struct otus_sip_text text, struct otus_span uri)
{
    const uint8_t *at = text.octets + uri.off;
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

/* Where the quoted string that starts at from (its quote) ends: at the closing quote, or at
 * to where there is none. RFC 3261 25.1: quoted-pair = "\" (%x00-09 / ...). */
static uint32_t find_closing_quote(struct otus_sip_text text, uint32_t from, uint32_t to)
{
    uint32_t at = from + 1;
    for (;;) {
        at = otus_find2(text.octets, text.len, at, to, '"', '\\');
        if (at >= to || text.octets[at] == '"')
            return at;
        at = to - at < 2 ? to : at + 2;
    }
}

/* Reads the parameter whose ';' stands at *pos and moves *pos to what ends it: ';', ','
 * or the end. Returns bits of enum otus_sip_field_flag. */
static uint32_t next_param(struct otus_sip_param *out_param, struct otus_sip_text text,
                           uint32_t *pos, uint32_t end)
{
    const uint8_t *octets = text.octets;
    uint32_t name = otus_skip_space(octets, *pos + 1, end);
    uint32_t stop = otus_find3(octets, text.len, name, end, '=', ';', ',');
    uint32_t name_end = otus_trim_space(octets, name, stop);
    *out_param = (struct otus_sip_param){.name = span_of(name, name_end)};
    *pos = stop;
    uint32_t flags = name_end == name ? OTUS_SIP_FIELD_BAD : 0;
    if (stop == end || octets[stop] != '=')
        return flags;

    uint32_t value = otus_skip_space(octets, stop + 1, end);
    uint32_t value_end = value;
    if (value < end && octets[value] == '"') {
        uint32_t quote = find_closing_quote(text, value, end);
        if (quote == end) {
            *pos = end;
            out_param->value = span_of(value, end);
            return flags | OTUS_SIP_FIELD_BAD | OTUS_SIP_FIELD_UNTERMINATED;
        }
        value_end = quote + 1;
        stop = otus_find2(octets, text.len, value_end, end, ';', ',');
        if (otus_trim_space(octets, value_end, stop) != value_end)
            flags |= OTUS_SIP_FIELD_BAD;
    } else {
        stop = otus_find2(octets, text.len, value, end, ';', ',');
        value_end = otus_trim_space(octets, value, stop);
        if (value_end == value)
            flags |= OTUS_SIP_FIELD_BAD;
    }
    out_param->value = span_of(value, value_end);
    out_param->has_value = true;
    *pos = stop;
    return flags;
}

/* tag of From and To, expires of Contact (RFC 3261 20.10: delta-seconds). */
static uint32_t take_address_param(struct otus_sip_address *address, struct otus_sip_text text,
                                   const struct otus_sip_param *param)
{
    uint64_t number;
    if (param->name.len == 3 && address->tag.len == 0 && span_equals(text, param->name, "tag", 3))
        address->tag = param->value;
    else if (param->name.len == 7 && span_equals(text, param->name, "expires", 7) &&
             !otus_sip_parse_number(&number, text, param->value, UINT32_MAX))
        return OTUS_SIP_FIELD_BAD;
    return 0;
}

/* Parameters of an address from *pos on, where a ';' stands. */
static uint32_t parse_address_params(struct otus_sip_address *address, struct otus_sip_text text,
                                     uint32_t *pos, uint32_t end)
{
    uint32_t flags = 0;
    uint32_t start = *pos;
    while (*pos < end && text.octets[*pos] == ';') {
        struct otus_sip_param param;
        flags |= next_param(&param, text, pos, end);
        flags |= take_address_param(address, text, &param);
    }
    address->params = span_of(start, otus_trim_space(text.octets, start, *pos));
    return flags;
}

/* What stands between '<' at *pos and its '>'. */
static uint32_t parse_bracketed_uri(struct otus_sip_address *address, struct otus_sip_text text,
                                    uint32_t *pos, uint32_t end)
{
    uint32_t flags = 0;
    uint32_t from = *pos + 1;
    uint32_t close = otus_find(text.octets, text.len, from, end, '>');
    *pos = close + 1;
    if (OTUS_UNLIKELY(close == end)) {
        flags = OTUS_SIP_FIELD_BAD | OTUS_SIP_FIELD_UNTERMINATED;
        *pos = end;
    }
    uint32_t uri = otus_skip_space(text.octets, from, close);
    uint32_t uri_end = otus_trim_space(text.octets, uri, close);
    address->uri = span_of(uri, uri_end);
    /* RFC 4475 3.1.2.14: no white space inside the angle brackets. */
    if (uri != from || uri_end != close || !otus_sip_is_uri(text, address->uri) ||
        otus_find3(text.octets, text.len, uri, uri_end, ' ', '\t', '<') != uri_end)
        flags |= OTUS_SIP_FIELD_BAD;
    return flags;
}

/* RFC 3261 25.1: display-name = *(token LWS) / quoted-string */
static bool is_display_name(struct otus_sip_text text, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        if (!otus_sip_is_token_octet(text.octets[i]) && !otus_is_space(text.octets[i]))
            return false;
    return true;
}

/* An addr-spec without angle brackets, from..stop; what follows are header parameters. */
static uint32_t take_addr_spec(struct otus_sip_address *address, struct otus_sip_text text,
                               uint32_t from, uint32_t stop, bool is_list)
{
    uint32_t uri_end = otus_trim_space(text.octets, from, stop);
    address->uri = span_of(from, uri_end);
    if (uri_end - from == 1 && text.octets[from] == '*')
        return is_list ? 0 : OTUS_SIP_FIELD_BAD; /* Contact: *, see RFC 3261 10.2.2 */
    /* RFC 3261 20.10: a URI that holds a comma, question mark or semicolon must be in angle
     * brackets. */
    bool bad = !otus_sip_is_uri(text, address->uri) ||
               otus_find4(text.octets, text.len, from, uri_end, '?', ',', ' ', '\t') != uri_end ||
               otus_find(text.octets, text.len, from, uri_end, '>') != uri_end;
    return bad ? OTUS_SIP_FIELD_BAD : 0;
}

/* Reads a display name that starts with a quote; *pos moves to what follows. */
static uint32_t parse_quoted_name(struct otus_sip_address *address, struct otus_sip_text text,
                                  uint32_t *pos, uint32_t end, bool is_list)
{
    uint32_t from = *pos;
    uint32_t quote = find_closing_quote(text, from, end);
    uint32_t flags = 0;
    if (OTUS_UNLIKELY(quote == end)) {
        /* RFC 4475 3.1.2.6: nothing says where the name ends; '<' is the best guess. */
        quote = otus_find(text.octets, text.len, from, end, '<');
        flags = OTUS_SIP_FIELD_BAD | OTUS_SIP_FIELD_UNTERMINATED;
        address->display_name = name_span(from + 1, otus_trim_space(text.octets, from + 1, quote));
        *pos = quote;
        return flags;
    }
    address->display_name = name_span(from + 1, quote);
    *pos = otus_skip_space(text.octets, quote + 1, end);
    if (*pos < end && text.octets[*pos] != '<') {
        /* No further than this value: a list of quoted names would be searched for each. */
        uint8_t stop = is_list ? ',' : '<';
        uint32_t bracket = otus_find2(text.octets, text.len, *pos, end, '<', stop);
        if (bracket < end && text.octets[bracket] == '<')
            *pos = bracket;
        flags = OTUS_SIP_FIELD_BAD;
    }
    return *pos == end ? OTUS_SIP_FIELD_BAD : flags;
}

/* Whether a '<' stands in [from, to) before the next comma. */
static bool has_bracket_ahead(struct otus_sip_text text, uint32_t from, uint32_t to, bool is_list)
{
    uint8_t stop = is_list ? ',' : '<';
    uint32_t at = otus_find2(text.octets, text.len, from, to, '<', stop);
    return at < to && text.octets[at] == '<';
}

/* Everything up to the header parameters; *pos moves to the first of them. */
static uint32_t parse_name_and_uri(struct otus_sip_address *address, struct otus_sip_text text,
                                   uint32_t *pos, uint32_t end, bool is_list)
{
    const uint8_t *octets = text.octets;
    uint32_t from = *pos;
    uint32_t flags = 0;
    if (octets[from] == '"') {
        flags = parse_quoted_name(address, text, pos, end, is_list);
        if (*pos == end)
            return flags;
        if (octets[*pos] == '<')
            return flags | parse_bracketed_uri(address, text, pos, end);
        from = *pos; /* "name" sip:a@b: a URI that lacks its brackets, and says so */
    }
    uint32_t stop = otus_find4(octets, text.len, from, end, '<', ';', '"', is_list ? ',' : '<');
    if (stop < end && octets[stop] == '<') {
        address->display_name = name_span(from, otus_trim_space(octets, from, stop));
        if (!is_display_name(text, from, stop))
            flags = OTUS_SIP_FIELD_BAD;
        *pos = stop;
        return flags | parse_bracketed_uri(address, text, pos, end);
    }
    /* A semicolon or quote before the bracket: a display name that should have been quoted
     * (RFC 4475 3.1.2.15), unless a URI is what stands before it. */
    if (stop < end && octets[stop] != ',' && !otus_sip_is_uri(text, span_of(from, stop)) &&
        has_bracket_ahead(text, stop, end, is_list)) {
        uint32_t bracket = otus_find(octets, text.len, stop, end, '<');
        address->display_name = span_of(from, otus_trim_space(octets, from, bracket));
        *pos = bracket;
        return OTUS_SIP_FIELD_BAD | parse_bracketed_uri(address, text, pos, end);
    }
    if (stop < end && octets[stop] == '"')
        stop = otus_find2(octets, text.len, stop, end, ';', is_list ? ',' : ';');
    *pos = stop;
    return flags | take_addr_spec(address, text, from, stop, is_list);
}

uint32_t otus_sip_parse_address(struct otus_sip_address *out_address, struct otus_sip_text text,
                                uint32_t *pos, uint32_t end, bool is_list)
{
    *out_address = (struct otus_sip_address){0};
    *pos = otus_skip_space(text.octets, *pos, end);
    if (*pos == end)
        return OTUS_SIP_FIELD_BAD;
    uint32_t flags = parse_name_and_uri(out_address, text, pos, end, is_list);
    *pos = otus_skip_space(text.octets, *pos, end);
    if (*pos < end && text.octets[*pos] != ';' && !(is_list && text.octets[*pos] == ',')) {
        flags |= OTUS_SIP_FIELD_BAD; /* octets that belong to nothing; parameters may follow */
        *pos = otus_find2(text.octets, text.len, *pos, end, ';', is_list ? ',' : ';');
    }
    if (*pos < end && text.octets[*pos] == ';')
        flags |= parse_address_params(out_address, text, pos, end);
    if (*pos < end && !(is_list && text.octets[*pos] == ',')) {
        flags |= OTUS_SIP_FIELD_BAD; /* octets that belong to nothing */
        *pos = is_list ? otus_find(text.octets, text.len, *pos, end, ',') : end;
    }
    return flags;
}

/* sent-protocol: "SIP" SLASH "2.0" SLASH transport. Moves *pos to the sent-by. */
static bool parse_sent_protocol(struct otus_sip_via *via, struct otus_sip_text text, uint32_t *pos,
                                uint32_t end)
{
    const uint8_t *octets = text.octets;
    uint32_t at = *pos;
    if (OTUS_LIKELY(end - at > 8 && memcmp(octets + at, "SIP/2.0/", 8) == 0)) {
        at += 8;
    } else {
        for (int part = 0; part < 2; part++) { /* protocol-name and -version */
            /* No further than this value: a list without a slash would be searched for each. */
            uint32_t slash = otus_find2(octets, text.len, at, end, '/', ',');
            if (slash == end || !otus_sip_is_token(text, at, otus_trim_space(octets, at, slash)))
                return false;
            at = otus_skip_space(octets, slash + 1, end);
        }
    }
    at = otus_skip_space(octets, at, end); /* SLASH may have white space around it */
    uint32_t from = at;
    while (at < end && otus_sip_is_token_octet(octets[at]))
        at++;
    via->transport = span_of(from, at);
    *pos = otus_skip_space(octets, at, end);
    return at != from && *pos != at;
}

/* RFC 3261 25.1: sent-by = host [ COLON port ], and COLON may have white space around it. */
static bool is_sent_by(struct otus_sip_text text, struct otus_span sent_by)
{
    uint32_t end = sent_by.off + sent_by.len;
    if (sent_by.len == 0)
        return false;
    uint32_t space = otus_find4(text.octets, text.len, sent_by.off, end, ' ', '\t', '\r', '\n');
    if (OTUS_LIKELY(space == end))
        return true;
    uint32_t next = otus_skip_space(text.octets, space, end);
    return text.octets[next] == ':' || text.octets[space - 1] == ':';
}

static void take_via_param(struct otus_sip_via *via, struct otus_sip_text text,
                           const struct otus_sip_param *param)
{
    switch (param->name.len) {
    case 5:
        if (span_equals(text, param->name, "rport", 5)) {
            via->rport = param->value;
            via->has_rport = true;
        }
        break;
    case 6:
        if (via->branch.len == 0 && span_equals(text, param->name, "branch", 6))
            via->branch = param->value;
        break;
    case 8:
        if (span_equals(text, param->name, "received", 8))
            via->received = param->value;
        break;
    default:
        break;
    }
}

uint32_t otus_sip_parse_via(struct otus_sip_via *out_via, struct otus_sip_text text, uint32_t *pos,
                            uint32_t end)
{
    const uint8_t *octets = text.octets;
    *out_via = (struct otus_sip_via){0};
    *pos = otus_skip_space(octets, *pos, end);
    if (!parse_sent_protocol(out_via, text, pos, end)) {
        *pos = otus_find(octets, text.len, *pos, end, ',');
        return OTUS_SIP_FIELD_BAD;
    }
    uint32_t from = *pos;
    uint32_t stop = otus_find2(octets, text.len, from, end, ';', ',');
    out_via->sent_by = span_of(from, otus_trim_space(octets, from, stop));
    uint32_t flags = is_sent_by(text, out_via->sent_by) ? 0 : OTUS_SIP_FIELD_BAD;
    *pos = stop;
    while (*pos < end && octets[*pos] == ';') {
        struct otus_sip_param param;
        uint32_t param_flags = next_param(&param, text, pos, end);
        /* "rport=" asks as "rport" does, and senders write it. */
        if (param_flags == OTUS_SIP_FIELD_BAD && param.value.len == 0 &&
            span_equals(text, param.name, "rport", 5))
            param_flags = 0;
        flags |= param_flags;
        take_via_param(out_via, text, &param);
    }
    return flags;
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

static void take_vias(struct otus_sip_message *message, struct otus_sip_text text,
                      struct otus_span value, bool is_first)
{
    uint32_t pos = value.off;
    uint32_t end = value.off + value.len;
    uint32_t flags = 0;
    if (is_first) {
        flags = otus_sip_parse_via(&message->via, text, &pos, end);
        /* RFC 3261 8.1.1.7: the branch starts with the cookie, and something must follow. */
        if (message->via.branch.len == 7 && span_equals(text, message->via.branch, "z9hg4bk", 7))
            otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_BRANCH);
        if (OTUS_LIKELY(pos == end)) {
            flag_field(message, flags, OTUS_SIP_ANOMALY_BAD_VIA);
            return;
        }
        pos++; /* the comma */
    }
    do {
        struct otus_sip_via other;
        flags |= otus_sip_parse_via(&other, text, &pos, end);
    } while (pos++ < end);
    flag_field(message, flags, OTUS_SIP_ANOMALY_BAD_VIA);
}

static void take_contacts(struct otus_sip_message *message, struct otus_sip_text text,
                          struct otus_span value, bool is_first)
{
    uint32_t pos = value.off;
    uint32_t end = value.off + value.len;
    uint32_t flags = 0;
    do {
        struct otus_sip_address address;
        flags |= otus_sip_parse_address(&address, text, &pos, end, true);
        if (is_first)
            message->contact = address;
        is_first = false;
    } while (pos++ < end);
    flag_field(message, flags, OTUS_SIP_ANOMALY_BAD_CONTACT);
}

/* RFC 3261 20.16: CSeq = 1*DIGIT LWS Method, below 2**32. A number stays readable whatever
 * stands behind it, and "1INVITE" has both. */
static void take_cseq(struct otus_sip_message *message, struct otus_sip_text text,
                      struct otus_span value)
{
    uint32_t from = value.off;
    uint32_t end = value.off + value.len;
    uint32_t digits_end = otus_find4(text.octets, text.len, from, end, ' ', '\t', '\r', '\n');
    bool is_glued = digits_end == end;
    if (is_glued) {
        digits_end = from;
        while (digits_end < end && otus_is_digit(text.octets[digits_end]))
            digits_end++;
        is_glued = digits_end != from;
    }
    uint32_t method = otus_skip_space(text.octets, digits_end, end);
    uint64_t number = 0;
    message->cseq_method = span_of(method, end);
    message->has_cseq = otus_sip_parse_number(&number, text, span_of(from, digits_end), UINT32_MAX);
    message->cseq = (uint32_t)number;
    if (is_glued || !message->has_cseq || !otus_sip_is_token(text, method, end))
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_CSEQ);
}

static void take_content_length(struct otus_sip_message *message, struct otus_sip_text text,
                                struct otus_span value)
{
    uint64_t number;
    if (otus_sip_parse_number(&number, text, value, INT64_MAX))
        message->content_length = (int64_t)number;
    else
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_CONTENT_LENGTH);
}

/* RFC 3261 25.1: delta-seconds = 1*DIGIT; 20.19: between 0 and (2**32)-1. Retry-After may
 * go on with a comment and parameters. */
static void check_seconds(struct otus_sip_message *message, struct otus_sip_text text,
                          struct otus_span value, bool may_go_on, enum otus_sip_anomaly anomaly)
{
    uint32_t end = value.off + value.len;
    if (may_go_on) {
        uint32_t stop = otus_find4(text.octets, text.len, value.off, end, ' ', '\t', '(', ';');
        value.len = otus_trim_space(text.octets, value.off, stop) - value.off;
    }
    uint64_t number;
    if (!otus_sip_parse_number(&number, text, value, UINT32_MAX))
        otus_sip_flag(message, anomaly);
}

/* RFC 3261 20.17: SIP-date is rfc1123-date: "Sat, 13 Nov 2010 23:29:00 GMT". */
static bool is_date(struct otus_sip_text text, struct otus_span value)
{
    static const char pattern[] = "aaa, dd aaa dddd dd:dd:dd GMT";
    if (value.len != sizeof pattern - 1)
        return false;
    for (uint32_t i = 0; i < value.len; i++) {
        uint8_t octet = text.octets[value.off + i];
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
static bool is_warning(struct otus_sip_text text, struct otus_span value)
{
    const uint8_t *at = text.octets + value.off;
    return value.len > 4 && otus_is_digit(at[0]) && otus_is_digit(at[1]) && otus_is_digit(at[2]) &&
           otus_is_space(at[3]);
}

/* RFC 3261 25.1: media-type = m-type SLASH m-subtype *(SEMI m-parameter) */
static bool is_content_type(struct otus_sip_text text, struct otus_span value)
{
    uint32_t end = value.off + value.len;
    uint32_t stop = otus_find(text.octets, text.len, value.off, end, ';');
    uint32_t slash = otus_find(text.octets, text.len, value.off, stop, '/');
    if (slash == stop)
        return false;
    uint32_t subtype = otus_skip_space(text.octets, slash + 1, stop);
    return otus_sip_is_token(text, value.off, otus_trim_space(text.octets, value.off, slash)) &&
           otus_sip_is_token(text, subtype, otus_trim_space(text.octets, subtype, stop));
}

static void take_call_id(struct otus_sip_message *message, struct otus_sip_text text,
                         struct otus_span value)
{
    message->call_id = value;
    uint32_t end = value.off + value.len;
    if (value.len == 0 ||
        otus_find4(text.octets, text.len, value.off, end, ' ', '\t', '\r', '\n') != end)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_CALL_ID);
}

static void take_single_field(struct otus_sip_message *message, struct otus_sip_text text,
                              uint32_t id, struct otus_span value)
{
    uint32_t pos = value.off;
    uint32_t end = value.off + value.len;
    uint64_t number;
    switch (id) {
    case OTUS_SIP_HEADER_FROM:
        flag_field(message, otus_sip_parse_address(&message->from, text, &pos, end, false),
                   OTUS_SIP_ANOMALY_BAD_FROM);
        break;
    case OTUS_SIP_HEADER_TO:
        flag_field(message, otus_sip_parse_address(&message->to, text, &pos, end, false),
                   OTUS_SIP_ANOMALY_BAD_TO);
        break;
    case OTUS_SIP_HEADER_CALL_ID:
        take_call_id(message, text, value);
        break;
    case OTUS_SIP_HEADER_CSEQ:
        take_cseq(message, text, value);
        break;
    case OTUS_SIP_HEADER_CONTENT_LENGTH:
        take_content_length(message, text, value);
        break;
    case OTUS_SIP_HEADER_CONTENT_TYPE:
        message->content_type = value;
        if (!is_content_type(text, value))
            otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_CONTENT_TYPE);
        break;
    case OTUS_SIP_HEADER_MAX_FORWARDS:
        if (!otus_sip_parse_number(&number, text, value, 255))
            otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_MAX_FORWARDS);
        break;
    case OTUS_SIP_HEADER_EXPIRES:
    case OTUS_SIP_HEADER_MIN_EXPIRES:
        check_seconds(message, text, value, false, OTUS_SIP_ANOMALY_BAD_EXPIRES);
        break;
    case OTUS_SIP_HEADER_RETRY_AFTER:
        check_seconds(message, text, value, true, OTUS_SIP_ANOMALY_BAD_RETRY_AFTER);
        break;
    case OTUS_SIP_HEADER_DATE:
        if (!is_date(text, value))
            otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_DATE);
        break;
    default:
        break;
    }
}

/* Fields that RFC 3261 20 lets stand once only and that tell messages apart. */
static bool is_single(uint32_t id)
{
    const uint64_t single =
        (uint64_t)1 << OTUS_SIP_HEADER_FROM | (uint64_t)1 << OTUS_SIP_HEADER_TO |
        (uint64_t)1 << OTUS_SIP_HEADER_CALL_ID | (uint64_t)1 << OTUS_SIP_HEADER_CSEQ |
        (uint64_t)1 << OTUS_SIP_HEADER_CONTENT_LENGTH |
        (uint64_t)1 << OTUS_SIP_HEADER_CONTENT_TYPE | (uint64_t)1 << OTUS_SIP_HEADER_MAX_FORWARDS |
        (uint64_t)1 << OTUS_SIP_HEADER_EXPIRES | (uint64_t)1 << OTUS_SIP_HEADER_MIN_EXPIRES |
        (uint64_t)1 << OTUS_SIP_HEADER_RETRY_AFTER | (uint64_t)1 << OTUS_SIP_HEADER_DATE;
    static_assert(OTUS_SIP_NUM_HEADER_IDS <= 64, "ids are bits of one number");
    return (single >> id) & 1;
}

void otus_sip_take_field(struct otus_sip_message *message, struct otus_sip_text text,
                         const struct otus_sip_header *header, bool is_first)
{
    switch (header->id) {
    case OTUS_SIP_HEADER_OTHER:
        break;
    case OTUS_SIP_HEADER_VIA:
        take_vias(message, text, header->value, is_first);
        break;
    case OTUS_SIP_HEADER_CONTACT:
        take_contacts(message, text, header->value, is_first);
        break;
    case OTUS_SIP_HEADER_USER_AGENT:
    case OTUS_SIP_HEADER_SERVER:
        if (message->user_agent.len == 0)
            message->user_agent = header->value;
        break;
    case OTUS_SIP_HEADER_WARNING:
        if (!is_warning(text, header->value))
            otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_WARNING);
        break;
    default:
        if (!is_single(header->id))
            break;
        if (OTUS_LIKELY(is_first))
            take_single_field(message, text, header->id, header->value);
        else
            otus_sip_flag(message, OTUS_SIP_ANOMALY_DUPLICATE_HEADER);
        break;
    }
}
