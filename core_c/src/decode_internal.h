/* What the decoder's files share: the walk through one frame's layers.
 *
 * Each layer is a function that reads its header from walk->at, notes what it
 * found in walk->packet and names the layer that comes next. otus_decode()
 * loops over them, so that nesting costs no stack. */
#ifndef OTUS_DECODE_INTERNAL_H
#define OTUS_DECODE_INTERNAL_H

#include "hash_mix.h"
#include "otus/decode.h"
#include "otus/reassembly.h"

enum otus_layer {
    /* How a walk ends. */
    OTUS_LAYER_DONE,   /* the packet is decoded */
    OTUS_LAYER_FAILED, /* undecodable; walk->failure tells why */
    OTUS_LAYER_NON_IP, /* well-formed so far, but no IP comes */
    OTUS_LAYER_HELD,   /* a fragment, held or dropped, and counted */
    /* What comes next at walk->at. */
    OTUS_LAYER_ETHERNET,
    OTUS_LAYER_ETHERTYPE, /* what walk->ethertype names */
    OTUS_LAYER_PPP,
    OTUS_LAYER_IP, /* told by the version nibble */
    OTUS_LAYER_IPV4,
    OTUS_LAYER_IPV6,
    OTUS_LAYER_TRANSPORT, /* what walk->protocol names */
};

enum {
    /* Layers followed in one frame; only layers without a bound of their own
     * (MAC-in-MAC, NSH) can reach it. */
    OTUS_MAX_LAYERS = 64,
};

/* The packet that carries a tunnel: the result where the tunnel holds no IP. */
struct otus_carrier {
    struct otus_packet_meta meta;
    struct otus_slice datagram;
    struct otus_slice transport;
    struct otus_slice payload;
};

struct otus_walk {
    struct otus_decoder *decoder;
    struct otus_packet *packet;
    struct otus_cursor at;     /* not read yet; ends where the layer above says */
    uint64_t context;          /* MPLS and PPPoE seen: part of a fragment's key */
    enum otus_counter failure; /* with OTUS_LAYER_FAILED */
    uint16_t ethertype;        /* for OTUS_LAYER_ETHERTYPE */
    uint8_t protocol;          /* for OTUS_LAYER_TRANSPORT */
    bool has_carrier;
    bool whole;        /* caplen == wirelen: a length past the end is the sender's doing */
    bool no_ip_length; /* IP length field 0: segmentation offload or jumbogram */
    uint32_t ip_cut;   /* octets missing at the datagram's end */
    struct otus_carrier carrier; /* set when has_carrier */
};

struct otus_udp_port {
    uint16_t port;
    uint8_t kind; /* enum otus_tunnel_kind */
};

struct otus_decoder {
    struct otus_counters *counters;
    struct otus_reassembly *reassembly; /* NULL: switched off */
    uint64_t secret;  /* start of a fragment's context: nobody can make two collide */
    uint32_t tunnels; /* bits of the kinds that are followed */
    uint32_t num_udp_ports;
    struct otus_udp_port udp_ports[4 * OTUS_MAX_TUNNEL_PORTS];
    /* By the port's low octet: whether udp_ports is worth a search. */
    uint8_t udp_port_hint[256];
};

static inline enum otus_layer otus_walk_fail(struct otus_walk *walk, enum otus_counter reason)
{
    walk->failure = reason;
    return OTUS_LAYER_FAILED;
}

static inline void otus_walk_anomaly(struct otus_walk *walk, enum otus_counter anomaly)
{
    otus_count(walk->decoder->counters, anomaly);
}

static inline bool otus_walk_follows(const struct otus_walk *walk, enum otus_tunnel_kind kind)
{
    return (walk->decoder->tunnels >> kind & 1) != 0;
}

/* What is left at a cursor. Packets are far below 4 GiB: caplen has 32 bits. */
static inline struct otus_slice otus_cursor_rest(const struct otus_cursor *cursor)
{
    return (struct otus_slice){cursor->at, (uint32_t)otus_cursor_left(cursor)};
}

/* decode_link.c */
enum otus_layer otus_decode_link(struct otus_walk *walk, uint16_t link_type);
enum otus_layer otus_decode_ethernet(struct otus_walk *walk);
enum otus_layer otus_decode_ethertype(struct otus_walk *walk);
enum otus_layer otus_decode_llc(struct otus_walk *walk);
enum otus_layer otus_decode_snap(struct otus_walk *walk); /* from the OUI on */
OTUS_MUST_CHECK bool otus_walk_push_vlan(struct otus_walk *walk, uint16_t tci);

/* decode_link_other.c: those that decode_link.c does not know */
enum otus_layer otus_decode_other_link(struct otus_walk *walk, uint16_t link_type);

/* decode_label.c */
/* Whether an Ethernet header that leads to IP is plausible off octets ahead: a
 * pseudowire's label does not say whether there is a control word, nor a TEID
 * what its user sends. */
bool otus_looks_like_ethernet(const struct otus_cursor *at, size_t off);
enum otus_layer otus_decode_mpls(struct otus_walk *walk);
enum otus_layer otus_decode_pppoe(struct otus_walk *walk);
enum otus_layer otus_decode_ppp(struct otus_walk *walk);
enum otus_layer otus_decode_nsh(struct otus_walk *walk);

/* decode_ipv4.c, decode_ipv6.c */
enum otus_layer otus_decode_ipv4(struct otus_walk *walk);
enum otus_layer otus_decode_ipv6(struct otus_walk *walk);

/* decode_fragment.c: hands the fragment to the pool; goes on with the whole
 * datagram where it completed one. */
enum otus_layer otus_decode_fragment(struct otus_walk *walk, struct otus_fragment *fragment);

/* decode_transport.c */
enum otus_layer otus_decode_transport(struct otus_walk *walk);

#endif
