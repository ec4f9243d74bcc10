/* From a frame to the innermost packet: link, VLAN, MPLS, PPPoE, IP with
 * reassembly at every level, tunnels, transport. */
#ifndef OTUS_DECODE_H
#define OTUS_DECODE_H

#include <stdbool.h>

#include "otus/counters.h"
#include "otus/packet.h"

enum { OTUS_MAX_TUNNEL_PORTS = 8 };

struct otus_tunnel_ports {
    uint16_t port[OTUS_MAX_TUNNEL_PORTS];
    uint32_t num;
};

struct otus_decoder_config {
    uint32_t tunnels;                /* bit (1 << enum otus_tunnel_kind): followed */
    struct otus_tunnel_ports vxlan;  /* num 0: the registered one (4789; 4790 is VXLAN-GPE) */
    struct otus_tunnel_ports geneve; /* 6081 */
    struct otus_tunnel_ports gtpu;   /* 2152 */
    struct otus_tunnel_ports tzsp;   /* 37008 */
    bool ip_reassembly;
    uint32_t max_datagrams;            /* not complete, at once */
    uint32_t max_fragments;            /* in one datagram */
    uint32_t max_fragment_octets;      /* of all fragments held */
    uint32_t max_datagrams_per_source; /* outer-to-inner source address */
    uint32_t fragment_timeout_ms;      /* by packet time, not by wall clock */
};

void otus_decoder_config_init(struct otus_decoder_config *out_config); /* defaults */

struct otus_decoder;

/* Takes all memory the decoder will ever use. counters outlive it. */
OTUS_MUST_CHECK enum otus_status otus_decoder_new(struct otus_decoder **out_decoder,
                                                  const struct otus_decoder_config *config,
                                                  struct otus_counters *counters);
void otus_decoder_free(struct otus_decoder *decoder); /* NULL-safe */

/* Decodes one frame and counts it: RECEIVED and then exactly one outcome.
 *
 * Returns OTUS_OK with *out_packet whole; OTUS_E_AGAIN when the frame was a
 * fragment that is held or was dropped; OTUS_E_MALFORMED or OTUS_E_UNSUPPORTED
 * when it is undecodable: *out_packet then holds what had been read, and
 * means nothing. Of its tunnels only the first meta.num_tunnels are written.
 *
 * Inside tunnels: where the payload holds no IP, or where what came to a
 * tunnel's UDP port is not that tunnel's protocol, the packet that carries it
 * is the result, and TUNNEL_NON_IP is counted. Where it does hold IP, and a
 * header in it is broken, the frame is undecodable by the reason of that inner
 * header: nothing could be parsed in it, and an operator looks for a mirror
 * that cuts or garbles frames, which the outer packet would hide.
 *
 * Lifetime: out_packet borrows the frame, or, reassembled, the decoder's
 * memory until its next call. */
OTUS_MUST_CHECK enum otus_status otus_decode(struct otus_decoder *decoder,
                                             struct otus_packet *out_packet,
                                             const struct otus_raw_packet *raw);

/* Ends datagrams that are older than the timeout at now_ns (packet time);
 * called now and then while no packet comes. */
void otus_decoder_expire(struct otus_decoder *decoder, uint64_t now_ns);

/* Drops everything held, counted as timeout: the task stops. */
void otus_decoder_flush(struct otus_decoder *decoder);

#endif
