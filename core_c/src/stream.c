/* TCP streams: sequence numbers and gaps (RFC 9293 3.4).
 *
 * A stream is one direction of a connection. Octets in order go to the framer;
 * where nothing waits, straight from the segment, without a copy. */
#include "otus/stream.h"

#include "stream_internal.h"

enum {
    IP_TCP = 6,
    TCP_SYN = 0x02,
    TCP_RST = 0x04,
};

/* ---- segments ---------------------------------------------------------- */

bool otus_streams_wants(const struct otus_streams *streams, const struct otus_packet *packet)
{
    const struct otus_packet_meta *meta = &packet->meta;
    return meta->protocol == IP_TCP && (meta->flags & OTUS_PACKET_TRANSPORT) &&
           (streams->wanted[meta->src_port] || streams->wanted[meta->dst_port]);
}

/* Ranges that the octets in order have reached become part of them. */
static void join_ranges(struct otus_streams *streams, struct stream *stream)
{
    uint32_t joined = 0;
    while (joined < stream->num_ranges && stream->ranges[joined].off <= stream->have) {
        const struct stream_range *range = &stream->ranges[joined++];
        uint32_t end = range->off + range->len;
        if (end > stream->have) {
            stream->next_seq += end - stream->have;
            stream->have = end;
        }
        otus_count_by(streams->counters, OTUS_COUNT_SEGMENT_CONSUMED, range->num_segments);
        otus_stream_set_held(streams, streams->num_held - range->num_segments);
    }
    if (joined == 0)
        return;
    stream->num_ranges -= joined;
    memmove(stream->ranges, stream->ranges + joined, stream->num_ranges * sizeof stream->ranges[0]);
    if (stream->num_ranges == 0)
        otus_stream_close_gap(streams, stream);
}

/* The gap will not fill: goes on behind it. */
static void skip_gap(struct otus_streams *streams, struct stream *stream)
{
    otus_count(streams->counters, OTUS_COUNT_STREAM_GAP);
    otus_count_by(streams->counters, OTUS_COUNT_STREAM_OCTETS_SKIPPED, stream->have);
    uint32_t gap_end = stream->ranges[0].off;
    stream->next_seq += gap_end - stream->have;
    stream->have = gap_end;
    otus_stream_restart_framing(stream);
    /* Behind a gap a WebSocket frame can't be found; a SIP start line can. */
    stream->mode = MODE_SIP;
    stream->resync = true;
    otus_stream_remove_front(streams, stream, gap_end);
    join_ranges(streams, stream);
}

/* Copies the parts of a segment that no range has yet: the first octets seen
 * are kept, so that a later forgery can't change what was there. */
static bool insert_range(struct stream *stream, uint32_t off, struct otus_slice octets)
{
    struct stream_range *ranges = stream->ranges;
    uint32_t end = off + octets.len;
    uint32_t first = 0;
    while (first < stream->num_ranges && ranges[first].off + ranges[first].len < off)
        first++;
    uint32_t last = first; /* ranges [first, last) touch the segment */
    uint32_t at = off;
    struct stream_range merged = {off, octets.len, 1};
    while (last < stream->num_ranges && ranges[last].off <= end) {
        const struct stream_range *range = &ranges[last++];
        if (range->off > at)
            memcpy(stream->buffer + at, octets.at + (at - off), range->off - at);
        if (range->off + range->len > at)
            at = range->off + range->len;
        merged.off = range->off < merged.off ? range->off : merged.off;
        merged.num_segments += range->num_segments;
    }
    if (first == last && stream->num_ranges == MAX_RANGES)
        return false;
    if (at < end)
        memcpy(stream->buffer + at, octets.at + (at - off), end - at);
    merged.len = (at > end ? at : end) - merged.off;
    memmove(ranges + first + 1, ranges + last, (stream->num_ranges - last) * sizeof *ranges);
    ranges[first] = merged;
    stream->num_ranges = stream->num_ranges - (last - first) + 1;
    return true;
}

