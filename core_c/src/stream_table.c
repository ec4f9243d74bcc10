/* Remembering TCP streams in memory taken at open.
 *
 * Octets that wait lie in a buffer of one of two pools: [0, have) in order, then
 * ranges behind gaps, each at the place that its sequence number gives it. When
 * a pool is empty the stream that used its buffer least recently gives it up;
 * when the table is full the least recently used stream does. */
#include <stdlib.h>
#include <sys/random.h>

#include "hash_mix.h"
#include "stream_internal.h"

enum {
    SMALL_BUFFER = 4096,
    STREAMS_PER_SMALL = 2, /* a small buffer for every second stream */
    STREAMS_PER_LARGE = 32,
    MIN_LARGE = 8,
};

/* The three lists differ in which link of a stream they run through. */
#define LINK(streams, index, member) ((streams)->streams[index].member)

#define LIST_APPEND(streams, list, index, member)                                                  \
    do {                                                                                           \
        LINK(streams, index, member) = (struct stream_link){(list)->newest, NO_STREAM};            \
        if ((list)->newest != NO_STREAM)                                                           \
            LINK(streams, (list)->newest, member).newer = (index);                                 \
        else                                                                                       \
            (list)->oldest = (index);                                                              \
        (list)->newest = (index);                                                                  \
    } while (0)

#define LIST_REMOVE(streams, list, index, member)                                                  \
    do {                                                                                           \
        struct stream_link link_ = LINK(streams, index, member);                                   \
        if (link_.older != NO_STREAM)                                                              \
            LINK(streams, link_.older, member).newer = link_.newer;                                \
        else                                                                                       \
            (list)->oldest = link_.newer;                                                          \
        if (link_.newer != NO_STREAM)                                                              \
            LINK(streams, link_.newer, member).older = link_.older;                                \
        else                                                                                       \
            (list)->newest = link_.older;                                                          \
    } while (0)

static uint32_t index_of(const struct otus_streams *streams, const struct stream *stream)
{
    return (uint32_t)(stream - streams->streams);
}

static const struct stream_list empty_list = {NO_STREAM, NO_STREAM};

/* ---- open and close ---------------------------------------------------- */

void otus_stream_config_init(struct otus_stream_config *out_config)
{
    *out_config = (struct otus_stream_config){
        .max_streams = 4096,
        .max_stream_octets = 96 * 1024,
        .max_message_octets = 64 * 1024,
        .gap_timeout_ms = 2000,
        .idle_timeout_ms = 3600 * 1000, /* trunks stay silent for long */
    };
}

static bool take_pool(struct buffer_pool *pool, uint32_t size, uint32_t num)
{
    pool->size = size;
    pool->num = num;
    pool->by_use = empty_list;
    pool->octets = malloc((size_t)size * num);
    pool->free = malloc(sizeof *pool->free * num);
    if (pool->octets == NULL || pool->free == NULL)
        return false;
    for (uint32_t i = 0; i < num; i++)
        pool->free[i] = num - 1 - i;
    pool->num_free = num;
    return true;
}

static uint32_t at_least(uint32_t value, uint32_t least)
{
    return value < least ? least : value;
}

static bool take_memory(struct otus_streams *streams)
{
    const struct otus_stream_config *config = &streams->config;
    uint32_t num_buckets = 64;
    while (num_buckets < config->max_streams)
        num_buckets *= 2;
    streams->bucket_mask = num_buckets - 1;
    streams->streams = calloc(config->max_streams, sizeof *streams->streams);
    streams->buckets = malloc(sizeof *streams->buckets * num_buckets);
    if (streams->streams == NULL || streams->buckets == NULL)
        return false;
    memset(streams->buckets, 0xff, sizeof *streams->buckets * num_buckets);
    for (uint32_t i = 0; i < config->max_streams; i++)
        streams->streams[i].hash_next = i + 1 < config->max_streams ? i + 1 : NO_STREAM;
    return take_pool(&streams->pools[0], SMALL_BUFFER,
                     at_least(config->max_streams / STREAMS_PER_SMALL, 1)) &&
           take_pool(&streams->pools[1], config->max_stream_octets,
                     at_least(config->max_streams / STREAMS_PER_LARGE, MIN_LARGE));
}

enum otus_status otus_streams_new(struct otus_streams **out_streams,
                                  const struct otus_stream_config *config,
                                  struct otus_counters *counters)
{
    if (config->num_ports > OTUS_MAX_STREAM_PORTS || config->max_streams == 0 ||
        config->max_stream_octets < SMALL_BUFFER ||
        config->max_message_octets > config->max_stream_octets)
        return OTUS_E_INVALID;
    struct otus_streams *streams = calloc(1, sizeof *streams);
    if (streams == NULL)
        return OTUS_E_NOMEM;
    streams->config = *config;
    streams->counters = counters;
    streams->by_use = empty_list;
    streams->by_gap = empty_list;
    if (getrandom(&streams->secret, sizeof streams->secret, GRND_NONBLOCK) !=
        (ssize_t)sizeof streams->secret)
        streams->secret = (uint64_t)(uintptr_t)streams; /* early boot: an address has to do */
    for (uint32_t i = 0; i < config->num_ports; i++)
        streams->wanted[config->ports[i]] = true;
    if (!take_memory(streams)) {
        otus_streams_free(streams);
        return OTUS_E_NOMEM;
    }
    *out_streams = streams;
    return OTUS_OK;
}

