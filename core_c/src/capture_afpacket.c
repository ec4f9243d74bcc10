/* AF_PACKET with a TPACKET_V3 ring: blocks of frames that change hands between
 * the kernel and this process by their status word. */
#include "capture_afpacket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    DEFAULT_BLOCK_OCTETS = 1 << 20,
    DEFAULT_RING_OCTETS = 32 << 20,
    DEFAULT_RETIRE_MS = 10,
    WHOLE_FRAME = 262144,  /* what a filter returns for "all of it" */
    RETURN_POLL_MS = 100,  /* how often a removed interface is looked for, and a removal */
    STOP_GRACE_MS = 500,   /* for the kernel to hand over its last block */
    SLL_HEADER_OCTETS = 16 /* Linux cooked v1; the ring leaves as much before a cooked frame */
};

/* Where the kernel puts the address behind a frame's header. */
static const size_t ring_header_octets =
    (sizeof(struct tpacket3_hdr) + TPACKET_ALIGNMENT - 1U) / TPACKET_ALIGNMENT * TPACKET_ALIGNMENT;

static struct afpacket_source *afpacket_of(struct otus_capture *capture)
{
    return (struct afpacket_source *)(void *)capture;
}

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void add(uint64_t *total, uint64_t by)
{
    __atomic_fetch_add(total, by, __ATOMIC_RELAXED);
}

static uint64_t get(const uint64_t *total)
{
    return __atomic_load_n(total, __ATOMIC_RELAXED);
}

/* --- ownership of blocks; plain loads and stores break on aarch64 --- */

static inline struct tpacket_block_desc *ring_block(const struct afpacket_source *source)
{
    return (struct tpacket_block_desc *)(void *)(source->ring +
                                                 (size_t)source->block * source->block_octets);
}

/* True once the kernel has handed the block over: its frames may be read. */
static inline bool ring_acquire_block(const struct tpacket_block_desc *block)
{
    return (__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER) != 0;
}

/* Gives the block back: nothing in it may be touched from here on. */
static inline void ring_release_block(struct tpacket_block_desc *block)
{
    __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
}

/* Takes the block to come, if it is ready. */
static bool take_block(struct afpacket_source *source)
{
    const struct tpacket_block_desc *block = ring_block(source);
    if (!ring_acquire_block(block))
        return false;
    source->holding = true;
    source->frames_left = block->hdr.bh1.num_pkts;
    source->frame_off = block->hdr.bh1.offset_to_first_pkt;
    return true;
}

static void give_block_back(struct afpacket_source *source)
{
    ring_release_block(ring_block(source));
    source->holding = false;
    source->block = source->block + 1 == source->num_blocks ? 0 : source->block + 1;
}

/* --- frames --- */

/* Writes a Linux cooked v1 header into the room that the ring has before a frame
 * without link header (https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html). */
static void write_sll_header(uint8_t *at, const struct sockaddr_ll *address)
{
    const uint16_t head[3] = {htons(address->sll_pkttype), htons(address->sll_hatype),
                              htons(address->sll_halen)};
    memcpy(at, head, sizeof head);
    memcpy(at + 6, address->sll_addr, 8);
    memcpy(at + 14, &address->sll_protocol, 2);
}

static void read_frame(const struct afpacket_source *source, struct otus_raw_packet *out_packet,
                       struct tpacket3_hdr *header, const struct sockaddr_ll *address)
{
    uint8_t *data = (uint8_t *)header + header->tp_mac;
    const uint32_t status = header->tp_status;
    const uint32_t made = source->cooked ? SLL_HEADER_OCTETS : 0;
    if (source->cooked) {
        data -= SLL_HEADER_OCTETS;
        write_sll_header(data, address);
    }
    uint16_t flags = 0;
    if (status & TP_STATUS_VLAN_VALID)
        flags |= OTUS_RAW_VLAN_VALID;
    if (status & TP_STATUS_CSUMNOTREADY)
        flags |= OTUS_RAW_CSUM_NOT_READY;
    if (address->sll_pkttype == PACKET_OUTGOING)
        flags |= OTUS_RAW_OUTGOING;
    *out_packet = (struct otus_raw_packet){
        .data = data,
        .ts_ns = (uint64_t)header->tp_sec * 1000000000U + header->tp_nsec,
        .caplen = header->tp_snaplen + made,
        .wirelen = header->tp_len + made,
        .if_index = (uint32_t)address->sll_ifindex,
        .link_type = source->cooked ? OTUS_LINK_LINUX_SLL : OTUS_LINK_ETHERNET,
        .flags = flags,
    };
    if (status & TP_STATUS_VLAN_VALID) {
        out_packet->vlan_tci = (uint16_t)header->hv1.tp_vlan_tci;
        /* Before Linux 3.14 the TPID was not told: 802.1Q. */
        out_packet->vlan_tpid = status & TP_STATUS_VLAN_TPID_VALID ? header->hv1.tp_vlan_tpid
                                                                   : (uint16_t)ETHERTYPE_VLAN;
    }
}

