/* The octets of an unfinished datagram at their places: blocks from a shared
 * pool, one bit for every eight octets that are there. */
#ifndef OTUS_OCTET_MAP_H
#define OTUS_OCTET_MAP_H

#include <stdbool.h>

#include "otus/cursor.h"
#include "otus/reassembly.h"

enum {
    OTUS_UNIT = 8, /* octets that a fragment offset counts */
    OTUS_BLOCK_UNITS = OTUS_REASSEMBLY_BLOCK / OTUS_UNIT,
    OTUS_MAP_BLOCKS = 65536 / OTUS_REASSEMBLY_BLOCK,
};

#define OTUS_NO_BLOCK UINT32_MAX

struct otus_block {
    uint8_t octets[OTUS_REASSEMBLY_BLOCK];
    uint64_t have[OTUS_BLOCK_UNITS / 64];
    uint32_t next_free;
};

/* Blocks never used stay untouched memory; used ones are reused last in, first
 * out, while they are in the cache. */
struct otus_block_pool {
    struct otus_block *blocks;
    uint32_t num_blocks;
    uint32_t num_used_ever;
    uint32_t first_free;
};

struct otus_octet_map {
    uint32_t num_units;  /* that are there */
    uint32_t num_blocks; /* entries of block[] that mean something */
    uint32_t block[OTUS_MAP_BLOCKS];
};

OTUS_MUST_CHECK bool otus_block_pool_open(struct otus_block_pool *out_pool, uint32_t num_blocks);
void otus_block_pool_close(struct otus_block_pool *pool);
/* OTUS_NO_BLOCK when all are taken. */
uint32_t otus_block_take(struct otus_block_pool *pool);
void otus_block_give(struct otus_block_pool *pool, uint32_t block);

static inline uint8_t *otus_block_octets(const struct otus_block_pool *pool, uint32_t block)
{
    return pool->blocks[block].octets;
}

static inline uint32_t otus_units_of(uint32_t octets)
{
    return (octets + OTUS_UNIT - 1) / OTUS_UNIT;
}

static inline void otus_map_clear(struct otus_octet_map *map)
{
    map->num_units = 0;
    map->num_blocks = 0;
}

/* In the next five, off is a multiple of OTUS_UNIT and off + len at most 65536. */

/* How many units of the range are there already. */
uint32_t otus_map_covered(const struct otus_octet_map *map, const struct otus_block_pool *pool,
                          uint32_t off, uint32_t len);
/* Whether the range, covered throughout, holds these octets. */
bool otus_map_equals(const struct otus_octet_map *map, const struct otus_block_pool *pool,
                     uint32_t off, struct otus_slice octets);
/* Takes the blocks that the range still lacks; false when the pool has no more,
 * and then those taken stay with the map. */
OTUS_MUST_CHECK bool otus_map_reserve(struct otus_octet_map *map, struct otus_block_pool *pool,
                                      uint32_t off, uint32_t len);
/* Writes into a reserved range, leaving what was there before as it was. */
void otus_map_write(struct otus_octet_map *map, const struct otus_block_pool *pool, uint32_t off,
                    struct otus_slice octets);
/* Copies the first len octets out; all of them are there. */
void otus_map_read(const struct otus_octet_map *map, const struct otus_block_pool *pool,
                   uint8_t *out_octets, uint32_t len);

void otus_map_release(struct otus_octet_map *map, struct otus_block_pool *pool);

#endif