void otus_streams_free(struct otus_streams *streams)
{
    if (streams == NULL)
        return;
    for (uint32_t i = 0; i < NUM_BUFFER_CLASSES; i++) {
        free(streams->pools[i].octets);
        free(streams->pools[i].free);
    }
    free(streams->streams);
    free(streams->buckets);
    free(streams);
}

/* ---- buffers ----------------------------------------------------------- */

void otus_stream_set_held(struct otus_streams *streams, uint64_t num)
{
    streams->num_held = num;
    otus_count_set(streams->counters, OTUS_COUNT_SEGMENTS_HELD, num);
}

static void release_buffer(struct otus_streams *streams, struct stream *stream)
{
    if (stream->capacity == 0)
        return;
    struct buffer_pool *pool = &streams->pools[stream->buffer_class];
    pool->free[pool->num_free++] = (uint32_t)((size_t)(stream->buffer - pool->octets) / pool->size);
    LIST_REMOVE(streams, &pool->by_use, index_of(streams, stream), by_buffer);
    stream->buffer = NULL;
    stream->capacity = 0;
}

void otus_stream_open_gap(struct otus_streams *streams, struct stream *stream, uint64_t since_ns)
{
    otus_stream_close_gap(streams, stream);
    stream->has_gap = true;
    stream->gap_since_ns = since_ns;
    LIST_APPEND(streams, &streams->by_gap, index_of(streams, stream), by_gap);
}

void otus_stream_close_gap(struct otus_streams *streams, struct stream *stream)
{
    if (!stream->has_gap)
        return;
    LIST_REMOVE(streams, &streams->by_gap, index_of(streams, stream), by_gap);
    stream->has_gap = false;
}

/* Drops what waits behind the gap, counted under reason. */
void otus_stream_drop_ranges(struct otus_streams *streams, struct stream *stream,
                             enum otus_counter reason)
{
    uint32_t num = 0;
    for (uint32_t i = 0; i < stream->num_ranges; i++)
        num += stream->ranges[i].num_segments;
    otus_count_by(streams->counters, reason, num);
    otus_stream_set_held(streams, streams->num_held - num);
    stream->num_ranges = 0;
    otus_stream_close_gap(streams, stream);
}

/* Gives up all octets that the stream holds; the next one in order starts anew. */
void otus_stream_drop_octets(struct otus_streams *streams, struct stream *stream,
                             enum otus_counter reason)
{
    otus_stream_drop_ranges(streams, stream, reason);
    otus_count_by(streams->counters, OTUS_COUNT_STREAM_OCTETS_SKIPPED, stream->have);
    stream->have = 0;
    otus_stream_restart_framing(stream);
    release_buffer(streams, stream);
}

/* The octets that wait to be framed are others now. */
void otus_stream_restart_framing(struct stream *stream)
{
    stream->need = 0;
    stream->scanned = 0;
    stream->assembled = 0;
    stream->next_frame = 0;
}

/* Octets of the buffer that are in use, ranges and the gaps before them included. */
static uint32_t extent_of(const struct stream *stream)
{
    if (stream->num_ranges == 0)
        return stream->have;
    const struct stream_range *last = &stream->ranges[stream->num_ranges - 1];
    return last->off + last->len;
}

/* Undoes what otus_stream_remove_front() did: moves all to the start of the buffer. */
static void close_up(struct otus_streams *streams, struct stream *stream)
{
    const struct buffer_pool *pool = &streams->pools[stream->buffer_class];
    uint32_t removed = pool->size - stream->capacity;
    memmove(stream->buffer - removed, stream->buffer, extent_of(stream));
    stream->buffer -= removed;
    stream->capacity = pool->size;
}

static struct buffer_pool *pool_for(struct otus_streams *streams, uint32_t octets)
{
    for (uint32_t i = 0; i < NUM_BUFFER_CLASSES; i++)
        if (octets <= streams->pools[i].size)
            return &streams->pools[i];
    return NULL;
}

/* Makes room for octets in the stream's buffer, moving it to a larger one. */
bool otus_stream_grow(struct otus_streams *streams, struct stream *stream, uint32_t octets)
{
    if (octets <= stream->capacity)
        return true;
    if (stream->capacity != 0 && octets <= streams->pools[stream->buffer_class].size) {
        close_up(streams, stream);
        return true;
    }
    struct buffer_pool *pool = pool_for(streams, octets);
    if (pool == NULL)
        return false;
    if (pool->num_free == 0) {
        struct stream *victim = &streams->streams[pool->by_use.oldest];
        /* The loss is a gap in the victim, which then searches its next message. */
        otus_count(streams->counters, OTUS_COUNT_STREAM_GAP);
        otus_stream_drop_octets(streams, victim, OTUS_COUNT_SEGMENT_LIMIT_OCTETS);
        victim->resync = true;
    }
    uint8_t *fresh = pool->octets + (size_t)pool->free[--pool->num_free] * pool->size;
    uint32_t extent = extent_of(stream);
    if (extent != 0)
        memcpy(fresh, stream->buffer, extent);
    release_buffer(streams, stream);
    stream->buffer = fresh;
    stream->capacity = pool->size;
    stream->buffer_class = (uint8_t)(pool - streams->pools);
    LIST_APPEND(streams, &pool->by_use, index_of(streams, stream), by_buffer);
    return true;
}

