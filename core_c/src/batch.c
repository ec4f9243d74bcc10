/* The memory of a batch. */
#include "otus/batch.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { LARGE_PAGE = 2 << 20 };

/* With pages of 4 KiB, a batch needs more of them than the processor remembers
 * addresses of, and a new one costs a page fault every few packets. */
static void *take_large(size_t len)
{
    void *memory = aligned_alloc(LARGE_PAGE, len);
    if (memory != NULL)
        (void)madvise(memory, len, MADV_HUGEPAGE); /* a kernel may have none */
    return memory;
}

static size_t arena_at(uint32_t max_records)
{
    return (size_t)max_records * sizeof(struct otus_record);
}

size_t otus_batch_octets(const struct otus_batch *batch)
{
    size_t len = arena_at(batch->max_records) + batch->arena.size;
    return len < LARGE_PAGE ? len : (len + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
}

enum otus_status otus_batch_open(struct otus_batch *out_batch, uint32_t max_records,
                                 uint32_t arena_octets)
{
    struct otus_batch batch = {.max_records = max_records, .arena = {.size = arena_octets}};
    size_t len = otus_batch_octets(&batch);
    *out_batch = (struct otus_batch){0};
    uint8_t *memory = len < LARGE_PAGE ? malloc(len) : take_large(len);
    if (memory == NULL)
        return OTUS_E_NOMEM;
    batch.records = (struct otus_record *)(void *)memory;
    batch.arena.base = memory + arena_at(max_records);
    *out_batch = batch;
    return OTUS_OK;
}
