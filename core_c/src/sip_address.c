/* Addresses and Vias: what stands in From, To, Contact and Via (RFC 3261 20 and 25.1). */
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

static inline bool span_equals(const struct otus_lines *lines, struct otus_span span,
                               const char *lower, uint32_t len)
{
    return otus_equals_nocase(lines->octets + span.off, span.len, lower, len);
}

/* One `;name[=value]` of a header field. */
struct param {
    struct otus_span name;
    struct otus_span value; /* quotes included */
};

/* Where the quoted string that starts at from (its quote) ends: at the closing quote, or at
 * to where there is none. RFC 3261 25.1: quoted-pair = "\" (%x00-09 / ...). */
static uint32_t find_closing_quote(const struct otus_lines *lines, uint32_t from, uint32_t to)
{
    uint32_t at = from + 1;
    for (;;) {
        at = otus_find2(lines->octets, lines->len, at, to, '"', '\\');
        if (at >= to || lines->octets[at] == '"')
            return at;
        at = to - at < 2 ? to : at + 2;
    }
}

/* The value of a parameter that is a quoted string, from its quote on. */
static uint32_t take_quoted_value(struct param *param, const struct otus_lines *lines,
                                  uint32_t value, uint32_t *pos, uint32_t end)
{
    uint32_t quote = find_closing_quote(lines, value, end);
    if (quote == end) {
        *pos = end;
        param->value = span_of(value, end);
        return OTUS_SIP_FIELD_BAD | OTUS_SIP_FIELD_UNTERMINATED;
    }
    *pos = otus_find_mark2(lines, quote + 1, end, ';', ',');
    param->value = span_of(value, quote + 1);
    bool goes_on = otus_trim_space(lines->octets, quote + 1, *pos) != quote + 1;
    return goes_on ? OTUS_SIP_FIELD_BAD : 0;
}

/* Reads the parameter whose ';' stands at *pos and moves *pos to what ends it: ';', ','
 * or the end. Returns bits of enum otus_sip_field_flag. */
static inline uint32_t next_param(struct param *out_param, const struct otus_lines *lines,
                                  uint32_t *pos, uint32_t end)
{
    const uint8_t *octets = lines->octets;
    uint32_t name = otus_skip_space(octets, *pos + 1, end);
    uint32_t stop = otus_find_mark2(lines, name, end, ';', ',');
    uint32_t equals = otus_find(octets, lines->len, name, stop, '=');
    uint32_t name_end = otus_trim_space(octets, name, equals);
    uint32_t flags = name_end == name ? OTUS_SIP_FIELD_BAD : 0;
    *out_param = (struct param){.name = span_of(name, name_end)};
    *pos = stop;
    if (equals == stop)
        return flags;

    uint32_t value = otus_skip_space(octets, equals + 1, end);
    if (OTUS_UNLIKELY(value < end && octets[value] == '"'))
        return flags | take_quoted_value(out_param, lines, value, pos, end);
    uint32_t value_end = otus_trim_space(octets, value, stop);
    if (value_end <= value) {
        flags |= OTUS_SIP_FIELD_BAD;
        value_end = value;
    }
    out_param->value = span_of(value, value_end);
    return flags;
}

/* tag of From and To, expires of Contact (RFC 3261 20.10: delta-seconds). */
static uint32_t take_address_param(struct otus_sip_address *address, const struct otus_lines *lines,
                                   const struct param *param)
{
    uint64_t number;
    if (param->name.len == 3 && address->tag.len == 0 && span_equals(lines, param->name, "tag", 3))
        address->tag = param->value;
    else if (param->name.len == 7 && span_equals(lines, param->name, "expires", 7) &&
             !otus_sip_parse_number(&number, lines->octets, param->value, UINT32_MAX))
        return OTUS_SIP_FIELD_BAD;
    return 0;
}

