/* What the files of the stream stage share: stream_table.c remembers streams in
 * bounded memory, stream.c puts segments in order, stream_frame.c cuts messages. */
#ifndef OTUS_STREAM_INTERNAL_H
#define OTUS_STREAM_INTERNAL_H

#include "otus/stream.h"

enum {
    MAX_RANGES = 16, /* runs of octets that wait behind a gap, per stream */
    NUM_BUFFER_CLASSES = 2,
};

/* No stream: the end of a list. */
#define NO_STREAM UINT32_MAX

enum stream_mode {
    MODE_SIP = 0,   /* plain: messages by Content-Length */
    MODE_WEBSOCKET, /* after an HTTP upgrade, or recognised in mid-stream */
};

/* Octets that came before the ones in front of them, at [off, off + len) of the buffer. */
struct stream_range {
    uint32_t off;
    uint32_t len;
    uint32_t num_segments;
};

/* One direction of a connection in one VLAN and tunnel. */
struct stream_key {
    uint8_t src_ip[16];
    uint8_t dst_ip[16];
    uint16_t src_port;
    uint16_t dst_port;
    uint16_t vlan;
    uint8_t ip_version;
    uint8_t tunnel_kind;
    uint32_t tunnel_key;
    uint32_t reserved; /* no padding: the key is hashed and compared whole */
};

/* A doubly linked list of streams by index, oldest first. */
struct stream_list {
    uint32_t oldest;
    uint32_t newest;
};

struct stream_link {
    uint32_t older;
    uint32_t newer;
};

struct stream {
    struct stream_key key;
    uint32_t hash;
    uint32_t hash_next;
    struct stream_link by_use;    /* all streams */
    struct stream_link by_buffer; /* those that hold a buffer of their class */
    struct stream_link by_gap;    /* those that wait for a gap to fill */
    uint64_t last_ns;
    uint64_t gap_since_ns;
    uint8_t *buffer;   /* where the octets in order start, in a buffer of a pool */
    uint32_t capacity; /* from there to the buffer's end, 0: none */
    uint8_t buffer_class;
    uint8_t mode; /* enum stream_mode */
    bool has_gap;
    bool resync;         /* searching for a message start */
    uint32_t next_seq;   /* sequence number behind the octets in order */
    uint32_t have;       /* octets in order in the buffer */
    uint32_t need;       /* framing is pointless below this many */
    uint32_t scanned;    /* of these, no header ends in the first so many */
    uint32_t assembled;  /* WebSocket: octets of the unfinished message, first in the buffer */
    uint32_t next_frame; /* WebSocket: where the next frame starts; what is between is done with */
    uint32_t num_ranges;
    struct stream_range ranges[MAX_RANGES];
    struct otus_packet_meta meta; /* of the last segment with payload: what messages carry */
    struct otus_tunnel tunnels[OTUS_MAX_TUNNELS];
};

struct buffer_pool {
    uint8_t *octets;
    uint32_t size; /* of one buffer */
    uint32_t num;
    uint32_t *free; /* indices of free buffers */
    uint32_t num_free;
    struct stream_list by_use; /* streams that hold one */
};

struct otus_streams {
    struct otus_stream_config config;
    struct otus_counters *counters;
    bool wanted[65536]; /* by port */
    struct stream *streams;
    uint32_t *buckets; /* hash to first stream */
    uint32_t bucket_mask;
    uint32_t first_free;
    uint32_t num_active;
    uint64_t num_held;
    uint64_t secret; /* keeps senders from choosing hash collisions */
    struct stream_list by_use;
    struct stream_list by_gap;
    struct buffer_pool pools[NUM_BUFFER_CLASSES];

    uint64_t now_ns;          /* packet time */
    struct otus_slice frame;  /* of the segment in hand */
    struct stream *current;   /* stream whose octets are being framed, NULL: none */
    struct otus_slice direct; /* the segment's own octets, framed in place */
    uint32_t consumed;        /* of the last message: removed at the next call */
};

/* What a framer says of the octets in order. All zero: ask again, the stream has
 * changed its mode or gone on to its next WebSocket frame. */
struct frame_result {
    struct otus_span message; /* len 0: none */
    uint32_t consumed;        /* octets that are done with, the message's included */
    uint32_t need;            /* without a message: ask again with this many octets */
};

/* stream_table.c */
struct stream_key otus_stream_key_of(const struct otus_packet *packet);
uint32_t otus_stream_hash(const struct otus_streams *streams, const struct stream_key *key);
struct stream *otus_stream_find(struct otus_streams *streams, const struct stream_key *key,
                                uint32_t hash);
struct stream *otus_stream_add(struct otus_streams *streams, const struct stream_key *key,
                               uint32_t hash);
void otus_stream_remove(struct otus_streams *streams, struct stream *stream,
                        enum otus_counter reason);
void otus_stream_touch(struct otus_streams *streams, struct stream *stream);
void otus_stream_set_held(struct otus_streams *streams, uint64_t num);
void otus_stream_open_gap(struct otus_streams *streams, struct stream *stream, uint64_t since_ns);
void otus_stream_close_gap(struct otus_streams *streams, struct stream *stream);
void otus_stream_drop_ranges(struct otus_streams *streams, struct stream *stream,
                             enum otus_counter reason);
void otus_stream_drop_octets(struct otus_streams *streams, struct stream *stream,
                             enum otus_counter reason);
OTUS_MUST_CHECK bool otus_stream_grow(struct otus_streams *streams, struct stream *stream,
                                      uint32_t octets);
void otus_stream_remove_front(struct otus_streams *streams, struct stream *stream, uint32_t octets);
void otus_stream_restart_framing(struct stream *stream);

/* stream_frame.c: both look at the octets in order, cut at most one message off and count
 * anomalies. WebSocket unmasks in place: octets are the stream's own buffer. */
struct frame_result otus_stream_frame_sip(struct stream *stream, const uint8_t *octets,
                                          uint32_t len, uint32_t max_message,
                                          struct otus_counters *counters);
struct frame_result otus_stream_frame_websocket(struct stream *stream, uint8_t *octets,
                                                uint32_t len, uint32_t max_message,
                                                struct otus_counters *counters);

#endif
