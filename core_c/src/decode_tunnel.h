/* What the tunnel decoders share. */
#ifndef OTUS_DECODE_TUNNEL_H
#define OTUS_DECODE_TUNNEL_H

#include "decode_internal.h"

/* Steps into a tunnel: keeps the packet that carries it, notes the outer
 * addresses and ports. NULL when OTUS_MAX_TUNNELS levels are open already. */
OTUS_MUST_CHECK static inline struct otus_tunnel *otus_walk_enter(struct otus_walk *walk,
                                                                  enum otus_tunnel_kind kind)
{
    struct otus_packet *packet = walk->packet;
    struct otus_packet_meta *meta = &packet->meta;
    if (meta->num_tunnels == OTUS_MAX_TUNNELS)
        return NULL;
    walk->has_carrier = true;
    walk->carrier.meta = *meta;
    walk->carrier.datagram = packet->datagram;
    walk->carrier.transport = packet->transport;
    walk->carrier.payload = packet->payload;

    struct otus_tunnel *tunnel = &packet->tunnels[meta->num_tunnels++];
    *tunnel = (struct otus_tunnel){
        .kind = (uint8_t)kind,
        .ip_version = meta->ip_version,
        .src_port = meta->src_port,
        .dst_port = meta->dst_port,
    };
    memcpy(tunnel->src_ip, meta->src_ip, 16);
    memcpy(tunnel->dst_ip, meta->dst_ip, 16);
    meta->src_port = 0;
    meta->dst_port = 0;
    meta->flags &= ~(uint32_t)OTUS_PACKET_TRANSPORT;
    return tunnel;
}

static inline void otus_tunnel_set_key(struct otus_tunnel *tunnel, uint32_t key)
{
    tunnel->key = key;
    tunnel->flags |= OTUS_TUNNEL_HAS_KEY;
}

/* The layer inside a tunnel just entered; a tunnel may also be empty. */
static inline enum otus_layer otus_walk_inside(const struct otus_walk *walk, enum otus_layer layer)
{
    return otus_cursor_left(&walk->at) != 0 ? layer : OTUS_LAYER_NON_IP;
}

/* decode_tunnel_ip.c; OTUS_LAYER_DONE where the tunnel is not followed. */
enum otus_layer otus_decode_gre(struct otus_walk *walk);
enum otus_layer otus_decode_ipip(struct otus_walk *walk, enum otus_layer inner);

/* decode_tunnel_udp.c: the payload of a UDP datagram to a tunnel's port. */
enum otus_layer otus_decode_udp_tunnel(struct otus_walk *walk, enum otus_tunnel_kind kind);

#endif
