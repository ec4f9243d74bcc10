/* TCP streams on the task's ports, put in order and cut into SIP messages:
 * plain (Content-Length framing, RFC 3261 18.3) or in WebSocket (RFC 7118). */
#ifndef OTUS_STREAM_H
#define OTUS_STREAM_H

#include <stdbool.h>

#include "otus/counters.h"
#include "otus/packet.h"

enum { OTUS_MAX_STREAM_PORTS = 32 };

struct otus_stream_config {
    uint16_t ports[OTUS_MAX_STREAM_PORTS]; /* either end; SIP, or HTTP upgraded to WebSocket */
    uint32_t num_ports;                    /* 0 switches the stage off */
    uint32_t max_streams;
    uint32_t max_stream_octets;  /* per stream: out of order and unframed together */
    uint32_t max_message_octets; /* Content-Length above this is absurd: resynchronise */
    uint32_t gap_timeout_ms;     /* by packet time */
    uint32_t idle_timeout_ms;
};

void otus_stream_config_init(struct otus_stream_config *out_config);

struct otus_streams;

OTUS_MUST_CHECK enum otus_status otus_streams_new(struct otus_streams **out_streams,
                                                  const struct otus_stream_config *config,
                                                  struct otus_counters *counters);
void otus_streams_free(struct otus_streams *streams); /* NULL-safe */

/* Whether the stage takes this packet: TCP on one of the ports. */
bool otus_streams_wants(const struct otus_streams *streams, const struct otus_packet *packet);

/* Takes one segment and counts it (group SEGMENT or held). Then call
 * otus_streams_next() until it returns false. */
void otus_streams_put(struct otus_streams *streams, const struct otus_packet *segment);

/* Gives the next complete message: a packet with the segment's addresses and
 * time, payload the message's octets, OTUS_PACKET_STREAM set; counts MESSAGE.
 * Lifetime: until the next call on streams. */
bool otus_streams_next(struct otus_streams *streams, struct otus_packet *out_packet);

/* Gives up gaps and idle streams older than now_ns allows; then drain with next(). */
void otus_streams_expire(struct otus_streams *streams, uint64_t now_ns);

/* Drops everything held, counted as closed: the task stops. */
void otus_streams_flush(struct otus_streams *streams);

#endif
