#include "clear.h"
#include "decode_internal.h"

#include <stdlib.h>
#include <sys/random.h>

void otus_decoder_config_init(struct otus_decoder_config *out_config)
{
    *out_config = (struct otus_decoder_config){
        .ip_reassembly = true,
        .max_datagrams = 4096,
        .max_fragments = 128,
        .max_fragment_octets = 16 * 1024 * 1024,
        .max_datagrams_per_source = 512,
        .fragment_timeout_ms = 5000,
    };
}

/* Enters a tunnel's ports; false where there are too many. */
static bool add_ports(struct otus_decoder *decoder, enum otus_tunnel_kind kind,
                      const struct otus_tunnel_ports *ports,
                      const struct otus_tunnel_ports *registered)
{
    if ((decoder->tunnels >> kind & 1) == 0)
        return true;
    if (ports->num == 0)
        ports = registered;
    if (ports->num > OTUS_MAX_TUNNEL_PORTS)
        return false;
    for (uint32_t i = 0; i < ports->num; i++) {
        decoder->udp_ports[decoder->num_udp_ports++] =
            (struct otus_udp_port){ports->port[i], (uint8_t)kind};
        decoder->udp_port_hint[ports->port[i] & 0xff] = 1;
    }
    return true;
}

static enum otus_status configure(struct otus_decoder *decoder,
                                  const struct otus_decoder_config *config)
{
    static const struct otus_tunnel_ports vxlan = {{4789, 4790}, 2}; /* the second: GPE */
    static const struct otus_tunnel_ports geneve = {{6081}, 1};
    static const struct otus_tunnel_ports gtpu = {{2152}, 1};
    static const struct otus_tunnel_ports tzsp = {{37008}, 1};
    if (config->tunnels >> OTUS_NUM_TUNNEL_KINDS != 0)
        return OTUS_E_INVALID;
    decoder->tunnels = config->tunnels;
    if (!add_ports(decoder, OTUS_TUNNEL_VXLAN, &config->vxlan, &vxlan) ||
        !add_ports(decoder, OTUS_TUNNEL_GENEVE, &config->geneve, &geneve) ||
        !add_ports(decoder, OTUS_TUNNEL_GTPU, &config->gtpu, &gtpu) ||
        !add_ports(decoder, OTUS_TUNNEL_TZSP, &config->tzsp, &tzsp))
        return OTUS_E_INVALID;
    if (!config->ip_reassembly)
        return OTUS_OK;
    struct otus_reassembly_config reassembly = {
        .max_datagrams = config->max_datagrams,
        .max_fragments = config->max_fragments,
        .max_octets = config->max_fragment_octets,
        .max_datagrams_per_source = config->max_datagrams_per_source,
        .timeout_ms = config->fragment_timeout_ms,
    };
    return otus_reassembly_new(&decoder->reassembly, &reassembly, decoder->counters);
}

enum otus_status otus_decoder_new(struct otus_decoder **out_decoder,
                                  const struct otus_decoder_config *config,
                                  struct otus_counters *counters)
{
    struct otus_decoder *decoder = calloc(1, sizeof *decoder);
    if (decoder == NULL)
        return OTUS_E_NOMEM;
    decoder->counters = counters;
    if (getrandom(&decoder->secret, sizeof decoder->secret, GRND_NONBLOCK) !=
        (ssize_t)sizeof decoder->secret)
        decoder->secret = (uint64_t)(uintptr_t)decoder; /* early boot: an address has to do */
    enum otus_status status = configure(decoder, config);
    if (status != OTUS_OK) {
        otus_decoder_free(decoder);
        return status;
    }
    *out_decoder = decoder;
    return OTUS_OK;
}

void otus_decoder_free(struct otus_decoder *decoder)
{
    if (decoder == NULL)
        return;
    otus_reassembly_free(decoder->reassembly);
    free(decoder);
}

