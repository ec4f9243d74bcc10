/* Where frames come from: one interface over an AF_PACKET ring and a file.
 *
 * A source has one owner at a time and is not thread-safe, but stats may be
 * read from any thread. */
#ifndef OTUS_CAPTURE_H
#define OTUS_CAPTURE_H

#include <stdbool.h>

#include "otus/packet.h"

struct otus_capture;

/* received = dropped + ignored + waiting + frames that otus_capture_next() gave. */
struct otus_capture_stats {
    uint64_t received;          /* frames that the filter let pass (file: of the frames read) */
    uint64_t dropped;           /* of those, lost because the ring was full */
    uint64_t interface_dropped; /* lost before the socket, by NIC or driver; host-wide figure */
    uint64_t freezes;           /* times the ring was full */
    uint64_t ignored;  /* second sightings of one frame: loopback on its way out, an upper device */
    uint64_t waiting;  /* in the ring, not given out yet */
    uint64_t removals; /* times the interface was removed and waited for */
};

/* One BPF instruction, laid out as the kernel's struct sock_filter. */
struct otus_bpf_insn {
    uint16_t code;
    uint8_t jt;
    uint8_t jf;
    uint32_t k;
};

enum otus_fanout_mode {
    OTUS_FANOUT_NONE = 0,
    OTUS_FANOUT_HASH, /* with the defragment flag */
    OTUS_FANOUT_CPU,
    OTUS_FANOUT_LB,
    OTUS_FANOUT_ROLLOVER,
    OTUS_FANOUT_QM,
};

struct otus_afpacket_config {
    const char *interface;      /* "any" captures on all */
    uint32_t block_octets;      /* power of two, multiple of the page size; 0: 1 MiB */
    uint32_t num_blocks;        /* 0: as many as make 32 MiB */
    uint32_t retire_timeout_ms; /* a block with frames is handed over after this; 0: 10 */
    uint32_t snap_len;          /* 0, or 65535 and more: whole frames, oversized ones included */
    bool promiscuous;
    bool hardware_timestamps;
    bool wait_for_interface; /* when it is removed, wait for its return; else that is an error */
    enum otus_fanout_mode fanout_mode;
    uint16_t fanout_id; /* 0: the kernel chooses one that is free on the host (the first pipeline);
                           then otus_capture_fanout_id() for the task's other pipelines */
    const struct otus_bpf_insn *fanout_program; /* HASH: what it returns chooses the pipeline;
                                                   NULL: the kernel's own flow hash */
    uint32_t fanout_program_len;
    const struct otus_bpf_insn *filter; /* nothing gets in before it is attached; NULL for none.
                                           For a cooked interface: over the network layer */
    uint32_t filter_len;                /* instructions */
};

enum otus_file_timing {
    OTUS_TIMING_FAST = 0, /* as fast as the pipeline takes them */
    OTUS_TIMING_PACED,    /* original gaps divided by speed */
};

/* pcap (us, ns, both byte orders, modified) or pcapng, told apart by its magic. */
struct otus_file_config {
    int fd; /* regular file, pipe or socket; the source owns it from here on, also on failure */
    const struct otus_bpf_insn *filter; /* applied to each frame; NULL for none */
    uint32_t filter_len;
    enum otus_file_timing timing;
    double speed;
    bool follow; /* at end of file wait for more */
};

/* The same formats from memory, num_loops times over: for tests and benchmarks.
 * The octets stay the caller's and must outlive the source. */
struct otus_memory_config {
    const uint8_t *octets;
    size_t len;
    uint64_t num_loops;
};

/* On failure *out_capture is untouched and message (of size message_len) gets
 * one line that says what and why. */
OTUS_MUST_CHECK enum otus_status otus_capture_open_afpacket(
    struct otus_capture **out_capture, char *message, size_t message_len,
    const struct otus_afpacket_config *config);
OTUS_MUST_CHECK enum otus_status otus_capture_open_file(struct otus_capture **out_capture,
                                                        char *message, size_t message_len,
                                                        const struct otus_file_config *config);
OTUS_MUST_CHECK enum otus_status otus_capture_open_memory(struct otus_capture **out_capture,
                                                          char *message, size_t message_len,
                                                          const struct otus_memory_config *config);

/* Gives up to max frames.
 *
 * Returns OTUS_OK with *out_num > 0; OTUS_E_AGAIN when none came within
 * timeout_ms (0: do not wait; negative: no limit set) or on an interrupt;
 * OTUS_E_END after the last one, and then otus_capture_error() is "" or, where
 * a file is cut off inside its last record, says so; OTUS_E_SYSTEM or
 * OTUS_E_MALFORMED when the source can give no more, with the reason in
 * otus_capture_error(). An interface that goes down is not an error: the
 * source waits for it to come back.
 *
 * Lifetime: the frames are valid until the next call on this source, which
 * hands their ring block back to the kernel. */
OTUS_MUST_CHECK enum otus_status otus_capture_next(struct otus_capture *capture,
                                                   struct otus_raw_packet *out_packets,
                                                   uint32_t *out_num, uint32_t max, int timeout_ms);

/* Makes a waiting otus_capture_next() return at once, from any thread. */
void otus_capture_interrupt(struct otus_capture *capture);

/* Ends intake, from any thread: a ring lets no further frame in (a filter that
 * refuses all is attached) and gives up what it holds, a file stops where it
 * is; then otus_capture_next() returns OTUS_E_END. Statistics stay readable, so
 * the ledger of a stopped task balances to the frame. */
void otus_capture_stop(struct otus_capture *capture);

void otus_capture_get_stats(const struct otus_capture *capture,
                            struct otus_capture_stats *out_stats);
const char *otus_capture_error(const struct otus_capture *capture);

/* The fanout group that the kernel gave (fanout_id 0 asks for a free one). */
uint16_t otus_capture_fanout_id(const struct otus_capture *capture);

/* Octets of the file read so far, for progress; 0 for a ring. */
uint64_t otus_capture_position(const struct otus_capture *capture);

void otus_capture_close(struct otus_capture *capture); /* NULL-safe */

#endif
