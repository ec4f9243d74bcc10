/* The flow registry: which Call-ID a media endpoint belongs to.
 *
 * One registry per task, shared by its pipelines: the only mutable thing that
 * pipelines share. Lookups are wait-free for readers in practice (seqlock per
 * bucket); a full table evicts the oldest. */
#ifndef OTUS_FLOW_H
#define OTUS_FLOW_H

#include "otus/counters.h"
#include "otus/cursor.h"

enum { OTUS_FLOW_MAX_VALUE = 128 }; /* octets of a Call-ID kept; a longer one is hashed down */

enum otus_flow_kind {
    OTUS_FLOW_RTP = 1,
    OTUS_FLOW_RTCP = 2,
    OTUS_FLOW_RTP_RTCP_MUX = 3,
};

/* An address and a port; the 5-tuple form has both ends set. */
struct otus_flow_key {
    uint8_t ip_version;
    uint8_t protocol;
    uint16_t port;
    uint16_t peer_port; /* 0: any peer */
    uint16_t reserved;
    uint8_t ip[16];
    uint8_t peer_ip[16];
};

struct otus_flow_value {
    uint8_t kind; /* enum otus_flow_kind */
    uint8_t len;
    uint8_t octets[OTUS_FLOW_MAX_VALUE]; /* Call-ID */
};

struct otus_flow_registry;

OTUS_MUST_CHECK enum otus_status otus_flow_registry_new(struct otus_flow_registry **out_registry,
                                                        uint32_t max_flows, uint32_t ttl_ms);
void otus_flow_registry_free(struct otus_flow_registry *registry); /* NULL-safe */

/* Adds or refreshes; true where the oldest entry of a full bucket gave way. */
bool otus_flow_put(struct otus_flow_registry *registry, const struct otus_flow_key *key,
                   const struct otus_flow_value *value, uint64_t now_ns);

/* A hit refreshes the TTL. Copies out: an entry may change under a reader. */
OTUS_MUST_CHECK bool otus_flow_get(struct otus_flow_registry *registry,
                                   struct otus_flow_value *out_value,
                                   const struct otus_flow_key *key, uint64_t now_ns);

/* Removes every endpoint of the Call-ID. */
void otus_flow_remove_call(struct otus_flow_registry *registry, struct otus_slice call_id);

uint32_t otus_flow_count(const struct otus_flow_registry *registry);

#endif
