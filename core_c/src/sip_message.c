/* One message: start line, header fields in order, what is missing. RFC 3261 7. */
#include <stdlib.h>

#include "clear.h"
#include "sip_internal.h"

enum otus_status otus_sip_parser_new(struct otus_sip_parser **out_parser)
{
    struct otus_sip_parser *parser = calloc(1, sizeof *parser);
    if (parser == NULL)
        return OTUS_E_NOMEM;
    parser->max_headers = OTUS_SIP_MAX_HEADERS;
    parser->headers = calloc(parser->max_headers, sizeof *parser->headers);
    if (parser->headers == NULL) {
        free(parser);
        return OTUS_E_NOMEM;
    }
    parser->scan = otus_lines_best_scan();
    otus_sip_names_init(&parser->names);
    *out_parser = parser;
    return OTUS_OK;
}

void otus_sip_parser_free(struct otus_sip_parser *parser)
{
    if (parser == NULL)
        return;
    free(parser->headers);
    free(parser);
}

void otus_sip_flag(struct otus_sip_message *message, enum otus_sip_anomaly anomaly)
{
    message->anomalies |= (uint64_t)1 << anomaly;
}

/* What hot loops call for lines that few messages have: kept out of their registers. */
#define NOINLINE __attribute__((noinline))

/* What the walk over the header lines gathers. */
struct header_walk {
    uint32_t num_headers;
    uint64_t repeated; /* OTUS_SIP_BIT() of the ids that there are more than once */
};

/* Links header `index` to the one before of its id, which there is. */
static NOINLINE void link_repeated(struct otus_sip_parser *parser, struct otus_sip_message *message,
                                   uint64_t *repeated, uint32_t id, uint32_t index)
{
    uint32_t last = *repeated >> id & 1 ? parser->last[id] : message->first[id] - 1;
    *repeated |= OTUS_SIP_BIT(id);
    parser->headers[last].next = index;
    parser->last[id] = index;
}

/* Gives a header that was read its id, and its place among those of this id. */
static inline void place_header(struct otus_sip_parser *parser, struct otus_sip_message *message,
                                uint64_t *repeated, uint32_t id, uint32_t index,
                                struct otus_sip_header *header)
{
    header->id = (uint16_t)id;
    header->next = 0;
    if (OTUS_LIKELY(message->first[id] == 0))
        message->first[id] = index + 1;
    else
        link_repeated(parser, message, repeated, id, index);
}

static NOINLINE struct otus_span trimmed(const uint8_t *octets, uint32_t from, uint32_t to)
{
    from = otus_skip_space(octets, from, to);
    return (struct otus_span){from, otus_trim_space(octets, from, to) - from};
}

/* RFC 3261 7.3.1: field-name *( SP / HTAB ) ":" field-value. Any line, its folds included. */
static void take_header_line(struct otus_sip_parser *parser, struct otus_sip_message *message,
                             struct header_walk *walk, struct otus_span line, bool folded)
{
    struct otus_sip_text text = {parser->lines.octets, parser->lines.len};
    uint32_t end = line.off + line.len;
    uint32_t colon = otus_find(text.octets, text.len, line.off, end, ':');
    uint32_t name_end = otus_trim_space(text.octets, line.off, colon);
    if (OTUS_UNLIKELY(colon == end || name_end == line.off)) {
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_HEADER_LINE);
        return;
    }
    if (OTUS_UNLIKELY(walk->num_headers == parser->max_headers)) {
        otus_sip_flag(message, OTUS_SIP_ANOMALY_TOO_MANY_HEADERS);
        return;
    }
    uint32_t name_len = name_end - line.off;
    struct otus_span value = trimmed(text.octets, colon + 1, end);
    uint32_t id = otus_sip_name_id(&parser->names, text, line.off, name_len);
    if (id == OTUS_SIP_HEADER_OTHER && !otus_sip_is_token(text.octets, line.off, name_end))
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_HEADER_LINE);
    bool has_folds = folded && otus_find(text.octets, text.len, value.off, value.off + value.len,
                                         '\n') != value.off + value.len;
    message->has_folds |= has_folds;
    struct otus_sip_header *header = &parser->headers[walk->num_headers];
    header->name = (struct otus_span){line.off, name_len};
    header->value = value;
    header->folded = has_folds;
    place_header(parser, message, &walk->repeated, id, walk->num_headers++, header);
}