/* An interface that came up after the last look is looked at, but not more than
 * once a second; until then its frames count. */
static enum otus_sighting sighting_of(struct afpacket_source *source, uint32_t index)
{
    if (index >= OTUS_MAX_INTERFACE_INDEX)
        return OTUS_SIGHTING_FIRST;
    if (source->interfaces->sighting[index] == OTUS_SIGHTING_UNKNOWN) {
        uint64_t now = clock_ns();
        if (source->looked_ns == 0 || now - source->looked_ns > 1000000000U) {
            source->looked_ns = now;
            if (otus_interfaces_look(source->interfaces) != OTUS_OK)
                return OTUS_SIGHTING_FIRST; /* better twice than never */
        }
    }
    return (enum otus_sighting)source->interfaces->sighting[index];
}

static bool seen_elsewhere(struct afpacket_source *source, const struct sockaddr_ll *address)
{
    const bool outgoing = address->sll_pkttype == PACKET_OUTGOING;
    if (OTUS_LIKELY(!source->any))
        return source->loopback && outgoing;
    switch (sighting_of(source, (uint32_t)address->sll_ifindex)) {
    case OTUS_SIGHTING_OUT_AGAIN:
        return outgoing;
    case OTUS_SIGHTING_UPPER_AGAIN:
        return true;
    default:
        return false;
    }
}

/* Takes up to max frames from the block in hand. */
static uint32_t take_frames(struct afpacket_source *source, struct otus_raw_packet *out_packets,
                            uint32_t max)
{
    uint8_t *block = (uint8_t *)ring_block(source);
    uint32_t num = 0;
    uint32_t ignored = 0;
    while (source->frames_left != 0 && num < max) {
        struct tpacket3_hdr *header = (struct tpacket3_hdr *)(void *)(block + source->frame_off);
        const struct sockaddr_ll *address =
            (const struct sockaddr_ll *)(const void *)((uint8_t *)header + ring_header_octets);
        source->frames_left--;
        source->frame_off += header->tp_next_offset;
        if (OTUS_UNLIKELY(seen_elsewhere(source, address)))
            ignored++;
        else
            read_frame(source, &out_packets[num++], header, address);
    }
    if (ignored != 0)
        add(&source->totals->ignored, ignored);
    add(&source->totals->given, num);
    return num;
}

/* --- statistics --- */

static void sum_up(const struct afpacket_source *source)
{
    struct tpacket_stats_v3 stats = {0};
    socklen_t len = sizeof stats;
    /* Read and reset in one step by the kernel: every frame is summed once, whoever asks. */
    if (getsockopt(source->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) != 0)
        return;
    add(&source->totals->received, stats.tp_packets);
    add(&source->totals->dropped, stats.tp_drops);
    if (len >= sizeof stats)
        add(&source->totals->freezes, stats.tp_freeze_q_cnt);
}

static void afpacket_get_stats(const struct otus_capture *capture,
                               struct otus_capture_stats *out_stats)
{
    const struct afpacket_source *source = (const struct afpacket_source *)(const void *)capture;
    const struct afpacket_totals *totals = source->totals;
    /* Given before received: what is in the ring can't come out negative. */
    const uint64_t given = get(&totals->given);
    out_stats->ignored = get(&totals->ignored);
    sum_up(source);
    out_stats->received = get(&totals->received);
    out_stats->dropped = get(&totals->dropped);
    out_stats->freezes = get(&totals->freezes);
    out_stats->removals = get(&totals->removals);
    const uint64_t left = given + out_stats->ignored + out_stats->dropped;
    out_stats->waiting = out_stats->received > left ? out_stats->received - left : 0;
    if (!source->any) {
        uint64_t now = otus_afpacket_interface_dropped(source->name);
        if (now > totals->interface_dropped_before)
            out_stats->interface_dropped = now - totals->interface_dropped_before;
    }
}

