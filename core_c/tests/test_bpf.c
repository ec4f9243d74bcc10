/* The BPF machine: what is refused at load, what each instruction does, and what
 * the exact filter sees of a decoded packet. */
#include <linux/filter.h>

#include "check.h"
#include "guard.h"
#include "otus/bpf.h"

#define LENGTH(array) ((uint32_t)(sizeof(array) / sizeof((array)[0])))
#define INSN(code, k)                                                                              \
    {                                                                                              \
        (uint16_t)(code), 0, 0, (uint32_t)(k)                                                      \
    }
#define JUMP(code, k, jt, jf)                                                                      \
    {                                                                                              \
        (uint16_t)(code), (jt), (jf), (uint32_t)(k)                                                \
    }

/* Runs a program over octets that end at a guard page. */
static uint32_t run_over(const struct otus_bpf_insn *program, uint32_t num, const void *octets,
                         uint32_t len, const struct otus_raw_packet *like)
{
    char message[128];
    struct otus_bpf *bpf = NULL;
    if (!CHECK_EQ(otus_bpf_load(&bpf, message, sizeof message, program, num), OTUS_OK)) {
        fprintf(stderr, "    %s\n", message);
        return 0;
    }
    struct guard_buffer guarded = guard_copy(octets, len);
    struct otus_raw_packet raw = *like;
    raw.data = guarded.octets;
    raw.caplen = len;
    if (raw.wirelen == 0)
        raw.wirelen = len;
    uint32_t result = otus_bpf_run(bpf, &raw);
    guard_free(&guarded);
    otus_bpf_free(bpf);
    return result;
}

static const struct otus_raw_packet plain = {.link_type = OTUS_LINK_ETHERNET};

static const uint8_t octets[] = {0x45, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0x81, 0};

/* A program that the kernel would refuse is refused, with its place and reason. */
static void test_refused(void)
{
    static const struct {
        struct otus_bpf_insn program[2];
        uint32_t num;
        const char *message;
    } cases[] = {
        {{INSN(BPF_RET | BPF_K, 0)}, 0, "BPF program of 0 instructions, not 1 to 4096"},
        {{INSN(BPF_LD | BPF_IMM, 0)}, 1, "instruction 0 (code 0x00): does not end in a return"},
        {{INSN(0xffff, 0), INSN(BPF_RET, 0)}, 2, "instruction 0 (code 0xffff): unknown opcode"},
        {{JUMP(BPF_JMP | BPF_JEQ, 0, 1, 0), INSN(BPF_RET, 0)}, 2, "jump past the end"},
        {{JUMP(BPF_JMP | BPF_JEQ, 0, 0, 1), INSN(BPF_RET, 0)}, 2, "jump past the end"},
        {{INSN(BPF_JMP | BPF_JA, 1), INSN(BPF_RET, 0)}, 2, "jump past the end"},
        {{INSN(BPF_JMP | BPF_JA, 0xffffffff), INSN(BPF_RET, 0)}, 2, "jump past the end"},
        {{INSN(BPF_ALU | BPF_DIV | BPF_K, 0), INSN(BPF_RET, 0)}, 2, "division by zero"},
        {{INSN(BPF_ALU | BPF_MOD | BPF_K, 0), INSN(BPF_RET, 0)}, 2, "division by zero"},
        {{INSN(BPF_ALU | BPF_LSH | BPF_K, 32), INSN(BPF_RET, 0)}, 2, "shift by more than 31"},
        {{INSN(BPF_ST, 16), INSN(BPF_RET, 0)}, 2, "scratch memory out of range"},
        {{INSN(BPF_STX, 16), INSN(BPF_RET, 0)}, 2, "scratch memory out of range"},
        {{INSN(BPF_LD | BPF_MEM, 16), INSN(BPF_RET, 0)}, 2, "scratch memory out of range"},
        {{INSN(BPF_LDX | BPF_MEM, 16), INSN(BPF_RET, 0)}, 2, "scratch memory out of range"},
        {{INSN(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_CPU), INSN(BPF_RET, 0)},
         2,
         "ancillary load that only the kernel can do"},
        {{INSN(BPF_LD | BPF_W | BPF_ABS, SKF_NET_OFF), INSN(BPF_RET, 0)},
         2,
         "ancillary load that only the kernel can do"},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char message[128] = "";
        struct otus_bpf *bpf = NULL;
        check_about = cases[i].message;
        CHECK_EQ(otus_bpf_load(&bpf, message, sizeof message, cases[i].program, cases[i].num),
                 OTUS_E_INVALID);
        CHECK(bpf == NULL);
        CHECK(strstr(message, cases[i].message) != NULL);
        otus_bpf_free(bpf);
    }
    check_about = "";
    static struct otus_bpf_insn many[OTUS_MAX_BPF_INSNS + 1];
    char message[128];
    struct otus_bpf *bpf = NULL;
    for (uint32_t i = 0; i < LENGTH(many); i++)
        many[i] = (struct otus_bpf_insn)INSN(BPF_RET | BPF_K, 1);
    CHECK_EQ(otus_bpf_load(&bpf, message, sizeof message, many, LENGTH(many)), OTUS_E_INVALID);
    CHECK_EQ(otus_bpf_load(&bpf, message, sizeof message, many, OTUS_MAX_BPF_INSNS), OTUS_OK);
    otus_bpf_free(bpf);
}