enum { NO_NAME = OTUS_SIP_NUM_HEADER_IDS };

/* The id of a name whose long form is not known; NO_NAME where it is no token. */
static NOINLINE uint32_t other_name_id(const struct otus_sip_parser *parser, struct otus_span name)
{
    struct otus_sip_text text = {parser->lines.octets, parser->lines.len};
    if (!otus_sip_is_token(text.octets, name.off, name.off + name.len))
        return NO_NAME;
    return name.len == 1 ? otus_sip_name_id(&parser->names, text, name.off, 1)
                         : (uint32_t)OTUS_SIP_HEADER_OTHER;
}

/* The length of a name of sixteen octets or more, or of a line up to `end` without a colon. */
static NOINLINE size_t long_name_len(const struct otus_lines *lines, size_t start, uint32_t end)
{
    return otus_find(lines->octets, lines->len, (uint32_t)start, end, ':') - start;
}

/* Line ends that take_plain_lines() may go by: the last one known is left alone, since it looks at
 * the octet behind, and a line starts sixteen octets before the buffer's end or earlier. */
static const uint32_t *last_plain_end(const struct otus_lines *lines, const uint32_t *first,
                                      uint32_t room)
{
    uint32_t ahead = lines->num - lines->next;
    if (ahead == 0 || lines->len - lines->start < OTUS_VECTOR_OCTETS)
        return first;
    const uint32_t *last = first + (ahead - 1 < room ? ahead - 1 : room);
    while (last - first > 1 && OTUS_UNLIKELY(lines->len - last[-2] <= OTUS_VECTOR_OCTETS))
        last--;
    return last;
}

/* Takes lines as long as they are what nearly all are: a name, its colon at once, a value that
 * is not folded, CRLF, and more lines behind. The other lines are take_header_line()'s. */
static void take_plain_lines(struct otus_sip_parser *parser, struct otus_sip_message *message,
                             struct header_walk *walk)
{
    struct otus_lines *lines = &parser->lines;
    const uint8_t *octets = lines->octets;
    const uint32_t *next = lines->lf + lines->next;
    const uint32_t *last = last_plain_end(lines, next, parser->max_headers - walk->num_headers);
    struct otus_sip_header *header = parser->headers + walk->num_headers;
    uint32_t index = walk->num_headers;
    uint32_t start = lines->start;
    while (next < last) {
        uint32_t end = *next;
        uint32_t name_len = (uint32_t)otus_find_in16(octets + start, ':');
        if (OTUS_UNLIKELY(name_len == OTUS_VECTOR_OCTETS))
            name_len = (uint32_t)long_name_len(lines, start, end);
        const struct otus_sip_name *known =
            otus_sip_find_name(&parser->names, octets + start, name_len);
        header->name = (struct otus_span){start, name_len};
        uint32_t id;
        if (OTUS_LIKELY(known != NULL))
            id = known->id;
        else if (name_len >= end - start || (id = other_name_id(parser, header->name)) == NO_NAME)
            break;
        uint32_t value = start + name_len + 2;
        const uint8_t *lf = octets + end;
        if (OTUS_UNLIKELY(lf[-1] != '\r' || (lf[1] <= ' ' && lf[1] != '\r')))
            break;
        header->value.off = value;
        header->value.len = end - 1 - value;
        if (OTUS_UNLIKELY(octets[value - 1] != ' ' || octets[value] <= ' ' || lf[-2] <= ' '))
            header->value = trimmed(octets, value - 1, end - 1);
        header->folded = 0;
        place_header(parser, message, &walk->repeated, id, index, header);
        index++;
        header++;
        next++;
        start = end + 1;
    }
    lines->next = (uint32_t)(next - lines->lf);
    lines->start = (uint32_t)start;
    walk->num_headers = index;
}

