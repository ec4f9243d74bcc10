/* What the tests of TCP streams share: segments are written as (sequence number, text);
 * what comes out is compared as text. */
#ifndef OTUS_STREAM_FIXTURE_H
#define OTUS_STREAM_FIXTURE_H

#include "check.h"
#include "otus/stream.h"

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10 };

#define OPTIONS                                                                                    \
    "OPTIONS sip:b@example.com SIP/2.0\r\n"                                                        \
    "Via: SIP/2.0/TCP a;branch=z9hG4bK1\r\nCall-ID: one\r\nCSeq: 1 OPTIONS\r\n"
#define MESSAGE_LINE "OPTIONS sip:b@example.com SIP/2.0\r\n\r\n" /* 37 octets */
#define MESSAGE_EMPTY OPTIONS "Content-Length: 0\r\n\r\n"
#define MESSAGE_BODY OPTIONS "Content-Length: 5\r\n\r\nhello"

struct fixture {
    struct otus_counters counters;
    struct otus_streams *streams;
    uint64_t ts_ns;
    char got[65536 * 2]; /* the messages, each followed by | */
    size_t got_len;
    uint32_t num;
    struct otus_packet last;
};

static inline void open_with(struct fixture *f, const struct otus_stream_config *config)
{
    memset(f, 0, sizeof *f);
    f->ts_ns = 1000000000;
    CHECK_EQ(otus_streams_new(&f->streams, config, &f->counters), OTUS_OK);
}

static inline void open_default(struct fixture *f)
{
    struct otus_stream_config config;
    otus_stream_config_init(&config);
    config.ports[0] = 5060;
    config.num_ports = 1;
    config.max_streams = 64;
    open_with(f, &config);
}

static inline uint64_t count(const struct fixture *f, enum otus_counter id)
{
    return f->counters.value[id];
}

/* Every segment put in is in exactly one counter or held. */
static inline void check_ledger(const struct fixture *f, uint64_t num_put)
{
    uint64_t sum = count(f, OTUS_COUNT_SEGMENTS_HELD);
    for (int id = OTUS_COUNT_SEGMENT_CONSUMED; id <= OTUS_COUNT_SEGMENT_CLOSED; id++)
        sum += f->counters.value[id];
    CHECK_EQ(sum, num_put);
}

static inline void drain(struct fixture *f)
{
    struct otus_packet packet;
    while (otus_streams_next(f->streams, &packet)) {
        memcpy(f->got + f->got_len, packet.payload.at, packet.payload.len);
        f->got_len += packet.payload.len;
        f->got[f->got_len++] = '|';
        f->num++;
        f->last = packet;
    }
}

static inline void put_octets(struct fixture *f, uint16_t src_port, uint32_t seq, uint8_t flags,
                              const void *octets, size_t len)
{
    struct otus_packet packet;
    memset(&packet, 0, sizeof packet);
    packet.meta.ts_ns = f->ts_ns;
    packet.meta.protocol = 6;
    packet.meta.ip_version = 4;
    packet.meta.flags = OTUS_PACKET_TRANSPORT;
    packet.meta.src_port = src_port;
    packet.meta.dst_port = 5060;
    packet.meta.tcp_seq = seq;
    packet.meta.tcp_flags = flags;
    packet.meta.src_ip[0] = 10;
    packet.payload = (struct otus_slice){octets, (uint32_t)len};
    CHECK(otus_streams_wants(f->streams, &packet));
    otus_streams_put(f->streams, &packet);
    drain(f);
}

static inline void put(struct fixture *f, uint32_t seq, const char *text)
{
    put_octets(f, 40000, seq, ACK, text, strlen(text));
}

static inline void check_got(struct fixture *f, const char *want)
{
    CHECK_TEXT(f->got, f->got_len, want);
    f->got_len = 0;
}

static inline void finish(struct fixture *f, uint64_t num_put)
{
    check_ledger(f, num_put);
    otus_streams_flush(f->streams);
    CHECK_EQ(count(f, OTUS_COUNT_SEGMENTS_HELD), 0);
    CHECK_EQ(count(f, OTUS_COUNT_STREAMS_ACTIVE), 0);
    check_ledger(f, num_put);
    otus_streams_free(f->streams);
}

/* A WebSocket frame (RFC 6455 5.2) around text, masked where mask is not 0. */
static inline size_t ws_frame(uint8_t *out, uint8_t first, const char *text, uint32_t mask)
{
    size_t len = strlen(text);
    size_t at = 0;
    out[at++] = first;
    out[at++] = (uint8_t)((mask ? 0x80 : 0) | (len < 126 ? len : 126));
    if (len >= 126) {
        out[at++] = (uint8_t)(len >> 8);
        out[at++] = (uint8_t)len;
    }
    uint8_t key[4] = {(uint8_t)(mask >> 24), (uint8_t)(mask >> 16), (uint8_t)(mask >> 8),
                      (uint8_t)mask};
    if (mask) {
        memcpy(out + at, key, 4);
        at += 4;
    }
    for (size_t i = 0; i < len; i++)
        out[at + i] = (uint8_t)((uint8_t)text[i] ^ (mask ? key[i % 4] : 0));
    return at + len;
}

#define UPGRADE "GET /ws HTTP/1.1\r\nUpgrade: WebSocket\r\nSec-WebSocket-Protocol: sip\r\n\r\n"

#endif