/* Loads by size and mode, each of them at the last octet and one past it. */
static void test_loads(void)
{
    static const struct {
        const char *name;
        uint16_t code;
        uint32_t k;
        uint32_t x;
        uint32_t want;
    } cases[] = {
        {"word", BPF_LD | BPF_W | BPF_ABS, 1, 0, 0x02030405},
        {"word at the end", BPF_LD | BPF_W | BPF_ABS, 8, 0, 0x090a8100},
        {"word past the end", BPF_LD | BPF_W | BPF_ABS, 9, 0, 0},
        {"half at the end", BPF_LD | BPF_H | BPF_ABS, 10, 0, 0x8100},
        {"half past the end", BPF_LD | BPF_H | BPF_ABS, 11, 0, 0},
        {"octet", BPF_LD | BPF_B | BPF_ABS, 10, 0, 0x81},
        {"octet past the end", BPF_LD | BPF_B | BPF_ABS, 12, 0, 0},
        {"far past the end", BPF_LD | BPF_B | BPF_ABS, 0x7fffffff, 0, 0},
        {"indirect", BPF_LD | BPF_H | BPF_IND, 1, 3, 0x0506},
        {"indirect past the end", BPF_LD | BPF_B | BPF_IND, 10, 2, 0},
        {"indirect that wraps", BPF_LD | BPF_B | BPF_IND, 2, 0xffffffff, 0},
        {"length", BPF_LD | BPF_W | BPF_LEN, 0, 0, 12},
        {"immediate", BPF_LD | BPF_IMM, 77, 0, 77},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const struct otus_bpf_insn program[] = {INSN(BPF_LDX | BPF_IMM, cases[i].x),
                                                INSN(cases[i].code, cases[i].k),
                                                INSN(BPF_RET | BPF_A, 0)};
        check_about = cases[i].name;
        CHECK_EQ(run_over(program, 3, octets, sizeof octets, &plain), cases[i].want);
    }
    check_about = "";
    const struct otus_bpf_insn header_len[] = {
        INSN(BPF_LDX | BPF_B | BPF_MSH, 0), INSN(BPF_MISC | BPF_TXA, 0), INSN(BPF_RET | BPF_A, 0)};
    CHECK_EQ(run_over(header_len, 3, octets, sizeof octets, &plain), 20);
    const struct otus_bpf_insn memory[] = {INSN(BPF_LDX | BPF_W | BPF_LEN, 0),
                                           INSN(BPF_STX, 15),
                                           INSN(BPF_LD | BPF_MEM, 15),
                                           INSN(BPF_ST, 0),
                                           INSN(BPF_LDX | BPF_MEM, 0),
                                           INSN(BPF_MISC | BPF_TXA, 0),
                                           INSN(BPF_RET | BPF_A, 0)};
    CHECK_EQ(run_over(memory, 7, octets, sizeof octets, &plain), 12);
}

