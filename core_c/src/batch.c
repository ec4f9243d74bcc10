/* The memory of a batch. */
#include "otus/batch.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { LARGE_PAGE = 2 << 20 };

/* With pages of 4 KiB, a batch needs more of them than the processor remembers
 * addresses of, and a new one costs a page fault every few packets. */
static void *take_large(size_t len)
{
    size_t whole = (len + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    void *memory = aligned_alloc(LARGE_PAGE, whole);
    if (memory != NULL)
        (void)madvise(memory, whole, MADV_HUGEPAGE); /* a kernel may have none */
    return memory;
}

enum otus_status otus_batch_open(struct otus_batch *out_batch, uint32_t max_records,
                                 uint32_t arena_octets)
{
    *out_batch = (struct otus_batch){0};
    size_t records_len = (size_t)max_records * sizeof(struct otus_record);
    size_t len = records_len + arena_octets;
    uint8_t *memory = len < LARGE_PAGE ? malloc(len) : take_large(len);
    if (memory == NULL)
        return OTUS_E_NOMEM;
    out_batch->records = (struct otus_record *)(void *)memory;
    out_batch->max_records = max_records;
    out_batch->arena = (struct otus_arena){.base = memory + records_len, .size = arena_octets};
    return OTUS_OK;
}
