/* Filter expressions: bytecode made by otus_sdk.expression from a subset of
 * CEL, run here over the labels and network fields of one packet.
 *
 * A program is a list of tests, each with two places to go on at: behind it, or
 * the end, true or false. It is verified when it is loaded: every operand in
 * range, jumps only forward. Running it can't fail, loop or allocate.
 * docs/internals/filter-bytecode.md has the format. */
#ifndef OTUS_FILTER_H
#define OTUS_FILTER_H

#include <stdbool.h>

#include "otus/labels.h"
#include "otus/packet.h"

struct otus_filter;

/* What a program may look at. An absent string label reads as "", an absent or
 * unreadable integer label as -1 (docs/decisions tells why). */
struct otus_filter_input {
    const struct otus_packet_meta *meta;
    const struct otus_tunnel *tunnels; /* meta->num_tunnels */
    const struct otus_label_set *labels;
    struct otus_slice payload_type; /* "sip", "rtp", ... as in the record */
};

/* Verifies and takes a copy. On failure message says which part is wrong. */
OTUS_MUST_CHECK enum otus_status otus_filter_load(struct otus_filter **out_filter, char *message,
                                                  size_t message_len, const uint8_t *program,
                                                  size_t len);
void otus_filter_free(struct otus_filter *filter); /* NULL-safe */

bool otus_filter_run(const struct otus_filter *filter, const struct otus_filter_input *input);

#endif
