/* Session descriptions: RFC 8866, with RFC 3605 (a=rtcp), RFC 5761 (rtcp-mux),
 * RFC 9143 (BUNDLE) and RFC 8839 (ICE candidates). */
#include "otus/sdp.h"

#include <stddef.h>

#include "lines.h"
#include "octet_search.h"
#include "sip_internal.h"

/* What the walk over the lines calls for those of unusual shape: kept out of its registers. */
#define NOINLINE __attribute__((noinline))

/* The description in hand. A value is one line without its type and '='. */
struct sdp_reader {
    struct otus_sdp *sdp;
    struct otus_sip_text text;
    struct otus_sdp_media *media; /* NULL at session level */
    struct otus_sdp_codec *codec; /* of the media's codecs, those before it all have an encoding */
    struct otus_sdp_codec *codecs_end;
    uint8_t direction; /* the session's, for media that say nothing */
    bool rtcp_mux;     /* likewise */
};

const char *otus_sdp_static_encoding(uint8_t payload_type)
{
    static const char *const names[35] = {
        [0] = "PCMU/8000",    [3] = "GSM/8000",    [4] = "G723/8000",   [5] = "DVI4/8000",
        [6] = "DVI4/16000",   [7] = "LPC/8000",    [8] = "PCMA/8000",   [9] = "G722/8000",
        [10] = "L16/44100/2", [11] = "L16/44100",  [12] = "QCELP/8000", [13] = "CN/8000",
        [14] = "MPA/90000",   [15] = "G728/8000",  [16] = "DVI4/11025", [17] = "DVI4/22050",
        [18] = "G729/8000",   [25] = "CelB/90000", [26] = "JPEG/90000", [28] = "nv/90000",
        [31] = "H261/90000",  [32] = "MPV/90000",  [33] = "MP2T/90000", [34] = "H263/90000",
    };
    return payload_type < 35 ? names[payload_type] : NULL;
}

/* Where the first space of [from, to) is, or to. Words are short: mostly one vector tells. */
static inline uint32_t find_space(const struct sdp_reader *reader, uint32_t from, uint32_t to)
{
    if (OTUS_LIKELY(reader->text.len - from >= OTUS_VECTOR_OCTETS)) {
        uint32_t first = (uint32_t)otus_find_in16(reader->text.octets + from, ' ');
        if (from + first >= to)
            return to;
        if (first < OTUS_VECTOR_OCTETS)
            return from + first;
    }
    return otus_find(reader->text.octets, reader->text.len, from, to, ' ');
}

/* Moves value behind its first stop - value->off octets, and the spaces there. */
static inline void move_behind(const struct sdp_reader *reader, struct otus_span *value,
                               uint32_t stop)
{
    uint32_t end = value->off + value->len;
    uint32_t next = stop < end ? stop + 1 : end;
    while (OTUS_UNLIKELY(next < end && reader->text.octets[next] == ' '))
        next++;
    *value = (struct otus_span){next, end - next};
}

/* The next word of the value and the single space behind it. */
static inline struct otus_span take_word(const struct sdp_reader *reader, struct otus_span *value)
{
    uint32_t from = value->off;
    uint32_t stop = find_space(reader, from, from + value->len);
    move_behind(reader, value, stop);
    return (struct otus_span){from, stop - from};
}

/* A number up to max, and nothing more. */
static inline bool read_number(const struct sdp_reader *reader, uint32_t *out_number,
                               struct otus_span digits, uint32_t max)
{
    enum { SAFE_DIGITS = 9 }; /* 10^9 - 1 is below 2^32 */
    const uint8_t *at = reader->text.octets + digits.off;
    uint32_t number = 0;
    if (OTUS_UNLIKELY(digits.len > SAFE_DIGITS)) {
        uint64_t longer;
        bool good = otus_sip_parse_number(&longer, reader->text.octets, digits, max);
        *out_number = good ? (uint32_t)longer : 0;
        return good;
    }
    for (uint32_t i = 0; i < digits.len; i++) {
        uint32_t digit = (uint32_t)at[i] - '0';
        if (digit > 9)
            return false;
        number = number * 10 + digit;
    }
    *out_number = number;
    return digits.len != 0 && number <= max;
}

static bool equals(const struct sdp_reader *reader, struct otus_span span, const char *text,
                   uint32_t len)
{
    return span.len == len && memcmp(reader->text.octets + span.off, text, len) == 0;
}

static bool starts_with(const struct sdp_reader *reader, struct otus_span span, const char *text,
                        uint32_t len)
{
    return span.len >= len && memcmp(reader->text.octets + span.off, text, len) == 0;
}

