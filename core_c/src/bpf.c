/* The classic BPF machine of McCanne and Jacobson (USENIX 1993), with the
 * ancillary loads of linux/filter.h that capture filters use. */
#include "otus/bpf.h"

#include <inttypes.h>
#include <linux/filter.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    ETHERNET_HEADER = 14,
    VLAN_TAG = 4,
    IPV4_MIN_HEADER = 20,
    IPV4_MAX_HEADER = 60,
    IPV6_HEADER = 40,
    HEAD_OCTETS = ETHERNET_HEADER + VLAN_TAG * (OTUS_MAX_VLANS + 1) + IPV4_MAX_HEADER,
};

struct otus_bpf {
    uint32_t num_insns;
    struct otus_bpf_insn insns[];
};

/* A packet in two pieces: a made-up link header and the octets behind it. */
struct packet_view {
    struct otus_slice head;
    struct otus_slice body;
    uint32_t wirelen;
    const struct otus_raw_packet *raw;
};

/* --- verification --- */

static bool opcode_is_known(uint16_t code)
{
    switch (code) {
    case BPF_LD | BPF_W | BPF_ABS:
    case BPF_LD | BPF_H | BPF_ABS:
    case BPF_LD | BPF_B | BPF_ABS:
    case BPF_LD | BPF_W | BPF_IND:
    case BPF_LD | BPF_H | BPF_IND:
    case BPF_LD | BPF_B | BPF_IND:
    case BPF_LD | BPF_W | BPF_LEN:
    case BPF_LD | BPF_IMM:
    case BPF_LD | BPF_MEM:
    case BPF_LDX | BPF_IMM:
    case BPF_LDX | BPF_MEM:
    case BPF_LDX | BPF_W | BPF_LEN:
    case BPF_LDX | BPF_B | BPF_MSH:
    case BPF_ST:
    case BPF_STX:
    case BPF_ALU | BPF_ADD | BPF_K:
    case BPF_ALU | BPF_ADD | BPF_X:
    case BPF_ALU | BPF_SUB | BPF_K:
    case BPF_ALU | BPF_SUB | BPF_X:
    case BPF_ALU | BPF_MUL | BPF_K:
    case BPF_ALU | BPF_MUL | BPF_X:
    case BPF_ALU | BPF_DIV | BPF_K:
    case BPF_ALU | BPF_DIV | BPF_X:
    case BPF_ALU | BPF_MOD | BPF_K:
    case BPF_ALU | BPF_MOD | BPF_X:
    case BPF_ALU | BPF_AND | BPF_K:
    case BPF_ALU | BPF_AND | BPF_X:
    case BPF_ALU | BPF_OR | BPF_K:
    case BPF_ALU | BPF_OR | BPF_X:
    case BPF_ALU | BPF_XOR | BPF_K:
    case BPF_ALU | BPF_XOR | BPF_X:
    case BPF_ALU | BPF_LSH | BPF_K:
    case BPF_ALU | BPF_LSH | BPF_X:
    case BPF_ALU | BPF_RSH | BPF_K:
    case BPF_ALU | BPF_RSH | BPF_X:
    case BPF_ALU | BPF_NEG:
    case BPF_JMP | BPF_JA:
    case BPF_JMP | BPF_JEQ | BPF_K:
    case BPF_JMP | BPF_JEQ | BPF_X:
    case BPF_JMP | BPF_JGT | BPF_K:
    case BPF_JMP | BPF_JGT | BPF_X:
    case BPF_JMP | BPF_JGE | BPF_K:
    case BPF_JMP | BPF_JGE | BPF_X:
    case BPF_JMP | BPF_JSET | BPF_K:
    case BPF_JMP | BPF_JSET | BPF_X:
    case BPF_RET | BPF_K:
    case BPF_RET | BPF_A:
    case BPF_MISC | BPF_TAX:
    case BPF_MISC | BPF_TXA:
        return true;
    default:
        return false;
    }
}