/* A <- 100 op 7 and with X = 7; division by X = 0 refuses. */
static void test_arithmetic(void)
{
    static const struct {
        uint16_t op;
        uint32_t operand;
        uint32_t want;
    } cases[] = {
        {BPF_ADD, 7, 107},   {BPF_SUB, 7, 93}, {BPF_MUL, 7, 700},          {BPF_DIV, 7, 14},
        {BPF_MOD, 7, 2},     {BPF_AND, 7, 4},  {BPF_OR, 7, 103},           {BPF_XOR, 7, 99},
        {BPF_LSH, 7, 12800}, {BPF_RSH, 2, 25}, {BPF_SUB, 101, 0xffffffff},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const struct otus_bpf_insn by_k[] = {INSN(BPF_LD | BPF_IMM, 100),
                                             INSN(BPF_ALU | cases[i].op | BPF_K, cases[i].operand),
                                             INSN(BPF_RET | BPF_A, 0)};
        const struct otus_bpf_insn by_x[] = {
            INSN(BPF_LD | BPF_IMM, 100), INSN(BPF_LDX | BPF_IMM, cases[i].operand),
            INSN(BPF_ALU | cases[i].op | BPF_X, 0), INSN(BPF_RET | BPF_A, 0)};
        CHECK_EQ(run_over(by_k, 3, octets, 1, &plain), cases[i].want);
        CHECK_EQ(run_over(by_x, 4, octets, 1, &plain), cases[i].want);
    }
    const struct otus_bpf_insn by_zero[] = {
        INSN(BPF_LD | BPF_IMM, 100), INSN(BPF_ALU | BPF_DIV | BPF_X, 0), INSN(BPF_RET | BPF_K, 1)};
    CHECK_EQ(run_over(by_zero, 3, octets, 1, &plain), 0);
    const struct otus_bpf_insn far_shift[] = {
        INSN(BPF_LD | BPF_IMM, 100), INSN(BPF_LDX | BPF_IMM, 32),
        INSN(BPF_ALU | BPF_LSH | BPF_X, 0), INSN(BPF_RET | BPF_A, 0)};
    CHECK_EQ(run_over(far_shift, 4, octets, 1, &plain), 0);
    const struct otus_bpf_insn negate[] = {INSN(BPF_LD | BPF_IMM, 1), INSN(BPF_ALU | BPF_NEG, 0),
                                           INSN(BPF_RET | BPF_A, 0)};
    CHECK_EQ(run_over(negate, 3, octets, 1, &plain), 0xffffffff);
}

static void test_jumps(void)
{
    static const struct {
        uint16_t op;
        uint32_t operand;
        bool taken;
    } cases[] = {
        {BPF_JEQ, 5, true}, {BPF_JEQ, 6, false}, {BPF_JGT, 4, true},   {BPF_JGT, 5, false},
        {BPF_JGE, 5, true}, {BPF_JGE, 6, false}, {BPF_JSET, 12, true}, {BPF_JSET, 10, false},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const struct otus_bpf_insn program[] = {
            INSN(BPF_LD | BPF_IMM, 5),
            INSN(BPF_LDX | BPF_IMM, cases[i].operand),
            JUMP(BPF_JMP | cases[i].op | BPF_X, 0, 0, 1),
            JUMP(BPF_JMP | cases[i].op | BPF_K, cases[i].operand, 2, 1),
            INSN(BPF_JMP | BPF_JA, 0),
            INSN(BPF_RET | BPF_K, 0),
            INSN(BPF_RET | BPF_K, 1)};
        CHECK_EQ(run_over(program, 7, octets, 1, &plain), cases[i].taken ? 1 : 0);
    }
}

