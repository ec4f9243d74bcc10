/* Every counter of a pipeline, each with the place that it has in the ledger.
 *
 * One line here is one enum value, one metric label and one row of
 * docs/reference/ledger.md; a test compares them. A frame that enters leaves
 * through exactly one counter of each equation:
 *
 *   RECEIVED   = DECODED + UNDECODABLE + FRAGMENT + fragments held
 *   DECODED    = FILTERED + SEGMENT + segments held + offered as packets
 *   offered    = packets + MESSAGE            (messages cut from TCP streams)
 *   offered    = PARSED + UNMATCHED + PARSE_ERROR + FORWARDED + the one pending
 *   PARSED + FORWARDED = PROCESS + EMIT_ERROR + EMITTED
 *
 * ANOMALY and GAUGE stand outside: an anomaly is seen on a packet that goes on,
 * and a gauge goes up and down. One thread writes, any thread reads. */
#ifndef OTUS_COUNTERS_H
#define OTUS_COUNTERS_H

#include <stdint.h>

/* X(id, group, reason, meaning): the reason is unique within its group. */
#define OTUS_COUNTERS(X)                                                                           \
    X(RECEIVED, RECEIVED, "frames", "frames taken from the capture source")                        \
    X(RECEIVED_OCTETS, GAUGE, "received_octets", "octets of those frames as captured")             \
    X(DECODED, DECODED, "packets", "packets decoded, reassembled datagrams counted once")          \
    /* Frames that end in the decoder. */                                                          \
    X(LINK_UNSUPPORTED, UNDECODABLE, "link_unsupported", "link type that the core does not know")  \
    X(FRAME_TOO_SHORT, UNDECODABLE, "frame_too_short", "link header cut off")                      \
    X(NON_IP, UNDECODABLE, "non_ip", "ethertype or protocol that carries no IP (ARP, LLDP, ...)")  \
    X(TOO_MANY_VLANS, UNDECODABLE, "too_many_vlans", "more VLAN tags than OTUS_MAX_VLANS")         \
    X(MPLS_INVALID, UNDECODABLE, "mpls_invalid", "label stack cut off or too deep")                \
    X(PPPOE_INVALID, UNDECODABLE, "pppoe_invalid", "PPPoE session header malformed")               \
    X(IPV4_TOO_SHORT, UNDECODABLE, "ipv4_too_short", "fewer than 20 octets of IPv4 header")        \
    X(IPV4_VERSION, UNDECODABLE, "ipv4_version", "version is not 4")                               \
    X(IPV4_HLEN_TOO_SMALL, UNDECODABLE, "ipv4_hlen_too_small", "header length below 5 words")      \
    X(IPV4_HLEN_TOO_LARGE, UNDECODABLE, "ipv4_hlen_too_large", "header past the packet's end")     \
    X(IPV4_TOTAL_LEN, UNDECODABLE, "ipv4_total_len", "total length below the header length")       \
    X(IPV6_TOO_SHORT, UNDECODABLE, "ipv6_too_short", "fewer than 40 octets of IPv6 header")        \
    X(IPV6_VERSION, UNDECODABLE, "ipv6_version", "version is not 6")                               \
    X(IPV6_EXT_TOO_SHORT, UNDECODABLE, "ipv6_ext_too_short", "extension header cut off")           \
    X(IPV6_EXT_TOO_MANY, UNDECODABLE, "ipv6_ext_too_many", "more extension headers than followed") \
    X(UDP_TOO_SHORT, UNDECODABLE, "udp_too_short", "fewer than 8 octets of UDP header")            \
    X(UDP_LENGTH, UNDECODABLE, "udp_length", "UDP length below 8")                                 \
    X(TCP_TOO_SHORT, UNDECODABLE, "tcp_too_short", "TCP header cut off")                           \
    X(TCP_HLEN, UNDECODABLE, "tcp_hlen", "TCP data offset below 5 words")                          \
    X(SCTP_TOO_SHORT, UNDECODABLE, "sctp_too_short", "fewer than 12 octets of SCTP header")        \
    X(TUNNEL_TOO_DEEP, UNDECODABLE, "tunnel_too_deep", "more levels than OTUS_MAX_TUNNELS")        \
    X(TUNNEL_TOO_SHORT, UNDECODABLE, "tunnel_too_short", "tunnel header cut off")                  \
    X(TUNNEL_INVALID, UNDECODABLE, "tunnel_invalid", "tunnel header with impossible fields")       \
    /* Fragments, in frames: what became of each one that did not complete a datagram. */          \
    X(FRAGMENT_ABSORBED, FRAGMENT, "absorbed", "became part of a datagram that was completed")     \
    X(FRAGMENT_DISABLED, FRAGMENT, "disabled", "reassembly is switched off for the task")          \
    X(FRAGMENT_DUPLICATE, FRAGMENT, "duplicate", "octets that were there already")                 \
    X(FRAGMENT_OVERLAP, FRAGMENT, "overlap", "datagram dropped for overlapping (RFC 5722)")        \
    X(FRAGMENT_INVALID, FRAGMENT, "invalid", "impossible offset, length or header")                \
    X(FRAGMENT_TRUNCATED, FRAGMENT, "truncated", "captured short, can't be put together")          \
    X(FRAGMENT_TIMEOUT, FRAGMENT, "timeout", "datagram not completed in time")                     \
    X(FRAGMENT_LIMIT_DATAGRAMS, FRAGMENT, "limit_datagrams", "oldest datagram evicted for a new")  \
    X(FRAGMENT_LIMIT_FRAGMENTS, FRAGMENT, "limit_fragments", "too many fragments in a datagram")   \
    X(FRAGMENT_LIMIT_OCTETS, FRAGMENT, "limit_octets", "oldest datagram evicted for octets")       \
    X(FRAGMENT_LIMIT_SOURCE, FRAGMENT, "limit_source", "one source held too many datagrams")       \
    X(FRAGMENTS_HELD, GAUGE, "fragments_held", "fragments waiting in the pool, in frames")         \
    X(DATAGRAMS_HELD, GAUGE, "datagrams_held", "datagrams not complete yet")                       \
    X(REASSEMBLED, GAUGE, "datagrams_reassembled", "datagrams completed")                          \
    /* Between decoding and parsing. */                                                            \
    X(FILTERED, FILTERED, "bpf", "refused by the exact capture filter on the inner datagram")      \
    X(SEGMENT_CONSUMED, SEGMENT, "consumed", "octets given to the stream's framer")                \
    X(SEGMENT_EMPTY, SEGMENT, "empty", "no payload (SYN, ACK, FIN, RST, keep-alive probe)")        \
    X(SEGMENT_DUPLICATE, SEGMENT, "duplicate", "retransmission of octets already consumed")        \
    X(SEGMENT_LIMIT_STREAMS, SEGMENT, "limit_streams",                                             \
      "held when its stream was evicted as oldest")                                                \
    X(SEGMENT_LIMIT_OCTETS, SEGMENT, "limit_octets", "out of order beyond the stream's buffer")    \
    X(SEGMENT_TIMEOUT, SEGMENT, "timeout", "held behind a gap that never filled")                  \
    X(SEGMENT_CLOSED, SEGMENT, "closed", "held when the stream was reset or the task stopped")     \
    X(SEGMENTS_HELD, GAUGE, "segments_held", "segments waiting behind a gap")                      \
    X(STREAMS_ACTIVE, GAUGE, "streams_active", "TCP streams tracked")                              \
    X(MESSAGE, MESSAGE, "stream", "messages cut from TCP streams")                                 \
    X(OFFERED_PACKET, OFFERED, "packets", "packets offered to the parsers as they are")            \
    X(PENDING, GAUGE, "pending", "packet that found the batch full: comes first in the next")      \
    /* What the parsers made of it. */                                                             \
    X(PARSED_SIP, PARSED, "sip", "SIP messages")                                                   \
    X(PARSED_RTP, PARSED, "rtp", "RTP packets of known flows")                                     \
    X(PARSED_RTCP, PARSED, "rtcp", "RTCP packets of known flows")                                  \
    X(PARSED_PLUGIN, PARSED, "plugin", "packets taken by Python parsers")                          \
    X(UNMATCHED, UNMATCHED, "dropped", "no parser took it; the task drops such packets")           \
    X(FORWARDED, FORWARDED, "forwarded", "no parser took it; the task forwards such packets")      \
    X(PARSE_ERROR_SIP, PARSE_ERROR, "sip", "looked like SIP and could not be parsed")              \
    X(PARSE_ERROR_RTP, PARSE_ERROR, "rtp", "known flow, header malformed")                         \
    X(PARSE_ERROR_PLUGIN, PARSE_ERROR, "plugin", "a Python parser raised")                         \
    X(PARSE_TOO_LARGE, PARSE_ERROR, "too_large",                                                   \
      "larger than a batch before a Python parser saw it")                                         \
    /* What the processors and the encoder made of the records. */                                 \
    X(PROCESS_FILTER, PROCESS, "filter", "dropped by a filter processor")                          \
    X(PROCESS_PLUGIN, PROCESS, "plugin", "dropped by a Python processor")                          \
    X(PROCESS_PLUGIN_ERROR, PROCESS, "plugin_error", "a Python processor raised; policy: drop")    \
    X(EMIT_TOO_LARGE, EMIT_ERROR, "too_large", "record larger than a batch's arena")               \
    X(EMITTED, EMITTED, "records", "records handed to the send queues")                            \
    /* Anomalies: the packet went on. */                                                           \
    X(TRUNCATED, ANOMALY, "truncated", "caplen below wirelen, or cut inside its payload")          \
    X(IPV4_LENGTH_ZERO, ANOMALY, "ipv4_length_zero", "total length 0: segmentation offload")       \
    X(IPV4_CUT, ANOMALY, "ipv4_cut", "total length past the frame's end")                          \
    X(IPV6_CUT, ANOMALY, "ipv6_cut", "payload length past the frame's end")                        \
    X(UDP_CUT, ANOMALY, "udp_cut", "UDP length past the datagram's end")                           \
    X(FRAGMENT_OVERLAPPED, ANOMALY, "fragment_overlap",                                            \
      "overlapping IPv4 fragment, first octets kept")                                              \
    X(TUNNEL_NON_IP, ANOMALY, "tunnel_non_ip", "tunnel payload without IP; outer packet reported") \
    X(STREAM_GAP, ANOMALY, "stream_gap", "octets of a TCP stream lost")                            \
    X(STREAM_MIDSTREAM, ANOMALY, "stream_midstream", "joined a TCP stream without its SYN")        \
    X(STREAM_RESYNC, ANOMALY, "stream_resync", "framer searched for the next message")             \
    X(STREAM_KEEPALIVE, ANOMALY, "stream_keepalive", "RFC 5626 keep-alives skipped")               \
    X(STREAM_OCTETS_SKIPPED, ANOMALY, "stream_octets_skipped", "octets that were no message")      \
    X(STREAMS_EVICTED, ANOMALY, "streams_evicted", "oldest TCP stream gave way to a new one")      \
    X(FLOWS_EVICTED, ANOMALY, "flows_evicted", "oldest flow gave way to a new one")                \
    X(CALLS_EVICTED, ANOMALY, "calls_evicted", "oldest call gave way to a new one")                \
    X(LABELS_DROPPED, ANOMALY, "labels_dropped", "labels beyond OTUS_MAX_LABELS names")

