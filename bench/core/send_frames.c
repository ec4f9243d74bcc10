/* Sends the frames of a capture file to an interface, at a rate.
 *
 *     send_frames FILE.pcap INTERFACE PACKETS_A_SECOND [PACKETS]
 *
 * Prints how many the kernel took: all that the file has, or so many, from the start
 * again where they are more. Frames are sent as they are: no addresses, no neighbours,
 * no queueing discipline. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

enum { FILE_HEADER = 24, PACKET_HEADER = 16, BURST = 32, NS_PER_S = 1000000000 };

struct frames {
    struct iovec *list;
    size_t count;
};

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Mapped: a copy of it would be made while the receiver waits. */
static uint8_t *map_file(const char *path, size_t *out_len)
{
    int fd = open(path, O_RDONLY);
    struct stat about;
    if (fd < 0 || fstat(fd, &about) != 0)
        fail(path);
    *out_len = (size_t)about.st_size;
    void *octets = mmap(NULL, *out_len, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (octets == MAP_FAILED)
        fail(path);
    return octets;
}

static struct frames find_frames(uint8_t *octets, size_t len)
{
    struct frames frames = {malloc(len / PACKET_HEADER * sizeof(struct iovec)), 0};
    if (frames.list == NULL)
        fail("malloc");
    for (size_t at = FILE_HEADER; at + PACKET_HEADER <= len;) {
        uint32_t caplen;
        memcpy(&caplen, octets + at + 8, sizeof caplen);
        at += PACKET_HEADER;
        if (caplen > len - at)
            break;
        frames.list[frames.count++] = (struct iovec){octets + at, caplen};
        at += caplen;
    }
    return frames;
}

static int open_interface(const char *name)
{
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_ifindex = (int)if_nametoindex(name)};
    int on = 1;
    if (fd < 0 || address.sll_ifindex == 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0)
        fail(name);
    return fd;
}

/* Sends a burst; frames that the kernel has no room for are offered again. */
static void send_burst(int fd, struct iovec *frames, unsigned count)
{
    struct mmsghdr messages[BURST];
    memset(messages, 0, sizeof messages);
    for (unsigned i = 0; i < count; i++) {
        messages[i].msg_hdr.msg_iov = &frames[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (unsigned sent = 0; sent < count;) {
        int done = sendmmsg(fd, messages + sent, count - sent, 0);
        if (done < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
            fail("sendmmsg");
        sent += done > 0 ? (unsigned)done : 0;
    }
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: send_frames FILE.pcap INTERFACE PACKETS_A_SECOND [PACKETS]\n");
        return 2;
    }
    size_t len;
    uint8_t *octets = map_file(argv[1], &len);
    struct frames frames = find_frames(octets, len);
    long rate = atol(argv[3]);
    size_t wanted = argc == 5 ? strtoul(argv[4], NULL, 10) : frames.count;
    if (frames.count == 0)
        return 1;
    int fd = open_interface(argv[2]);
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    size_t at = 0;
    for (size_t sent = 0; sent < wanted;) {
        size_t left = wanted - sent < frames.count - at ? wanted - sent : frames.count - at;
        unsigned burst = left < BURST ? (unsigned)left : BURST;
        send_burst(fd, frames.list + at, burst);
        sent += burst;
        at = at + burst < frames.count ? at + burst : 0;
        due.tv_nsec += rate > 0 ? (long)burst * NS_PER_S / rate : 0;
        due.tv_sec += due.tv_nsec / NS_PER_S;
        due.tv_nsec %= NS_PER_S;
        if (rate > 0)
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    }
    printf("%zu\n", wanted);
    return 0;
}
