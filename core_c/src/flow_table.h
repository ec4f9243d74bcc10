/* A table by hash: what both tables of the flow registry are made of.
 *
 * A bucket is one cache line: of each of its places a piece of the hash, the time of the last use
 * and the number of the item that is kept there. Items lie in a pool. The one given back last is
 * taken first, so that few items lie in few pages and lines, whatever their hashes are. Both
 * tables take from one pool, whose memory is the kernel's until it is needed.
 *
 * Buckets and free items are shared out between stripes, each with a lock. */
#ifndef OTUS_FLOW_TABLE_H
#define OTUS_FLOW_TABLE_H

#include <assert.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "otus/status.h"

enum {
    OTUS_TABLE_SLOTS = 6,
    OTUS_TABLE_ALL_SLOTS = (1 << OTUS_TABLE_SLOTS) - 1, /* a bit each */
    OTUS_TABLE_STRIPES = 64,
    OTUS_TABLE_SPINS = 128,  /* before the processor is given away */
    OTUS_ITEM_OCTETS = 192,  /* three cache lines */
    OTUS_ITEMS_AT_ONCE = 16, /* that a stripe takes from the pool */
};

struct otus_bucket {
    _Alignas(64) uint32_t sequence; /* odd: being written */
    uint32_t item[OTUS_TABLE_SLOTS];
    uint32_t used[OTUS_TABLE_SLOTS]; /* otus_tick_of() the last use */
    uint16_t tag[OTUS_TABLE_SLOTS];  /* 0: free */
};
static_assert(sizeof(struct otus_bucket) == 64, "a look at a bucket is a look at one line");

struct otus_stripe {
    _Alignas(64) uint32_t held;
    uint32_t free; /* the item given back last, 0: none; its first word names the one before */
    uint32_t next; /* of those taken from the pool at once */
    uint32_t end;
};

struct otus_pool {
    uint8_t *items;
    _Alignas(64) uint32_t num_taken; /* the first is nobody's */
};

struct otus_table {
    struct otus_bucket *buckets;
    struct otus_pool *pool;
    uint32_t num_buckets;
    struct otus_stripe stripes[OTUS_TABLE_STRIPES];
};

/* Where a hash belongs. */
struct otus_home {
    struct otus_bucket *bucket;
    struct otus_stripe *stripe;
};

/* Both tables' memory and the pool's. */
struct otus_tables {
    struct otus_table flows;
    struct otus_table calls;
    struct otus_pool pool;
    void *memory;
    size_t memory_len;
};

/* Room for so many items in each table. On failure nothing is held. */
OTUS_MUST_CHECK enum otus_status otus_tables_open(struct otus_tables *tables, uint32_t num_flows,
                                                  uint32_t num_calls);
void otus_tables_close(struct otus_tables *tables);

/* --- time, as a bucket keeps it --- */

/* About a millisecond each; 26 days of them can be told apart. */
static inline uint32_t otus_tick_of(uint64_t ns)
{
    return (uint32_t)(ns >> 20);
}

/* Negative where the clock has stepped back. */
static inline int32_t otus_ticks_between(uint32_t from, uint32_t to)
{
    return (int32_t)(to - from);
}

/* --- words that readers may look at while they are written --- */

static inline uint64_t otus_word_load(const uint64_t *at)
{
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

static inline void otus_word_store(uint64_t *at, uint64_t value)
{
    __atomic_store_n(at, value, __ATOMIC_RELAXED);
}

/* --- buckets: the high half of a hash picks one, bits of the low half are the tag --- */

static inline uint16_t otus_tag_of(uint64_t hash)
{
    uint16_t tag = (uint16_t)(hash >> 16);
    return tag == 0 ? 1 : tag;
}

static inline uint32_t otus_bucket_of(const struct otus_table *table, uint64_t hash)
{
    return (uint32_t)(((hash >> 32) * table->num_buckets) >> 32);
}

static inline struct otus_home otus_home_at(struct otus_table *table, uint32_t bucket)
{
    return (struct otus_home){&table->buckets[bucket],
                              &table->stripes[bucket % OTUS_TABLE_STRIPES]};
}

static inline struct otus_home otus_home_of(struct otus_table *table, uint64_t hash)
{
    return otus_home_at(table, otus_bucket_of(table, hash));
}

/* The slots with the tag: a bit each, found without a branch on which. */
static inline uint32_t otus_slots_with(const struct otus_bucket *bucket, uint16_t tag)
{
    uint32_t slots = 0;
#pragma GCC unroll 6
    for (uint32_t slot = 0; slot < OTUS_TABLE_SLOTS; slot++)
        slots |= (uint32_t)(__atomic_load_n(&bucket->tag[slot], __ATOMIC_RELAXED) == tag) << slot;
    return slots;
}

/* Those that may hold the hash. */
static inline uint32_t otus_slots_of(const struct otus_bucket *bucket, uint64_t hash)
{
    return otus_slots_with(bucket, otus_tag_of(hash));
}

/* The first of a set; takes it out. */
static inline uint32_t otus_next_slot(uint32_t *slots)
{
    uint32_t slot = (uint32_t)__builtin_ctz(*slots);
    *slots &= *slots - 1;
    return slot;
}

/* Always an item, also where the slot is being written. */
static inline void *otus_item_at(const struct otus_table *table, const struct otus_bucket *bucket,
                                 uint32_t slot)
{
    size_t item = __atomic_load_n(&bucket->item[slot], __ATOMIC_RELAXED);
    return table->pool->items + item * OTUS_ITEM_OCTETS;
}

static inline uint32_t otus_slot_used(const struct otus_bucket *bucket, uint32_t slot)
{
    return __atomic_load_n(&bucket->used[slot], __ATOMIC_RELAXED);
}

static inline void otus_slot_use(struct otus_bucket *bucket, uint32_t slot, uint32_t tick)
{
    if (otus_slot_used(bucket, slot) != tick)
        __atomic_store_n(&bucket->used[slot], tick, __ATOMIC_RELAXED);
}

/* --- writing: the stripe's lock is held, one at a time --- */

static inline void otus_stripe_take(struct otus_stripe *stripe)
{
    for (uint32_t spins = 0; __atomic_exchange_n(&stripe->held, 1, __ATOMIC_ACQUIRE) != 0;)
        if (++spins % OTUS_TABLE_SPINS == 0)
            sched_yield();
}

static inline void otus_stripe_give(struct otus_stripe *stripe)
{
    __atomic_store_n(&stripe->held, 0, __ATOMIC_RELEASE);
}

static inline void otus_write_begin(struct otus_bucket *bucket)
{
    __atomic_store_n(&bucket->sequence, bucket->sequence + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void otus_write_end(struct otus_bucket *bucket)
{
    __atomic_store_n(&bucket->sequence, bucket->sequence + 1, __ATOMIC_RELEASE);
}

/* A slot for a new item: a free one, which takes an item from the pool, or the one used longest
 * ago of those that are not kept, a bit each. The item is to be written, and then the slot named.
 */
uint32_t otus_slot_take(struct otus_table *table, struct otus_home home, uint32_t tick,
                        uint32_t kept);
/* The slot is free and its item goes back. */
void otus_slot_drop(struct otus_table *table, struct otus_home home, uint32_t slot);

static inline void otus_slot_name(struct otus_bucket *bucket, uint32_t slot, uint64_t hash)
{
    __atomic_store_n(&bucket->tag[slot], otus_tag_of(hash), __ATOMIC_RELAXED);
}

#endif
