/* Captures on an interface and prints what it gets, for the network tests:
 *
 *   capture_dump INTERFACE [key=value ...]
 *   sockets=1 fanout=none|hash|cpu|lb|rollover|qm program=FILE filter=FILE
 *   snap=0 wait=0 hardware=0 promiscuous=1 block=0 blocks=0 retire=0 quiet=0
 *
 * FILE is what `tcpdump -ddd` prints. Prints "ready FANOUT_ID", a line a frame,
 * and, when its standard input ends, stops, drains and prints statistics.
 * Exit status 0, or 1 with one line on standard error. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "otus/capture.h"

enum { MAX_SOCKETS = 16, MAX_INSNS = 4096, BURST = 256 };

struct program {
    struct otus_bpf_insn insns[MAX_INSNS];
    uint32_t num;
};

struct dump {
    struct otus_afpacket_config config;
    struct otus_capture *captures[MAX_SOCKETS];
    bool ended[MAX_SOCKETS];
    unsigned num_sockets;
    bool quiet;
    uint64_t given[MAX_SOCKETS];
    struct program filter;
    struct program fanout;
};

static int fail(const char *text, const char *more)
{
    fprintf(stderr, "%s%s\n", text, more);
    return 1;
}

static bool read_program(struct program *out, const char *path)
{
    unsigned num = 0;
    unsigned code = 0;
    unsigned jt = 0;
    unsigned jf = 0;
    uint32_t k = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL || fscanf(file, "%u", &num) != 1 || num > MAX_INSNS)
        return false;
    while (out->num < num && fscanf(file, "%u %u %u %" SCNu32, &code, &jt, &jf, &k) == 4)
        out->insns[out->num++] =
            (struct otus_bpf_insn){(uint16_t)code, (uint8_t)jt, (uint8_t)jf, k};
    fclose(file);
    return out->num == num;
}

static enum otus_fanout_mode fanout_mode(const char *name)
{
    static const char *const names[] = {"none", "hash", "cpu", "lb", "rollover", "qm"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return (enum otus_fanout_mode)i;
    return OTUS_FANOUT_NONE;
}

static bool set_option(struct dump *dump, const char *key, const char *value)
{
    const uint32_t number = (uint32_t)strtoul(value, NULL, 10);
    struct otus_afpacket_config *config = &dump->config;
    if (strcmp(key, "sockets") == 0)
        dump->num_sockets = number < MAX_SOCKETS ? number : MAX_SOCKETS;
    else if (strcmp(key, "fanout") == 0)
        config->fanout_mode = fanout_mode(value);
    else if (strcmp(key, "snap") == 0)
        config->snap_len = number;
    else if (strcmp(key, "wait") == 0)
        config->wait_for_interface = number != 0;
    else if (strcmp(key, "hardware") == 0)
        config->hardware_timestamps = number != 0;
    else if (strcmp(key, "promiscuous") == 0)
        config->promiscuous = number != 0;
    else if (strcmp(key, "block") == 0)
        config->block_octets = number;
    else if (strcmp(key, "blocks") == 0)
        config->num_blocks = number;
    else if (strcmp(key, "retire") == 0)
        config->retire_timeout_ms = number;
    else if (strcmp(key, "quiet") == 0)
        dump->quiet = number != 0;
    else if (strcmp(key, "filter") == 0)
        return read_program(&dump->filter, value);
    else if (strcmp(key, "program") == 0)
        return read_program(&dump->fanout, value);
    else
        return false;
    return true;
}

static int open_all(struct dump *dump)
{
    char message[512];
    if (dump->filter.num != 0) {
        dump->config.filter = dump->filter.insns;
        dump->config.filter_len = dump->filter.num;
    }
    if (dump->fanout.num != 0) {
        dump->config.fanout_program = dump->fanout.insns;
        dump->config.fanout_program_len = dump->fanout.num;
    }
    for (unsigned i = 0; i < dump->num_sockets; i++) {
        if (otus_capture_open_afpacket(&dump->captures[i], message, sizeof message,
                                       &dump->config) != OTUS_OK)
            return fail(message, "");
        dump->config.fanout_id = otus_capture_fanout_id(dump->captures[i]);
    }
    printf("ready %u\n", dump->config.fanout_id);
    fflush(stdout);
    return 0;
}

static void print_frames(const struct dump *dump, unsigned socket,
                         const struct otus_raw_packet *frames, uint32_t num)
{
    for (uint32_t i = 0; i < num && !dump->quiet; i++) {
        const struct otus_raw_packet *frame = &frames[i];
        printf("frame %u %u %u %u %u %u %u %u %" PRIu64 " ", socket, frame->if_index,
               frame->link_type, frame->caplen, frame->wirelen, frame->vlan_tci, frame->vlan_tpid,
               frame->flags, frame->ts_ns);
        for (uint32_t j = 0; j < frame->caplen && j < 2048; j++)
            printf("%02x", frame->data[j]);
        putchar('\n');
    }
    fflush(stdout);
}

/* Returns 0 to go on, 1 when all have ended, -1 on failure. */
static int take_turn(struct dump *dump)
{
    struct otus_raw_packet frames[BURST];
    bool all_ended = true;
    for (unsigned i = 0; i < dump->num_sockets; i++) {
        uint32_t num = 0;
        if (dump->ended[i])
            continue;
        all_ended = false;
        int wait_ms = dump->num_sockets == 1 ? 20 : 5;
        enum otus_status status =
            otus_capture_next(dump->captures[i], frames, &num, BURST, wait_ms);
        dump->given[i] += num;
        if (status == OTUS_OK)
            print_frames(dump, i, frames, num);
        else if (status == OTUS_E_END)
            dump->ended[i] = true;
        else if (status != OTUS_E_AGAIN)
            return -fail(otus_capture_error(dump->captures[i]), "");
    }
    return all_ended ? 1 : 0;
}