/* What the kernel tells beside the frame: the stripped tag, above all. */
static void test_ancillary(void)
{
    static const struct {
        uint32_t k;
        uint32_t untagged;
        uint32_t tagged;
    } cases[] = {
        {SKF_AD_VLAN_TAG_PRESENT, 0, 1}, {SKF_AD_VLAN_TAG, 0, 0x2064},
        {SKF_AD_VLAN_TPID, 0, 0x88a8},   {SKF_AD_IFINDEX, 3, 3},
        {SKF_AD_PKTTYPE, 0, 4},          {SKF_AD_PROTOCOL, 0x0800, 0x0800},
    };
    const uint8_t ethernet[14] = {[12] = 8};
    struct otus_raw_packet tagged = {.link_type = OTUS_LINK_ETHERNET,
                                     .if_index = 3,
                                     .vlan_tci = 0x2064,
                                     .vlan_tpid = 0x88a8,
                                     .flags = OTUS_RAW_VLAN_VALID | OTUS_RAW_OUTGOING};
    struct otus_raw_packet untagged = {.link_type = OTUS_LINK_ETHERNET, .if_index = 3};
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const struct otus_bpf_insn program[] = {
            INSN(BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_AD_OFF + cases[i].k),
            INSN(BPF_RET | BPF_A, 0)};
        CHECK_EQ(run_over(program, 2, ethernet, 14, &untagged), cases[i].untagged);
        CHECK_EQ(run_over(program, 2, ethernet, 14, &tagged), cases[i].tagged);
    }
    const struct otus_bpf_insn xor
        [] = {INSN(BPF_LD | BPF_IMM, 12), INSN(BPF_LDX | BPF_IMM, 10),
              INSN(BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_AD_OFF + SKF_AD_ALU_XOR_X),
              INSN(BPF_RET | BPF_A, 0)};
    CHECK_EQ(run_over(xor, 4, ethernet, 14, &untagged), 6);
}

/* tcpdump -d 'udp dst port 5060' for Ethernet, IPv4 part */
static const struct otus_bpf_insn udp_5060[] = {
    INSN(BPF_LD | BPF_H | BPF_ABS, 12),
    JUMP(BPF_JMP | BPF_JEQ, 0x0800, 0, 8),
    INSN(BPF_LD | BPF_B | BPF_ABS, 23),
    JUMP(BPF_JMP | BPF_JEQ, 17, 0, 6),
    INSN(BPF_LD | BPF_H | BPF_ABS, 20),
    JUMP(BPF_JMP | BPF_JSET, 0x1fff, 4, 0),
    INSN(BPF_LDX | BPF_B | BPF_MSH, 14),
    INSN(BPF_LD | BPF_H | BPF_IND, 16),
    JUMP(BPF_JMP | BPF_JEQ, 5060, 0, 1),
    INSN(BPF_RET | BPF_K, 1),
    INSN(BPF_RET | BPF_K, 0),
};

/* vlan 100, wherever IP may stand behind it */
static const struct otus_bpf_insn vlan_100[] = {
    INSN(BPF_LD | BPF_H | BPF_ABS, 12), JUMP(BPF_JMP | BPF_JEQ, 0x8100, 0, 4),
    INSN(BPF_LD | BPF_H | BPF_ABS, 14), INSN(BPF_ALU | BPF_AND | BPF_K, 0xfff),
    JUMP(BPF_JMP | BPF_JEQ, 100, 0, 1), INSN(BPF_RET | BPF_K, 1),
    INSN(BPF_RET | BPF_K, 0),
};

/* ip6 and udp dst port 5060, right behind the fixed header */
static const struct otus_bpf_insn udp6_5060[] = {
    INSN(BPF_LD | BPF_H | BPF_ABS, 12), JUMP(BPF_JMP | BPF_JEQ, 0x86dd, 0, 5),
    INSN(BPF_LD | BPF_B | BPF_ABS, 20), JUMP(BPF_JMP | BPF_JEQ, 17, 0, 3),
    INSN(BPF_LD | BPF_H | BPF_ABS, 56), JUMP(BPF_JMP | BPF_JEQ, 5060, 0, 1),
    INSN(BPF_RET | BPF_K, 1),           INSN(BPF_RET | BPF_K, 0),
};