/* A line end that is no CRLF. */
static void note_bare_lf(struct otus_sip_parser *parser, struct otus_sip_message *message,
                         const struct otus_line *line)
{
    if (parser->lines.octets[line->end] == '\r') /* see parse_lines(); a control octet already */
        return;
    otus_sip_flag(message, OTUS_SIP_ANOMALY_BARE_LF);
    if (line->end > line->start) { /* the scan takes what stands before an LF for its CR */
        uint8_t octet = parser->lines.octets[line->end - 1];
        if (octet < 0x20 && octet != '\t' && line->end - 1 < parser->lines.first_control)
            parser->lines.first_control = line->end - 1;
    }
}

/* Lists the header fields; returns the offset behind the empty line, or the
 * message's end where there is none. */
static uint32_t take_headers(struct otus_sip_parser *parser, struct otus_sip_message *message,
                             struct header_walk *walk)
{
    struct otus_lines *lines = &parser->lines;
    struct otus_line line;
    for (;;) {
        take_plain_lines(parser, message, walk);
        if (!otus_lines_next(lines, &line))
            break;
        if (OTUS_UNLIKELY(!line.has_cr && line.has_lf))
            note_bare_lf(parser, message, &line);
        if (OTUS_LIKELY(line.start == line.end && line.has_lf))
            return lines->start;
        bool folded = false;
        while (OTUS_UNLIKELY(otus_lines_folds(lines))) {
            struct otus_line more;
            if (!otus_lines_next(lines, &more))
                break;
            if (!more.has_cr && more.has_lf)
                note_bare_lf(parser, message, &more);
            line.end = more.end;
            folded = true;
        }
        struct otus_span span = {line.start, line.end - line.start};
        take_header_line(parser, message, walk, span, folded);
    }
    otus_sip_flag(message, OTUS_SIP_ANOMALY_NO_HEADER_END);
    return lines->len;
}

/* RFC 3261 8.1.1: To, From, CSeq, Call-ID, Max-Forwards and Via are mandatory in requests;
 * 8.2.6.2: the same without Max-Forwards in responses. */
static void check_mandatory(struct otus_sip_message *message)
{
    static const struct {
        uint8_t id;
        uint8_t anomaly;
    } mandatory[] = {
        {OTUS_SIP_HEADER_VIA, OTUS_SIP_ANOMALY_MISSING_VIA},
        {OTUS_SIP_HEADER_FROM, OTUS_SIP_ANOMALY_MISSING_FROM},
        {OTUS_SIP_HEADER_TO, OTUS_SIP_ANOMALY_MISSING_TO},
        {OTUS_SIP_HEADER_CALL_ID, OTUS_SIP_ANOMALY_MISSING_CALL_ID},
        {OTUS_SIP_HEADER_CSEQ, OTUS_SIP_ANOMALY_MISSING_CSEQ},
    };
    for (uint32_t i = 0; i < sizeof mandatory / sizeof mandatory[0]; i++)
        if (OTUS_UNLIKELY(message->first[mandatory[i].id] == 0))
            otus_sip_flag(message, (enum otus_sip_anomaly)mandatory[i].anomaly);
    /* RFC 3261 8.1.1.3: the From field MUST contain a tag. */
    if (message->from.tag.len == 0 && message->first[OTUS_SIP_HEADER_FROM] != 0)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_MISSING_FROM_TAG);
    if (message->is_request && message->first[OTUS_SIP_HEADER_MAX_FORWARDS] == 0)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_MISSING_MAX_FORWARDS);
}

/* The first line that is not empty. RFC 3261 7.5 wants CRLFs before a message skipped on
 * streams, where the framer has done so; in a datagram they are out of place. */
static bool take_start_line(struct otus_sip_parser *parser, struct otus_sip_message *message)
{
    struct otus_line line;
    do {
        if (!otus_lines_next(&parser->lines, &line))
            return false;
    } while (OTUS_UNLIKELY(line.start == line.end));
    struct otus_span span = {line.start, line.end - line.start};
    if (!otus_sip_parse_start_line(message, &parser->lines, span))
        return false;
    if (line.start != 0)
        otus_sip_flag(message, OTUS_SIP_ANOMALY_BAD_START_LINE);
    if (!line.has_cr && line.has_lf)
        note_bare_lf(parser, message, &line);
    return true;
}