/* Which equation a counter belongs to. */
#define OTUS_COUNTER_GROUPS(X)                                                                     \
    X(RECEIVED, "received")                                                                        \
    X(DECODED, "decoded")                                                                          \
    X(UNDECODABLE, "undecodable")                                                                  \
    X(FRAGMENT, "fragment")                                                                        \
    X(FILTERED, "filtered")                                                                        \
    X(SEGMENT, "segment")                                                                          \
    X(MESSAGE, "message")                                                                          \
    X(OFFERED, "offered")                                                                          \
    X(PARSED, "parsed")                                                                            \
    X(UNMATCHED, "unmatched")                                                                      \
    X(FORWARDED, "forwarded")                                                                      \
    X(PARSE_ERROR, "parse_error")                                                                  \
    X(PROCESS, "process")                                                                          \
    X(EMIT_ERROR, "emit_error")                                                                    \
    X(EMITTED, "emitted")                                                                          \
    X(ANOMALY, "anomaly")                                                                          \
    X(GAUGE, "gauge")

enum otus_counter_group {
#define OTUS_GROUP_ENUM(id, name) OTUS_GROUP_##id,
    OTUS_COUNTER_GROUPS(OTUS_GROUP_ENUM)
#undef OTUS_GROUP_ENUM
        OTUS_NUM_COUNTER_GROUPS,
};