static struct otus_span behind(struct otus_span span, uint32_t len)
{
    return (struct otus_span){span.off + len, span.len - len};
}

/* RFC 8866 5.7: c=<nettype> <addrtype> <connection-address>[/ttl][/number]; only IN is known. */
static NOINLINE bool read_address(const struct sdp_reader *reader, struct otus_span *out_address,
                                  struct otus_span value)
{
    struct otus_sip_text text = reader->text;
    struct otus_span net_type = take_word(reader, &value);
    struct otus_span addr_type = take_word(reader, &value);
    if (net_type.len == 0 || addr_type.len == 0 || value.len == 0)
        return false;
    uint32_t stop = otus_find2(text.octets, text.len, value.off, value.off + value.len, '/', ' ');
    *out_address = (struct otus_span){value.off, stop - value.off};
    return true;
}

/* The same where nearly all lines have the same two words. */
static inline bool read_connection(const struct sdp_reader *reader, struct otus_span value)
{
    static const char usual[] = "IN IP4 ";
    enum { USUAL = sizeof usual - 1 };
    struct otus_sip_text text = reader->text;
    struct otus_span *address = &reader->sdp->address;
    if (reader->media != NULL)
        address = &reader->media->address;
    else if (OTUS_UNLIKELY(reader->sdp->num_media != 0))
        return true; /* of a media section that found no room */
    const uint8_t *at = text.octets + value.off;
    if (OTUS_UNLIKELY(value.len <= USUAL || memcmp(at, usual, USUAL) != 0 || at[USUAL] == ' '))
        return read_address(reader, address, value);
    uint32_t end = value.off + value.len;
    address->off = value.off + USUAL;
    address->len = otus_find2(text.octets, text.len, address->off, end, '/', ' ') - address->off;
    return true;
}

static bool read_port(const struct sdp_reader *reader, uint16_t *out_port, struct otus_span digits)
{
    uint32_t number;
    if (!read_number(reader, &number, digits, UINT16_MAX))
        return false;
    *out_port = (uint16_t)number;
    return true;
}

static inline void add_codec(struct sdp_reader *reader, uint32_t payload_type)
{
    if (OTUS_UNLIKELY(reader->codecs_end == reader->sdp->codecs + OTUS_SDP_MAX_CODECS)) {
        reader->sdp->truncated = true;
        return;
    }
    *reader->codecs_end++ = (struct otus_sdp_codec){{0, 0}, (uint8_t)payload_type};
}

/* Formats are payload types where the protocol is an RTP profile, names elsewhere. */
static NOINLINE bool read_formats(struct sdp_reader *reader, struct otus_span value)
{
    bool good = value.len != 0;
    while (value.len != 0) {
        struct otus_span word = take_word(reader, &value);
        uint32_t number;
        if (read_number(reader, &number, word, 127))
            add_codec(reader, number);
        else if (word.len != 0 && otus_is_digit(reader->text.octets[word.off]))
            good = false;
    }
    return good;
}

/* A new media section; NULL where there is no room. */
static inline struct otus_sdp_media *add_media(struct sdp_reader *reader)
{
    struct otus_sdp *sdp = reader->sdp;
    reader->codec = reader->codecs_end;
    reader->media = NULL;
    if (OTUS_UNLIKELY(sdp->num_media == OTUS_SDP_MAX_MEDIA)) {
        sdp->truncated = true; /* its attributes belong to nobody: see read_connection() */
        return NULL;
    }
    reader->media = &sdp->media[sdp->num_media++];
    *reader->media = (struct otus_sdp_media){
        .address = sdp->address,
        .num_ports = 1,
        .direction = reader->direction,
        .rtcp_mux = reader->rtcp_mux,
        .first_codec = (uint16_t)(reader->codec - sdp->codecs),
        .first_candidate = (uint16_t)sdp->num_candidates,
    };
    return reader->media;
}

/* What follows from the rest of its line. */
static inline void finish_media(const struct sdp_reader *reader, uint32_t port)
{
    struct otus_sdp_media *media = reader->media;
    media->port = (uint16_t)port;
    media->rtcp_port = port != 0 && port != UINT16_MAX ? (uint16_t)(port + 1) : 0;
    media->num_codecs = (uint16_t)(reader->codecs_end - reader->codec);
}