static const uint8_t ipv4_udp[] = {
    0x46, 0,    0,    32,   0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, /* IPv4, 24 octets */
    10,   0,    0,    2,    1, 1, 1, 1,                            /* options */
    0x13, 0xc5, 0x13, 0xc4, 0, 8, 0, 0,                            /* UDP to 5060 */
};

struct exact_case {
    struct guard_buffer memory; /* frame, or the datagram by itself */
    struct otus_packet packet;
    struct otus_raw_packet raw;
};

/* A decoded packet whose datagram lies at off in the octets. */
static struct exact_case decoded(const uint8_t *at, uint32_t len, uint32_t off, uint32_t header_len)
{
    struct exact_case made = {.memory = guard_copy(at, len)};
    const uint8_t *data = made.memory.octets;
    made.raw = (struct otus_raw_packet){
        .data = data, .caplen = len, .wirelen = len, .link_type = OTUS_LINK_ETHERNET};
    made.packet.datagram = (struct otus_slice){data + off, len - off};
    made.packet.transport = (struct otus_slice){data + off + header_len, len - off - header_len};
    made.packet.meta.ip_version = data[off] >> 4;
    made.packet.meta.protocol = 17;
    return made;
}

static bool matches(const struct otus_bpf_insn *program, uint32_t num, uint32_t view,
                    const struct exact_case *made)
{
    char message[128];
    struct otus_bpf *bpf = NULL;
    CHECK_EQ(otus_bpf_load(&bpf, message, sizeof message, program, num), OTUS_OK);
    bool match = otus_exact_filter_match(bpf, view, &made->packet, &made->raw);
    otus_bpf_free(bpf);
    return match;
}

/* An untagged frame, a tag in the frame, one in the metadata, a tunnel's inner
 * datagram: `udp port 5060` finds each; `vlan 100` finds what has the tag. */
static void test_exact_tags(void)
{
    uint8_t frame[18 + sizeof ipv4_udp] = {[12] = 8};
    memcpy(frame + 14, ipv4_udp, sizeof ipv4_udp);
    struct exact_case made = decoded(frame, 14 + sizeof ipv4_udp, 14, 24);
    CHECK(matches(udp_5060, LENGTH(udp_5060), OTUS_EXACT_INNER, &made));
    CHECK(!matches(vlan_100, LENGTH(vlan_100), OTUS_EXACT_TAGGED, &made));
    made.raw.flags = OTUS_RAW_VLAN_VALID;
    made.raw.vlan_tci = 0xa064;
    made.raw.vlan_tpid = 0x8100;
    made.packet.meta.num_vlans = 1;
    made.packet.meta.vlans[0] = 100;
    CHECK(matches(udp_5060, LENGTH(udp_5060), OTUS_EXACT_INNER, &made));
    CHECK(matches(vlan_100, LENGTH(vlan_100), OTUS_EXACT_TAGGED, &made));
    CHECK(matches(vlan_100, LENGTH(vlan_100), OTUS_EXACT_TAGGED | OTUS_EXACT_FRAME, &made));
    CHECK(!matches(vlan_100, LENGTH(vlan_100), OTUS_EXACT_INNER, &made));
    CHECK(!matches(vlan_100, LENGTH(vlan_100), OTUS_EXACT_FRAME, &made));
    guard_free(&made.memory);

    static const uint8_t tag[6] = {0x81, 0, 0xa0, 100, 8, 0};
    memcpy(frame + 12, tag, sizeof tag);
    memcpy(frame + 18, ipv4_udp, sizeof ipv4_udp);
    made = decoded(frame, sizeof frame, 18, 24);
    made.packet.meta.num_vlans = 1;
    made.packet.meta.vlans[0] = 100;
    CHECK(matches(udp_5060, LENGTH(udp_5060), OTUS_EXACT_INNER, &made));
    CHECK(matches(vlan_100, LENGTH(vlan_100), OTUS_EXACT_TAGGED, &made));
    CHECK(!matches(udp_5060, LENGTH(udp_5060), OTUS_EXACT_TAGGED, &made));
    /* The same inside a tunnel: the frame around it says nothing. */
    made.packet.meta.num_tunnels = 1;
    made.packet.meta.vlans[0] = 200;
    CHECK(matches(udp_5060, LENGTH(udp_5060), OTUS_EXACT_INNER, &made));
    CHECK(!matches(vlan_100, LENGTH(vlan_100), OTUS_EXACT_TAGGED, &made));
    guard_free(&made.memory);

    /* A reassembled datagram is not where the frame is. */
    made = decoded(ipv4_udp, sizeof ipv4_udp, 0, 24);
    made.packet.meta.flags = OTUS_PACKET_REASSEMBLED;
    CHECK(matches(udp_5060, LENGTH(udp_5060), OTUS_EXACT_INNER, &made));
    CHECK(matches(udp_5060, LENGTH(udp_5060), OTUS_EXACT_FRAME, &made));
    guard_free(&made.memory);
}

