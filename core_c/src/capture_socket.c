/* AF_PACKET sockets: packet(7), Documentation/networking/packet_mmap.rst. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/net_tstamp.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "capture_afpacket.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23 /* Linux 4.20 */
#endif
#ifndef PACKET_FANOUT_FLAG_UNIQUEID
#define PACKET_FANOUT_FLAG_UNIQUEID 0x2000 /* Linux 4.12 */
#endif

__attribute__((format(printf, 3, 4))) static enum otus_status refuse(char *message,
                                                                     size_t message_len,
                                                                     const char *format, ...)
{
    int cause = errno;
    va_list args;
    va_start(args, format);
    vsnprintf(message, message_len, format, args);
    va_end(args);
    errno = cause;
    return OTUS_E_SYSTEM;
}

static int new_socket(bool cooked)
{
    /* Protocol 0: it receives nothing until it is bound. */
    return socket(AF_PACKET, (cooked ? SOCK_DGRAM : SOCK_RAW) | SOCK_CLOEXEC, 0);
}

static enum otus_status no_socket(const struct afpacket_source *source, char *message,
                                  size_t message_len)
{
    if (errno == EPERM || errno == EACCES)
        return refuse(message, message_len,
                      "no permission to capture on %s: CAP_NET_RAW is missing (run with sudo, or "
                      "give the interpreter the capability: setcap cap_net_raw,cap_net_admin+ep "
                      "/path/to/python3)",
                      source->name);
    return refuse(message, message_len, "can't open a packet socket: %s", strerror(errno));
}

static enum otus_status hardware_type(const struct afpacket_source *source, int *out_type,
                                      char *message, size_t message_len)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, source->name, sizeof source->name);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request) != 0) {
        refuse(message, message_len, "can't ask for the type of interface %s: %s", source->name,
               strerror(errno));
        if (fd >= 0)
            close(fd);
        return OTUS_E_SYSTEM;
    }
    close(fd);
    *out_type = request.ifr_hwaddr.sa_family;
    return OTUS_OK;
}

enum otus_status otus_afpacket_find(struct afpacket_source *source, char *message,
                                    size_t message_len)
{
    int type = ARPHRD_VOID;
    if (source->any) {
        source->cooked = true;
        return OTUS_OK;
    }
    source->if_index = if_nametoindex(source->name);
    if (source->if_index == 0) {
        char names[256];
        otus_interfaces_names(names, sizeof names);
        snprintf(message, message_len, "no interface %s; there are: %s, any", source->name, names);
        return OTUS_E_INVALID;
    }
    enum otus_status status = hardware_type(source, &type, message, message_len);
    if (status != OTUS_OK)
        return status;
    /* Only Ethernet (and loopback, which looks like it) has a link header that the
     * filter knows; all others are taken from the network layer on, as libpcap does. */
    source->loopback = type == ARPHRD_LOOPBACK;
    source->cooked = type != ARPHRD_ETHER && type != ARPHRD_LOOPBACK;
    return OTUS_OK;
}

static enum otus_status make_ring(struct afpacket_source *source, char *message, size_t message_len)
{
    const int version = TPACKET_V3;
    const uint32_t frame_octets = 2048; /* TPACKET_V3 only checks that it divides the block */
    struct tpacket_req3 request = {
        .tp_block_size = source->block_octets,
        .tp_block_nr = source->num_blocks,
        .tp_frame_size = frame_octets,
        .tp_frame_nr = source->block_octets / frame_octets * source->num_blocks,
        .tp_retire_blk_tov = source->retire_timeout_ms,
    };
    const size_t octets = (size_t)source->block_octets * source->num_blocks;
    if (setsockopt(source->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) != 0)
        return refuse(message, message_len, "the kernel has no TPACKET_V3 rings: %s",
                      strerror(errno));
    if (setsockopt(source->fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof request) != 0)
        return refuse(message, message_len, "can't get a ring of %u blocks of %u octets: %s",
                      source->num_blocks, source->block_octets, strerror(errno));
    void *ring = mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_SHARED, source->fd, 0);
    if (ring == MAP_FAILED)
        return refuse(message, message_len, "can't map the ring of %zu octets: %s", octets,
                      strerror(errno));
    source->ring = ring;
    source->block = 0;
    source->holding = false;
    source->frames_left = 0;
    return OTUS_OK;
}

