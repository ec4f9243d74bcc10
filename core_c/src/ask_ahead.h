/* Memory that is asked for before its turn comes, so that nobody waits for it. An address where
 * there is no memory does no harm. */
#ifndef OTUS_ASK_AHEAD_H
#define OTUS_ASK_AHEAD_H

#include <stdint.h>

#include "otus/packet.h"

/* Lines are asked for four at a time: how often a loop over single ones goes round differs from
 * packet to packet, and is mispredicted. */
enum { OTUS_ASK_LINE = 64, OTUS_ASK_STEP = 4 * OTUS_ASK_LINE };

/* Into the second-level cache: there is more to read than the first holds until it is read. */
static inline void otus_ask_to_read(uintptr_t at, uint32_t len)
{
    for (uintptr_t end = at + len; at < end; at += OTUS_ASK_STEP) {
        __builtin_prefetch((const void *)at, 0, 2);
        __builtin_prefetch((const void *)(at + OTUS_ASK_LINE), 0, 2);
        __builtin_prefetch((const void *)(at + 2 * OTUS_ASK_LINE), 0, 2);
        __builtin_prefetch((const void *)(at + 3 * OTUS_ASK_LINE), 0, 2);
    }
}

static inline void otus_ask_to_write(uintptr_t at, uint32_t len)
{
    for (uintptr_t end = at + len; at < end; at += OTUS_ASK_STEP) {
        __builtin_prefetch((const void *)at, 1);
        __builtin_prefetch((const void *)(at + OTUS_ASK_LINE), 1);
        __builtin_prefetch((const void *)(at + 2 * OTUS_ASK_LINE), 1);
        __builtin_prefetch((const void *)(at + 3 * OTUS_ASK_LINE), 1);
    }
}

/* How far behind the start of its first frame a burst ends; 0 where it lies in no one place. */
static inline uint32_t otus_burst_octets(const struct otus_raw_packet *burst, uint32_t num)
{
    enum { MAX_OCTETS = 1 << 20 };
    uintptr_t first = (uintptr_t)burst[0].data;
    uintptr_t octets = (uintptr_t)burst[num - 1].data + burst[num - 1].caplen - first;
    return octets <= MAX_OCTETS ? (uint32_t)octets : 0;
}

/* Sources lay frames one behind the other, and each frame of the next burst would be waited for:
 * first by the source, which goes from header to header, then by who decodes. So the place is
 * asked for that lies as far behind this burst as this frame behind its start. */
static inline void otus_ask_next_burst(const struct otus_raw_packet *raw, uint32_t burst_octets)
{
    enum { MAX_OCTETS = 1536 };
    uint32_t len = raw->caplen < MAX_OCTETS ? raw->caplen : MAX_OCTETS;
    otus_ask_to_read((uintptr_t)raw->data + burst_octets, len);
}

#endif
