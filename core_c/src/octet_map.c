#include "octet_map.h"

#include <stdlib.h>

bool otus_block_pool_open(struct otus_block_pool *out_pool, uint32_t num_blocks)
{
    struct otus_block *blocks = malloc(num_blocks * sizeof *blocks);
    if (blocks == NULL)
        return false;
    *out_pool = (struct otus_block_pool){blocks, num_blocks, 0, OTUS_NO_BLOCK};
    return true;
}

void otus_block_pool_close(struct otus_block_pool *pool)
{
    free(pool->blocks);
    pool->blocks = NULL;
}

uint32_t otus_block_take(struct otus_block_pool *pool)
{
    uint32_t block = pool->first_free;
    if (block != OTUS_NO_BLOCK)
        pool->first_free = pool->blocks[block].next_free;
    else if (pool->num_used_ever < pool->num_blocks)
        block = pool->num_used_ever++;
    return block;
}

void otus_block_give(struct otus_block_pool *pool, uint32_t block)
{
    pool->blocks[block].next_free = pool->first_free;
    pool->first_free = block;
}

/* The part of a range that lies in one block. */
struct part {
    struct otus_block *block; /* NULL: nothing of it is there */
    uint32_t off;             /* in the block */
    uint32_t len;
};

static struct part part_at(const struct otus_octet_map *map, const struct otus_block_pool *pool,
                           uint32_t off, uint32_t len)
{
    uint32_t index = off / OTUS_REASSEMBLY_BLOCK;
    struct part part = {NULL, off % OTUS_REASSEMBLY_BLOCK, 0};
    uint32_t room = OTUS_REASSEMBLY_BLOCK - part.off;
    part.len = len < room ? len : room;
    if (index < map->num_blocks && map->block[index] != OTUS_NO_BLOCK)
        part.block = &pool->blocks[map->block[index]];
    return part;
}

/* Bits of the units first..first+num-1 that fall into one word; num > 0. */
static uint64_t word_mask(uint32_t word, uint32_t first, uint32_t num)
{
    uint32_t begin = first > word * 64 ? first - word * 64 : 0;
    uint32_t end = first + num - word * 64; /* the callers skip words in front of first */
    uint64_t upto_end = end >= 64 ? UINT64_MAX : (UINT64_C(1) << end) - 1;
    return upto_end & (UINT64_MAX << begin);
}

static uint32_t count_units(const struct part *part)
{
    uint32_t first = part->off / OTUS_UNIT;
    uint32_t num = otus_units_of(part->len);
    uint32_t count = 0;
    for (uint32_t word = first / 64; word * 64 < first + num; word++)
        count +=
            (uint32_t)__builtin_popcountll(part->block->have[word] & word_mask(word, first, num));
    return count;
}

static void mark_units(const struct part *part)
{
    uint32_t first = part->off / OTUS_UNIT;
    uint32_t num = otus_units_of(part->len);
    for (uint32_t word = first / 64; word * 64 < first + num; word++)
        part->block->have[word] |= word_mask(word, first, num);
}

uint32_t otus_map_covered(const struct otus_octet_map *map, const struct otus_block_pool *pool,
                          uint32_t off, uint32_t len)
{
    uint32_t count = 0;
    while (len != 0) {
        struct part part = part_at(map, pool, off, len);
        if (part.block != NULL)
            count += count_units(&part);
        off += part.len;
        len -= part.len;
    }
    return count;
}

bool otus_map_equals(const struct otus_octet_map *map, const struct otus_block_pool *pool,
                     uint32_t off, struct otus_slice octets)
{
    struct otus_cursor at = otus_cursor_of(octets.at, octets.len);
    while (otus_cursor_left(&at) != 0) {
        struct part part = part_at(map, pool, off, (uint32_t)otus_cursor_left(&at));
        if (part.block == NULL || memcmp(part.block->octets + part.off, at.at, part.len) != 0 ||
            !otus_cursor_skip(&at, part.len))
            return false;
        off += part.len;
    }
    return true;
}

bool otus_map_reserve(struct otus_octet_map *map, struct otus_block_pool *pool, uint32_t off,
                      uint32_t len)
{
    uint32_t last = (off + len - 1) / OTUS_REASSEMBLY_BLOCK;
    while (map->num_blocks <= last)
        map->block[map->num_blocks++] = OTUS_NO_BLOCK;
    for (uint32_t index = off / OTUS_REASSEMBLY_BLOCK; index <= last; index++) {
        if (map->block[index] != OTUS_NO_BLOCK)
            continue;
        uint32_t block = otus_block_take(pool);
        if (block == OTUS_NO_BLOCK)
            return false;
        memset(pool->blocks[block].have, 0, sizeof pool->blocks[block].have);
        map->block[index] = block;
    }
    return true;
}

/* Where part of it is there: what came first is kept, unit by unit. */
static void write_missing(const struct part *part, const uint8_t *from)
{
    for (uint32_t done = 0; done < part->len; done += OTUS_UNIT) {
        uint32_t unit = (part->off + done) / OTUS_UNIT;
        uint32_t len = part->len - done < OTUS_UNIT ? part->len - done : OTUS_UNIT;
        if ((part->block->have[unit / 64] >> unit % 64 & 1) == 0)
            memcpy(part->block->octets + part->off + done, from + done, len);
    }
}

void otus_map_write(struct otus_octet_map *map, const struct otus_block_pool *pool, uint32_t off,
                    struct otus_slice octets)
{
    struct otus_cursor at = otus_cursor_of(octets.at, octets.len);
    while (otus_cursor_left(&at) != 0) {
        struct part part = part_at(map, pool, off, (uint32_t)otus_cursor_left(&at));
        uint32_t there = count_units(&part);
        const uint8_t *from = otus_cursor_header(&at, part.len);
        if (OTUS_LIKELY(there == 0))
            memcpy(part.block->octets + part.off, from, part.len);
        else
            write_missing(&part, from);
        mark_units(&part);
        map->num_units += otus_units_of(part.len) - there;
        off += part.len;
    }
}

void otus_map_read(const struct otus_octet_map *map, const struct otus_block_pool *pool,
                   uint8_t *out_octets, uint32_t len)
{
    for (uint32_t off = 0; off < len;) {
        struct part part = part_at(map, pool, off, len - off);
        memcpy(out_octets + off, part.block->octets + part.off, part.len);
        off += part.len;
    }
}

void otus_map_release(struct otus_octet_map *map, struct otus_block_pool *pool)
{
    for (uint32_t index = 0; index < map->num_blocks; index++) {
        if (map->block[index] != OTUS_NO_BLOCK)
            otus_block_give(pool, map->block[index]);
    }
    otus_map_clear(map);
}