static enum otus_layer walk_layers(struct otus_walk *walk, uint16_t link_type)
{
    enum otus_layer layer = otus_decode_link(walk, link_type);
    for (uint32_t n = 0; OTUS_UNLIKELY(layer > OTUS_LAYER_HELD); n++) {
        uint8_t first;
        if (n == OTUS_MAX_LAYERS)
            return otus_walk_fail(walk, OTUS_COUNT_TUNNEL_TOO_DEEP);
        switch (layer) {
        case OTUS_LAYER_ETHERNET:
            layer = otus_decode_ethernet(walk);
            break;
        case OTUS_LAYER_ETHERTYPE:
            layer = otus_decode_ethertype(walk);
            break;
        case OTUS_LAYER_PPP:
            layer = otus_decode_ppp(walk);
            break;
        case OTUS_LAYER_IP:
            layer = otus_cursor_peek_u8(&walk->at, 0, &first) && first >> 4 == 6 ? OTUS_LAYER_IPV6
                                                                                 : OTUS_LAYER_IPV4;
            break;
        case OTUS_LAYER_IPV4:
            layer = otus_decode_ipv4(walk);
            break;
        case OTUS_LAYER_IPV6:
            layer = otus_decode_ipv6(walk);
            break;
        case OTUS_LAYER_TRANSPORT:
            layer = otus_decode_transport(walk);
            break;
        default:
            return layer;
        }
    }
    return layer;
}

/* The packet that carries a tunnel is the result where the tunnel holds no IP. */
static void restore_carrier(struct otus_walk *walk)
{
    struct otus_packet *packet = walk->packet;
    packet->meta = walk->carrier.meta;
    packet->datagram = walk->carrier.datagram;
    packet->transport = walk->carrier.transport;
    packet->payload = walk->carrier.payload;
    otus_walk_anomaly(walk, OTUS_COUNT_TUNNEL_NON_IP);
}

static enum otus_status finish(struct otus_walk *walk, enum otus_layer layer)
{
    struct otus_counters *counters = walk->decoder->counters;
    if (layer == OTUS_LAYER_NON_IP && walk->has_carrier) {
        restore_carrier(walk);
        layer = OTUS_LAYER_DONE;
    }
    if (OTUS_LIKELY(layer == OTUS_LAYER_DONE)) {
        otus_count(counters, OTUS_COUNT_DECODED);
        if (OTUS_UNLIKELY((walk->packet->meta.flags & OTUS_PACKET_TRUNCATED) != 0))
            otus_count(counters, OTUS_COUNT_TRUNCATED);
        return OTUS_OK;
    }
    switch (layer) {
    case OTUS_LAYER_HELD:
        return OTUS_E_AGAIN;
    case OTUS_LAYER_NON_IP:
        otus_count(counters, OTUS_COUNT_NON_IP);
        return OTUS_E_UNSUPPORTED;
    default:
        otus_count(counters, walk->failure);
        return walk->failure == OTUS_COUNT_LINK_UNSUPPORTED ? OTUS_E_UNSUPPORTED : OTUS_E_MALFORMED;
    }
}

enum otus_status otus_decode(struct otus_decoder *decoder, struct otus_packet *out_packet,
                             const struct otus_raw_packet *raw)
{
    struct otus_walk walk;
    walk.decoder = decoder;
    walk.packet = out_packet;
    walk.at = otus_cursor_of(raw->data, raw->caplen);
    walk.context = decoder->secret;
    walk.has_carrier = false;
    walk.whole = raw->caplen >= raw->wirelen;

    otus_count(decoder->counters, OTUS_COUNT_RECEIVED);
    otus_count_by(decoder->counters, OTUS_COUNT_RECEIVED_OCTETS, raw->caplen);
    struct otus_packet_meta *meta = &out_packet->meta;
    otus_clear(meta, sizeof *meta);
    meta->ts_ns = raw->ts_ns;
    meta->caplen = raw->caplen;
    meta->wirelen = raw->wirelen;
    meta->if_index = raw->if_index;
    meta->flags = (walk.whole ? 0u : OTUS_PACKET_TRUNCATED) |
                  ((raw->flags & OTUS_RAW_OUTGOING) != 0 ? OTUS_PACKET_OUTGOING : 0u);
    out_packet->frame = (struct otus_slice){raw->data, raw->caplen};
    /* The kernel took the outermost tag out of the frame: it goes in front. */
    if (OTUS_UNLIKELY((raw->flags & OTUS_RAW_VLAN_VALID) != 0) &&
        !otus_walk_push_vlan(&walk, raw->vlan_tci))
        return finish(&walk, otus_walk_fail(&walk, OTUS_COUNT_TOO_MANY_VLANS));
    return finish(&walk, walk_layers(&walk, raw->link_type));
}

void otus_decoder_expire(struct otus_decoder *decoder, uint64_t now_ns)
{
    if (decoder->reassembly != NULL)
        otus_reassembly_expire(decoder->reassembly, now_ns);
}

void otus_decoder_flush(struct otus_decoder *decoder)
{
    if (decoder->reassembly != NULL)
        otus_reassembly_flush(decoder->reassembly);
}