/* RFC 8866 5.14: m=<media> <port>[/<number of ports>] <proto> <fmt> ... */
static NOINLINE bool read_media(struct sdp_reader *reader, struct otus_span value)
{
    struct otus_sdp_media *media = add_media(reader);
    if (media == NULL)
        return true;
    media->media = take_word(reader, &value);
    struct otus_span port = take_word(reader, &value);
    media->protocol = take_word(reader, &value);

    uint16_t number = 0;
    uint32_t end = port.off + port.len;
    uint32_t slash = otus_find(reader->text.octets, reader->text.len, port.off, end, '/');
    bool good = read_port(reader, &number, (struct otus_span){port.off, slash - port.off});
    if (slash < end)
        good =
            read_port(reader, &media->num_ports, (struct otus_span){slash + 1, end - slash - 1}) &&
            media->num_ports != 0 && good;
    good = read_formats(reader, value) && media->protocol.len != 0 && good;
    finish_media(reader, number);
    return good;
}

/* Adds one to three digits up to the number and moves behind the last; false where there are
 * none, or perhaps more. A plain line ends before an octet that is none. */
static inline bool read_payload_type(uint32_t *out_number, const uint8_t **at)
{
    const uint8_t *digits = *at;
    uint32_t number = (uint32_t)digits[0] - '0';
    uint32_t digit;
    if (number > 9)
        return false;
    digits++;
    if ((digit = (uint32_t)digits[0] - '0') <= 9) {
        number = number * 10 + digit;
        digits++;
        if ((digit = (uint32_t)digits[0] - '0') <= 9) {
            number = number * 10 + digit;
            digits++;
        }
    }
    *out_number = number;
    *at = digits;
    return true;
}

/* The formats of a plain line from `at` to its `end`. */
static inline bool read_plain_formats(struct sdp_reader *reader, const uint8_t *at,
                                      const uint8_t *end)
{
    for (;;) {
        const uint8_t *next = at;
        uint32_t number;
        if (OTUS_UNLIKELY(!read_payload_type(&number, &next) || number > 127 ||
                          (next != end && next[0] != ' '))) {
            struct otus_span rest = {(uint32_t)(at - reader->text.octets), (uint32_t)(end - at)};
            return read_formats(reader, rest);
        }
        add_codec(reader, number);
        if (next == end)
            return true;
        at = next + 1;
    }
}

/* As read_media() for a plain line, [from, to) without its end. */
static NOINLINE bool read_plain_media(struct sdp_reader *reader, const struct otus_lines *lines,
                                      uint32_t from, uint32_t to)
{
    const uint8_t *octets = lines->octets;
    uint32_t port = 0;
    uint32_t media_end = otus_lines_mark(lines, from, to);
    size_t port_end = media_end + 1;
    for (uint32_t digit; (digit = (uint32_t)octets[port_end] - '0') <= 9; port_end++)
        port = port * 10 + digit;
    uint32_t protocol = (uint32_t)port_end + 1;
    if (OTUS_UNLIKELY(octets[media_end] != ' ' || port_end - media_end - 2 > 4 ||
                      port > UINT16_MAX || octets[port_end] != ' ' || octets[protocol] <= ' '))
        return read_media(reader, (struct otus_span){from, to - from});
    uint32_t protocol_end = otus_lines_mark(lines, protocol, to);
    if (OTUS_UNLIKELY(octets[protocol_end] != ' '))
        return read_media(reader, (struct otus_span){from, to - from});
    struct otus_sdp_media *media = add_media(reader);
    if (OTUS_UNLIKELY(media == NULL))
        return true;
    media->media = (struct otus_span){from, media_end - from};
    media->protocol = (struct otus_span){protocol, protocol_end - protocol};
    bool good = read_plain_formats(reader, octets + protocol_end + 1, octets + to);
    finish_media(reader, port);
    return good;
}

/* RFC 8866 6.6: a=rtpmap:<payload type> <encoding name>/<clock rate>[/<parameters>] */
static NOINLINE bool read_rtpmap(struct sdp_reader *reader, struct otus_span value)
{
    struct otus_span digits = take_word(reader, &value);
    uint32_t payload_type;
    if (!read_number(reader, &payload_type, digits, 127) || value.len == 0)
        return false;
    for (struct otus_sdp_codec *codec = reader->codec; codec != reader->codecs_end; codec++) {
        if (codec->payload_type == payload_type && codec->encoding.len == 0) {
            codec->encoding = take_word(reader, &value);
            break;
        }
    }
    return true;
}