static void print_stats(const struct dump *dump)
{
    for (unsigned i = 0; i < dump->num_sockets; i++) {
        struct otus_capture_stats stats;
        otus_capture_get_stats(dump->captures[i], &stats);
        printf("stats %u received=%" PRIu64 " dropped=%" PRIu64 " ignored=%" PRIu64
               " waiting=%" PRIu64 " freezes=%" PRIu64 " removals=%" PRIu64 " given=%" PRIu64 "\n",
               i, stats.received, stats.dropped, stats.ignored, stats.waiting, stats.freezes,
               stats.removals, dump->given[i]);
    }
    fflush(stdout);
}

static bool input_ended(void)
{
    struct pollfd polled = {.fd = STDIN_FILENO, .events = POLLIN};
    char octet;
    return poll(&polled, 1, 0) > 0 && read(STDIN_FILENO, &octet, 1) <= 0;
}

static int run(struct dump *dump)
{
    bool stopped = false;
    int turn = 0;
    while (turn == 0) {
        turn = take_turn(dump);
        if (!stopped && input_ended()) {
            stopped = true;
            for (unsigned i = 0; i < dump->num_sockets; i++)
                otus_capture_stop(dump->captures[i]);
        }
    }
    print_stats(dump);
    return turn < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    static struct dump dump;
    if (argc < 2)
        return fail("usage: capture_dump INTERFACE [key=value ...]", "");
    dump.num_sockets = 1;
    dump.config.interface = argv[1];
    dump.config.promiscuous = true;
    for (int i = 2; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value != NULL)
            *value++ = '\0';
        if (value == NULL || !set_option(&dump, argv[i], value))
            return fail("bad option ", argv[i]);
    }
    int status = open_all(&dump);
    if (status == 0)
        status = run(&dump);
    for (unsigned i = 0; i < dump.num_sockets; i++)
        otus_capture_close(dump.captures[i]);
    return status;
}
