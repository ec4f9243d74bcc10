/* Cutting SIP messages out of octets in order.
 *
 * RFC 3261 18.3 (Content-Length frames a message on a stream), RFC 5626 3.5.1
 * (CRLF keep-alives between messages), RFC 6455 5 and RFC 7118 (WebSocket). */
#include "otus/sip.h"
#include "stream_internal.h"

enum {
    /* A start line that is not complete yet is kept up to this length. */
    MAX_START_LINE = 4096,
    MAX_HTTP_HEADER = 16384,
    WS_FIN = 0x80,
    WS_RSV = 0x70,
    WS_OPCODE = 0x0f,
    WS_MASKED = 0x80,
    WS_CONTINUATION = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8,
};

static struct frame_result consume(uint32_t octets)
{
    return (struct frame_result){.consumed = octets};
}

static struct frame_result wait_for(uint32_t octets)
{
    return (struct frame_result){.need = octets};
}

/* ---- plain SIP --------------------------------------------------------- */

/* RFC 5626 4.4.1 pings with CRLFCRLF and pongs with CRLF; NULs are a vendor's ping. */
static uint32_t keepalive_len(const uint8_t *octets, uint32_t len)
{
    uint32_t at = 0;
    while (at < len && (octets[at] == '\r' || octets[at] == '\n' || octets[at] == 0))
        at++;
    return at;
}

static const uint8_t *find_octet(const uint8_t *octets, uint32_t len, uint8_t wanted)
{
    return len == 0 ? NULL : memchr(octets, wanted, len);
}

/* Octets up to and including the first empty line; 0 when there is none. */
static uint32_t header_len(const uint8_t *octets, uint32_t len)
{
    uint32_t at = 0;
    for (;;) {
        const uint8_t *lf = find_octet(octets + at, len - at, '\n');
        if (lf == NULL)
            return 0;
        at = (uint32_t)(lf - octets) + 1;
        if (at < len && octets[at] == '\n')
            return at + 1;
        if (at + 1 < len && octets[at] == '\r' && octets[at + 1] == '\n')
            return at + 2;
    }
}

/* Where the next message could start: behind a line end, or a line that is
 * still incomplete. Returns len when nothing here is worth keeping. */
static uint32_t next_start(const uint8_t *octets, uint32_t len)
{
    uint32_t at = 0;
    for (;;) {
        const uint8_t *lf = find_octet(octets + at, len - at, '\n');
        if (lf == NULL)
            break;
        at = (uint32_t)(lf - octets) + 1;
        if (at < len && otus_sip_can_handle(octets + at, len - at))
            return at;
    }
    return at != 0 && len - at <= MAX_START_LINE ? at : len;
}

static struct frame_result resynchronise(struct stream *stream, const uint8_t *octets, uint32_t len,
                                         struct otus_counters *counters)
{
    if (!stream->resync)
        otus_count(counters, OTUS_COUNT_STREAM_RESYNC);
    stream->resync = true;
    uint32_t skipped = next_start(octets, len);
    otus_count_by(counters, OTUS_COUNT_STREAM_OCTETS_SKIPPED, skipped);
    return skipped == 0 ? wait_for(len + 1) : consume(skipped);
}

static bool starts_with(const uint8_t *octets, uint32_t len, const char *text, uint32_t text_len)
{
    return len >= text_len && memcmp(octets, text, text_len) == 0;
}

static uint8_t lower(uint8_t octet)
{
    return octet >= 'A' && octet <= 'Z' ? (uint8_t)(octet | 0x20) : octet;
}

/* Whether "websocket" stands in the header, in any case (RFC 6455 4.1). */
static bool names_websocket(const uint8_t *octets, uint32_t len)
{
    static const char word[] = "websocket";
    enum { WORD = sizeof word - 1 };
    for (uint32_t at = 0; at + WORD <= len; at++) {
        uint32_t i = 0;
        while (i < WORD && lower(octets[at + i]) == (uint8_t)word[i])
            i++;
        if (i == WORD)
            return true;
    }
    return false;
}

static bool is_http(const uint8_t *octets, uint32_t len)
{
    return starts_with(octets, len, "GET ", 4) || starts_with(octets, len, "HTTP/1.", 7);
}

/* No header ends here yet. What was searched is not searched again with every segment:
 * they may be as small as one octet. */
static struct frame_result wait_for_header(struct stream *stream, const uint8_t *octets,
                                           uint32_t len, uint32_t max_len,
                                           struct otus_counters *counters)
{
    if (len >= max_len)
        return resynchronise(stream, octets, len, counters);
    stream->scanned = len;
    return wait_for(len + 1);
}

