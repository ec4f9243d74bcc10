/* What the two tables of the flow registry share: see flow.c. */
#ifndef OTUS_FLOW_INTERNAL_H
#define OTUS_FLOW_INTERNAL_H

#include <sched.h>

#include "otus/flow.h"

enum {
    OTUS_FLOW_LOCKS = 64,
    OTUS_FLOW_SPINS = 128,    /* before the processor is given away */
    OTUS_CALL_SLOTS = 4,      /* call records of a bucket */
    OTUS_CALL_ENDPOINTS = 10, /* of one record; a call with more has several */
    OTUS_CALL_DIALOGS = 3,    /* of one call: forked, or one for each leg of a B2BUA */
    OTUS_CALL_INVITES = 5,    /* without a final response at one time */
};

struct bucket;
struct entry;

/* What is known of a call. Texts are there as hashes; 0 is none. */
struct otus_call {
    uint64_t hash; /* of the Call-ID, 0: free */
    uint64_t put_ns;
    uint64_t endpoint[OTUS_CALL_ENDPOINTS]; /* hashes of keys */
    uint32_t owner[OTUS_CALL_ENDPOINTS];    /* tag of the party that media come to */
    uint32_t dialog[OTUS_CALL_DIALOGS][2];  /* confirmed ones: the tags of both parties */
    uint32_t invite[OTUS_CALL_INVITES];     /* branches of INVITEs that wait for an answer */
    uint32_t offerless_cseq;                /* of the INVITE that is_offerless speaks of */
    uint8_t num_endpoints;
    uint8_t num_dialogs;
    uint8_t num_invites;
    bool is_head;      /* dialogs and invites are in the head, one record of the call */
    bool is_offerless; /* its last INVITE came without a description */
    bool has_more;     /* there was no room for a dialog or an INVITE: TTL ends the call */
};
static_assert(sizeof(struct otus_call) <= 192, "three cache lines");

struct otus_lock {
    _Alignas(64) uint32_t held;
};

struct otus_flow_registry {
    struct bucket *buckets;
    struct entry *entries; /* SLOTS for each bucket, in entry_memory */
    uint8_t *entry_memory;
    struct otus_call *calls; /* OTUS_CALL_SLOTS for each call bucket */
    uint32_t num_buckets;
    uint32_t num_call_buckets;
    uint64_t ttl_ns;
    uint64_t seed[4];
    struct otus_lock flow_locks[OTUS_FLOW_LOCKS];
    struct otus_lock call_locks[OTUS_FLOW_LOCKS];
    _Alignas(64) uint32_t count;
    uint32_t sweep;     /* the bucket that the next put looks over */
    uint32_t has_peers; /* a key with both ends was put */
};

static inline void otus_lock_take(struct otus_lock *lock)
{
    for (uint32_t spins = 0; __atomic_exchange_n(&lock->held, 1, __ATOMIC_ACQUIRE) != 0;)
        if (++spins % OTUS_FLOW_SPINS == 0)
            sched_yield();
}

static inline void otus_lock_give(struct otus_lock *lock)
{
    __atomic_store_n(&lock->held, 0, __ATOMIC_RELEASE);
}

/* The high half of the hash picks the bucket. */
static inline uint32_t otus_bucket_of(uint64_t hash, uint32_t num_buckets)
{
    return (uint32_t)(((hash >> 32) * num_buckets) >> 32);
}

/* Tells the cache that the records of this call will be read soon. */
static inline void otus_flow_prefetch_call(const struct otus_flow_registry *registry,
                                           uint64_t call_hash)
{
    uint32_t bucket = otus_bucket_of(call_hash, registry->num_call_buckets);
    for (uint32_t i = 0; i < OTUS_CALL_SLOTS; i++)
        __builtin_prefetch(&registry->calls[(size_t)bucket * OTUS_CALL_SLOTS + i].hash);
}

/* --- flow.c --- */
uint64_t otus_flow_hash_call(const struct otus_flow_registry *registry,
                             const struct otus_flow_value *value);
/* Of a tag or branch; 0 for none. */
uint32_t otus_flow_hash_text(const struct otus_flow_registry *registry, struct otus_slice text);
/* Removes the endpoint if it still belongs to the call. */
void otus_flow_remove_endpoint(struct otus_flow_registry *registry, uint64_t hash,
                               uint64_t call_hash);

/* --- flow_call.c --- */
/* The endpoint belongs to the call and, in it, to the party with this tag. */
void otus_flow_note_endpoint(struct otus_flow_registry *registry, uint64_t call_hash,
                             uint64_t endpoint, uint32_t owner, uint64_t now_ns);

#endif