/* Parameters of an address from *pos on, where a ';' stands. */
static uint32_t parse_address_params(struct otus_sip_address *address,
                                     const struct otus_lines *lines, uint32_t *pos, uint32_t end)
{
    uint32_t flags = 0;
    uint32_t start = *pos;
    while (*pos < end && lines->octets[*pos] == ';') {
        struct param param;
        flags |= next_param(&param, lines, pos, end);
        flags |= take_address_param(address, lines, &param);
    }
    address->params = span_of(start, otus_trim_space(lines->octets, start, *pos));
    return flags;
}

/* What stands between '<' at *pos and its '>'. */
static uint32_t parse_bracketed_uri(struct otus_sip_address *address,
                                    const struct otus_lines *lines, uint32_t *pos, uint32_t end)
{
    uint32_t from = *pos + 1;
    uint32_t stop = otus_find_mark4(lines, from, end, '>', '<', ' ', '\t');
    uint32_t close = stop;
    uint32_t flags = 0;
    if (OTUS_UNLIKELY(stop < end && lines->octets[stop] != '>')) {
        /* RFC 4475 3.1.2.14: no white space inside the angle brackets. */
        close = otus_find_mark(lines, stop, end, '>');
        flags = OTUS_SIP_FIELD_BAD;
    }
    *pos = close + 1;
    if (OTUS_UNLIKELY(close == end)) {
        flags = OTUS_SIP_FIELD_BAD | OTUS_SIP_FIELD_UNTERMINATED;
        *pos = end;
    }
    uint32_t uri = otus_skip_space(lines->octets, from, close);
    uint32_t uri_end = otus_trim_space(lines->octets, uri, close);
    address->uri = span_of(uri, uri_end);
    if (uri != from || uri_end != close || !otus_sip_is_uri(lines->octets, address->uri))
        flags |= OTUS_SIP_FIELD_BAD;
    return flags;
}

/* RFC 3261 25.1: display-name = *(token LWS) / quoted-string */
static bool is_display_name(const struct otus_lines *lines, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        if (!otus_sip_is_token_octet(lines->octets[i]) && !otus_is_space(lines->octets[i]))
            return false;
    return true;
}

/* An addr-spec without angle brackets, from..stop; what follows are header parameters. */
static uint32_t take_addr_spec(struct otus_sip_address *address, const struct otus_lines *lines,
                               uint32_t from, uint32_t stop, bool is_list)
{
    uint32_t uri_end = otus_trim_space(lines->octets, from, stop);
    address->uri = span_of(from, uri_end);
    if (uri_end - from == 1 && lines->octets[from] == '*')
        return is_list ? 0 : OTUS_SIP_FIELD_BAD; /* Contact: *, see RFC 3261 10.2.2 */
    /* RFC 3261 20.10: a URI that holds a comma, question mark or semicolon must be in angle
     * brackets. */
    bool bad = !otus_sip_is_uri(lines->octets, address->uri) ||
               otus_find(lines->octets, lines->len, from, uri_end, '?') != uri_end ||
               otus_find_mark4(lines, from, uri_end, ',', ' ', '\t', '>') != uri_end;
    return bad ? OTUS_SIP_FIELD_BAD : 0;
}

/* Reads a display name that starts with a quote; *pos moves to what follows. */
static uint32_t parse_quoted_name(struct otus_sip_address *address, const struct otus_lines *lines,
                                  uint32_t *pos, uint32_t end, bool is_list)
{
    uint32_t from = *pos;
    uint32_t quote = find_closing_quote(lines, from, end);
    uint32_t flags = 0;
    if (OTUS_UNLIKELY(quote == end)) {
        /* RFC 4475 3.1.2.6: nothing says where the name ends; '<' is the best guess. */
        quote = otus_find_mark(lines, from, end, '<');
        flags = OTUS_SIP_FIELD_BAD | OTUS_SIP_FIELD_UNTERMINATED;
        address->display_name =
            name_span(from + 1, otus_trim_space(lines->octets, from + 1, quote));
        *pos = quote;
        return flags;
    }
    address->display_name = name_span(from + 1, quote);
    *pos = otus_skip_space(lines->octets, quote + 1, end);
    if (*pos < end && lines->octets[*pos] != '<') {
        /* No further than this value: a list of quoted names would be searched for each. */
        uint8_t stop = is_list ? ',' : '<';
        uint32_t bracket = otus_find_mark2(lines, *pos, end, '<', stop);
        if (bracket < end && lines->octets[bracket] == '<')
            *pos = bracket;
        flags = OTUS_SIP_FIELD_BAD;
    }
    return *pos == end ? OTUS_SIP_FIELD_BAD : flags;
}