/* A segment that came early. */
static void hold(struct otus_streams *streams, struct stream *stream, uint32_t ahead,
                 struct otus_slice octets)
{
    uint32_t off = stream->have + ahead;
    if (!otus_stream_grow(streams, stream, off + octets.len) ||
        !insert_range(stream, off, octets)) {
        otus_count(streams->counters, OTUS_COUNT_SEGMENT_LIMIT_OCTETS);
        return;
    }
    otus_stream_set_held(streams, streams->num_held + 1);
    if (!stream->has_gap)
        otus_stream_open_gap(streams, stream, streams->now_ns);
}

static bool append(struct otus_streams *streams, struct stream *stream, struct otus_slice octets)
{
    if (!otus_stream_grow(streams, stream, stream->have + octets.len))
        return false;
    /* A range may reach into here already: what it has is kept. */
    uint32_t end = stream->have + octets.len;
    uint32_t copy = octets.len;
    if (stream->num_ranges != 0 && stream->ranges[0].off < end)
        copy = stream->ranges[0].off - stream->have;
    memcpy(stream->buffer + stream->have, octets.at, copy);
    if (copy < octets.len) {
        struct otus_slice rest = {octets.at + copy, octets.len - copy};
        /* Touches ranges[0], so it always finds a place; the segment itself is counted by put(). */
        (void)insert_range(stream, stream->have + copy, rest);
        stream->ranges[0].num_segments -= 1;
    }
    stream->have += copy;
    stream->next_seq += copy;
    join_ranges(streams, stream);
    return true;
}

static void start_over(struct otus_streams *streams, struct stream *stream, uint32_t seq)
{
    otus_stream_drop_octets(streams, stream, OTUS_COUNT_SEGMENT_CLOSED);
    stream->next_seq = seq;
    stream->mode = MODE_SIP;
    stream->resync = false;
}

/* Puts the payload in its place and makes the stream the one to be framed. */
static void place(struct otus_streams *streams, struct stream *stream, uint32_t seq,
                  struct otus_slice octets)
{
    struct otus_counters *counters = streams->counters;
    int32_t ahead = (int32_t)(seq - stream->next_seq); /* RFC 9293 3.4: modulo 2^32 */
    int64_t window = streams->config.max_stream_octets;
    if (ahead > window || ahead < -16 * window) {
        /* Another connection on the same ports, or more lost than could wait. */
        otus_count(counters, OTUS_COUNT_STREAM_GAP);
        start_over(streams, stream, seq);
        stream->resync = true;
        ahead = 0;
    }
    if (ahead < 0) {
        uint32_t known = 0u - (uint32_t)ahead;
        if (known >= octets.len) {
            otus_count(counters, OTUS_COUNT_SEGMENT_DUPLICATE);
            return;
        }
        octets = (struct otus_slice){octets.at + known, octets.len - known};
        ahead = 0;
    }
    if (ahead > 0) {
        hold(streams, stream, (uint32_t)ahead, octets);
        return;
    }
    otus_count(counters, OTUS_COUNT_SEGMENT_CONSUMED);
    streams->current = stream;
    if (stream->have == 0 && stream->num_ranges == 0 && stream->mode == MODE_SIP) {
        streams->direct = octets;
        stream->next_seq += octets.len;
    } else if (!append(streams, stream, octets)) {
        otus_count(counters, OTUS_COUNT_STREAM_GAP);
        otus_count_by(counters, OTUS_COUNT_STREAM_OCTETS_SKIPPED, octets.len);
        otus_stream_drop_octets(streams, stream, OTUS_COUNT_SEGMENT_LIMIT_OCTETS);
        stream->next_seq += octets.len;
        stream->resync = true;
    }
}

static void keep_headers(struct stream *stream, const struct otus_packet *segment)
{
    stream->meta = segment->meta;
    memcpy(stream->tunnels, segment->tunnels,
           segment->meta.num_tunnels * sizeof segment->tunnels[0]);
}

