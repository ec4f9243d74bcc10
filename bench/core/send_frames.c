/* Sends the frames of a capture file to an interface, at a rate.
 *
 *     send_frames FILE.pcap INTERFACE PACKETS_A_SECOND
 *
 * Prints how many the kernel took. Frames are sent as they are: no addresses,
 * no neighbours, no queueing discipline. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

static uint8_t *read_file(const char *path, size_t *out_len)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        fail(path);
    long len = ftell(file);
    uint8_t *octets = len > 0 ? malloc((size_t)len) : NULL;
    rewind(file);
    if (octets == NULL || fread(octets, 1, (size_t)len, file) != (size_t)len)
        fail(path);
    fclose(file);
    *out_len = (size_t)len;
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
    if (argc != 4) {
        fprintf(stderr, "usage: send_frames FILE.pcap INTERFACE PACKETS_A_SECOND\n");
        return 2;
    }
    size_t len;
    uint8_t *octets = read_file(argv[1], &len);
    struct frames frames = find_frames(octets, len);
    long rate = atol(argv[3]);
    int fd = open_interface(argv[2]);
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (size_t at = 0; at < frames.count; at += BURST) {
        size_t left = frames.count - at;
        send_burst(fd, frames.list + at, left < BURST ? (unsigned)left : BURST);
        due.tv_nsec += rate > 0 ? (long)BURST * NS_PER_S / rate : 0;
        due.tv_sec += due.tv_nsec / NS_PER_S;
        due.tv_nsec %= NS_PER_S;
        if (rate > 0)
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    }
    printf("%zu\n", frames.count);
    return 0;
}