/* A CR whose LF was not captured. */
static bool is_cut_line_end(struct otus_sip_text text, uint32_t at, uint32_t flags)
{
    return (flags & OTUS_SIP_TRUNCATED) != 0 && at == text.len - 1 && text.octets[at] == '\r';
}

static enum otus_status parse_lines(struct otus_sip_parser *parser,
                                    struct otus_sip_message *out_message, const uint8_t *octets,
                                    uint32_t len, uint32_t flags, otus_lines_scan scan)
{
    struct otus_sip_text text = {octets, len};
    otus_clear(out_message, sizeof *out_message);
    otus_lines_init(&parser->lines, octets, len, 0, scan);
    if (!take_start_line(parser, out_message))
        return OTUS_E_MALFORMED;
    out_message->octets = octets;
    out_message->content_length = -1;
    out_message->headers = parser->headers;

    struct header_walk walk = {0, 0};
    uint32_t body = take_headers(parser, out_message, &walk);
    /* RFC 3261 25.1 has CR in front of LF only. Where it stands alone, the line was meant to
     * end: read so, the fields behind are there. */
    uint32_t control = parser->lines.first_control;
    if (OTUS_UNLIKELY(control < body && octets[control] == '\r') && scan != otus_lines_scan_lone_cr)
        return parse_lines(parser, out_message, octets, len, flags, otus_lines_scan_lone_cr);
    out_message->num_headers = walk.num_headers;
    otus_sip_take_fields(out_message, &parser->lines, walk.repeated);
    control = parser->lines.first_control;
    if (OTUS_UNLIKELY(control < body) && !is_cut_line_end(text, control, flags))
        otus_sip_flag(out_message, OTUS_SIP_ANOMALY_CONTROL_OCTETS);
    if (flags & OTUS_SIP_TRUNCATED)
        otus_sip_flag(out_message, OTUS_SIP_ANOMALY_TRUNCATED);
    check_mandatory(out_message);
    otus_sip_take_body(parser, out_message, body, flags);
    return OTUS_OK;
}

enum otus_status otus_sip_parse(struct otus_sip_parser *parser,
                                struct otus_sip_message *out_message, const uint8_t *octets,
                                uint32_t len, uint32_t flags)
{
    return parse_lines(parser, out_message, octets, len, flags, parser->scan);
}

void otus_sip_values_init(struct otus_sip_values *out_values,
                          const struct otus_sip_message *message, uint32_t id)
{
    uint32_t first = id < OTUS_SIP_NUM_HEADER_IDS ? message->first[id] : 0;
    *out_values = (struct otus_sip_values){
        .message = message,
        .header = first,
        .pos = first != 0 ? message->headers[first - 1].value.off : 0,
    };
}

/* The comma that ends the value at from, or to. */
static uint32_t find_comma(struct otus_sip_text text, uint32_t from, uint32_t to)
{
    uint32_t at = from;
    while (at < to) {
        at = otus_find3(text.octets, text.len, at, to, ',', '"', '<');
        if (at == to || text.octets[at] == ',')
            return at;
        uint8_t close = text.octets[at] == '<' ? '>' : '"';
        at++;
        while (at < to && text.octets[at] != close)
            at += text.octets[at] == '\\' && close == '"' ? 2 : 1;
        at++;
    }
    return to;
}

bool otus_sip_values_next(struct otus_sip_values *values, struct otus_span *out_value)
{
    if (values->header == 0)
        return false;
    const struct otus_sip_message *message = values->message;
    const struct otus_sip_header *header = &message->headers[values->header - 1];
    struct otus_sip_text text = {message->octets, message->len};
    uint32_t end = header->value.off + header->value.len;
    uint32_t comma = find_comma(text, values->pos, end);
    uint32_t from = otus_skip_space(text.octets, values->pos, comma);
    uint32_t to = otus_trim_space(text.octets, from, comma);
    *out_value = (struct otus_span){from, to - from};
    values->pos = comma + 1;
    if (comma == end) {
        values->header = header->next != 0 ? header->next + 1 : 0;
        if (values->header != 0)
            values->pos = message->headers[values->header - 1].value.off;
    }
    return true;
}
