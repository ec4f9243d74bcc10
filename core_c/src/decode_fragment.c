/* Between the IP decoders and the reassembly pool. */
#include "decode_internal.h"

/* What must agree besides the addresses, so that equal addresses of different
 * tenants never mix: VLAN IDs and every tunnel around the fragment. Ports are
 * left out: a VXLAN source port is a hash of the inner ports, and only the first
 * fragment has those. */
static uint64_t context_of(const struct otus_walk *walk)
{
    const struct otus_packet *packet = walk->packet;
    uint64_t context = walk->context;
    for (uint32_t i = 0; i < packet->meta.num_vlans; i++)
        context = otus_mix64(context, packet->meta.vlans[i]);
    for (uint32_t i = 0; i < packet->meta.num_tunnels; i++) {
        const struct otus_tunnel *tunnel = &packet->tunnels[i];
        uint64_t half[4];
        memcpy(half, tunnel->src_ip, 16);
        memcpy(half + 2, tunnel->dst_ip, 16);
        context = otus_mix64(context, (uint64_t)tunnel->kind << 40 |
                                          (uint64_t)tunnel->ip_version << 32 | tunnel->key);
        for (uint32_t n = 0; n < 4; n++)
            context = otus_mix64(context, half[n]);
    }
    return context;
}

enum otus_layer otus_decode_fragment(struct otus_walk *walk, struct otus_fragment *fragment)
{
    struct otus_decoder *decoder = walk->decoder;
    struct otus_packet *packet = walk->packet;
    if (decoder->reassembly == NULL) {
        otus_count(decoder->counters, OTUS_COUNT_FRAGMENT_DISABLED);
        return OTUS_LAYER_HELD;
    }
    if (walk->ip_cut != 0) {
        otus_count(decoder->counters, OTUS_COUNT_FRAGMENT_TRUNCATED);
        return OTUS_LAYER_HELD;
    }
    fragment->src_ip = packet->meta.src_ip;
    fragment->dst_ip = packet->meta.dst_ip;
    fragment->ts_ns = packet->meta.ts_ns;
    fragment->context = context_of(walk);
    struct otus_slice datagram;
    if (otus_reassembly_put(decoder->reassembly, &datagram, fragment) != OTUS_OK)
        return OTUS_LAYER_HELD;
    /* The whole datagram is decoded from its header on, transport and tunnels too.
     * It may lie where an outer datagram lay that this fragment came in: nothing
     * refers to that one any more, the carrier of a further tunnel being noted anew. */
    packet->meta.flags |= OTUS_PACKET_REASSEMBLED;
    walk->at = otus_cursor_of(datagram.at, datagram.len);
    return fragment->version == 4 ? OTUS_LAYER_IPV4 : OTUS_LAYER_IPV6;
}
