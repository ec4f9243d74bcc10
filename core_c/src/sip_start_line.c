/* Start lines: RFC 3261 7.1 and 7.2, and whether octets begin with one. */
#include "sip_internal.h"

enum {
    VERSION_OCTETS = 7,
    MAX_METHOD_OCTETS = 256,      /* a longer token is no method */
    MAX_LEADING_LINE_ENDS = 16,   /* octets of CRLF that may stand before a message */
    MAX_START_LINE_OCTETS = 65536 /* how far can_handle() looks for the line's end */
};

/* "SIP/2.0", whatever follows. */
static inline bool is_version_2(const uint8_t *at, uint32_t left)
{
    return left >= VERSION_OCTETS && memcmp(at, "SIP/2.0", VERSION_OCTETS) == 0;
}

/* "SIP/x.y", whatever follows. */
static inline bool starts_version(const uint8_t *at, uint32_t left)
{
    if (OTUS_LIKELY(is_version_2(at, left)))
        return true;
    return left >= VERSION_OCTETS && otus_is_digit(at[6]) && at[5] == '.' &&
           otus_lower(at[0]) == 's' && otus_lower(at[1]) == 'i' && otus_lower(at[2]) == 'p' &&
           at[3] == '/' && otus_is_digit(at[4]);
}

/* "SIP/2.0" and nothing more, in whichever case. */
static inline bool is_version_text(const uint8_t *at, uint32_t len)
{
    return len == VERSION_OCTETS &&
           (is_version_2(at, len) || otus_equals_nocase(at, len, "sip/2.0", VERSION_OCTETS));
}

/* "sip:", "sips:" or "tel:": what only a request that means SIP carries. */
static inline bool starts_sip_uri(const uint8_t *at, uint32_t left)
{
    if (left < 5)
        return false;
    if (OTUS_LIKELY(otus_is_sip_scheme(at)))
        return true;
    if (otus_equals_nocase(at, 3, "sip", 3))
        return at[3] == ':' || (otus_lower(at[3]) == 's' && at[4] == ':');
    return otus_equals_nocase(at, 4, "tel:", 4);
}

static inline bool is_blank(uint8_t octet)
{
    return octet == ' ' || octet == '\t';
}

static uint32_t skip_blank(const uint8_t *octets, uint32_t from, uint32_t to)
{
    while (from < to && is_blank(octets[from]))
        from++;
    return from;
}

static uint32_t trim_blank(const uint8_t *octets, uint32_t from, uint32_t to)
{
    while (to > from && is_blank(octets[to - 1]))
        to--;
    return to;
}

/* Where the last word of [from, to) starts; there is no white space at its end. */
static uint32_t last_word(const uint8_t *octets, uint32_t from, uint32_t to)
{
    /* " SIP/2.0" nearly always: RFC 3261 7.1. */
    if (OTUS_LIKELY(to - from > VERSION_OCTETS && is_blank(octets[to - VERSION_OCTETS - 1]) &&
                    is_version_2(octets + to - VERSION_OCTETS, VERSION_OCTETS)))
        return to - VERSION_OCTETS;
    while (to > from && !is_blank(octets[to - 1]))
        to--;
    return to;
}

/* The method token at from; false where there is none with white space behind it. */
static inline bool find_method(struct otus_span *out_method, uint8_t *out_id,
                               struct otus_sip_text text, uint32_t from, uint32_t to)
{
    if (OTUS_LIKELY(to - from > OTUS_SIP_METHOD_OCTETS)) {
        const uint8_t *at = text.octets + from;
        *out_id = otus_sip_find_method(at);
        uint32_t len = otus_sip_method_names[*out_id].len;
        *out_method = (struct otus_span){from, len};
        if (OTUS_LIKELY(*out_id != OTUS_SIP_METHOD_OTHER && is_blank(at[len])))
            return true;
    }
    uint32_t limit = to - from > MAX_METHOD_OCTETS ? from + MAX_METHOD_OCTETS : to;
    uint32_t end = otus_find2(text.octets, text.len, from, limit, ' ', '\t');
    if (end == limit || end == from)
        return false;
    *out_method = (struct otus_span){from, end - from};
    *out_id = otus_sip_method_id(text, *out_method);
    return *out_id != OTUS_SIP_METHOD_OTHER || otus_sip_is_token(text.octets, from, end);
}