static bool ring_is_empty(const struct afpacket_source *source)
{
    struct otus_capture_stats stats = {0};
    afpacket_get_stats(&source->base, &stats);
    return stats.waiting == 0;
}

/* --- waiting --- */

/* Long enough for the kernel to hand over a block that is not full. */
static int shorter_wait(const struct afpacket_source *source, int timeout_ms)
{
    int retire_ms = (int)source->retire_timeout_ms;
    return timeout_ms >= 0 && timeout_ms < retire_ms ? timeout_ms : retire_ms;
}

static enum otus_status interface_removed(struct afpacket_source *source)
{
    add(&source->totals->removals, 1);
    if (!source->wait_for_interface) {
        otus_capture_fail(&source->base, "interface %s was removed", source->name);
        return OTUS_E_SYSTEM;
    }
    source->gone = true;
    source->attached = false;
    source->removed_ns = clock_ns();
    return OTUS_E_AGAIN;
}

/* A fanout group holds its members to the interface that died: leaves it, after
 * the kernel has handed over what came before. OTUS_OK when that is done. */
static enum otus_status leave_group(struct afpacket_source *source, int timeout_ms)
{
    char message[200];
    if (!ring_is_empty(source) && clock_ns() - source->removed_ns < STOP_GRACE_MS * 1000000ULL) {
        otus_capture_wait(&source->base, source->fd, shorter_wait(source, timeout_ms));
        return OTUS_E_AGAIN;
    }
    sum_up(source);
    if (otus_afpacket_renew(source, message, sizeof message) == OTUS_OK)
        return OTUS_OK;
    otus_capture_fail(&source->base, "interface %s was removed: %s", source->name, message);
    return OTUS_E_SYSTEM;
}

/* Waits for an interface of the same name, and takes it up again. */
static enum otus_status await_return(struct afpacket_source *source, int timeout_ms)
{
    char message[200];
    const bool cooked = source->cooked;
    if (source->in_fanout && !source->attached) {
        enum otus_status status = leave_group(source, timeout_ms);
        if (status != OTUS_OK)
            return status;
    }
    int wait_ms = timeout_ms >= 0 && timeout_ms < RETURN_POLL_MS ? timeout_ms : RETURN_POLL_MS;
    otus_capture_wait(&source->base, -1, wait_ms);
    if (if_nametoindex(source->name) == 0 ||
        otus_afpacket_find(source, message, sizeof message) != OTUS_OK)
        return OTUS_E_AGAIN;
    if (source->cooked != cooked) {
        otus_capture_fail(&source->base, "interface %s came back as one of another type",
                          source->name);
        return OTUS_E_SYSTEM;
    }
    /* The other members of the group may not have left it yet: try again later. */
    if (otus_afpacket_attach(source, message, sizeof message) == OTUS_OK)
        source->gone = false;
    return OTUS_E_AGAIN;
}

/* The kernel takes the binding from a socket whose interface is removed. It tells
 * by an error only when the interface goes down first, which may be long before:
 * so the binding itself is looked at. */
static bool interface_is_gone(const struct afpacket_source *source)
{
    struct sockaddr_ll address = {0};
    socklen_t len = sizeof address;
    return !source->any && getsockname(source->fd, (struct sockaddr *)&address, &len) == 0 &&
           address.sll_ifindex == -1;
}

/* An error on the socket: the interface went down, or away. */
static enum otus_status socket_error(struct afpacket_source *source)
{
    int cause = 0;
    socklen_t len = sizeof cause;
    if (getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &cause, &len) != 0)
        cause = errno;
    if (source->any || (cause != 0 && cause != ENETDOWN && cause != ENODEV && cause != ENXIO)) {
        if (cause == 0 || cause == ENETDOWN)
            return OTUS_E_AGAIN;
        otus_capture_fail(&source->base, "capture on %s failed: %s", source->name, strerror(cause));
        return OTUS_E_SYSTEM;
    }
    /* Down: the kernel takes the socket up again with the interface. */
    return interface_is_gone(source) ? interface_removed(source) : OTUS_E_AGAIN;
}