/* Whether a '<' stands in [from, to) before the next comma. */
static bool has_bracket_ahead(const struct otus_lines *lines, uint32_t from, uint32_t to,
                              bool is_list)
{
    uint8_t stop = is_list ? ',' : '<';
    uint32_t at = otus_find_mark2(lines, from, to, '<', stop);
    return at < to && lines->octets[at] == '<';
}

/* Everything up to the header parameters; *pos moves to the first of them. */
static uint32_t parse_name_and_uri(struct otus_sip_address *address, const struct otus_lines *lines,
                                   uint32_t *pos, uint32_t end, bool is_list)
{
    const uint8_t *octets = lines->octets;
    uint32_t from = *pos;
    uint32_t flags = 0;
    if (octets[from] == '<')
        return parse_bracketed_uri(address, lines, pos, end);
    if (octets[from] == '"') {
        flags = parse_quoted_name(address, lines, pos, end, is_list);
        if (*pos == end)
            return flags;
        if (octets[*pos] == '<')
            return flags | parse_bracketed_uri(address, lines, pos, end);
        from = *pos; /* "name" sip:a@b: a URI that lacks its brackets, and says so */
    }
    uint32_t stop = otus_find_mark4(lines, from, end, '<', ';', '"', is_list ? ',' : '<');
    if (stop < end && octets[stop] == '<') {
        address->display_name = name_span(from, otus_trim_space(octets, from, stop));
        if (!is_display_name(lines, from, stop))
            flags = OTUS_SIP_FIELD_BAD;
        *pos = stop;
        return flags | parse_bracketed_uri(address, lines, pos, end);
    }
    /* A semicolon or quote before the bracket: a display name that should have been quoted
     * (RFC 4475 3.1.2.15), unless a URI is what stands before it. */
    if (stop < end && octets[stop] != ',' && !otus_sip_is_uri(lines->octets, span_of(from, stop)) &&
        has_bracket_ahead(lines, stop, end, is_list)) {
        uint32_t bracket = otus_find_mark(lines, stop, end, '<');
        address->display_name = span_of(from, otus_trim_space(octets, from, bracket));
        *pos = bracket;
        return OTUS_SIP_FIELD_BAD | parse_bracketed_uri(address, lines, pos, end);
    }
    if (stop < end && octets[stop] == '"')
        stop = otus_find_mark2(lines, stop, end, ';', is_list ? ',' : ';');
    *pos = stop;
    return flags | take_addr_spec(address, lines, from, stop, is_list);
}

uint32_t otus_sip_parse_any_address(struct otus_sip_address *out_address,
                                    const struct otus_lines *lines, uint32_t *pos, uint32_t end,
                                    bool is_list)
{
    *out_address = (struct otus_sip_address){0};
    if (*pos == end)
        return OTUS_SIP_FIELD_BAD;
    uint32_t flags = parse_name_and_uri(out_address, lines, pos, end, is_list);
    *pos = otus_skip_space(lines->octets, *pos, end);
    if (*pos < end && lines->octets[*pos] != ';' && !(is_list && lines->octets[*pos] == ',')) {
        flags |= OTUS_SIP_FIELD_BAD; /* octets that belong to nothing; parameters may follow */
        *pos = otus_find_mark2(lines, *pos, end, ';', is_list ? ',' : ';');
    }
    if (*pos < end && lines->octets[*pos] == ';')
        flags |= parse_address_params(out_address, lines, pos, end);
    if (*pos < end && !(is_list && lines->octets[*pos] == ',')) {
        flags |= OTUS_SIP_FIELD_BAD; /* octets that belong to nothing */
        *pos = is_list ? otus_find_mark(lines, *pos, end, ',') : end;
    }
    return flags;
}

