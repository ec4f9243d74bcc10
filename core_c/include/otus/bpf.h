/* Classic BPF in user space: capture filters over files, and the operator's
 * exact filter over the innermost packet after decoding.
 *
 * A program is verified when it is loaded, as the kernel does it: known
 * opcodes, jumps forward and inside, scratch memory in range, a return at the
 * end. Running it can't fail, loop or allocate. */
#ifndef OTUS_BPF_H
#define OTUS_BPF_H

#include <stdbool.h>

#include "otus/capture.h"
#include "otus/packet.h"

enum { OTUS_MAX_BPF_INSNS = 4096 }; /* the kernel's BPF_MAXINSNS */

struct otus_bpf;

/* Verifies and takes a copy. On failure message says which instruction is wrong. */
OTUS_MUST_CHECK enum otus_status otus_bpf_load(struct otus_bpf **out_bpf, char *message,
                                               size_t message_len,
                                               const struct otus_bpf_insn *insns,
                                               uint32_t num_insns);
void otus_bpf_free(struct otus_bpf *bpf); /* NULL-safe */

/* Runs the program over a frame. Returns what it returns: 0 refuses, anything
 * else accepts. A load past the end of the frame refuses. The tag in raw's
 * metadata is what SKF_AD_VLAN_TAG and SKF_AD_VLAN_TAG_PRESENT load. */
uint32_t otus_bpf_run(const struct otus_bpf *bpf, const struct otus_raw_packet *raw);

/* What a program compiled for Ethernet is run over after decoding. By default it
 * is the innermost datagram as simple as can be: a header without VLAN tags, IP
 * without IPv6 extension headers and AH, transport. So `udp port 5060` finds
 * what it means, although libpcap looks for the ports at one place only. An
 * expression that names what is taken away wants it left in; bits. */
enum otus_exact_view {
    OTUS_EXACT_INNER = 0,
    OTUS_EXACT_TAGGED = 1 << 0,     /* with the packet's VLAN tags: it names `vlan` */
    OTUS_EXACT_EXTENSIONS = 1 << 1, /* with extension headers: `ip6 protochain`, `ah`, `ip6[6]` */
    OTUS_EXACT_FRAME = 1 << 2,      /* the frame as captured: `mpls`, `pppoes`; not for what
                                       was reassembled or is not Ethernet */
};

/* Whether the exact filter accepts a decoded packet; view: bits of enum
 * otus_exact_view. Copies no payload: where the frame itself does not do, the
 * headers are made up on the stack. */
bool otus_exact_filter_match(const struct otus_bpf *bpf, uint32_t view,
                             const struct otus_packet *packet, const struct otus_raw_packet *raw);

#endif