/* As read_rtpmap() for a plain line, which mostly names the next codec. */
static inline bool read_plain_rtpmap(struct sdp_reader *reader, const struct otus_lines *lines,
                                     uint32_t from, uint32_t to)
{
    struct otus_sdp_codec *codec = reader->codec;
    const uint8_t *at = lines->octets + from;
    uint32_t payload_type;
    if (OTUS_LIKELY(codec != reader->codecs_end && read_payload_type(&payload_type, &at) &&
                    codec->payload_type == payload_type && codec->encoding.len == 0 &&
                    at[0] == ' ')) {
        uint32_t encoding = (uint32_t)(at + 1 - lines->octets);
        if (OTUS_LIKELY(otus_lines_mark(lines, encoding, to) == to)) {
            codec->encoding.off = encoding;
            codec->encoding.len = to - encoding;
            reader->codec++;
            return true;
        }
    }
    return read_rtpmap(reader, (struct otus_span){from, to - from});
}

/* RFC 3605 2.1: a=rtcp:<port> [nettype addrtype connection-address] */
static bool read_rtcp(struct sdp_reader *reader, struct otus_span value)
{
    struct otus_span digits = take_word(reader, &value);
    uint16_t port;
    if (!read_port(reader, &port, digits))
        return false;
    if (reader->media == NULL)
        return true;
    reader->media->rtcp_port = port;
    return value.len == 0 || read_address(reader, &reader->media->rtcp_address, value);
}

static void add_candidate(struct sdp_reader *reader, struct otus_span value)
{
    struct otus_sdp *sdp = reader->sdp;
    if (sdp->num_candidates == OTUS_SDP_MAX_CANDIDATES) {
        sdp->truncated = true;
        return;
    }
    sdp->candidates[sdp->num_candidates++] = value;
    reader->media->num_candidates++;
}

static void set_direction(struct sdp_reader *reader, enum otus_sdp_direction direction)
{
    if (reader->media != NULL)
        reader->media->direction = (uint8_t)direction;
    else
        reader->direction = (uint8_t)direction;
}

static bool read_r_attribute(struct sdp_reader *reader, struct otus_span value)
{
    if (starts_with(reader, value, "rtpmap:", 7))
        return read_rtpmap(reader, behind(value, 7));
    if (starts_with(reader, value, "rtcp:", 5))
        return read_rtcp(reader, behind(value, 5));
    if (equals(reader, value, "rtcp-mux", 8)) {
        if (reader->media != NULL)
            reader->media->rtcp_mux = true;
        else
            reader->rtcp_mux = true;
    } else if (equals(reader, value, "recvonly", 8)) {
        set_direction(reader, OTUS_SDP_RECVONLY);
    }
    return true;
}

/* The attributes that say where media flow; all others are left alone. */
static NOINLINE bool read_attribute(struct sdp_reader *reader, struct otus_span value)
{
    if (value.len == 0)
        return false;
    switch (reader->text.octets[value.off]) {
    case 'r':
        return read_r_attribute(reader, value);
    case 's':
        if (equals(reader, value, "sendrecv", 8))
            set_direction(reader, OTUS_SDP_SENDRECV);
        else if (equals(reader, value, "sendonly", 8))
            set_direction(reader, OTUS_SDP_SENDONLY);
        break;
    case 'i':
        if (equals(reader, value, "inactive", 8))
            set_direction(reader, OTUS_SDP_INACTIVE);
        break;
    case 'm':
        if (starts_with(reader, value, "mid:", 4) && reader->media != NULL)
            reader->media->mid = behind(value, 4);
        break;
    case 'c':
        if (starts_with(reader, value, "candidate:", 10) && reader->media != NULL)
            add_candidate(reader, behind(value, 10));
        break;
    case 'g':
        if (starts_with(reader, value, "group:BUNDLE ", 13) && reader->sdp->bundle.len == 0)
            reader->sdp->bundle = behind(value, 13);
        break;
    default:
        break;
    }
    return true;
}

/* One line that is not empty; false where it can't be read. */
static NOINLINE bool read_line(struct sdp_reader *reader, struct otus_span line)
{
    const uint8_t *octets = reader->text.octets;
    /* RFC 8866 5: <type>=<value>, type one case-significant character, no white space. */
    if (line.len < 2 || octets[line.off + 1] != '=')
        return false;
    struct otus_span value = behind(line, 2);
    if (octets[line.off] != 's') /* at the end white space belongs to text alone; some add it */
        value.len = otus_trim_space(octets, value.off, value.off + value.len) - value.off;
    switch (octets[line.off]) {
    case 'o':
        reader->sdp->origin = value;
        return true;
    case 's':
        reader->sdp->session_name = value;
        return true;
    case 'c':
        return read_connection(reader, value);
    case 'm':
        return read_media(reader, value);
    case 'a':
        return read_attribute(reader, value);
    default:
        return octets[line.off] >= 'a' && octets[line.off] <= 'z';
    }
}

