/* Tables by hash with their items in one pool: see flow_table.h. */
#include "flow_table.h"

#include <sys/mman.h>

enum { NO_ITEM = 0 }; /* the pool's first item is nobody's */

static const size_t HUGE_PAGE = (size_t)2 << 20;

/* --- memory --- */

static uint32_t num_slots(const struct otus_table *table)
{
    return table->num_buckets * OTUS_TABLE_SLOTS;
}

/* What the table may hold of the pool: a stripe takes more only where all it has is in use. */
static uint32_t num_items(const struct otus_table *table)
{
    return num_slots(table) + OTUS_TABLE_STRIPES * OTUS_ITEMS_AT_ONCE;
}

static uint8_t *place(struct otus_table *table, uint8_t *at, struct otus_pool *pool)
{
    table->buckets = (void *)at;
    table->pool = pool;
    return at + (size_t)table->num_buckets * sizeof *table->buckets;
}

enum otus_status otus_tables_open(struct otus_tables *tables, uint32_t num_flows,
                                  uint32_t num_calls)
{
    *tables = (struct otus_tables){0};
    tables->flows.num_buckets = num_flows / OTUS_TABLE_SLOTS + 1;
    tables->calls.num_buckets = num_calls / OTUS_TABLE_SLOTS + 1;
    size_t items = (size_t)num_items(&tables->flows) + num_items(&tables->calls) + 1;
    size_t buckets = (size_t)tables->flows.num_buckets + tables->calls.num_buckets;
    size_t len = buckets * sizeof(struct otus_bucket) + items * OTUS_ITEM_OCTETS;
    /* Packets in no order miss the TLB where pages are small; small tables need no large page. */
    size_t alignment = len < HUGE_PAGE ? 1 : HUGE_PAGE;
    /* The kernel's own pages: zero, and none before it is written to. An allocator may give used
     * ones, and would clear and so take all of them. */
    void *memory =
        mmap(NULL, len + alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return OTUS_E_NOMEM;
    tables->memory = memory;
    tables->memory_len = len + alignment;
    uint8_t *at = (uint8_t *)memory + (alignment - (uintptr_t)memory % alignment) % alignment;
    if (alignment == HUGE_PAGE)
        (void)madvise(at, len, MADV_HUGEPAGE); /* a kernel without them goes on as it can */
    at = place(&tables->flows, at, &tables->pool);
    at = place(&tables->calls, at, &tables->pool);
    tables->pool = (struct otus_pool){.items = at, .num_taken = 1};
    return OTUS_OK;
}

void otus_tables_close(struct otus_tables *tables)
{
    if (tables->memory != NULL)
        munmap(tables->memory, tables->memory_len);
}

/* --- items of a stripe --- */

static uint32_t take_item(struct otus_table *table, struct otus_stripe *stripe)
{
    uint32_t item = stripe->free;
    if (item != NO_ITEM) {
        const uint64_t *link = (const void *)(table->pool->items + (size_t)item * OTUS_ITEM_OCTETS);
        stripe->free = (uint32_t)otus_word_load(link);
        return item;
    }
    if (stripe->next == stripe->end) {
        stripe->next =
            __atomic_fetch_add(&table->pool->num_taken, OTUS_ITEMS_AT_ONCE, __ATOMIC_RELAXED);
        stripe->end = stripe->next + OTUS_ITEMS_AT_ONCE;
    }
    return stripe->next++;
}

static uint32_t oldest(const struct otus_bucket *bucket, uint32_t tick, uint32_t slots)
{
    uint32_t slot = (uint32_t)__builtin_ctz(slots);
    int32_t most = INT32_MIN;
    while (slots != 0) {
        uint32_t i = otus_next_slot(&slots);
        int32_t age = otus_ticks_between(otus_slot_used(bucket, i), tick);
        if (age > most) {
            most = age;
            slot = i;
        }
    }
    return slot;
}

uint32_t otus_slot_take(struct otus_table *table, struct otus_home home, uint32_t tick,
                        uint32_t kept)
{
    uint32_t free = otus_slots_with(home.bucket, 0);
    if (free == 0)
        return oldest(home.bucket, tick, OTUS_TABLE_ALL_SLOTS & ~kept);
    uint32_t slot = (uint32_t)__builtin_ctz(free);
    __atomic_store_n(&home.bucket->item[slot], take_item(table, home.stripe), __ATOMIC_RELAXED);
    return slot;
}

void otus_slot_drop(struct otus_table *table, struct otus_home home, uint32_t slot)
{
    otus_write_begin(home.bucket);
    __atomic_store_n(&home.bucket->tag[slot], 0, __ATOMIC_RELAXED);
    otus_word_store(otus_item_at(table, home.bucket, slot), home.stripe->free);
    home.stripe->free = home.bucket->item[slot];
    otus_write_end(home.bucket);
}
