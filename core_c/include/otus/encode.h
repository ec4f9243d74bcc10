/* Encoders: one record to JSON or Protobuf, straight into the batch's arena. */
#ifndef OTUS_ENCODE_H
#define OTUS_ENCODE_H

#include "otus/batch.h"
#include "otus/rtp.h"
#include "otus/sip.h"

/* What is the same for every record of a pipeline. Borrowed by who reads it. */
struct otus_envelope {
    const char *task_id;
    const char *agent_id;
    const char *pipeline_id;
    bool raw_payload;               /* put the payload's octets in as well (base64 in JSON) */
    const char *const *label_names; /* by id, OTUS_MAX_LABELS of them, NULL where unused */
};

/* An envelope as it looks on the wire, rendered once, and the last second's
 * date. One a pipeline: one owner at a time. */
struct otus_encoder;

/* Takes a copy of all that the envelope points to. Label names that no label may
 * have ([a-z0-9][a-z0-9._-]*, OTUS_MAX_LABEL_NAME octets) are OTUS_E_INVALID. */
OTUS_MUST_CHECK enum otus_status otus_encoder_new(struct otus_encoder **out_encoder,
                                                  const struct otus_envelope *envelope);
void otus_encoder_free(struct otus_encoder *encoder); /* NULL-safe */

/* Names a label id that was interned after otus_encoder_new(). Allocates nothing. */
OTUS_MUST_CHECK enum otus_status otus_encoder_name_label(struct otus_encoder *encoder, uint32_t id,
                                                         const char *name);

enum {
    /* Octets that are readable behind each text that an encoder is given: it copies
     * whole vectors, and never uses these. Texts in an arena have them, since what
     * is too near to its end finds no room for a record either. */
    OTUS_ENCODE_BEHIND = 64,
};

/* All that an encoder may look at for one record. Exactly one of sip, rtp, rtcp
 * is set where payload_type says so; payload_json where a Python parser took it. */
struct otus_encode_input {
    const struct otus_packet_meta *meta;
    const struct otus_tunnel *tunnels;   /* meta->num_tunnels */
    const struct otus_label_set *labels; /* values with OTUS_ENCODE_BEHIND */
    uint8_t payload_type;                /* enum otus_payload_type */
    struct otus_slice payload_name;      /* of OTUS_PAYLOAD_PLUGIN; with OTUS_ENCODE_BEHIND */
    struct otus_slice payload;           /* octets of the transport payload or message */
    struct otus_slice payload_json;
    const struct otus_sip_message *sip; /* as its parser left it: all its spans lie within its
                                           octets, which have OTUS_ENCODE_BEHIND */
    const struct otus_rtp_header *rtp;
    const struct otus_rtcp_header *rtcp;
};

/* Appends; OTUS_E_LIMIT where the arena has no room, a few hundred octets to spare
 * included. It is then as it was; the octets behind what is used may have changed. */
OTUS_MUST_CHECK enum otus_status otus_encode_json(struct otus_arena *arena,
                                                  struct otus_span *out_span,
                                                  struct otus_encoder *encoder,
                                                  const struct otus_encode_input *input);
OTUS_MUST_CHECK enum otus_status otus_encode_protobuf(struct otus_arena *arena,
                                                      struct otus_span *out_span,
                                                      struct otus_encoder *encoder,
                                                      const struct otus_encode_input *input);

/* Only the `payload` member's JSON object: what Python stages see as payload. */
OTUS_MUST_CHECK enum otus_status otus_encode_payload_json(struct otus_arena *arena,
                                                          struct otus_span *out_span,
                                                          const struct otus_encoder *encoder,
                                                          const struct otus_encode_input *input);

#endif
