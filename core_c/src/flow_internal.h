/* What the two halves of the flow registry share: see flow.c. */
#ifndef OTUS_FLOW_INTERNAL_H
#define OTUS_FLOW_INTERNAL_H

#include "flow_table.h"
#include "otus/flow.h"

enum {
    OTUS_CALL_ENDPOINTS = 10, /* of one record; a call with more has several */
    OTUS_CALL_DIALOGS = 3,    /* of one call: forked, or one for each leg of a B2BUA */
    OTUS_CALL_INVITES = 5,    /* without a final response at one time */
    OTUS_PORTS_OF_HASH = 3,   /* low bits of an endpoint's hash: which ports of the pair */
};

/* What is known of a call. Texts are there as hashes; 0 is none. What most calls have comes
 * first: two lines of it. */
struct otus_call {
    uint64_t hash;           /* of the Call-ID */
    uint32_t offerless_cseq; /* of the INVITE that is_offerless speaks of */
    uint8_t num_endpoints;
    uint8_t num_dialogs;
    uint8_t num_invites;
    bool is_head;                           /* dialogs and invites are in the head, one record of
                                             * the call */
    bool is_offerless;                      /* its last INVITE came without a description */
    bool has_more;                          /* there was no room for a dialog or an INVITE: TTL
                                             * ends the call */
    uint32_t invite[OTUS_CALL_INVITES];     /* branches of INVITEs that wait for an answer */
    uint32_t dialog[OTUS_CALL_DIALOGS][2];  /* confirmed ones: the tags of both parties */
    uint32_t owner[OTUS_CALL_ENDPOINTS];    /* tag of the party that media come to */
    uint64_t endpoint[OTUS_CALL_ENDPOINTS]; /* hashes of keys, with the ports that it has */
};
static_assert(sizeof(struct otus_call) <= OTUS_ITEM_OCTETS, "an item of the pool");
static_assert(offsetof(struct otus_call, endpoint[3]) == 128, "three of them in two lines");

struct otus_flow_registry {
    struct otus_tables tables;
    uint64_t ttl_ns;
    uint64_t seed[4];
    _Alignas(64) uint32_t count;
    uint32_t sweep;     /* the bucket that the next put looks over */
    uint32_t has_peers; /* a key with both ends was put */
};

/* What the clocks of buckets make of the TTL. */
static inline int32_t otus_flow_ttl_ticks(const struct otus_flow_registry *registry)
{
    uint64_t ttl = registry->ttl_ns >> 20;
    return ttl < INT32_MAX ? (int32_t)ttl : INT32_MAX;
}

/* --- flow.c --- */
uint64_t otus_flow_hash_call(const struct otus_flow_registry *registry, struct otus_slice call_id);
/* Of a tag or branch; 0 for none. */
uint32_t otus_flow_hash_text(const struct otus_flow_registry *registry, struct otus_slice text);
/* Its line will be written to soon. */
void otus_flow_ask_endpoint(const struct otus_flow_registry *registry, uint64_t endpoint);
/* Whether the endpoint, or another one, of the call was put or hit within the TTL. Without the
 * lock: while it changes the answer may be either. */
bool otus_flow_is_alive(const struct otus_flow_registry *registry, uint64_t endpoint,
                        uint64_t call_hash, uint64_t now_ns);
/* Removes the ports of the endpoint that still belong to the call. */
void otus_flow_remove_endpoint(struct otus_flow_registry *registry, uint64_t endpoint,
                               uint64_t call_hash);

/* --- flow_call.c --- */
/* The endpoints belong to the call and, in it, to the party with this tag. */
void otus_flow_note_endpoints(struct otus_flow_registry *registry, uint64_t call_hash,
                              const uint64_t *endpoints, uint32_t num, uint32_t owner,
                              uint64_t now_ns, struct otus_counters *counters);

#endif