static bool ancillary_is_known(uint32_t k)
{
    switch (k - (uint32_t)SKF_AD_OFF) {
    case SKF_AD_PROTOCOL:
    case SKF_AD_PKTTYPE:
    case SKF_AD_IFINDEX:
    case SKF_AD_ALU_XOR_X:
    case SKF_AD_VLAN_TAG:
    case SKF_AD_VLAN_TAG_PRESENT:
    case SKF_AD_VLAN_TPID:
        return true;
    default:
        return false;
    }
}

/* Returns NULL, or what is wrong with the instruction at index. */
static const char *insn_fault(const struct otus_bpf_insn *insn, uint32_t index, uint32_t num)
{
    const uint64_t behind = num - index - 1U; /* instructions that follow */
    if (!opcode_is_known(insn->code))
        return "unknown opcode";
    switch (BPF_CLASS(insn->code)) {
    case BPF_JMP:
        if (BPF_OP(insn->code) == BPF_JA ? insn->k >= behind
                                         : insn->jt >= behind || insn->jf >= behind)
            return "jump past the end";
        break;
    case BPF_ALU:
        if ((insn->code == (BPF_ALU | BPF_DIV | BPF_K) ||
             insn->code == (BPF_ALU | BPF_MOD | BPF_K)) &&
            insn->k == 0)
            return "division by zero";
        if ((insn->code == (BPF_ALU | BPF_LSH | BPF_K) ||
             insn->code == (BPF_ALU | BPF_RSH | BPF_K)) &&
            insn->k >= 32)
            return "shift by more than 31";
        break;
    case BPF_ST:
    case BPF_STX:
        if (insn->k >= BPF_MEMWORDS)
            return "scratch memory out of range";
        break;
    case BPF_LD:
    case BPF_LDX:
        if (BPF_MODE(insn->code) == BPF_MEM && insn->k >= BPF_MEMWORDS)
            return "scratch memory out of range";
        /* Negative offsets are the kernel's name for what is not in the packet. */
        if (BPF_MODE(insn->code) == BPF_ABS && insn->k > INT32_MAX && !ancillary_is_known(insn->k))
            return "ancillary load that only the kernel can do";
        break;
    default:
        break;
    }
    return NULL;
}

enum otus_status otus_bpf_load(struct otus_bpf **out_bpf, char *message, size_t message_len,
                               const struct otus_bpf_insn *insns, uint32_t num_insns)
{
    if (num_insns == 0 || num_insns > OTUS_MAX_BPF_INSNS) {
        snprintf(message, message_len, "BPF program of %" PRIu32 " instructions, not 1 to %d",
                 num_insns, OTUS_MAX_BPF_INSNS);
        return OTUS_E_INVALID;
    }
    for (uint32_t i = 0; i < num_insns; i++) {
        const char *fault = insn_fault(&insns[i], i, num_insns);
        if (fault == NULL && i == num_insns - 1 && BPF_CLASS(insns[i].code) != BPF_RET)
            fault = "does not end in a return";
        if (fault != NULL) {
            snprintf(message, message_len, "BPF instruction %" PRIu32 " (code 0x%02x): %s", i,
                     insns[i].code, fault);
            return OTUS_E_INVALID;
        }
    }
    struct otus_bpf *bpf = malloc(sizeof *bpf + num_insns * sizeof *insns);
    if (bpf == NULL) {
        snprintf(message, message_len, "out of memory");
        return OTUS_E_NOMEM;
    }
    bpf->num_insns = num_insns;
    memcpy(bpf->insns, insns, num_insns * sizeof *insns);
    *out_bpf = bpf;
    return OTUS_OK;
}

void otus_bpf_free(struct otus_bpf *bpf)
{
    free(bpf);
}

/* --- execution --- */

