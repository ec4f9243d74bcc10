/* IPv4 and IPv6 fragments put together, in memory taken at open.
 *
 * A fragment is known by both addresses, protocol (IPv4), identification,
 * version and the VLANs and tunnels around it. Its octets are copied into
 * blocks of a pool at their place in the datagram, with one bit for every eight
 * octets (the unit of RFC 791 and RFC 8200), so that order, duplicates and
 * holes cost nothing extra: a datagram is complete when no hole is left.
 *
 * Overlaps: IPv4 keeps the octets that came first and counts the anomaly; IPv6
 * drops the datagram and what is still to come of it (RFC 5722), exact repeats
 * excepted (RFC 8200 4.5). */
#ifndef OTUS_REASSEMBLY_H
#define OTUS_REASSEMBLY_H

#include <stdbool.h>

#include "otus/counters.h"
#include "otus/cursor.h"

enum {
    /* In front of every datagram handed out: room for a synthetic link header. */
    OTUS_REASSEMBLY_HEADROOM = 32,
    OTUS_REASSEMBLY_BLOCK = 2048, /* octets of a datagram that one pool block holds */
};

struct otus_reassembly_config {
    uint32_t max_datagrams;
    uint32_t max_fragments;            /* in one datagram */
    uint32_t max_octets;               /* in blocks, of all datagrams */
    uint32_t max_datagrams_per_source; /* by source address */
    uint32_t timeout_ms;               /* from a datagram's first fragment, by packet time */
};

/* One fragment as an IP decoder read it; everything is borrowed for the call. */
struct otus_fragment {
    const uint8_t *src_ip; /* 16 octets: IPv4 in the first four, the rest zero */
    const uint8_t *dst_ip;
    uint64_t context; /* of VLANs and tunnels: datagrams of different ones never mix */
    uint64_t ts_ns;
    uint32_t id;
    uint32_t off;             /* of payload in the datagram, in octets */
    struct otus_slice header; /* IPv4: the header; IPv6: up to the Fragment header */
    struct otus_slice payload;
    uint32_t next_header_at; /* IPv6: where in header the Fragment header is named */
    uint8_t protocol;        /* IPv4 protocol, or the Fragment header's Next Header */
    uint8_t version;         /* 4 or 6 */
    bool more;               /* not the last one */
};

struct otus_reassembly;

/* Takes all memory that it will ever use. counters outlive it. */
OTUS_MUST_CHECK enum otus_status otus_reassembly_new(struct otus_reassembly **out_reassembly,
                                                     const struct otus_reassembly_config *config,
                                                     struct otus_counters *counters);
void otus_reassembly_free(struct otus_reassembly *reassembly); /* NULL-safe */

/* Takes one fragment in and counts what became of it and of those that it
 * pushed out.
 *
 * Returns OTUS_OK when it completed its datagram: *out_datagram is one IP
 * datagram with a right header, without fragmentation; OTUS_E_AGAIN when it is
 * held or was dropped.
 *
 * Lifetime: out_datagram, and OTUS_REASSEMBLY_HEADROOM writable octets in front
 * of it, until the next call. */
OTUS_MUST_CHECK enum otus_status otus_reassembly_put(struct otus_reassembly *reassembly,
                                                     struct otus_slice *out_datagram,
                                                     const struct otus_fragment *fragment);

/* Ends the datagrams whose time is up at now_ns (packet time). */
void otus_reassembly_expire(struct otus_reassembly *reassembly, uint64_t now_ns);

/* Ends all of them, counted as timeout. */
void otus_reassembly_flush(struct otus_reassembly *reassembly);

#endif
