/* What a SIP message says to the rest of the pipeline: labels and media endpoints. */
#ifndef OTUS_SIP_LABELS_H
#define OTUS_SIP_LABELS_H

#include "otus/arena.h"
#include "otus/counters.h"
#include "otus/flow.h"
#include "otus/labels.h"
#include "otus/sip.h"

/* Puts the labels `sip.*` of SPEC section 2 that the message has; clears nothing.
 *
 * The message lies in the arena, whose base the set was cleared for. Values are parts of it;
 * numbers, unfolded values and the transport ("UDP", "TCP", "WS", ...) are put behind what is
 * used. Where one finds no room there the set is incomplete. */
void otus_sip_labels(const struct otus_sip_message *message, struct otus_slice transport,
                     struct otus_label_set *out_labels, struct otus_arena *arena);

/* A label's value with each line fold and the white space around it replaced by one space
 * (RFC 3261 7.3.1). Where the arena has no room for it the set is incomplete. */
struct otus_slice otus_sip_unfold(struct otus_label_set *labels, struct otus_arena *arena,
                                  struct otus_slice value);

/* The value of the first field of this name, whichever case, compact and long forms
 * alike; false where the message has none. Folds inside remain. */
OTUS_MUST_CHECK bool otus_sip_find_header(const struct otus_sip_message *message, const char *name,
                                          size_t name_len, struct otus_slice *out_value);

/* The registry will be told of the message, and asked about it, soon: it goes and fetches what it
 * has of the call meanwhile. */
void otus_sip_ask_media(const struct otus_flow_registry *registry,
                        const struct otus_sip_message *message);

/* Whether the message's session description is an offer, though it stands in a response to
 * INVITE: the INVITE came without one (RFC 3261 13.2.1). Only the registry knows. */
OTUS_MUST_CHECK bool otus_sip_is_delayed_offer(struct otus_flow_registry *registry,
                                               const struct otus_sip_message *message);

/* Tells the registry of the media endpoints that the message's SDP names, under its
 * Call-ID, and removes the call's when the dialog ends: on the final response to BYE
 * and on a failure response to the INVITE that opens it. has_rtp: whether anybody looks
 * for endpoints; else dialogs alone are noted. counters may be NULL. */
void otus_sip_register_media(struct otus_flow_registry *registry,
                             const struct otus_sip_message *message, bool has_rtp, uint64_t now_ns,
                             struct otus_counters *counters);

#endif