enum otus_counter {
#define OTUS_COUNTER_ENUM(id, group, reason, meaning) OTUS_COUNT_##id,
    OTUS_COUNTERS(OTUS_COUNTER_ENUM)
#undef OTUS_COUNTER_ENUM
        OTUS_NUM_COUNTERS,
};

/* Owned by one pipeline; on a cache line of its own. */
struct otus_counters {
    _Alignas(64) uint64_t value[OTUS_NUM_COUNTERS];
};

static inline void otus_count_by(struct otus_counters *counters, enum otus_counter id, uint64_t by)
{
    /* A single writer needs no locked add; relaxed keeps readers free of tearing. */
    uint64_t now = __atomic_load_n(&counters->value[id], __ATOMIC_RELAXED);
    __atomic_store_n(&counters->value[id], now + by, __ATOMIC_RELAXED);
}

static inline void otus_count(struct otus_counters *counters, enum otus_counter id)
{
    otus_count_by(counters, id, 1);
}

/* For gauges: sets what now is. */
static inline void otus_count_set(struct otus_counters *counters, enum otus_counter id,
                                  uint64_t value)
{
    __atomic_store_n(&counters->value[id], value, __ATOMIC_RELAXED);
}

/* Static storage; NULL beyond the last. */
const char *otus_counter_reason(uint32_t id);
const char *otus_counter_group(uint32_t id);
const char *otus_counter_meaning(uint32_t id);

#endif