/* A load that starts in the head and may end in the body. */
static bool load_across(const struct packet_view *view, uint32_t *out_value, uint64_t off,
                        uint32_t size)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < size; i++) {
        struct otus_cursor head = otus_cursor_of(view->head.at, view->head.len);
        struct otus_cursor body = otus_cursor_of(view->body.at, view->body.len);
        const uint64_t at = off + i;
        uint8_t octet = 0;
        bool there = at < view->head.len
                         ? otus_cursor_peek_u8(&head, (size_t)at, &octet)
                         : otus_cursor_peek_u8(&body, (size_t)(at - view->head.len), &octet);
        if (!there)
            return false;
        value = value << 8 | octet;
    }
    *out_value = value;
    return true;
}

static inline bool load(const struct packet_view *view, uint32_t *out_value, uint64_t off,
                        uint32_t size)
{
    struct otus_cursor from = otus_cursor_of(view->body.at, view->body.len);
    uint16_t half = 0;
    uint8_t octet = 0;
    if (off < view->head.len)
        return load_across(view, out_value, off, size);
    if (!otus_cursor_skip(&from, (size_t)(off - view->head.len)))
        return false;
    if (size == 4)
        return otus_cursor_be32(&from, out_value);
    if (size == 2) {
        bool there = otus_cursor_be16(&from, &half);
        *out_value = half;
        return there;
    }
    bool there = otus_cursor_u8(&from, &octet);
    *out_value = octet;
    return there;
}

static uint32_t size_of_load(uint16_t code)
{
    return BPF_SIZE(code) == BPF_W ? 4 : BPF_SIZE(code) == BPF_H ? 2 : 1;
}

/* skb->protocol: the ethertype, of the first tag where one is in the frame. */
static uint32_t ancillary_protocol(const struct packet_view *view)
{
    uint32_t value = 0;
    uint64_t off = view->raw->link_type == OTUS_LINK_LINUX_SLL ? 14 : 12;
    return load(view, &value, off, 2) ? value : 0;
}

static uint32_t ancillary(const struct packet_view *view, uint32_t k, uint32_t a, uint32_t x)
{
    const struct otus_raw_packet *raw = view->raw;
    const bool tagged = (raw->flags & OTUS_RAW_VLAN_VALID) != 0;
    switch (k - (uint32_t)SKF_AD_OFF) {
    case SKF_AD_PROTOCOL:
        return ancillary_protocol(view);
    case SKF_AD_PKTTYPE:
        return (raw->flags & OTUS_RAW_OUTGOING) != 0 ? 4 /* PACKET_OUTGOING */ : 0;
    case SKF_AD_IFINDEX:
        return raw->if_index;
    case SKF_AD_ALU_XOR_X:
        return a ^ x;
    case SKF_AD_VLAN_TAG:
        return tagged ? raw->vlan_tci : 0;
    case SKF_AD_VLAN_TAG_PRESENT:
        return tagged ? 1 : 0;
    case SKF_AD_VLAN_TPID:
        return tagged ? raw->vlan_tpid : 0;
    default:
        return 0; /* refused at load */
    }
}

/* Returns false on division by zero: the program refuses the packet. */
static bool alu(uint32_t *a, uint16_t code, uint32_t operand)
{
    switch (BPF_OP(code)) {
    case BPF_ADD:
        *a += operand;
        return true;
    case BPF_SUB:
        *a -= operand;
        return true;
    case BPF_MUL:
        *a *= operand;
        return true;
    case BPF_DIV:
    case BPF_MOD:
        if (operand == 0)
            return false;
        *a = BPF_OP(code) == BPF_DIV ? *a / operand : *a % operand;
        return true;
    case BPF_AND:
        *a &= operand;
        return true;
    case BPF_OR:
        *a |= operand;
        return true;
    case BPF_XOR:
        *a ^= operand;
        return true;
    case BPF_LSH:
        *a = operand < 32 ? *a << operand : 0;
        return true;
    case BPF_RSH:
        *a = operand < 32 ? *a >> operand : 0;
        return true;
    default: /* BPF_NEG */
        *a = 0U - *a;
        return true;
    }
}