bool otus_sip_can_handle(const uint8_t *octets, uint32_t len)
{
    struct otus_sip_text text = {octets, len};
    uint32_t at = 0;
    while (at < len && at < MAX_LEADING_LINE_ENDS && (octets[at] == '\r' || octets[at] == '\n'))
        at++;
    if (len - at < 8 || !otus_sip_is_token_octet(octets[at])) /* RTP, STUN, NULs, keep-alives */
        return false;
    if (starts_version(octets + at, len - at))
        return is_blank(octets[at + VERSION_OCTETS]);

    struct otus_span method;
    uint8_t id;
    if (!find_method(&method, &id, text, at, len))
        return false;
    uint32_t uri = skip_blank(octets, method.off + method.len, len);
    if (id != OTUS_SIP_METHOD_OTHER && starts_sip_uri(octets + uri, len - uri))
        return true;

    /* Anything else has to say SIP/x.y at the end of its line, as HTTP says HTTP/1.1. */
    uint32_t limit = len - at > MAX_START_LINE_OCTETS ? at + MAX_START_LINE_OCTETS : len;
    uint32_t end = otus_find(octets, len, uri, limit, '\n');
    end = otus_trim_space(octets, uri, end);
    uint32_t version = last_word(octets, uri, end);
    return starts_version(octets + version, end - version);
}

static void take_status(struct otus_sip_message *message, struct otus_sip_text text, uint32_t from,
                        uint32_t to)
{
    uint32_t end = otus_find2(text.octets, text.len, from, to, ' ', '\t');
    uint64_t code;
    bool is_code = end - from == 3 &&
                   otus_sip_parse_number(&code, text.octets, (struct otus_span){from, 3}, 999);
    if (is_code)
        message->status_code = (uint16_t)code;
    if (!is_code || code < 100 || code > 699) /* three digits are reported all the same */
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_STATUS_CODE);
    if (end < to)
        message->reason = (struct otus_span){end + 1, to - end - 1};
    /* RFC 3261 7.2: Status-Line = SIP-Version SP Status-Code SP Reason-Phrase CRLF; the
     * phrase may be empty, its SP may not be missing. */
    if (end == to || text.octets[end] != ' ')
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_START_LINE);
}

/* Three digits from 100 to 699; 0 where it is anything else. */
static inline uint32_t status_code(const uint8_t *at)
{
    uint32_t hundreds = at[0] - (uint32_t)'0', tens = at[1] - (uint32_t)'0';
    uint32_t ones = at[2] - (uint32_t)'0';
    bool is_code = hundreds - 1 < 6 && tens < 10 && ones < 10;
    return is_code ? 100 * hundreds + 10 * tens + ones : 0;
}

/* "SIP/2.0 200 OK" as RFC 3261 7.2 has it; false where it is not quite so. */
static inline bool take_plain_status(struct otus_sip_message *message, struct otus_sip_text text,
                                     uint32_t from, uint32_t to)
{
    enum { CODE = 8, REASON = 12 };
    const uint8_t *at = text.octets + from;
    if (OTUS_UNLIKELY(to - from < REASON || memcmp(at, "SIP/2.0 ", CODE) != 0 ||
                      at[REASON - 1] != ' '))
        return false;
    message->status_code = (uint16_t)status_code(at + CODE);
    message->reason = (struct otus_span){from + REASON, to - from - REASON};
    return message->status_code != 0;
}

static bool parse_status_line(struct otus_sip_message *message, struct otus_sip_text text,
                              uint32_t from, uint32_t to)
{
    if (OTUS_LIKELY(take_plain_status(message, text, from, to)))
        return true;
    message->reason = (struct otus_span){0, 0};
    uint32_t end = otus_find2(text.octets, text.len, from, to, ' ', '\t');
    if (end == to)
        return false;
    if (!is_version_text(text.octets + from, end - from))
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_VERSION);
    uint32_t code = skip_blank(text.octets, end, to);
    if (code - end != 1 || text.octets[end] != ' ')
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_START_LINE);
    take_status(message, text, code, to);
    return true;
}

/* A port and what ends it, from the octet behind its colon on; false where it is none. */
static bool skip_port(const uint8_t *octets, uint32_t *pos, uint32_t end)
{
    uint32_t at = *pos, port = 0;
    for (; at < end && otus_is_digit(octets[at]) && port <= UINT16_MAX; at++)
        port = port * 10 + octets[at] - '0';
    bool has_digits = at != *pos;
    *pos = at;
    return has_digits && port <= UINT16_MAX && (at == end || octets[at] == ';');
}