/* After a stop: OTUS_E_END once the kernel has handed over all that came before it. */
static enum otus_status after_stop(struct afpacket_source *source, int timeout_ms)
{
    const uint64_t now = clock_ns();
    if (source->stop_ns == 0)
        source->stop_ns = now;
    if (source->gone || ring_is_empty(source) ||
        now - source->stop_ns > (STOP_GRACE_MS + 2ULL * source->retire_timeout_ms) * 1000000U)
        return OTUS_E_END;
    otus_capture_wait(&source->base, source->fd, shorter_wait(source, timeout_ms));
    return OTUS_E_AGAIN;
}

/* No block is ready: waits. OTUS_E_AGAIN means look again, or come back later. */
static enum otus_status await_block(struct afpacket_source *source, int timeout_ms)
{
    if (otus_capture_stopping(&source->base))
        return after_stop(source, timeout_ms);
    if (source->gone)
        return await_return(source, timeout_ms);
    int wait_ms = timeout_ms >= 0 ? timeout_ms : RETURN_POLL_MS;
    short events = otus_capture_wait(&source->base, source->fd, wait_ms);
    if (events & (POLLERR | POLLHUP | POLLNVAL))
        return socket_error(source);
    return events == 0 && interface_is_gone(source) ? interface_removed(source) : OTUS_E_AGAIN;
}

static enum otus_status afpacket_next(struct otus_capture *capture,
                                      struct otus_raw_packet *out_packets, uint32_t *out_num,
                                      uint32_t max, int timeout_ms)
{
    struct afpacket_source *source = afpacket_of(capture);
    bool waited = false;
    for (;;) {
        if (source->holding && source->frames_left == 0)
            give_block_back(source);
        if (source->holding || (source->ring != NULL && take_block(source))) {
            *out_num = take_frames(source, out_packets, max);
            if (*out_num != 0)
                return OTUS_OK;
            continue; /* all ignored */
        }
        if (waited)
            return OTUS_E_AGAIN;
        enum otus_status status = await_block(source, timeout_ms);
        if (status != OTUS_E_AGAIN)
            return status;
        waited = true;
    }
}

static void afpacket_stop(struct otus_capture *capture)
{
    /* Refused where the socket is being replaced: attach() looks at stopping itself. */
    if (otus_afpacket_refuse_all(afpacket_of(capture)->fd) != OTUS_OK)
        return;
}

static uint16_t afpacket_fanout_id(const struct otus_capture *capture)
{
    return ((const struct afpacket_source *)(const void *)capture)->fanout_id;
}

static void afpacket_close(struct otus_capture *capture)
{
    struct afpacket_source *source = afpacket_of(capture);
    otus_afpacket_close_socket(source);
    otus_capture_deinit(capture);
    free(source->filter.filter);
    free(source->fanout_program.filter);
    free(source->interfaces);
    free(source->totals);
    free(source);
}

static const struct otus_capture_ops afpacket_ops = {
    .next = afpacket_next,
    .stop = afpacket_stop,
    .get_stats = afpacket_get_stats,
    .fanout_id = afpacket_fanout_id,
    .close = afpacket_close,
};

/* --- opening --- */

/* A copy for the kernel, in which every accepting return gives snap_len octets. */
static enum otus_status copy_program(struct sock_fprog *out_program,
                                     const struct otus_bpf_insn *insns, uint32_t num_insns,
                                     uint32_t snap_len)
{
    if (num_insns == 0 || num_insns > BPF_MAXINSNS)
        return OTUS_E_INVALID;
    struct sock_filter *copy = calloc(num_insns, sizeof *copy);
    if (copy == NULL)
        return OTUS_E_NOMEM;
    for (uint32_t i = 0; i < num_insns; i++) {
        copy[i] = (struct sock_filter){insns[i].code, insns[i].jt, insns[i].jf, insns[i].k};
        if (snap_len != 0 && copy[i].code == (BPF_RET | BPF_K) && copy[i].k != 0)
            copy[i].k = snap_len;
    }
    *out_program = (struct sock_fprog){.len = (unsigned short)num_insns, .filter = copy};
    return OTUS_OK;
}