/* Removes octets from the front. Nothing is moved: a buffer full of small messages
 * would be moved once for each of them. */
void otus_stream_remove_front(struct otus_streams *streams, struct stream *stream, uint32_t octets)
{
    stream->have -= octets;
    for (uint32_t i = 0; i < stream->num_ranges; i++)
        stream->ranges[i].off -= octets;
    if (stream->have == 0 && stream->num_ranges == 0) {
        release_buffer(streams, stream);
        return;
    }
    stream->buffer += octets;
    stream->capacity -= octets;
}

/* ---- the table --------------------------------------------------------- */

uint32_t otus_stream_hash(const struct otus_streams *streams, const struct stream_key *key)
{
    uint64_t words[sizeof *key / 8];
    memcpy(words, key, sizeof words);
    uint64_t hash = streams->secret;
    for (uint32_t i = 0; i < sizeof words / sizeof words[0]; i++)
        hash = otus_mix64(hash, words[i]);
    return (uint32_t)hash;
}

struct stream_key otus_stream_key_of(const struct otus_packet *packet)
{
    const struct otus_packet_meta *meta = &packet->meta;
    struct stream_key key = {
        .src_port = meta->src_port,
        .dst_port = meta->dst_port,
        .ip_version = meta->ip_version,
        .vlan = meta->num_vlans ? meta->vlans[meta->num_vlans - 1] : 0,
    };
    memcpy(key.src_ip, meta->src_ip, sizeof key.src_ip);
    memcpy(key.dst_ip, meta->dst_ip, sizeof key.dst_ip);
    if (meta->num_tunnels != 0) {
        const struct otus_tunnel *inner = &packet->tunnels[meta->num_tunnels - 1];
        key.tunnel_kind = inner->kind;
        key.tunnel_key = inner->key;
    }
    return key;
}
static_assert(sizeof(struct stream_key) == 48, "hashed and compared whole: no padding");

struct stream *otus_stream_find(struct otus_streams *streams, const struct stream_key *key,
                                uint32_t hash)
{
    uint32_t at = streams->buckets[hash & streams->bucket_mask];
    while (at != NO_STREAM) {
        struct stream *stream = &streams->streams[at];
        if (stream->hash == hash && memcmp(&stream->key, key, sizeof *key) == 0)
            return stream;
        at = stream->hash_next;
    }
    return NULL;
}

void otus_stream_remove(struct otus_streams *streams, struct stream *stream,
                        enum otus_counter reason)
{
    uint32_t index = index_of(streams, stream);
    otus_stream_drop_octets(streams, stream, reason);
    LIST_REMOVE(streams, &streams->by_use, index, by_use);
    uint32_t *at = &streams->buckets[stream->hash & streams->bucket_mask];
    while (*at != index)
        at = &streams->streams[*at].hash_next;
    *at = stream->hash_next;
    stream->hash_next = streams->first_free;
    streams->first_free = index;
    otus_count_set(streams->counters, OTUS_COUNT_STREAMS_ACTIVE, --streams->num_active);
}

struct stream *otus_stream_add(struct otus_streams *streams, const struct stream_key *key,
                               uint32_t hash)
{
    if (streams->first_free == NO_STREAM) {
        otus_count(streams->counters, OTUS_COUNT_STREAMS_EVICTED);
        otus_stream_remove(streams, &streams->streams[streams->by_use.oldest],
                           OTUS_COUNT_SEGMENT_LIMIT_STREAMS);
    }
    uint32_t index = streams->first_free;
    struct stream *stream = &streams->streams[index];
    streams->first_free = stream->hash_next;
    *stream = (struct stream){.key = *key, .hash = hash};
    uint32_t *bucket = &streams->buckets[hash & streams->bucket_mask];
    stream->hash_next = *bucket;
    *bucket = index;
    LIST_APPEND(streams, &streams->by_use, index, by_use);
    otus_count_set(streams->counters, OTUS_COUNT_STREAMS_ACTIVE, ++streams->num_active);
    return stream;
}

void otus_stream_touch(struct otus_streams *streams, struct stream *stream)
{
    uint32_t index = index_of(streams, stream);
    stream->last_ns = streams->now_ns;
    LIST_REMOVE(streams, &streams->by_use, index, by_use);
    LIST_APPEND(streams, &streams->by_use, index, by_use);
    if (stream->capacity != 0) {
        struct buffer_pool *pool = &streams->pools[stream->buffer_class];
        LIST_REMOVE(streams, &pool->by_use, index, by_buffer);
        LIST_APPEND(streams, &pool->by_use, index, by_buffer);
    }
}