/* Whether [from, to), which holds no marks, is `name` or `name=value`. */
static inline bool is_plain_param(const uint8_t *octets, uint32_t from, uint32_t to)
{
    return from != to && octets[from] != '=' && octets[to - 1] != '=';
}

/* Parameters of an address from the ';' at `at` on, as long as they are tags and such that mean
 * nothing here; the offset behind them, 0 where there is another. */
static inline uint32_t take_plain_params(struct otus_sip_address *address, const uint8_t *octets,
                                         struct otus_marks *marks, uint32_t at)
{
    do {
        uint32_t from = at + 1;
        at = otus_marks_next(marks);
        uint32_t name = otus_load4(octets + from) | 0x00202020;
        if (OTUS_LIKELY(name == otus_load4((const uint8_t *)"tag=")) && at - from > 4) {
            if (OTUS_LIKELY(address->tag.len == 0))
                address->tag = span_of(from + 4, at);
        } else if ((name & 0xff) == 'e' /* expires? */ || !is_plain_param(octets, from, at)) {
            return 0;
        }
    } while (OTUS_UNLIKELY(octets[at] == ';'));
    return at;
}

/* The quoted string that starts at `at`, and the one space that may stand behind it; the offset
 * behind both, 0 where it has escapes or no end. */
static inline uint32_t take_plain_name(struct otus_sip_address *address, const uint8_t *octets,
                                       struct otus_marks *marks, uint32_t at, uint32_t end)
{
    uint32_t quote = otus_marks_next(marks);
    while (OTUS_UNLIKELY(octets[quote] == ' ' && quote < end))
        quote = otus_marks_next(marks);
    if (octets[quote] != '"' || octets[quote - 1] == '\\')
        return 0;
    address->display_name = name_span(at + 1, quote);
    at = otus_marks_next(marks);
    if (OTUS_LIKELY(octets[at] == ' ' && at < end)) {
        at = otus_marks_next(marks);
        quote++;
    }
    return at == quote + 1 ? at : 0;
}

/* The shape of nearly all addresses, from mark to mark: ["name" ]<uri>[;param]... Moves *pos as
 * otus_sip_parse_address(). False where it is another; *out_address holds nothing then. */
static inline bool take_plain_address(struct otus_sip_address *out_address,
                                      const struct otus_lines *lines, uint32_t *pos, uint32_t end,
                                      bool is_list)
{
    const uint8_t *octets = lines->octets;
    uint32_t at = *pos;
    struct otus_marks marks = otus_marks_from(lines, at + 1);
    out_address->display_name = span_of(0, 0);
    if (octets[at] == '"')
        at = take_plain_name(out_address, octets, &marks, at, end);
    if (octets[at] != '<')
        return false;
    uint32_t close = otus_marks_next(&marks);
    while (octets[close] == ';' || octets[close] == ',')
        close = otus_marks_next(&marks);
    out_address->uri = span_of(at + 1, close);
    if (OTUS_UNLIKELY(octets[close] != '>' || !otus_sip_is_uri(octets, span_of(at + 1, close))))
        return false;
    out_address->params = out_address->tag = span_of(0, 0);
    at = close + 1;
    if (octets[at] == ';') {
        (void)otus_marks_next(&marks); /* the semicolon */
        at = take_plain_params(out_address, octets, &marks, at);
        out_address->params = span_of(close + 1, at);
    }
    *pos = at;
    return OTUS_LIKELY(at == end) || (is_list && at != 0 && octets[at] == ',');
}

