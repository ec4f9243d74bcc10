/* The body: its length (RFC 3261 18.3), and the session description in it, on
 * its own or as a part of a multipart body (RFC 2046 5.1, RFC 5621). */
#include <stddef.h>

#include "sip_internal.h"

enum { MAX_BOUNDARY_OCTETS = 256 }; /* RFC 2046 5.1.1 allows 70 */

/* The body's end by Content-Length; sets the length anomalies. */
static uint32_t body_end(struct otus_sip_message *message, uint32_t off, uint32_t len,
                         uint32_t flags)
{
    uint32_t there = len - off;
    if (message->content_length < 0) {
        if ((flags & OTUS_SIP_ON_STREAM) && message->first[OTUS_SIP_HEADER_CONTENT_LENGTH] == 0)
            otus_sip_flag(message, OTUS_SIP_ANOMALY_MISSING_CONTENT_LENGTH);
        return len; /* RFC 3261 18.3: the body goes to the end of the datagram */
    }
    if ((uint64_t)message->content_length > there) {
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BODY_TRUNCATED);
        return len;
    }
    if ((uint64_t)message->content_length < there)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BODY_TRAILING);
    return off + (uint32_t)message->content_length;
}

/* "type/subtype" of a Content-Type, parameters and white space cut off. */
static struct otus_span media_type(struct otus_sip_text text, struct otus_span value)
{
    uint32_t end = value.off + value.len;
    uint32_t stop = otus_find4(text.octets, text.len, value.off, end, ';', ' ', '\t', '\r');
    return (struct otus_span){value.off, stop - value.off};
}

/* "application/sdp" and nothing behind it, by its first and last eight octets. */
static inline bool is_plain_sdp_type(const uint8_t *at, uint32_t len)
{
    const uint64_t letters = 0x2020202020202020u;
    return len == 15 && (otus_load8(at) | letters) == 0x746163696c707061u &&
           (otus_load8(at + 7) | (letters & ~((uint64_t)0xff << 32))) == 0x7064732f6e6f6974u;
}

static bool is_sdp_type(struct otus_sip_text text, struct otus_span value)
{
    if (OTUS_LIKELY(is_plain_sdp_type(text.octets + value.off, value.len)))
        return true;
    struct otus_span type = media_type(text, value);
    return otus_equals_nocase(text.octets + type.off, type.len, "application/sdp", 15);
}

static bool is_multipart_type(struct otus_sip_text text, struct otus_span value)
{
    return value.len > 10 && otus_equals_nocase(text.octets + value.off, 10, "multipart/", 10);
}

static bool looks_like_sdp(struct otus_sip_text text, struct otus_span body)
{
    return body.len > 3 && memcmp(text.octets + body.off, "v=0", 3) == 0;
}

/* boundary="..." of a Content-Type. */
static struct otus_span find_boundary(struct otus_sip_text text, struct otus_span value)
{
    const uint8_t *octets = text.octets;
    uint32_t end = value.off + value.len;
    uint32_t at = otus_find(octets, text.len, value.off, end, ';');
    while (at < end) {
        at = otus_skip_space(octets, at + 1, end);
        uint32_t stop = otus_find2(octets, text.len, at, end, '=', ';');
        uint32_t name_end = otus_trim_space(octets, at, stop);
        bool is_boundary = otus_equals_nocase(octets + at, name_end - at, "boundary", 8);
        uint32_t from =
            stop < end && octets[stop] == '=' ? otus_skip_space(octets, stop + 1, end) : stop;
        uint32_t to;
        if (from < end && octets[from] == '"') {
            from++;
            to = otus_find(octets, text.len, from, end, '"');
            at = otus_find(octets, text.len, to, end, ';');
        } else {
            at = otus_find(octets, text.len, from, end, ';');
            to = otus_trim_space(octets, from, at);
        }
        if (is_boundary)
            return (struct otus_span){from, to - from};
    }
    return (struct otus_span){0, 0};
}

/* A walk over the parts of one multipart body. */
struct parts {
    struct otus_sip_text text;
    struct otus_span boundary;
    uint32_t at;  /* start of the next line */
    uint32_t end; /* of the body */
    bool closed;  /* the last delimiter was seen */
};

/* Whether the line at `at` is a delimiter: "--" boundary, and "--" again for the last. */
static bool is_delimiter(const struct parts *parts, uint32_t at, bool *out_last)
{
    const uint8_t *octets = parts->text.octets;
    uint32_t len = parts->boundary.len;
    if (parts->end - at < len + 2 || octets[at] != '-' || octets[at + 1] != '-' ||
        memcmp(octets + at + 2, octets + parts->boundary.off, len) != 0)
        return false;
    uint32_t behind = at + 2 + len;
    *out_last = parts->end - behind >= 2 && octets[behind] == '-' && octets[behind + 1] == '-';
    return true;
}