/* A NIC stamps frames only after it was told to (Documentation/networking/timestamping.rst). */
static enum otus_status use_hardware_timestamps(const struct afpacket_source *source, char *message,
                                                size_t message_len)
{
    const int wanted = SOF_TIMESTAMPING_RAW_HARDWARE;
    struct hwtstamp_config config = {.tx_type = HWTSTAMP_TX_OFF, .rx_filter = HWTSTAMP_FILTER_ALL};
    struct ifreq request = {0};
    if (source->any)
        return refuse(message, message_len, "hardware timestamps need one interface, not any");
    memcpy(request.ifr_name, source->name, sizeof source->name);
    request.ifr_data = (char *)&config;
    if (ioctl(source->fd, SIOCSHWTSTAMP, &request) != 0) {
        int cause = errno;
        bool already = cause == EPERM && ioctl(source->fd, SIOCGHWTSTAMP, &request) == 0 &&
                       config.rx_filter == HWTSTAMP_FILTER_ALL;
        if (cause == EPERM && !already)
            return refuse(message, message_len,
                          "no permission to turn on hardware timestamps on %s: CAP_NET_ADMIN is "
                          "missing",
                          source->name);
        if (!already)
            return refuse(message, message_len, "%s gives no hardware timestamps: %s", source->name,
                          strerror(cause));
    }
    if (setsockopt(source->fd, SOL_PACKET, PACKET_TIMESTAMP, &wanted, sizeof wanted) != 0)
        return refuse(message, message_len, "can't use hardware timestamps: %s", strerror(errno));
    return OTUS_OK;
}

enum otus_status otus_afpacket_refuse_all(int fd)
{
    struct sock_filter none = BPF_STMT(BPF_RET | BPF_K, 0);
    const struct sock_fprog program = {.len = 1, .filter = &none};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0
               ? OTUS_OK
               : OTUS_E_SYSTEM;
}

static enum otus_status prepare_socket(struct afpacket_source *source, char *message,
                                       size_t message_len)
{
    const int on = 1;
    enum otus_status status = make_ring(source, message, message_len);
    if (status == OTUS_OK && source->hardware_timestamps)
        status = use_hardware_timestamps(source, message, message_len);
    if (status != OTUS_OK)
        return status;
    /* An older kernel lacks it: then the frames are told apart in the ring. */
    if (source->loopback &&
        setsockopt(source->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0)
        errno = 0;
    if (otus_afpacket_refuse_all(source->fd) != OTUS_OK)
        return refuse(message, message_len, "can't attach a filter: %s", strerror(errno));
    return OTUS_OK;
}

/* Tried on the idle socket, so that a bad program is told from a bad interface. */
static enum otus_status let_in(const struct afpacket_source *source, char *message,
                               size_t message_len)
{
    if (setsockopt(source->fd, SOL_SOCKET, SO_ATTACH_FILTER, &source->filter,
                   sizeof source->filter) == 0)
        return OTUS_OK;
    if (errno == ENOMEM)
        return refuse(message, message_len,
                      "the capture filter of %u instructions is larger than net.core.optmem_max "
                      "allows",
                      source->filter.len);
    return refuse(message, message_len,
                  "the kernel refused the capture filter of %u instructions: %s",
                  source->filter.len, strerror(errno));
}

enum otus_status otus_afpacket_open_socket(struct afpacket_source *source, char *message,
                                           size_t message_len)
{
    source->fd = new_socket(source->cooked);
    if (source->fd < 0)
        return no_socket(source, message, message_len);
    if (source->fanout_mode != OTUS_FANOUT_NONE && source->wait_for_interface)
        source->spare_fd = new_socket(source->cooked);
    /* Not bound yet: nothing can come in while the filter is tried. */
    enum otus_status status = let_in(source, message, message_len);
    if (status != OTUS_OK)
        return status;
    return prepare_socket(source, message, message_len);
}

static int fanout_type(const struct afpacket_source *source)
{
    switch (source->fanout_mode) {
    case OTUS_FANOUT_CPU:
        return PACKET_FANOUT_CPU;
    case OTUS_FANOUT_LB:
        return PACKET_FANOUT_LB;
    case OTUS_FANOUT_ROLLOVER:
        return PACKET_FANOUT_ROLLOVER;
    case OTUS_FANOUT_QM:
        return PACKET_FANOUT_QM;
    default:
        return source->fanout_program.len != 0 ? PACKET_FANOUT_CBPF : PACKET_FANOUT_HASH;
    }
}

static bool bind_to_interface(int fd, uint32_t if_index)
{
    const struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_index};
    return bind(fd, (const struct sockaddr *)&address, sizeof address) == 0;
}

/* The fanout option of a socket: the group in the low 16 bits, type and flags above. */
static uint32_t fanout_argument(const struct afpacket_source *source, uint16_t id)
{
    /* The defragment flag serves every mode: the fragments of an IPv4 datagram may
     * come on different queues and CPUs. */
    uint32_t type = (uint32_t)fanout_type(source) | PACKET_FANOUT_FLAG_DEFRAG;
    if (id == 0)
        type |= PACKET_FANOUT_FLAG_UNIQUEID;
    return type << 16 | id;
}

/* Makes an otherwise idle socket the first member of a group that the kernel
 * chooses. Returns the socket, or -1. */
static int new_group(const struct afpacket_source *source, uint16_t *out_id)
{
    uint32_t argument = fanout_argument(source, 0);
    socklen_t len = sizeof argument;
    int fd = new_socket(source->cooked);
    if (fd < 0)
        return -1;
    if (otus_afpacket_refuse_all(fd) != OTUS_OK || !bind_to_interface(fd, source->if_index) ||
        setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &argument, sizeof argument) != 0 ||
        getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &argument, &len) != 0) {
        int cause = errno;
        close(fd);
        errno = cause;
        return -1;
    }
    *out_id = (uint16_t)(argument & 0xffff);
    return fd;
}

