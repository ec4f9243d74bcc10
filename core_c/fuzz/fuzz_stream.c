/* TCP segments of a few streams in any order: the ledger holds after each one.
 *
 * Input: records of (stream and flags, signed sequence step, length, octets). */
#include <stdlib.h>

#include "otus/stream.h"

enum { MAX_SEGMENT = 16384 }; /* twice what a stream may hold */

static void check_ledger(const struct otus_counters *counters, uint64_t num_put)
{
    uint64_t sum = counters->value[OTUS_COUNT_SEGMENTS_HELD];
    for (int id = OTUS_COUNT_SEGMENT_CONSUMED; id <= OTUS_COUNT_SEGMENT_CLOSED; id++)
        sum += counters->value[id];
    if (sum != num_put)
        abort();
}

static void drain(struct otus_streams *streams)
{
    struct otus_packet packet;
    volatile uint8_t sum = 0;
    while (otus_streams_next(streams, &packet))
        for (uint32_t i = 0; i < packet.payload.len; i++)
            sum = (uint8_t)(sum + packet.payload.at[i]);
}

static bool read_segment(struct otus_cursor *input, struct otus_packet *segment, uint32_t next[4])
{
    uint8_t head;
    uint16_t step;
    uint16_t len;
    struct otus_cursor payload;
    if (!otus_cursor_u8(input, &head) || !otus_cursor_be16(input, &step) ||
        !otus_cursor_be16(input, &len))
        return false;
    size_t take = len % MAX_SEGMENT;
    if (take > otus_cursor_left(input))
        take = otus_cursor_left(input);
    if (!otus_cursor_take(input, &payload, take))
        return false;
    uint32_t stream = head & 3;
    segment->meta.src_port = (uint16_t)(1000 + stream);
    segment->meta.tcp_flags = head >> 2;
    /* Mostly in order, so that messages come together. */
    segment->meta.tcp_seq = next[stream];
    if (head & 0x80)
        segment->meta.tcp_seq += step | ((step & 0x8000u) != 0 ? 0xffff0000u : 0u); /* signed */
    next[stream] = segment->meta.tcp_seq + (uint32_t)take;
    segment->meta.ts_ns += (uint64_t)(step & 0xff) * 10000000u;
    if ((step & 0x700) == 0x700) /* the clock is set back, by more than all timeouts */
        segment->meta.ts_ns -= UINT64_C(7200) * 1000000000u;
    segment->payload = (struct otus_slice){payload.at, (uint32_t)take};
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
    struct otus_counters counters = {0};
    struct otus_stream_config config;
    struct otus_streams *streams = NULL;
    otus_stream_config_init(&config);
    config.ports[0] = 5060;
    config.num_ports = 1;
    config.max_streams = 3; /* fewer than the input names: eviction is exercised */
    config.max_stream_octets = 8192;
    config.max_message_octets = 4096;
    if (otus_streams_new(&streams, &config, &counters) != OTUS_OK)
        return 0;
    struct otus_packet segment;
    memset(&segment, 0, sizeof segment);
    segment.meta.protocol = 6;
    segment.meta.ip_version = 4;
    segment.meta.flags = OTUS_PACKET_TRANSPORT;
    segment.meta.dst_port = 5060;
    segment.meta.ts_ns = UINT64_C(1) << 60;
    uint32_t next[4] = {0, 100, 0xfffffff0, 5};
    uint64_t num_put = 0;
    struct otus_cursor input = otus_cursor_of(octets, len);
    while (read_segment(&input, &segment, next)) {
        otus_streams_put(streams, &segment);
        num_put++;
        drain(streams);
        check_ledger(&counters, num_put);
    }
    otus_streams_expire(streams, UINT64_MAX);
    drain(streams);
    otus_streams_flush(streams);
    check_ledger(&counters, num_put);
    otus_streams_free(streams);
    return 0;
}
