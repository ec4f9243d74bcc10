/* Memory that is asked for before its turn comes, so that nobody waits for it. An address where
 * there is no memory does no harm. */
#ifndef OTUS_ASK_AHEAD_H
#define OTUS_ASK_AHEAD_H

#include <stdint.h>

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

#endif
