/* What one pipeline call hands to Python: fixed-size records and one arena. */
#ifndef OTUS_BATCH_H
#define OTUS_BATCH_H

#include "otus/arena.h"
#include "otus/labels.h"
#include "otus/packet.h"

enum otus_payload_type {
    OTUS_PAYLOAD_RAW = 0, /* no parser took it */
    OTUS_PAYLOAD_SIP = 1,
    OTUS_PAYLOAD_RTP = 2,
    OTUS_PAYLOAD_RTCP = 3,
    OTUS_PAYLOAD_PLUGIN = 4, /* a Python parser's own; payload_name tells which */
};

enum otus_record_state {
    OTUS_RECORD_OFFERED = 0, /* no parser has taken it yet */
    OTUS_RECORD_PARSED = 1,
    OTUS_RECORD_DROPPED = 2, /* by a parser's error, unmatched policy or processor: counted */
};

/* Offsets are into the batch's arena; a length of 0 means absent. Python reads
 * this layout. */
struct otus_record {
    struct otus_packet_meta meta;
    struct otus_span frame;        /* as captured; only where the task asks for raw packets */
    struct otus_span payload;      /* of the transport, or the one message cut from a stream */
    struct otus_span tunnels;      /* struct otus_tunnel[meta.num_tunnels]; len in octets */
    struct otus_span labels;       /* struct otus_label[]; len in octets */
    struct otus_span key;          /* Call-ID, or empty: then the 5-tuple is the key */
    struct otus_span json;         /* the record as one JSON object, no line end */
    struct otus_span protobuf;     /* the record as one otus.v1.Record */
    struct otus_span payload_json; /* of a Python parser: its payload as JSON */
    struct otus_span payload_name; /* of a Python parser: its payload_type */
    uint64_t sip_anomalies;        /* bits of enum otus_sip_anomaly */
    uint8_t state;                 /* enum otus_record_state */
    uint8_t payload_type;          /* enum otus_payload_type */
    uint16_t parser;               /* index of the stage that took it */
    uint32_t labels_octets;        /* of all labels' values together */
};
static_assert(sizeof(struct otus_record) == 200, "read from Python");

struct otus_batch {
    struct otus_record *records;
    uint32_t num_records;
    uint32_t max_records;
    struct otus_arena arena;
};

/* Takes one block of memory for records and arena, which begins at out_batch->records
 * and is freed with free(). OTUS_E_NOMEM leaves the batch without any. */
OTUS_MUST_CHECK enum otus_status otus_batch_open(struct otus_batch *out_batch, uint32_t max_records,
                                                 uint32_t arena_octets);

/* The octets of that block. */
size_t otus_batch_octets(const struct otus_batch *batch);

#endif