uint32_t otus_sip_parse_address(struct otus_sip_address *out_address,
                                const struct otus_lines *lines, uint32_t *pos, uint32_t end,
                                bool is_list)
{
    uint32_t from = otus_skip_space(lines->octets, *pos, end);
    *pos = from;
    if (OTUS_LIKELY(from < end && otus_marks_reach(lines, end) &&
                    take_plain_address(out_address, lines, pos, end, is_list)))
        return 0;
    *pos = from;
    return otus_sip_parse_any_address(out_address, lines, pos, end, is_list);
}

/* sent-protocol: "SIP" SLASH "2.0" SLASH transport. Moves *pos to the sent-by. */
static bool parse_sent_protocol(struct otus_sip_via *via, const struct otus_lines *lines,
                                uint32_t *pos, uint32_t end)
{
    const uint8_t *octets = lines->octets;
    uint32_t at = *pos;
    if (OTUS_LIKELY(end - at > 8 && memcmp(octets + at, "SIP/2.0/", 8) == 0)) {
        at += 8;
    } else {
        for (int part = 0; part < 2; part++) { /* protocol-name and -version */
            /* No further than this value: a list without a slash would be searched for each. */
            uint32_t slash = otus_find2(octets, lines->len, at, end, '/', ',');
            if (slash == end ||
                !otus_sip_is_token(lines->octets, at, otus_trim_space(octets, at, slash)))
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
static bool is_sent_by(const struct otus_lines *lines, struct otus_span sent_by)
{
    uint32_t end = sent_by.off + sent_by.len;
    if (sent_by.len == 0)
        return false;
    uint32_t space = otus_find_mark4(lines, sent_by.off, end, ' ', '\t', '\r', '\n');
    if (space == end)
        return true;
    uint32_t next = otus_skip_space(lines->octets, space, end);
    return lines->octets[next] == ':' || lines->octets[space - 1] == ':';
}

/* The host and port at *pos; moves *pos to the parameters, the next Via or the end. */
static inline uint32_t take_sent_by(struct otus_sip_via *via, const struct otus_lines *lines,
                                    uint32_t *pos, uint32_t end)
{
    uint32_t from = *pos;
    uint32_t mark = end <= OTUS_LINES_MARKED ? otus_lines_mark(lines, from, end) : from;
    uint32_t stop = mark < end ? otus_find_mark2(lines, mark, end, ';', ',') : end;
    via->sent_by = span_of(from, otus_trim_space(lines->octets, from, stop));
    *pos = stop;
    bool is_plain = mark == stop && stop != from;
    return OTUS_LIKELY(is_plain) || is_sent_by(lines, via->sent_by) ? 0 : OTUS_SIP_FIELD_BAD;
}

static void take_via_param(struct otus_sip_via *via, const struct otus_lines *lines,
                           const struct param *param)
{
    switch (param->name.len) {
    case 5:
        if (span_equals(lines, param->name, "rport", 5)) {
            via->rport = param->value;
            via->has_rport = true;
        }
        break;
    case 6:
        if (via->branch.len == 0 && span_equals(lines, param->name, "branch", 6))
            via->branch = param->value;
        break;
    case 8:
        if (span_equals(lines, param->name, "received", 8))
            via->received = param->value;
        break;
    default:
        break;
    }
}

uint32_t otus_sip_parse_any_via(struct otus_sip_via *out_via, const struct otus_lines *lines,
                                uint32_t *pos, uint32_t end)
{
    const uint8_t *octets = lines->octets;
    *out_via = (struct otus_sip_via){0};
    if (!parse_sent_protocol(out_via, lines, pos, end)) {
        *pos = otus_find_mark(lines, *pos, end, ',');
        return OTUS_SIP_FIELD_BAD;
    }
    uint32_t flags = take_sent_by(out_via, lines, pos, end);
    while (*pos < end && octets[*pos] == ';') {
        struct param param;
        uint32_t param_flags = next_param(&param, lines, pos, end);
        /* "rport=" asks as "rport" does, and senders write it. */
        if (param_flags == OTUS_SIP_FIELD_BAD && param.value.len == 0 &&
            span_equals(lines, param.name, "rport", 5))
            param_flags = 0;
        flags |= param_flags;
        take_via_param(out_via, lines, &param);
    }
    return flags;
}

/* The parameter [from, to) of a Via, where it is one of those that nearly all are. */
static inline bool take_plain_via_param(struct otus_sip_via *via, const uint8_t *octets,
                                        uint32_t from, uint32_t to)
{
    const uint64_t six = 0x202020202020, five = 0x2020202020, eight = 0x2020202020202020;
    const uint64_t branch = otus_load8((const uint8_t *)"branch=");
    const uint64_t rport = otus_load8((const uint8_t *)"rport\0\0");
    uint64_t word = otus_load8(octets + from);
    if (OTUS_LIKELY(((word | six) & UINT64_MAX >> 8) == branch)) {
        if (via->branch.len == 0)
            via->branch = span_of(from + 7, to);
        return to - from > 7;
    }
    if (OTUS_LIKELY(((word | five) & UINT64_MAX >> 24) == rport)) {
        bool has_value = octets[from + 5] == '=';
        via->has_rport = true;
        via->rport = has_value ? span_of(from + 6, to) : span_of(0, 0);
        return OTUS_LIKELY(to - from == 5) || (to - from > 6 && has_value);
    }
    if ((word | eight) == otus_load8((const uint8_t *)"received")) {
        via->received = span_of(from + 9, to);
        return to - from > 9 && octets[from + 8] == '=';
    }
    return is_plain_param(octets, from, to);
}

static inline bool is_usual_transport(uint32_t word)
{
    if (OTUS_LIKELY(word == otus_load4((const uint8_t *)"UDP ")))
        return true;
    return word == otus_load4((const uint8_t *)"TCP ") ||
           word == otus_load4((const uint8_t *)"TLS ");
}

/* The shape of nearly all Vias, from mark to mark: SIP/2.0/UDP host[:port][;param]... Moves *pos
 * as otus_sip_parse_via(). False where it is another; *out_via holds nothing to rely on then. */
static inline bool take_plain_via(struct otus_sip_via *out_via, const struct otus_lines *lines,
                                  uint32_t *pos, uint32_t end)
{
    enum { PROTOCOL = 8, TRANSPORT = 3, HOST = PROTOCOL + TRANSPORT + 1 };
    const uint8_t *octets = lines->octets;
    uint32_t from = *pos;
    if (OTUS_UNLIKELY(end - from <= HOST || memcmp(octets + from, "SIP/2.0/", PROTOCOL) != 0 ||
                      !is_usual_transport(otus_load4(octets + from + PROTOCOL))))
        return false;
    *out_via = (struct otus_sip_via){
        .transport = {from + PROTOCOL, TRANSPORT},
    };
    from += HOST;
    struct otus_marks marks = otus_marks_from(lines, from);
    uint32_t at = otus_marks_next(&marks);
    out_via->sent_by = span_of(from, at);
    if (at == from)
        return false;
    while (octets[at] == ';') {
        from = at + 1;
        at = otus_marks_next(&marks);
        if (!take_plain_via_param(out_via, octets, from, at))
            return false;
    }
    *pos = at;
    return OTUS_LIKELY(at == end) || octets[at] == ',';
}

uint32_t otus_sip_parse_via(struct otus_sip_via *out_via, const struct otus_lines *lines,
                            uint32_t *pos, uint32_t end)
{
    uint32_t from = otus_skip_space(lines->octets, *pos, end);
    *pos = from;
    if (OTUS_LIKELY(from < end && otus_marks_reach(lines, end) &&
                    take_plain_via(out_via, lines, pos, end)))
        return 0;
    *pos = from;
    return otus_sip_parse_any_via(out_via, lines, pos, end);
}