static inline bool condition(uint16_t code, uint32_t a, uint32_t operand)
{
    switch (BPF_OP(code)) {
    case BPF_JEQ:
        return a == operand;
    case BPF_JGT:
        return a > operand;
    case BPF_JGE:
        return a >= operand;
    default: /* BPF_JSET */
        return (a & operand) != 0;
    }
}

/* The loads; false where one reaches past the packet's end. */
static bool run_load(const struct packet_view *view, const struct otus_bpf_insn *insn, uint32_t *a,
                     uint32_t *x, const uint32_t *memory)
{
    const bool to_x = BPF_CLASS(insn->code) == BPF_LDX;
    uint32_t value = 0;
    switch (BPF_MODE(insn->code)) {
    case BPF_ABS:
        if (OTUS_UNLIKELY(insn->k > INT32_MAX))
            value = ancillary(view, insn->k, *a, *x);
        else if (!load(view, &value, insn->k, size_of_load(insn->code)))
            return false;
        break;
    case BPF_IND:
        if (!load(view, &value, (uint64_t)insn->k + *x, size_of_load(insn->code)))
            return false;
        break;
    case BPF_MSH: /* X <- 4 * (octet & 0xf): the IPv4 header's length */
        if (!load(view, &value, insn->k, 1))
            return false;
        value = (value & 0xf) * 4;
        break;
    case BPF_LEN:
        value = view->wirelen;
        break;
    case BPF_MEM:
        value = memory[insn->k];
        break;
    default: /* BPF_IMM */
        value = insn->k;
        break;
    }
    if (to_x)
        *x = value;
    else
        *a = value;
    return true;
}

/* What capture filters hardly ever hold. Returns false where the packet is refused. */
static bool run_rare(const struct packet_view *view, const struct otus_bpf_insn *insn, uint32_t *a,
                     uint32_t *x, uint32_t *memory)
{
    const uint16_t code = insn->code;
    switch (BPF_CLASS(code)) {
    case BPF_ST:
        memory[insn->k] = *a;
        return true;
    case BPF_STX:
        memory[insn->k] = *x;
        return true;
    case BPF_ALU:
        return alu(a, code, BPF_SRC(code) == BPF_X ? *x : insn->k);
    case BPF_MISC:
        if (BPF_MISCOP(code) == BPF_TAX)
            *x = *a;
        else
            *a = *x;
        return true;
    default:
        return run_load(view, insn, a, x, memory);
    }
}

static uint32_t run(const struct otus_bpf *bpf, const struct packet_view *view)
{
    uint32_t memory[BPF_MEMWORDS] = {0};
    uint32_t a = 0;
    uint32_t x = 0;
    const struct otus_bpf_insn *insn = bpf->insns;
    for (;; insn++) {
        const uint32_t k = insn->k;
        switch (insn->code) {
        case BPF_LD | BPF_H | BPF_ABS:
            /* Ancillary offsets are above INT32_MAX. */
            if (OTUS_UNLIKELY(k > INT32_MAX) ? !run_load(view, insn, &a, &x, memory)
                                             : !load(view, &a, k, 2))
                return 0;
            break;
        case BPF_LD | BPF_B | BPF_ABS:
            if (OTUS_UNLIKELY(k > INT32_MAX) ? !run_load(view, insn, &a, &x, memory)
                                             : !load(view, &a, k, 1))
                return 0;
            break;
        case BPF_LD | BPF_W | BPF_ABS:
            if (OTUS_UNLIKELY(k > INT32_MAX) ? !run_load(view, insn, &a, &x, memory)
                                             : !load(view, &a, k, 4))
                return 0;
            break;
        case BPF_LD | BPF_H | BPF_IND:
            if (!load(view, &a, (uint64_t)k + x, 2))
                return 0;
            break;
        case BPF_LDX | BPF_B | BPF_MSH:
            if (!load(view, &x, k, 1))
                return 0;
            x = (x & 0xf) * 4;
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
            insn += a == k ? insn->jt : insn->jf;
            break;
        case BPF_JMP | BPF_JSET | BPF_K:
            insn += (a & k) != 0 ? insn->jt : insn->jf;
            break;
        case BPF_JMP | BPF_JA:
            insn += k;
            break;
        case BPF_RET | BPF_K:
            return k;
        case BPF_RET | BPF_A:
            return a;
        default:
            if (BPF_CLASS(insn->code) == BPF_JMP)
                insn += condition(insn->code, a, BPF_SRC(insn->code) == BPF_X ? x : k) ? insn->jt
                                                                                       : insn->jf;
            else if (!run_rare(view, insn, &a, &x, memory))
                return 0;
            break;
        }
    }
}

