/* A packet before and after decoding. */
#ifndef OTUS_PACKET_H
#define OTUS_PACKET_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "otus/cursor.h"

enum {
    OTUS_MAX_VLANS = 8,   /* tags kept, outermost first, those inside tunnels included */
    OTUS_MAX_TUNNELS = 8, /* levels kept and decoded; a deeper packet is undecodable */
};

/* DLT_/LINKTYPE_ values of https://www.tcpdump.org/linktypes.html that the core decodes. */
enum otus_link_type {
    OTUS_LINK_NULL = 0,
    OTUS_LINK_ETHERNET = 1,
    OTUS_LINK_PPP = 9,
    OTUS_LINK_FDDI = 10,
    OTUS_LINK_RAW_BSD = 12,
    OTUS_LINK_RAW_OPENBSD = 14,
    OTUS_LINK_PPP_HDLC = 50,
    OTUS_LINK_PPP_ETHER = 51, /* from the PPPoE header on */
    OTUS_LINK_ATM_RFC1483 = 100,
    OTUS_LINK_RAW = 101,
    OTUS_LINK_C_HDLC = 104,
    OTUS_LINK_FRAME_RELAY = 107,
    OTUS_LINK_LOOP = 108,
    OTUS_LINK_LINUX_SLL = 113,
    OTUS_LINK_IPV4 = 228,
    OTUS_LINK_IPV6 = 229,
    OTUS_LINK_NFLOG = 239,
    OTUS_LINK_LINUX_SLL2 = 276,
};

enum otus_raw_flag {
    OTUS_RAW_VLAN_VALID = 1 << 0,     /* vlan_tci/vlan_tpid hold the tag that the kernel stripped */
    OTUS_RAW_CSUM_NOT_READY = 1 << 1, /* sent from this host, checksum left to the NIC */
    OTUS_RAW_OUTGOING = 1 << 2,       /* seen on its way out */
};

/* One frame as a capture source gives it. Borrowed: see otus_capture_next(). */
struct otus_raw_packet {
    const uint8_t *data;
    uint64_t ts_ns; /* since the epoch, the kernel's or NIC's clock */
    uint32_t caplen;
    uint32_t wirelen;
    uint32_t if_index;
    uint16_t link_type; /* enum otus_link_type, or one that is unsupported */
    uint16_t vlan_tci;
    uint16_t vlan_tpid;
    uint16_t flags; /* enum otus_raw_flag */
};

enum otus_tunnel_kind {
    OTUS_TUNNEL_NONE = 0,
    OTUS_TUNNEL_VXLAN = 1,
    OTUS_TUNNEL_GRE = 2,
    OTUS_TUNNEL_ERSPAN = 3,
    OTUS_TUNNEL_GENEVE = 4,
    OTUS_TUNNEL_IPIP = 5, /* 4in4, 6in4, 4in6, 6in6 */
    OTUS_TUNNEL_GTPU = 6,
    OTUS_TUNNEL_TZSP = 7,
    OTUS_NUM_TUNNEL_KINDS = 8,
};

enum otus_tunnel_flag {
    OTUS_TUNNEL_HAS_KEY = 1 << 0, /* key carries a VNI, GRE key, session id or TEID */
};

/* One level that the packet came through. Python reads this layout. */
struct otus_tunnel {
    uint8_t kind;       /* enum otus_tunnel_kind */
    uint8_t ip_version; /* of the outer header: 4 or 6 */
    uint16_t flags;     /* enum otus_tunnel_flag */
    uint32_t key;       /* VNI, GRE key, ERSPAN session id, TEID */
    uint16_t src_port;  /* of the outer UDP header, 0 where there is none */
    uint16_t dst_port;
    uint8_t version; /* GRE 0/1; ERSPAN type 1/2/3; GTP and TZSP version */
    uint8_t reserved;
    uint16_t vlan;      /* of the ERSPAN header: where the frame was seen; not one of its tags */
    uint8_t src_ip[16]; /* IPv4 in the first four octets, the rest zero */
    uint8_t dst_ip[16];
};
static_assert(sizeof(struct otus_tunnel) == 48, "read from Python");

enum otus_packet_flag {
    OTUS_PACKET_TRUNCATED =
        1 << 0, /* caplen < wirelen, or the payload ends before its header says */
    OTUS_PACKET_REASSEMBLED = 1 << 1, /* put together from IP fragments, at any level */
    OTUS_PACKET_STREAM = 1 << 2,      /* payload is one message cut from a TCP stream */
    OTUS_PACKET_WEBSOCKET = 1 << 3,   /* and came in WebSocket frames */
    OTUS_PACKET_OUTGOING = 1 << 4,
    OTUS_PACKET_HAS_MAC = 1 << 5,   /* src_mac/dst_mac are meaningful */
    OTUS_PACKET_TRANSPORT = 1 << 6, /* a UDP, TCP or SCTP header was read: ports are meaningful */
};

/* What is copied into a record as it stands. Python reads this layout. */
struct otus_packet_meta {
    uint64_t ts_ns;
    uint32_t caplen;
    uint32_t wirelen;
    uint32_t if_index;
    uint32_t flags;        /* enum otus_packet_flag */
    uint32_t ip_total_len; /* innermost: IPv4 total length, IPv6 40 + payload length; after
                              reassembly the whole datagram's */
    uint32_t tcp_seq;
    uint32_t tcp_ack;
    uint16_t ethertype; /* of the innermost layer-2 header, VLAN tags skipped */
    uint16_t src_port;
    uint16_t dst_port;
    uint16_t vlans[OTUS_MAX_VLANS]; /* VLAN IDs, 12 bits */
    uint8_t num_vlans;
    uint8_t num_tunnels;
    uint8_t ip_version; /* 4, 6, or 0 where there is no IP */
    uint8_t protocol;   /* IANA number of the transport, IPv6 extension headers skipped */
    uint8_t ttl;        /* or hop limit */
    uint8_t tcp_flags;
    uint8_t src_mac[6]; /* outermost Ethernet header */
    uint8_t dst_mac[6];
    uint8_t src_ip[16]; /* innermost; IPv4 in the first four octets, the rest zero */
    uint8_t dst_ip[16];
    uint8_t reserved[4];
};
static_assert(sizeof(struct otus_packet_meta) == 112, "read from Python");

/* A decoded packet. Borrowed octets: valid until the next otus_decode() on the
 * same decoder or the release of the frame, whichever comes first. */
struct otus_packet {
    struct otus_packet_meta meta;
    struct otus_slice frame;     /* as captured, caplen octets */
    struct otus_slice datagram;  /* innermost IP datagram, header included, padding cut off */
    struct otus_slice transport; /* from the transport header to the datagram's end */
    struct otus_slice payload;   /* of the transport; of IP where there is no transport header */
    struct otus_tunnel tunnels[OTUS_MAX_TUNNELS]; /* outermost first */
};

#endif