static bool join_group(const struct afpacket_source *source, uint16_t id)
{
    const uint32_t argument = fanout_argument(source, id);
    return setsockopt(source->fd, SOL_PACKET, PACKET_FANOUT, &argument, sizeof argument) == 0;
}

/* Joins a group with a number of the kernel's choice, other than 0: the first
 * group of a host gets 0, which is how callers ask for a new one. */
static bool join_new_group(struct afpacket_source *source)
{
    uint16_t id = 0;
    int second = -1;
    int first = new_group(source, &id);
    if (first >= 0 && id == 0)
        second = new_group(source, &id);
    bool joined = id != 0 && join_group(source, id);
    int cause = errno;
    if (joined)
        source->fanout_id = id;
    if (first >= 0)
        close(first);
    if (second >= 0)
        close(second);
    errno = cause;
    return joined;
}

static enum otus_status join_fanout(struct afpacket_source *source, char *message,
                                    size_t message_len)
{
    bool joined =
        source->fanout_id == 0 ? join_new_group(source) : join_group(source, source->fanout_id);
    if (!joined)
        return refuse(message, message_len, "can't join fanout group %u on %s: %s",
                      source->fanout_id, source->name,
                      errno == EINVAL ? "another group has this number, or the interface is down"
                                      : strerror(errno));
    source->in_fanout = true;
    if (fanout_type(source) == PACKET_FANOUT_CBPF &&
        setsockopt(source->fd, SOL_PACKET, PACKET_FANOUT_DATA, &source->fanout_program,
                   sizeof source->fanout_program) != 0)
        return refuse(message, message_len, "the kernel refused the fanout program: %s",
                      strerror(errno));
    return OTUS_OK;
}

static enum otus_status bind_socket(const struct afpacket_source *source, char *message,
                                    size_t message_len)
{
    if (!bind_to_interface(source->fd, source->if_index))
        return refuse(message, message_len, "can't bind to %s: %s", source->name, strerror(errno));
    /* Membership, not IFF_PROMISC: the kernel takes it back however the process ends. */
    const struct packet_mreq membership = {.mr_ifindex = (int)source->if_index,
                                           .mr_type = PACKET_MR_PROMISC};
    if (source->promiscuous && !source->any && !source->loopback &&
        setsockopt(source->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof membership) !=
            0)
        return refuse(message, message_len, "can't make %s promiscuous: %s", source->name,
                      strerror(errno));
    return OTUS_OK;
}

enum otus_status otus_afpacket_attach(struct afpacket_source *source, char *message,
                                      size_t message_len)
{
    enum otus_status status = OTUS_OK;
    /* The filter still refuses all: between bind and join each socket of a group
     * would get every frame, and they would be counted twice. */
    if (!source->in_fanout)
        status = bind_socket(source, message, message_len);
    if (status == OTUS_OK && source->fanout_mode != OTUS_FANOUT_NONE && !source->in_fanout)
        status = join_fanout(source, message, message_len);
    if (status == OTUS_OK)
        status = let_in(source, message, message_len);
    source->attached = status == OTUS_OK;
    /* A stop that came meanwhile has the last word. */
    if (status == OTUS_OK && otus_capture_stopping(&source->base))
        status = otus_afpacket_refuse_all(source->fd);
    return status;
}

void otus_afpacket_close_socket(struct afpacket_source *source)
{
    if (source->ring != NULL)
        munmap(source->ring, (size_t)source->block_octets * source->num_blocks);
    source->ring = NULL;
    if (source->fd >= 0)
        close(source->fd);
    source->fd = -1;
    if (source->spare_fd >= 0)
        close(source->spare_fd);
    source->spare_fd = -1;
}

enum otus_status otus_afpacket_renew(struct afpacket_source *source, char *message,
                                     size_t message_len)
{
    int fd = source->spare_fd;
    source->spare_fd = -1;
    if (fd < 0)
        fd = new_socket(source->cooked);
    if (fd < 0)
        return no_socket(source, message, message_len);
    munmap(source->ring, (size_t)source->block_octets * source->num_blocks);
    source->ring = NULL;
    /* The number stays, so that a thread that reads statistics never sees it closed. */
    if (dup3(fd, source->fd, O_CLOEXEC) < 0) {
        close(fd);
        return refuse(message, message_len, "can't replace the socket: %s", strerror(errno));
    }
    close(fd);
    source->in_fanout = false;
    source->spare_fd =
        new_socket(source->cooked); /* fails without the capability: then this was the last */
    return prepare_socket(source, message, message_len);
}

static uint64_t read_figure(const char *name, const char *figure)
{
    char path[128];
    unsigned long long value = 0;
    snprintf(path, sizeof path, "/sys/class/net/%s/statistics/%s", name, figure);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%llu", &value) != 1)
        value = 0;
    fclose(file);
    return value;
}

uint64_t otus_afpacket_interface_dropped(const char *name)
{
    return read_figure(name, "rx_dropped") + read_figure(name, "rx_missed_errors") +
           read_figure(name, "rx_fifo_errors");
}