static enum otus_status copy_programs(struct afpacket_source *source, char *message,
                                      size_t message_len, const struct otus_afpacket_config *config)
{
    const struct otus_bpf_insn all = {BPF_RET | BPF_K, 0, 0, WHOLE_FRAME};
    enum otus_status status =
        config->filter != NULL
            ? copy_program(&source->filter, config->filter, config->filter_len, source->snap_len)
            : copy_program(&source->filter, &all, 1, source->snap_len);
    if (status == OTUS_OK && config->fanout_program != NULL &&
        config->fanout_mode == OTUS_FANOUT_HASH)
        status = copy_program(&source->fanout_program, config->fanout_program,
                              config->fanout_program_len, 0);
    if (status == OTUS_E_INVALID)
        snprintf(message, message_len, "a BPF program has 1 to %d instructions", BPF_MAXINSNS);
    if (status == OTUS_E_NOMEM)
        snprintf(message, message_len, "out of memory");
    return status;
}

static enum otus_status take_config(struct afpacket_source *source, char *message,
                                    size_t message_len, const struct otus_afpacket_config *config)
{
    const uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);
    if (config->interface == NULL || config->interface[0] == '\0' ||
        strlen(config->interface) >= sizeof source->name) {
        snprintf(message, message_len, "an interface name has 1 to %zu octets",
                 sizeof source->name - 1);
        return OTUS_E_INVALID;
    }
    snprintf(source->name, sizeof source->name, "%s", config->interface);
    source->any = strcmp(source->name, "any") == 0;
    source->block_octets = config->block_octets != 0 ? config->block_octets : DEFAULT_BLOCK_OCTETS;
    if ((source->block_octets & (source->block_octets - 1)) != 0 || source->block_octets < page) {
        snprintf(message, message_len,
                 "ring blocks of %u octets: must be a power of two from %u on",
                 source->block_octets, page);
        return OTUS_E_INVALID;
    }
    source->num_blocks = config->num_blocks;
    if (source->num_blocks == 0)
        source->num_blocks = source->block_octets < DEFAULT_RING_OCTETS / 2
                                 ? DEFAULT_RING_OCTETS / source->block_octets
                                 : 2;
    source->retire_timeout_ms =
        config->retire_timeout_ms != 0 ? config->retire_timeout_ms : DEFAULT_RETIRE_MS;
    source->snap_len = config->snap_len == 0 || config->snap_len >= 65535 ? (uint32_t)WHOLE_FRAME
                                                                          : config->snap_len;
    source->promiscuous = config->promiscuous;
    source->hardware_timestamps = config->hardware_timestamps;
    source->wait_for_interface = config->wait_for_interface;
    source->fanout_mode = config->fanout_mode;
    source->fanout_id = config->fanout_id;
    return copy_programs(source, message, message_len, config);
}

static enum otus_status take_memory(struct afpacket_source *source, char *message,
                                    size_t message_len)
{
    if (source->any) {
        source->interfaces = calloc(1, sizeof *source->interfaces);
        if (source->interfaces == NULL) {
            snprintf(message, message_len, "out of memory");
            return OTUS_E_NOMEM;
        }
        /* Without it every interface counts: frames may be seen twice, never missed. */
        if (otus_interfaces_look(source->interfaces) != OTUS_OK)
            memset(source->interfaces->sighting, OTUS_SIGHTING_FIRST,
                   sizeof source->interfaces->sighting);
        source->looked_ns = clock_ns();
    } else {
        source->totals->interface_dropped_before = otus_afpacket_interface_dropped(source->name);
    }
    return OTUS_OK;
}

enum otus_status otus_capture_open_afpacket(struct otus_capture **out_capture, char *message,
                                            size_t message_len,
                                            const struct otus_afpacket_config *config)
{
    struct afpacket_source *source = calloc(1, sizeof *source);
    struct afpacket_totals *totals = calloc(1, sizeof *totals);
    if (source == NULL || totals == NULL) {
        snprintf(message, message_len, "out of memory");
        free(source);
        free(totals);
        return OTUS_E_NOMEM;
    }
    source->totals = totals;
    source->fd = -1;
    source->spare_fd = -1;
    enum otus_status status = otus_capture_init(&source->base, &afpacket_ops, message, message_len);
    if (status == OTUS_OK)
        status = take_config(source, message, message_len, config);
    if (status == OTUS_OK)
        status = otus_afpacket_find(source, message, message_len);
    if (status == OTUS_OK)
        status = take_memory(source, message, message_len);
    if (status == OTUS_OK)
        status = otus_afpacket_open_socket(source, message, message_len);
    if (status == OTUS_OK)
        status = otus_afpacket_attach(source, message, message_len);
    if (status != OTUS_OK) {
        afpacket_close(&source->base);
        return status;
    }
    *out_capture = &source->base;
    return OTUS_OK;
}