/* Moves behind the next delimiter line; *out_before is where the text before it ends. */
static bool find_delimiter(struct parts *parts, uint32_t *out_before)
{
    const uint8_t *octets = parts->text.octets;
    while (parts->at < parts->end) {
        uint32_t line = parts->at;
        uint32_t lf = otus_find(octets, parts->text.len, line, parts->end, '\n');
        parts->at = lf < parts->end ? lf + 1 : parts->end;
        if (!is_delimiter(parts, line, &parts->closed))
            continue;
        /* RFC 2046 5.1.1: the line end before a delimiter belongs to the delimiter. */
        uint32_t before = line;
        if (before > 0 && octets[before - 1] == '\n')
            before--;
        if (before > 0 && octets[before - 1] == '\r')
            before--;
        *out_before = before;
        return true;
    }
    return false;
}

static bool find_sdp(struct otus_sip_message *message, struct otus_sip_text text,
                     struct otus_span type, struct otus_span body, uint32_t depth,
                     struct otus_span *out_sdp);

/* Splits one part into its Content-Type and its body, then looks for SDP in it. */
static bool find_sdp_in_part(struct otus_sip_message *message, struct otus_sip_text text,
                             struct otus_span part, uint32_t depth, struct otus_span *out_sdp)
{
    const uint8_t *octets = text.octets;
    uint32_t end = part.off + part.len;
    uint32_t at = part.off;
    struct otus_span type = {0, 0};
    while (at < end) {
        uint32_t line = at;
        uint32_t lf = otus_find(octets, text.len, at, end, '\n');
        at = lf < end ? lf + 1 : end;
        uint32_t line_end = otus_trim_space(octets, line, lf);
        if (line_end == line)
            break;
        uint32_t colon = otus_find(octets, text.len, line, line_end, ':');
        uint32_t name_end = otus_trim_space(octets, line, colon);
        bool is_type = otus_equals_nocase(octets + line, name_end - line, "content-type", 12) ||
                       otus_equals_nocase(octets + line, name_end - line, "c", 1);
        if (is_type && colon < line_end) {
            uint32_t value = otus_skip_space(octets, colon + 1, line_end);
            type = (struct otus_span){value, line_end - value};
        }
    }
    return find_sdp(message, text, type, (struct otus_span){at, end - at}, depth, out_sdp);
}

static bool find_sdp_in_parts(struct otus_sip_message *message, struct otus_sip_text text,
                              struct otus_span type, struct otus_span body, uint32_t depth,
                              struct otus_span *out_sdp)
{
    struct parts parts = {text, find_boundary(text, type), body.off, body.off + body.len, false};
    uint32_t before;
    bool found = false;
    if (parts.boundary.len == 0 || parts.boundary.len > MAX_BOUNDARY_OCTETS ||
        !find_delimiter(&parts, &before)) {
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_MULTIPART);
        return false;
    }
    while (!parts.closed) {
        uint32_t from = parts.at;
        bool ended = find_delimiter(&parts, &before);
        uint32_t to = ended ? before : parts.end;
        if (!found && to > from)
            found = find_sdp_in_part(message, text, (struct otus_span){from, to - from}, depth,
                                     out_sdp);
        if (!ended) {
            otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_MULTIPART);
            break;
        }
    }
    return found;
}

/* The first session description in the body, where its type says there is one. */
static bool find_sdp(struct otus_sip_message *message, struct otus_sip_text text,
                     struct otus_span type, struct otus_span body, uint32_t depth,
                     struct otus_span *out_sdp)
{
    if (type.len == 0 ? looks_like_sdp(text, body) : is_sdp_type(text, type)) {
        *out_sdp = body;
        return true;
    }
    if (is_multipart_type(text, type) && depth < OTUS_SIP_MAX_MULTIPART_DEPTH)
        return find_sdp_in_parts(message, text, type, body, depth + 1, out_sdp);
    return false;
}

/* A body that is compressed can't be read as it stands: RFC 3261 20.12. */
static bool is_encoded(const struct otus_sip_message *message, struct otus_sip_text text)
{
    uint32_t first = message->first[OTUS_SIP_HEADER_CONTENT_ENCODING];
    if (first == 0)
        return false;
    struct otus_span value = message->headers[first - 1].value;
    return value.len != 0 && !otus_equals_nocase(text.octets + value.off, value.len, "identity", 8);
}

void otus_sip_take_body(struct otus_sip_parser *parser, struct otus_sip_message *message,
                        uint32_t body_off, uint32_t flags)
{
    struct otus_sip_text text = {message->octets, parser->lines.len};
    uint32_t end = body_end(message, body_off, text.len, flags);
    message->len = end;
    if (end == body_off)
        return;
    message->body = (struct otus_span){body_off, end - body_off};
    /* RFC 3261 20.15: Content-Type MUST be present if the body is not empty. */
    if (message->first[OTUS_SIP_HEADER_CONTENT_TYPE] == 0)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_MISSING_CONTENT_TYPE);

    struct otus_span sdp;
    if (is_encoded(message, text) ||
        !find_sdp(message, text, message->content_type, message->body, 0, &sdp))
        return;
    bool is_part = sdp.off != body_off;
    if (is_part)
        otus_lines_init_inside(&parser->lines, text.octets, sdp.off + sdp.len, sdp.off,
                               parser->scan);
    if (otus_sdp_parse_lines(&parser->sdp, &parser->lines, sdp) != OTUS_OK && is_part)
        return;
    message->sdp = &parser->sdp;
    if (parser->sdp.bad)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_SDP);
}
