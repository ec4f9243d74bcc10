/* The flow registry: which Call-ID a media endpoint belongs to.
 *
 * One registry per task, shared by its pipelines: the only mutable thing that
 * pipelines share. Lookups are wait-free for readers in practice (seqlock per
 * bucket). In a full bucket the oldest gives way: an endpoint, or a record of a
 * call, that was in use within the TTL is counted in counters, which may be NULL. */
#ifndef OTUS_FLOW_H
#define OTUS_FLOW_H

#include "otus/counters.h"
#include "otus/cursor.h"
#include "otus/packet.h"

enum { OTUS_FLOW_MAX_VALUE = 128 }; /* octets of a Call-ID kept; see otus_flow_set_call_id() */

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
    uint8_t padding[6];                  /* whole words are copied */
};

struct otus_flow_registry;

/* Takes all memory there will be, of which the kernel gives what is used: room for max_flows
 * endpoints, where RTP and the RTCP behind it count as one, and for the calls that they belong to.
 * An entry not put or hit for ttl_ms of packet time is gone. */
OTUS_MUST_CHECK enum otus_status otus_flow_registry_new(struct otus_flow_registry **out_registry,
                                                        uint32_t max_flows, uint32_t ttl_ms);
void otus_flow_registry_free(struct otus_flow_registry *registry); /* NULL-safe */

/* Puts the Call-ID into value. One longer than OTUS_FLOW_MAX_VALUE keeps its start and
 * ends in '~' and 16 hexadecimal digits of a hash of the whole, so that it stays the
 * same for the same call and differs for others. */
void otus_flow_set_call_id(struct otus_flow_value *value, struct otus_slice call_id);

/* A pair of ports, of which RTP mostly has the even one and RTCP the odd one behind it. */
struct otus_flow_ports {
    struct otus_flow_key key; /* with either port */
    uint8_t kind[2];          /* enum otus_flow_kind at the even and at the odd port, 0: none */
};

/* Adds or refreshes, all of one party of a call; at most OTUS_FLOW_MAX_PORTS. Ports of a pair that
 * are not named stay as they are. call_id: its kind means nothing. owner: the tag of the party that
 * media come to there, empty where it has none. */
enum { OTUS_FLOW_MAX_PORTS = 16 };
void otus_flow_put_ports(struct otus_flow_registry *registry, const struct otus_flow_ports *ports,
                         uint32_t num, const struct otus_flow_value *call_id,
                         struct otus_slice owner, uint64_t now_ns, struct otus_counters *counters);
/* One endpoint. */
void otus_flow_put(struct otus_flow_registry *registry, const struct otus_flow_key *key,
                   const struct otus_flow_value *value, struct otus_slice owner, uint64_t now_ns,
                   struct otus_counters *counters);

/* A hit refreshes the TTL. Copies out: an entry may change under a reader. Of the
 * value's octets those behind the first len mean nothing. */
OTUS_MUST_CHECK bool otus_flow_get(struct otus_flow_registry *registry,
                                   struct otus_flow_value *out_value,
                                   const struct otus_flow_key *key, uint64_t now_ns);

/* Looks the packet up by its destination, by its source (symmetric RTP, RFC 4961), and,
 * where the registry holds keys with both ends, by its 5-tuple. */
OTUS_MUST_CHECK bool otus_flow_find(struct otus_flow_registry *registry,
                                    struct otus_flow_value *out_value,
                                    const struct otus_packet_meta *meta, uint64_t now_ns);

/* A lookup to come, of a packet whose turn it is not yet: its lines are on their way meanwhile.
 * The registry is larger than caches, and a packet would wait for them longer than all else of
 * it takes. Two steps, since a bucket tells where the entry is: some packets should lie between
 * them, and between the second and otus_flow_find(). Neither changes what that finds.
 *
 * The first returns what the second is told; that one returns whether there may be an entry. */
OTUS_MUST_CHECK uint64_t otus_flow_ask_bucket(const struct otus_flow_registry *registry,
                                              const struct otus_flow_key *key);
bool otus_flow_ask_entry(const struct otus_flow_registry *registry, uint64_t hash);

/* What a message says of the dialog that it belongs to (RFC 3261 12); tags may be empty. */
struct otus_flow_dialog {
    struct otus_slice call_id;
    struct otus_slice from_tag;
    struct otus_slice to_tag;
    struct otus_slice branch; /* of the topmost Via */
    uint32_t cseq;
};

/* What is known of the call will be asked for soon: its line is on its way meanwhile. */
void otus_flow_ask_call(const struct otus_flow_registry *registry, struct otus_slice call_id);

/* An INVITE was sent. One with a To tag is of a dialog that stands already; one without a
 * session description asks the other side to make the offer (RFC 3261 13.2.1). */
void otus_flow_invited(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog,
                       bool has_offer, uint64_t now_ns, struct otus_counters *counters);
/* Whether the INVITE that this response belongs to was seen, and came without an offer. */
OTUS_MUST_CHECK bool otus_flow_is_offerless(struct otus_flow_registry *registry,
                                            const struct otus_flow_dialog *dialog);
/* It was refused, and another one will follow with credentials. */
void otus_flow_challenged(struct otus_flow_registry *registry,
                          const struct otus_flow_dialog *dialog);
/* It was answered by 2xx: the dialog stands. */
void otus_flow_answered(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog,
                        uint64_t now_ns, struct otus_counters *counters);
/* It was refused for good. Removes the call's endpoints where nothing of the call goes on,
 * neither a dialog nor an INVITE on another branch; else those of the refusing party, unless
 * it is in a dialog: a failed re-INVITE leaves the session as it was (RFC 3261 14.1). */
void otus_flow_refused(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog);
/* Its BYE was answered: the dialog is over. Removes the endpoints of its parties, but those
 * of a party that is in another dialog of the call. */
void otus_flow_ended(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog);

/* Entries held, those whose time is over but whose place was not needed yet included. */
uint32_t otus_flow_count(const struct otus_flow_registry *registry);

#endif
