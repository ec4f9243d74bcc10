/* Filter expressions: bytecode made by otus_agent.expression from a subset of
 * CEL, run here over the labels and network fields of one packet.
 *
 * The program is verified when it is loaded: every operand in range, the stack
 * bounded, jumps only forward. Running it can't fail, loop or allocate. */
#ifndef OTUS_FILTER_H
#define OTUS_FILTER_H

#include <stdbool.h>

#include "otus/labels.h"
#include "otus/packet.h"

struct otus_filter;

/* Verifies and takes a copy. On failure message says which instruction is wrong. */
OTUS_MUST_CHECK enum otus_status otus_filter_load(struct otus_filter **out_filter, char *message,
                                                  size_t message_len, const uint8_t *program,
                                                  size_t len);
void otus_filter_free(struct otus_filter *filter); /* NULL-safe */

/* payload_type: "sip", "rtp", ... as in the record. An absent string label is
 * "", an absent integer label is -1 (see docs for the reason). */
bool otus_filter_run(const struct otus_filter *filter, const struct otus_packet_meta *meta,
                     const struct otus_label_set *labels, struct otus_slice payload_type);

#endif