/* What is wrong behind the user part of a sip: or sips: URI in a start line.
 *
 * RFC 3261 25.1: hostport = host [ ":" port ], where an IPv6 address is in brackets: with
 * more than one colon outside them (RFC 5118 4.2) nobody knows which ends the host. RFC 3261
 * 19.1.1: header fields ("?") are not allowed in a Request-URI; a question mark before the @
 * is part of the user. */
static bool is_bad_behind_user(struct otus_sip_text text, struct otus_span uri)
{
    const uint8_t *octets = text.octets;
    uint32_t end = uri.off + uri.len;
    if (!starts_sip_uri(octets + uri.off, uri.len) || otus_lower(octets[uri.off]) != 's')
        return false;
    uint32_t host = uri.off + (octets[uri.off + 3] == ':' ? 4 : 5);
    uint32_t at = otus_find(octets, text.len, host, end, '@');
    if (at < end)
        host = at + 1;
    at = host;
    if (OTUS_UNLIKELY(host < end && octets[host] == '[')) {
        at = otus_find2(octets, text.len, host, end, ']', '?');
        if (at == end)
            return true;
    }
    at = otus_find3(octets, text.len, at, end, ':', ';', '?');
    if (at == end)
        return host == end;
    if (OTUS_LIKELY(octets[at] == ':')) {
        at++;
        if (!skip_port(octets, &at, end))
            return true;
    }
    return otus_find(octets, text.len, at, end, '?') != end;
}

static void take_request_uri(struct otus_sip_message *message, const struct otus_lines *lines,
                             uint32_t from, uint32_t to)
{
    const uint8_t *octets = lines->octets;
    struct otus_sip_text text = {octets, lines->len};
    bool bad = false;
    if (from < to && octets[from] == '<') { /* RFC 4475 3.1.2.7 */
        bad = true;
        from++;
        if (to > from && octets[to - 1] == '>')
            to--;
    }
    message->request_uri = (struct otus_span){from, to - from};
    bad = bad || otus_find_mark4(lines, from, to, ' ', '\t', '<', '>') != to ||
          !otus_sip_is_uri(octets, message->request_uri) ||
          is_bad_behind_user(text, message->request_uri);
    if (bad)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_REQUEST_URI);
}

static bool parse_request_line(struct otus_sip_message *message, const struct otus_lines *lines,
                               uint32_t from, uint32_t to)
{
    const uint8_t *octets = lines->octets;
    struct otus_sip_text text = {octets, lines->len};
    if (!find_method(&message->method, &message->method_id, text, from, to))
        return false;
    uint32_t method_end = message->method.off + message->method.len;
    uint32_t uri = skip_blank(octets, method_end, to);
    uint32_t end = trim_blank(octets, uri, to);
    uint32_t version = last_word(octets, uri, end);
    /* RFC 3261 25.1: Method SP Request-URI SP SIP-Version CRLF, and SP is no tab. */
    bool bad = uri - method_end != 1 || octets[method_end] != ' ' || end != to;
    uint32_t uri_end;
    if (OTUS_LIKELY(starts_version(octets + version, end - version))) {
        uri_end = trim_blank(octets, uri, version);
        bad = bad || version - uri_end != 1 || octets[uri_end] != ' ';
        if (!is_version_text(octets + version, end - version))
            otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_VERSION);
    } else {
        /* No version that could be read: SIP only if method and URI both say so. */
        if (message->method_id == OTUS_SIP_METHOD_OTHER ||
            !starts_sip_uri(octets + uri, text.len - uri))
            return false;
        uri_end = otus_find2(octets, text.len, uri, end, ' ', '\t');
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_VERSION);
        bad = true;
    }
    if (bad)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_START_LINE);
    take_request_uri(message, lines, uri, uri_end);
    return true;
}

bool otus_sip_parse_start_line(struct otus_sip_message *out_message, const struct otus_lines *lines,
                               struct otus_span line)
{
    struct otus_sip_text text = {lines->octets, lines->len};
    uint32_t end = line.off + line.len;
    out_message->start_line = line;
    out_message->is_request = !starts_version(text.octets + line.off, line.len);
    return out_message->is_request ? parse_request_line(out_message, lines, line.off, end)
                                   : parse_status_line(out_message, text, line.off, end);
}
