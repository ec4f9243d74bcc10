/* Mixing 64 bits into a hash that starts from a secret. */
#ifndef OTUS_HASH_MIX_H
#define OTUS_HASH_MIX_H

#include <stdint.h>

/* GCC's name for it; ISO C has none of 128 bits. */
__extension__ typedef unsigned __int128 otus_uint128;

static inline uint64_t otus_mix64(uint64_t state, uint64_t value)
{
    /* Multiply and fold: two multiplications' worth of mixing for the price of one. */
    otus_uint128 product =
        (otus_uint128)(state ^ value ^ 0x9e3779b97f4a7c15u) * 0xd6e8feb86659fd93u;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

#endif