/* Behind an IPv6 destination-options header the ports are found all the same,
 * unless the expression asks for the header itself. */
static void test_exact_extensions(void)
{
    uint8_t frame[14 + 40 + 8 + 8] = {[12] = 0x86, [13] = 0xdd, [14] = 0x60, [19] = 16, [20] = 60};
    static const uint8_t rest[16] = {17, 0, 1, 4, 0, 0, 0, 0, 0x13, 0xc5, 0x13, 0xc4, 0, 8, 0, 0};
    memcpy(frame + 54, rest, sizeof rest);
    struct exact_case made = decoded(frame, sizeof frame, 14, 48);
    CHECK(matches(udp6_5060, LENGTH(udp6_5060), OTUS_EXACT_INNER, &made));
    CHECK(!matches(udp6_5060, LENGTH(udp6_5060), OTUS_EXACT_EXTENSIONS, &made));
    const struct otus_bpf_insn payload_len[] = {INSN(BPF_LD | BPF_H | BPF_ABS, 18),
                                                JUMP(BPF_JMP | BPF_JEQ, 8, 0, 1),
                                                INSN(BPF_RET | BPF_K, 1), INSN(BPF_RET | BPF_K, 0)};
    CHECK(matches(payload_len, 4, OTUS_EXACT_INNER, &made));
    guard_free(&made.memory);
}

static void one_truncation(void *context, const uint8_t *at, size_t len)
{
    struct otus_bpf *bpf = context;
    struct otus_raw_packet raw = {
        .data = at, .caplen = (uint32_t)len, .wirelen = 100, .link_type = OTUS_LINK_ETHERNET};
    struct otus_packet packet = {.datagram = {at, (uint32_t)len}, .meta.ip_version = 4};
    CHECK_EQ(otus_bpf_run(bpf, &raw), len >= 42 ? 1 : 0);
    for (uint32_t view = 0; view < 8; view++)
        CHECK(!otus_exact_filter_match(bpf, view, &packet, &raw) || len >= 28);
}

/* No load reaches past the captured octets, whatever the wire length says. */
static void test_truncated(void)
{
    char message[128];
    struct otus_bpf *bpf = NULL;
    uint8_t frame[14 + sizeof ipv4_udp] = {[12] = 8};
    memcpy(frame + 14, ipv4_udp, sizeof ipv4_udp);
    CHECK_EQ(otus_bpf_load(&bpf, message, sizeof message, udp_5060, LENGTH(udp_5060)), OTUS_OK);
    guard_every_truncation(one_truncation, bpf, frame, sizeof frame);
    otus_bpf_free(bpf);
}

int main(void)
{
    test_refused();
    test_loads();
    test_arithmetic();
    test_jumps();
    test_ancillary();
    test_exact_tags();
    test_exact_extensions();
    test_truncated();
    return check_summary();
}