void otus_streams_put(struct otus_streams *streams, const struct otus_packet *segment)
{
    const struct otus_packet_meta *meta = &segment->meta;
    struct stream_key key = otus_stream_key_of(segment);
    uint32_t hash = otus_stream_hash(streams, &key);
    struct stream *stream = otus_stream_find(streams, &key, hash);
    bool opens = (meta->tcp_flags & TCP_SYN) != 0;
    streams->now_ns = meta->ts_ns;
    streams->frame = segment->frame;
    streams->current = NULL;
    streams->direct = (struct otus_slice){NULL, 0};
    streams->consumed = 0;
    if (segment->payload.len == 0)
        otus_count(streams->counters, OTUS_COUNT_SEGMENT_EMPTY);
    if (segment->payload.len == 0 && !opens && stream == NULL)
        return; /* a bare ACK is no reason to remember a stream */
    if (stream == NULL) {
        stream = otus_stream_add(streams, &key, hash);
        stream->next_seq = meta->tcp_seq + opens;
        if (!opens) {
            otus_count(streams->counters, OTUS_COUNT_STREAM_MIDSTREAM);
            stream->resync = true;
        }
    } else if (opens && stream->next_seq != meta->tcp_seq + 1) {
        start_over(streams, stream, meta->tcp_seq + 1);
    }
    otus_stream_touch(streams, stream);
    if (segment->payload.len != 0) {
        keep_headers(stream, segment);
        place(streams, stream, meta->tcp_seq + opens, segment->payload);
    }
    /* A stream that ended is remembered until it is the oldest: a late
     * retransmission must be known as one. */
    if (meta->tcp_flags & TCP_RST)
        otus_stream_drop_ranges(streams, stream, OTUS_COUNT_SEGMENT_CLOSED);
}

/* ---- messages ---------------------------------------------------------- */

/* What is left of the segment waits in the stream's buffer. */
static void keep_rest(struct otus_streams *streams, struct stream *stream)
{
    struct otus_slice rest = streams->direct;
    streams->direct = (struct otus_slice){NULL, 0};
    if (rest.len == 0)
        return;
    if (!otus_stream_grow(streams, stream, rest.len)) {
        otus_count(streams->counters, OTUS_COUNT_STREAM_GAP);
        otus_count_by(streams->counters, OTUS_COUNT_STREAM_OCTETS_SKIPPED, rest.len);
        otus_stream_restart_framing(stream);
        stream->resync = true;
        return;
    }
    memcpy(stream->buffer, rest.at, rest.len);
    stream->have = rest.len;
}

static void drop_front(struct otus_streams *streams, struct stream *stream, uint32_t octets)
{
    if (octets != 0)
        stream->scanned = 0;
    if (streams->direct.at != NULL)
        streams->direct =
            (struct otus_slice){streams->direct.at + octets, streams->direct.len - octets};
    else
        otus_stream_remove_front(streams, stream, octets);
}

static struct frame_result frame_octets(struct otus_streams *streams, struct stream *stream)
{
    uint32_t max = streams->config.max_message_octets;
    if (stream->mode == MODE_WEBSOCKET && streams->direct.at != NULL)
        keep_rest(streams, stream); /* unmasking writes */
    if (stream->mode == MODE_WEBSOCKET && stream->have == 0)
        return (struct frame_result){.need = 1}; /* there was no room */
    if (stream->mode == MODE_WEBSOCKET)
        return otus_stream_frame_websocket(stream, stream->buffer, stream->have, max,
                                           streams->counters);
    if (streams->direct.at != NULL)
        return otus_stream_frame_sip(stream, streams->direct.at, streams->direct.len, max,
                                     streams->counters);
    return otus_stream_frame_sip(stream, stream->buffer, stream->have, max, streams->counters);
}

static void end_framing(struct otus_streams *streams, struct stream *stream)
{
    keep_rest(streams, stream);
    streams->current = NULL;
}

