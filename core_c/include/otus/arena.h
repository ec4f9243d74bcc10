/* A bump allocator over one block taken at open. Offsets, never pointers, are
 * what outlives a call: the block is copied out to Python whole. */
#ifndef OTUS_ARENA_H
#define OTUS_ARENA_H

#include "otus/cursor.h"

struct otus_arena {
    uint8_t *base;
    uint32_t used;
    uint32_t size;
};

static inline uint32_t otus_arena_left(const struct otus_arena *arena)
{
    return arena->size - arena->used;
}

/* Reserves len octets; NULL when they do not fit, and nothing changes. */
static inline uint8_t *otus_arena_take(struct otus_arena *arena, uint32_t len)
{
    if (OTUS_UNLIKELY(otus_arena_left(arena) < len))
        return NULL;
    uint8_t *at = arena->base + arena->used;
    arena->used += len;
    return at;
}

/* Makes the next reservation start on a multiple of align, a power of two. */
static inline void otus_arena_align(struct otus_arena *arena, uint32_t align)
{
    uint32_t gap = (align - arena->used % align) % align;
    arena->used = otus_arena_left(arena) < gap ? arena->size : arena->used + gap;
}

/* Copies octets in; false when they do not fit, and nothing changes. */
OTUS_MUST_CHECK static inline bool otus_arena_put(struct otus_arena *arena,
                                                  struct otus_span *out_span,
                                                  struct otus_slice octets)
{
    uint32_t off = arena->used;
    uint8_t *at = otus_arena_take(arena, octets.len);
    if (OTUS_UNLIKELY(at == NULL))
        return false;
    if (OTUS_LIKELY(octets.len != 0))
        memcpy(at, octets.at, octets.len);
    *out_span = (struct otus_span){off, octets.len};
    return true;
}

#endif