/* Whether a header ends in what came since the last search. */
static bool header_may_end(const struct stream *stream, const uint8_t *octets, uint32_t len)
{
    /* LF CR LF: two of them may have been there. */
    uint32_t from = stream->scanned > 2 ? stream->scanned - 2 : 0;
    return stream->scanned == 0 || header_len(octets + from, len - from) != 0;
}

/* An HTTP message: after an upgrade the stream is WebSocket. */
static struct frame_result frame_http(struct stream *stream, const uint8_t *octets, uint32_t len,
                                      struct otus_counters *counters)
{
    uint32_t header = header_may_end(stream, octets, len) ? header_len(octets, len) : 0;
    if (header == 0)
        return wait_for_header(stream, octets, len, MAX_HTTP_HEADER, counters);
    if (names_websocket(octets, header))
        stream->mode = MODE_WEBSOCKET;
    return consume(header);
}

static bool looks_like_websocket(const uint8_t *octets, uint32_t len);

/* A Content-Length beyond reason: the header is reported, its body is not waited for. */
static struct frame_result cut_header(struct stream *stream, const uint8_t *octets, uint32_t len,
                                      struct otus_counters *counters)
{
    uint32_t header = header_len(octets, len);
    if (header == 0)
        return resynchronise(stream, octets, len, counters);
    otus_count(counters, OTUS_COUNT_STREAM_RESYNC);
    stream->resync = true;
    return (struct frame_result){.message = {0, header}, .consumed = header};
}

struct frame_result otus_stream_frame_sip(struct stream *stream, const uint8_t *octets,
                                          uint32_t len, uint32_t max_message,
                                          struct otus_counters *counters)
{
    uint32_t idle = keepalive_len(octets, len);
    if (idle != 0) {
        otus_count(counters, OTUS_COUNT_STREAM_KEEPALIVE);
        return consume(idle);
    }
    if (is_http(octets, len))
        return frame_http(stream, octets, len, counters);
    if (!header_may_end(stream, octets, len))
        return wait_for_header(stream, octets, len, max_message, counters);
    uint32_t message = 0;
    switch (otus_sip_frame(&message, octets, len, max_message)) {
    case OTUS_OK:
        stream->resync = false;
        return (struct frame_result){.message = {0, message}, .consumed = message};
    case OTUS_E_PARTIAL:
        return message != 0 ? wait_for(message)
                            : wait_for_header(stream, octets, len, max_message, counters);
    case OTUS_E_LIMIT:
        return cut_header(stream, octets, len, counters);
    default:
        if (looks_like_websocket(octets, len)) {
            stream->mode = MODE_WEBSOCKET;
            return (struct frame_result){0};
        }
        return resynchronise(stream, octets, len, counters);
    }
}

/* ---- WebSocket --------------------------------------------------------- */

struct ws_frame {
    uint8_t opcode;
    bool final;
    bool compressed; /* RSV1: permessage-deflate (RFC 7692) */
    bool masked;
    uint8_t mask[4];
    uint32_t header;
    uint64_t payload;
};

/* RFC 6455 5.2. */
static enum otus_status read_ws_frame(struct ws_frame *out_frame, const uint8_t *octets,
                                      uint32_t len)
{
    struct otus_cursor cursor = otus_cursor_of(octets, len);
    uint8_t first;
    uint8_t second;
    if (!otus_cursor_u8(&cursor, &first) || !otus_cursor_u8(&cursor, &second))
        return OTUS_E_PARTIAL;
    *out_frame = (struct ws_frame){
        .opcode = first & WS_OPCODE,
        .final = (first & WS_FIN) != 0,
        .compressed = (first & WS_RSV) == 0x40,
        .masked = (second & WS_MASKED) != 0,
        .payload = second & 0x7f,
    };
    bool reserved_opcode =
        (out_frame->opcode > WS_BINARY && out_frame->opcode < WS_CLOSE) || out_frame->opcode > 10;
    if ((first & 0x30) != 0 || reserved_opcode)
        return OTUS_E_MALFORMED;
    /* Control frames are never fragmented and at most 125 octets (5.5). */
    if (out_frame->opcode >= WS_CLOSE && (!out_frame->final || out_frame->payload > 125))
        return OTUS_E_MALFORMED;
    uint16_t medium;
    if (out_frame->payload == 126) {
        if (!otus_cursor_be16(&cursor, &medium))
            return OTUS_E_PARTIAL;
        out_frame->payload = medium;
    } else if (out_frame->payload == 127) {
        if (!otus_cursor_be64(&cursor, &out_frame->payload))
            return OTUS_E_PARTIAL;
        if (out_frame->payload >> 63)
            return OTUS_E_MALFORMED;
    }
    if (out_frame->masked && !otus_cursor_copy(&cursor, out_frame->mask, 4))
        return OTUS_E_PARTIAL;
    out_frame->header = len - (uint32_t)otus_cursor_left(&cursor);
    return OTUS_OK;
}

