/* Any octets as a BPF program and a packet: what loads can be run, over the
 * frame and over what the exact filter makes up, and reads nothing outside. */
#include <stdlib.h>
#include <string.h>

#include "otus/bpf.h"

enum { INSN_OCTETS = 8, HEAD_OCTETS = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The fuzzer chooses the instructions' fields in 8 octets each; most of the time
 * the opcode is forced to one that exists, so that programs load. */
static struct otus_bpf_insn insn_from(const uint8_t *at, bool tame)
{
    static const uint16_t codes[] = {0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0x00, 0x60, 0x01,
                                     0x61, 0xb1, 0x02, 0x03, 0x04, 0x0c, 0x14, 0x24, 0x34, 0x3c,
                                     0x94, 0x9c, 0x54, 0x44, 0xa4, 0x64, 0x7c, 0x84, 0x05, 0x15,
                                     0x1d, 0x25, 0x35, 0x45, 0x06, 0x16, 0x07, 0x87};
    struct otus_bpf_insn insn = {.code = at[0], .jt = at[1], .jf = at[2]};
    memcpy(&insn.k, at + 4, sizeof insn.k);
    if (tame) {
        insn.code = codes[at[0] % (sizeof codes / sizeof codes[0])];
        if ((at[3] & 1) == 0)
            insn.k &= 0x3f;
        insn.jt &= 7;
        insn.jf &= 7;
    }
    return insn;
}

static void run_all(const struct otus_bpf *bpf, const uint8_t *head, const uint8_t *at, size_t len)
{
    struct otus_raw_packet raw = {.data = at,
                                  .caplen = (uint32_t)len,
                                  .wirelen = (uint32_t)len + head[4],
                                  .link_type = OTUS_LINK_ETHERNET,
                                  .vlan_tci = head[5],
                                  .flags = head[6] & 7};
    struct otus_packet packet = {0};
    size_t off = head[7] < len ? head[7] : len;
    size_t transport = off + (head[8] < len - off ? head[8] : len - off);
    packet.meta.num_vlans = head[9] % (OTUS_MAX_VLANS + 1);
    packet.meta.num_tunnels = head[10] & 1;
    packet.meta.ip_version = head[11] & 7;
    packet.meta.protocol = head[12];
    packet.meta.flags = head[13];
    packet.datagram = (struct otus_slice){at + off, (uint32_t)(len - off)};
    packet.transport = (struct otus_slice){at + transport, (uint32_t)(len - transport)};
    if (otus_bpf_run(bpf, &raw) != otus_bpf_run(bpf, &raw))
        abort(); /* the same packet, another answer */
    for (uint32_t view = 0; view < 8; view++)
        if (otus_exact_filter_match(bpf, view, &packet, &raw) !=
            otus_exact_filter_match(bpf, view, &packet, &raw))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct otus_bpf_insn insns[64];
    char message[128];
    struct otus_bpf *bpf = NULL;
    if (size < HEAD_OCTETS)
        return 0;
    const uint8_t *head = data;
    size_t num = head[0] % 64;
    if (num > (size - HEAD_OCTETS) / INSN_OCTETS)
        num = (size - HEAD_OCTETS) / INSN_OCTETS;
    for (size_t i = 0; i < num; i++)
        insns[i] = insn_from(data + HEAD_OCTETS + i * INSN_OCTETS, (head[1] & 3) != 0);
    insns[num] = (struct otus_bpf_insn){.code = 0x16}; /* ret A: the answer depends on all */
    if (otus_bpf_load(&bpf, message, sizeof message, insns, (uint32_t)num + 1) != OTUS_OK)
        return 0;
    /* A copy of its own size, so that a read past the end is one past an allocation. */
    size_t len = size - HEAD_OCTETS - num * INSN_OCTETS;
    uint8_t *packet = malloc(len + 1);
    if (packet != NULL) {
        memcpy(packet, data + size - len, len);
        uint8_t *exact = realloc(packet, len != 0 ? len : 1);
        run_all(bpf, head, exact != NULL ? exact : packet, len);
        free(exact != NULL ? exact : packet);
    }
    otus_bpf_free(bpf);
    return 0;
}
