/* The AF_PACKET source: its state, and the socket's set-up; private to
 * capture_afpacket.c (ring) and capture_socket.c (socket). */
#ifndef OTUS_CAPTURE_AFPACKET_H
#define OTUS_CAPTURE_AFPACKET_H

#include <linux/filter.h>
#include <net/if.h>

#include "capture_interfaces.h"
#include "capture_source.h"

/* Written by the pipeline's thread and by whoever asks for statistics: atomic.
 * Kept apart from the source, which statistics see as const. */
struct afpacket_totals {
    uint64_t received; /* the kernel forgets its figures when they are read: summed here */
    uint64_t dropped;
    uint64_t freezes;
    uint64_t given;
    uint64_t ignored;
    uint64_t removals;
    uint64_t interface_dropped_before; /* the interface's figure when the source was opened */
};

struct afpacket_source {
    struct otus_capture base; /* first: ops get its address */
    int fd;                   /* one number for life: a new socket is put in its place */
    int spare_fd;             /* for a fanout group that must be joined anew without CAP_NET_RAW */
    char name[IFNAMSIZ];
    uint32_t if_index; /* 0: any */
    bool any;
    bool cooked;   /* no link header: one of Linux cooked v1 is written before each frame */
    bool loopback; /* the one interface is loopback: what goes out comes in */
    bool promiscuous;
    bool hardware_timestamps;
    bool wait_for_interface;
    bool gone;      /* the interface was removed */
    bool attached;  /* bound, joined and receiving */
    bool in_fanout; /* the socket is in its group: it can't be bound again */
    enum otus_fanout_mode fanout_mode;
    uint16_t fanout_id; /* 0: not known yet */
    uint32_t snap_len;
    struct sock_fprog filter;         /* owned; retargeted to snap_len */
    struct sock_fprog fanout_program; /* owned; len 0: none */
    struct afpacket_totals *totals;
    struct otus_interfaces *interfaces; /* only on any */
    uint64_t looked_ns;                 /* when interfaces was filled */
    uint64_t removed_ns;                /* when the interface was seen to be gone */
    uint64_t stop_ns;                   /* when the ring first was empty after a stop */

    uint8_t *ring;
    uint32_t block_octets;
    uint32_t num_blocks;
    uint32_t retire_timeout_ms;
    uint32_t block;       /* the one in hand, or the one to come */
    bool holding;         /* it is ours */
    uint32_t frames_left; /* in it */
    uint32_t frame_off;   /* of the next one, from the block's start */
};

/* Socket and ring; nothing can come in yet. */
OTUS_MUST_CHECK enum otus_status otus_afpacket_open_socket(struct afpacket_source *source,
                                                           char *message, size_t message_len);

/* Binds, joins the fanout group, lets frames in. if_index must be set. */
OTUS_MUST_CHECK enum otus_status otus_afpacket_attach(struct afpacket_source *source, char *message,
                                                      size_t message_len);

/* Finds the interface by name; sets if_index, cooked and loopback. */
OTUS_MUST_CHECK enum otus_status otus_afpacket_find(struct afpacket_source *source, char *message,
                                                    size_t message_len);

/* Puts the spare socket with a new ring in the place of one whose group died with
 * its interface. */
OTUS_MUST_CHECK enum otus_status otus_afpacket_renew(struct afpacket_source *source, char *message,
                                                     size_t message_len);

/* Refuses every frame from here on. */
OTUS_MUST_CHECK enum otus_status otus_afpacket_refuse_all(int fd);

void otus_afpacket_close_socket(struct afpacket_source *source);

/* Frames that NIC, driver and backlog lost, since the interface exists; 0 where unknown. */
uint64_t otus_afpacket_interface_dropped(const char *name);

#endif