static void unmask(uint8_t *to, const uint8_t *from, uint32_t len, const struct ws_frame *frame)
{
    /* to lies before from or on it: going up is safe. */
    for (uint32_t i = 0; i < len; i++)
        to[i] = frame->masked ? (uint8_t)(from[i] ^ frame->mask[i % 4]) : from[i];
}

/* A data frame whose content starts like SIP: joined without the handshake. */
static bool looks_like_websocket(const uint8_t *octets, uint32_t len)
{
    struct ws_frame frame;
    uint8_t start[256];
    if (read_ws_frame(&frame, octets, len) != OTUS_OK || frame.compressed ||
        (frame.opcode != WS_TEXT && frame.opcode != WS_BINARY))
        return false;
    uint32_t num = len - frame.header;
    if (num > frame.payload)
        num = (uint32_t)frame.payload;
    if (num > sizeof start)
        num = sizeof start;
    unmask(start, octets + frame.header, num, &frame);
    return otus_sip_can_handle(start, num);
}

static struct frame_result end_websocket(struct stream *stream, uint32_t len,
                                         struct otus_counters *counters)
{
    /* No way to find the next frame: all that is here is given up. */
    otus_count(counters, OTUS_COUNT_STREAM_RESYNC);
    otus_count_by(counters, OTUS_COUNT_STREAM_OCTETS_SKIPPED, len);
    stream->mode = MODE_SIP;
    stream->resync = true;
    otus_stream_restart_framing(stream);
    return consume(len);
}

static struct frame_result finish_ws_message(struct stream *stream, const uint8_t *octets,
                                             struct otus_counters *counters)
{
    uint32_t message = stream->assembled;
    uint32_t consumed = stream->next_frame;
    otus_stream_restart_framing(stream);
    uint32_t idle = keepalive_len(octets, message);
    if (idle == message) {
        otus_count(counters, OTUS_COUNT_STREAM_KEEPALIVE);
        return consume(consumed);
    }
    if (!otus_sip_can_handle(octets + idle, message - idle)) {
        otus_count_by(counters, OTUS_COUNT_STREAM_OCTETS_SKIPPED, message);
        return consume(consumed);
    }
    return (struct frame_result){.message = {idle, message - idle}, .consumed = consumed};
}

/* A control frame with no message begun: nothing to keep before the next one. */
static struct frame_result finish_control(struct stream *stream)
{
    uint32_t consumed = stream->next_frame;
    stream->next_frame = 0;
    return consume(consumed);
}

/* octets start with stream->assembled octets of the message so far; at next_frame the
 * next frame follows. A fragment is unmasked down onto the message's end; what lies
 * between the two is done with, and goes with the message. */
struct frame_result otus_stream_frame_websocket(struct stream *stream, uint8_t *octets,
                                                uint32_t len, uint32_t max_message,
                                                struct otus_counters *counters)
{
    const uint8_t *at = octets + stream->next_frame;
    uint32_t left = len - stream->next_frame;
    struct ws_frame frame;
    enum otus_status status = read_ws_frame(&frame, at, left);
    if (status == OTUS_E_PARTIAL)
        return wait_for(len + 1);
    if (status != OTUS_OK || frame.compressed || frame.payload > max_message ||
        stream->assembled + frame.payload > max_message)
        return end_websocket(stream, len, counters);
    uint32_t payload = (uint32_t)frame.payload;
    if (left - frame.header < payload)
        return wait_for(stream->next_frame + frame.header + payload);
    stream->next_frame += frame.header + payload;
    if (frame.opcode >= WS_CLOSE) /* control frames may come between fragments */
        return stream->assembled == 0 ? finish_control(stream) : (struct frame_result){0};
    unmask(octets + stream->assembled, at + frame.header, payload, &frame);
    stream->assembled += payload;
    return frame.final ? finish_ws_message(stream, octets, counters) : (struct frame_result){0};
}