/* Reads lines as long as they are plain, as nearly all are: known from where they start to where
 * they end, marked, and without white space in front of their CRLF. What is said of them is what
 * read_line() would say. */
static inline void read_plain_lines(struct sdp_reader *reader, struct otus_lines *lines,
                                    uint32_t end)
{
    const uint8_t *octets = lines->octets;
    const uint32_t *next = lines->lf + lines->next;
    const uint32_t *last = lines->lf + lines->num;
    uint32_t limit = end < OTUS_LINES_MARKED ? end : OTUS_LINES_MARKED;
    uint32_t start = lines->start;
    bool good = true;
    for (; next < last; next++) {
        uint32_t lf = *next;
        uint32_t from = start + 2;
        uint32_t to = lf - 1;
        if (OTUS_UNLIKELY(lf >= limit || lf <= from || octets[start + 1] != '=' ||
                          octets[to] != '\r' || octets[lf - 2] <= ' '))
            break;
        struct otus_span value = {from, to - from};
        uint8_t type = octets[start];
        start = lf + 1;
        if (OTUS_LIKELY(type == 'a')) {
            if (OTUS_LIKELY(starts_with(reader, value, "rtpmap:", 7)))
                good &= read_plain_rtpmap(reader, lines, from + 7, to);
            else
                good &= read_attribute(reader, value);
        } else if (type == 'm') {
            good &= read_plain_media(reader, lines, from, to);
        } else if (type == 'c') {
            good &= read_connection(reader, value);
        } else if (type == 'o') {
            reader->sdp->origin = value;
        } else if (type == 's') {
            reader->sdp->session_name = value;
        } else {
            good &= type >= 'a' && type <= 'z';
        }
    }
    lines->next = (uint32_t)(next - lines->lf);
    lines->start = start;
    reader->sdp->bad |= !good;
}

/* RFC 5761 5.1.1: with rtcp-mux, RTCP comes to the port of RTP. */
static void finish(struct sdp_reader *reader)
{
    struct otus_sdp *sdp = reader->sdp;
    sdp->num_codecs = (uint32_t)(reader->codecs_end - sdp->codecs);
    for (uint32_t i = 0; i < sdp->num_media; i++) {
        struct otus_sdp_media *media = &sdp->media[i];
        if (media->rtcp_mux)
            media->rtcp_port = media->port;
        if (media->address.len == 0 && media->port != 0)
            sdp->bad = true; /* RFC 8866 5.7: a c= for each media or for the session */
    }
}

static void sdp_clear(struct otus_sdp *sdp)
{
    memset(sdp, 0, offsetof(struct otus_sdp, media));
}

enum otus_status otus_sdp_parse_lines(struct otus_sdp *out_sdp, struct otus_lines *lines,
                                      struct otus_span body)
{
    uint32_t end = body.off + body.len;
    struct sdp_reader reader = {
        .sdp = out_sdp,
        .text = {lines->octets, lines->len},
        .codec = out_sdp->codecs,
        .codecs_end = out_sdp->codecs,
        .direction = OTUS_SDP_SENDRECV,
    };
    sdp_clear(out_sdp);
    if (body.len != 0) { /* RFC 8866 5.1: v= comes first; an empty line is told below */
        uint8_t first = lines->octets[body.off];
        out_sdp->bad = first != 'v' && first != '\r' && first != '\n';
    }
    read_plain_lines(&reader, lines, end);
    struct otus_line line;
    bool was_empty = false;
    while (lines->start < end && otus_lines_next(lines, &line)) {
        uint32_t line_end = line.end < end ? line.end : end;
        if (line.start == line_end) {
            was_empty = true; /* at the end it is harmless, and senders add it */
            continue;
        }
        struct otus_span span = {line.start, line_end - line.start};
        bool good = read_line(&reader, span) && !was_empty;
        out_sdp->bad |= !good;
        read_plain_lines(&reader, lines, end);
    }
    finish(&reader);
    return out_sdp->num_media != 0 || out_sdp->origin.len != 0 || !out_sdp->bad ? OTUS_OK
                                                                                : OTUS_E_MALFORMED;
}

/* The scan that needs no choice by what the processor has: there is nothing to keep one in. */
enum otus_status otus_sdp_parse(struct otus_sdp *out_sdp, const uint8_t *octets,
                                struct otus_span body)
{
    struct otus_lines lines;
    otus_lines_init_inside(&lines, octets, body.off + body.len, body.off, otus_lines_scan_portable);
    return otus_sdp_parse_lines(out_sdp, &lines, body);
}