static void give(struct otus_streams *streams, struct otus_packet *out_packet,
                 const struct stream *stream, struct otus_span message)
{
    const uint8_t *octets = streams->direct.at != NULL ? streams->direct.at : stream->buffer;
    out_packet->meta = stream->meta;
    out_packet->meta.flags |= OTUS_PACKET_STREAM;
    if (stream->mode == MODE_WEBSOCKET)
        out_packet->meta.flags |= OTUS_PACKET_WEBSOCKET;
    out_packet->frame = streams->frame;
    out_packet->datagram = (struct otus_slice){NULL, 0};
    out_packet->transport = (struct otus_slice){NULL, 0};
    out_packet->payload = (struct otus_slice){octets + message.off, message.len};
    memcpy(out_packet->tunnels, stream->tunnels,
           stream->meta.num_tunnels * sizeof stream->tunnels[0]);
    otus_count(streams->counters, OTUS_COUNT_MESSAGE);
}

/* Frames the current stream until a message is found or nothing more is there. */
static bool frame_current(struct otus_streams *streams, struct otus_packet *out_packet)
{
    struct stream *stream = streams->current;
    uint32_t left = streams->direct.at != NULL ? streams->direct.len : stream->have;
    if (left == 0 || left < stream->need) {
        end_framing(streams, stream);
        return false;
    }
    stream->need = 0;
    struct frame_result result = frame_octets(streams, stream);
    if (result.message.len != 0) {
        streams->consumed = result.consumed;
        give(streams, out_packet, stream, result.message);
        return true;
    }
    drop_front(streams, stream, result.consumed);
    if (result.need != 0) {
        stream->need = result.need;
        end_framing(streams, stream);
    }
    return false;
}

static bool is_idle(const struct otus_streams *streams, const struct stream *stream)
{
    uint64_t timeout_ns = streams->config.idle_timeout_ms * UINT64_C(1000000);
    return streams->now_ns > stream->last_ns && streams->now_ns - stream->last_ns >= timeout_ns;
}

/* A gap in the future by more than the timeout was there before the clock was set
 * back: it must not wait, and keep the gaps behind it waiting, for ever. */
static bool is_given_up(const struct otus_streams *streams, const struct stream *stream)
{
    uint64_t timeout_ns = streams->config.gap_timeout_ms * UINT64_C(1000000);
    return streams->now_ns >= stream->gap_since_ns
               ? streams->now_ns - stream->gap_since_ns >= timeout_ns
               : stream->gap_since_ns - streams->now_ns > timeout_ns;
}

/* Gives up the oldest gap if it is due: its stream is then to be framed. */
static void expire_gap(struct otus_streams *streams)
{
    if (streams->by_gap.oldest == NO_STREAM)
        return;
    struct stream *stream = &streams->streams[streams->by_gap.oldest];
    if (!is_given_up(streams, stream))
        return;
    skip_gap(streams, stream);
    streams->current = stream;
    streams->frame = (struct otus_slice){NULL, 0};
    /* The next gap of the stream waits its own time, unless this is the end. */
    if (stream->has_gap)
        otus_stream_open_gap(streams, stream, streams->now_ns == UINT64_MAX ? 0 : streams->now_ns);
}

static void expire_idle(struct otus_streams *streams)
{
    while (streams->by_use.oldest != NO_STREAM) {
        struct stream *stream = &streams->streams[streams->by_use.oldest];
        if (!is_idle(streams, stream))
            return;
        otus_stream_remove(streams, stream, OTUS_COUNT_SEGMENT_TIMEOUT);
    }
}

bool otus_streams_next(struct otus_streams *streams, struct otus_packet *out_packet)
{
    if (streams->consumed != 0) {
        drop_front(streams, streams->current, streams->consumed);
        streams->consumed = 0;
    }
    for (;;) {
        while (streams->current != NULL)
            if (frame_current(streams, out_packet))
                return true;
        expire_gap(streams);
        if (streams->current == NULL) {
            expire_idle(streams);
            return false;
        }
    }
}

void otus_streams_expire(struct otus_streams *streams, uint64_t now_ns)
{
    streams->now_ns = now_ns;
}

void otus_streams_flush(struct otus_streams *streams)
{
    streams->current = NULL;
    while (streams->by_use.oldest != NO_STREAM)
        otus_stream_remove(streams, &streams->streams[streams->by_use.oldest],
                           OTUS_COUNT_SEGMENT_CLOSED);
}