uint32_t otus_bpf_run(const struct otus_bpf *bpf, const struct otus_raw_packet *raw)
{
    const struct packet_view view = {
        .body = {raw->data, raw->caplen}, .wirelen = raw->wirelen, .raw = raw};
    return run(bpf, &view);
}

/* --- the exact filter --- */

/* Headers that are being made up. */
struct head_writer {
    uint8_t octets[HEAD_OCTETS];
    uint32_t len;
};

static void head_put(struct head_writer *head, const void *octets, uint32_t len)
{
    memcpy(&head->octets[head->len], octets, len);
    head->len += len;
}

static void head_put16(struct head_writer *head, uint16_t value)
{
    const uint8_t octets[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    head_put(head, octets, sizeof octets);
}

/* Whether something stands between the IP header and the transport: IPv6
 * extension headers, AH. The decoder steps over them. */
static bool has_extensions(const struct otus_packet *packet)
{
    struct otus_cursor datagram = otus_cursor_of(packet->datagram.at, packet->datagram.len);
    uint8_t next = 0;
    if (packet->meta.ip_version != 4 && packet->meta.ip_version != 6)
        return false;
    return otus_cursor_peek_u8(&datagram, packet->meta.ip_version == 4 ? 9 : 6, &next) &&
           next != packet->meta.protocol;
}

/* Whether the captured frame is, octet for octet, what the view would be made
 * up as: the datagram right behind the Ethernet header and its tags. */
static bool frame_will_do(const struct otus_packet *packet, const struct otus_raw_packet *raw,
                          uint32_t num_tags)
{
    const uint32_t header = ETHERNET_HEADER + VLAN_TAG * num_tags;
    struct otus_cursor frame = otus_cursor_of(raw->data, raw->caplen);
    return raw->link_type == OTUS_LINK_ETHERNET && packet->meta.num_tunnels == 0 &&
           (packet->meta.flags & OTUS_PACKET_REASSEMBLED) == 0 &&
           (num_tags == 0 || (raw->flags & OTUS_RAW_VLAN_VALID) == 0) &&
           otus_cursor_skip(&frame, header) && frame.at == packet->datagram.at;
}

static void put_link(struct head_writer *head, const struct otus_packet_meta *meta,
                     const struct otus_raw_packet *raw, uint32_t num_tags)
{
    head_put(head, meta->dst_mac, sizeof meta->dst_mac);
    head_put(head, meta->src_mac, sizeof meta->src_mac);
    for (uint32_t i = 0; i < num_tags; i++) {
        bool stripped = i == 0 && (raw->flags & OTUS_RAW_VLAN_VALID) != 0;
        head_put16(head, stripped && raw->vlan_tpid != 0 ? raw->vlan_tpid : 0x8100);
        head_put16(head, stripped ? raw->vlan_tci : meta->vlans[i]);
    }
    head_put16(head, meta->ip_version == 4   ? 0x0800
                     : meta->ip_version == 6 ? 0x86dd
                                             : meta->ethertype);
}

/* Puts the IP header as it would be with the transport right behind it. */
static bool put_plain_ip(struct head_writer *head, const struct otus_packet *packet)
{
    struct otus_cursor datagram = otus_cursor_of(packet->datagram.at, packet->datagram.len);
    uint8_t *at = &head->octets[head->len];
    uint8_t first = 0;
    const bool is_ipv6 = packet->meta.ip_version == 6;
    if (!otus_cursor_peek_u8(&datagram, 0, &first))
        return false;
    const uint32_t len = is_ipv6 ? IPV6_HEADER : (first & 0xfU) * 4;
    if ((!is_ipv6 && len < IPV4_MIN_HEADER) || !otus_cursor_copy(&datagram, at, len))
        return false;
    const uint32_t total = packet->transport.len + (is_ipv6 ? 0 : len);
    const uint32_t length_at = is_ipv6 ? 4 : 2;
    at[length_at] = (uint8_t)(total >> 8);
    at[length_at + 1] = (uint8_t)total;
    at[is_ipv6 ? 6 : 9] = packet->meta.protocol;
    head->len += len;
    return true;
}

static bool match_made_up(const struct otus_bpf *bpf, const struct otus_packet *packet,
                          const struct otus_raw_packet *raw, uint32_t num_tags, bool plain_ip)
{
    const struct otus_packet_meta *meta = &packet->meta;
    struct head_writer head = {.len = 0};
    struct otus_slice body = packet->datagram;
    put_link(&head, meta, raw, num_tags);
    uint32_t wirelen = head.len + body.len;
    if ((meta->flags & OTUS_PACKET_TRUNCATED) != 0 && meta->ip_total_len > body.len)
        wirelen = head.len + meta->ip_total_len;
    if (plain_ip && put_plain_ip(&head, packet)) {
        body = packet->transport;
        wirelen = head.len + body.len;
    }
    const struct packet_view view = {
        .head = {head.octets, head.len}, .body = body, .wirelen = wirelen, .raw = raw};
    return run(bpf, &view) != 0;
}

/* The frame with the tag that the kernel stripped back in its place. */
static bool match_retagged(const struct otus_bpf *bpf, const struct otus_raw_packet *raw)
{
    struct head_writer head = {.len = 0};
    struct otus_cursor frame = otus_cursor_of(raw->data, raw->caplen);
    if (!otus_cursor_copy(&frame, head.octets, 12))
        return false;
    head.len = 12;
    head_put16(&head, raw->vlan_tpid != 0 ? raw->vlan_tpid : 0x8100);
    head_put16(&head, raw->vlan_tci);
    const struct packet_view view = {.head = {head.octets, head.len},
                                     .body = {frame.at, (uint32_t)otus_cursor_left(&frame)},
                                     .wirelen = raw->wirelen + VLAN_TAG,
                                     .raw = raw};
    return run(bpf, &view) != 0;
}

bool otus_exact_filter_match(const struct otus_bpf *bpf, uint32_t view,
                             const struct otus_packet *packet, const struct otus_raw_packet *raw)
{
    const bool tagged = (view & OTUS_EXACT_TAGGED) != 0;
    if ((view & OTUS_EXACT_FRAME) != 0 && raw->link_type == OTUS_LINK_ETHERNET &&
        (packet->meta.flags & OTUS_PACKET_REASSEMBLED) == 0)
        return tagged && (raw->flags & OTUS_RAW_VLAN_VALID) != 0 ? match_retagged(bpf, raw)
                                                                 : otus_bpf_run(bpf, raw) != 0;
    const uint32_t num_tags = tagged ? packet->meta.num_vlans : 0;
    const bool plain_ip = (view & OTUS_EXACT_EXTENSIONS) == 0 && has_extensions(packet);
    if (!plain_ip && frame_will_do(packet, raw, num_tags))
        return otus_bpf_run(bpf, raw) != 0;
    return match_made_up(bpf, packet, raw, num_tags, plain_ip);
}
