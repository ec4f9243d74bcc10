/* Reassembly of IPv4 (RFC 791, RFC 815) and IPv6 (RFC 8200 4.5, RFC 5722).
 *
 * Datagrams and sources are array entries linked by index: in hash chains, in
 * one list by age for the timeout and the limits, and in one list by age for
 * each source. Every operation on a fragment is O(1), amortised. */
#include "otus/reassembly.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>

#include "hash_mix.h"
#include "octet_map.h"

enum {
    MAX_DATAGRAM_LEN = 65535,
    IPV6_HEADER_LEN = 40,
    /* A first fragment's header of usual length; a longer one takes a block. */
    INLINE_HEADER_LEN = 64,
    MAX_HEADER_LEN = OTUS_REASSEMBLY_BLOCK,
    MAX_CONFIGURED = 1 << 24, /* datagrams, fragments: what 32-bit sizes take with ease */
};

#define NONE UINT32_MAX
#define LEN_UNKNOWN UINT32_MAX

/* Without padding, so that keys compare as octets. */
struct key {
    uint8_t src_ip[16];
    uint8_t dst_ip[16];
    uint64_t context;
    uint32_t id;
    uint8_t protocol; /* IPv4 only: RFC 8200 4.5 leaves it out for IPv6 */
    uint8_t version;
    uint16_t zero;
};
static_assert(sizeof(struct key) == 48, "padding would be compared");

enum state {
    COLLECTING,
    REFUSED, /* dropped; what is still to come of it is dropped for the same reason */
};

/* Neighbours in a list from oldest to newest. */
struct link {
    uint32_t older;
    uint32_t newer;
};

struct list {
    uint32_t oldest;
    uint32_t newest;
};

struct datagram {
    struct key key;
    uint64_t created_ns;
    uint32_t bucket;
    uint32_t hash_next; /* or the next free one */
    uint32_t source;
    struct link by_age;
    struct link by_source;
    uint32_t held;        /* fragments */
    uint32_t payload_len; /* LEN_UNKNOWN until the last fragment came */
    uint32_t end;         /* highest octet seen, plus one */
    uint32_t header_len;  /* 0 until the first fragment came */
    uint32_t next_header_at;
    uint32_t header_block; /* OTUS_NO_BLOCK: in header */
    uint8_t next_header;   /* IPv6: of the first fragment */
    uint8_t state;
    uint16_t reason; /* enum otus_counter, when REFUSED */
    uint8_t header[INLINE_HEADER_LEN];
    struct otus_octet_map map;
};

struct source {
    uint8_t ip[16];
    uint8_t version;
    uint32_t hash_next; /* or the next free one */
    uint32_t num_datagrams;
    struct list datagrams;
};

struct otus_reassembly {
    struct otus_reassembly_config config;
    struct otus_counters *counters;
    uint64_t timeout_ns;
    uint64_t secret; /* keeps senders from choosing hash collisions */
    uint32_t hash_mask;
    uint32_t *datagram_heads;
    uint32_t *source_heads;
    struct datagram *datagrams;
    struct source *sources;
    uint32_t free_datagram;
    uint32_t free_source;
    struct list by_age;
    uint64_t num_held;      /* fragments */
    uint64_t num_datagrams; /* COLLECTING */
    struct otus_block_pool pool;
    uint8_t *out; /* headroom and one datagram */
};

/* ---- open and close ---- */

static bool take_memory(struct otus_reassembly *r)
{
    uint32_t num = r->config.max_datagrams;
    uint32_t num_heads = 16;
    while (num_heads < num * 2)
        num_heads *= 2;
    r->hash_mask = num_heads - 1;
    r->datagram_heads = malloc(num_heads * sizeof *r->datagram_heads);
    r->source_heads = malloc(num_heads * sizeof *r->source_heads);
    r->datagrams = malloc(num * sizeof *r->datagrams);
    r->sources = malloc(num * sizeof *r->sources);
    r->out = malloc(OTUS_REASSEMBLY_HEADROOM + MAX_HEADER_LEN + MAX_DATAGRAM_LEN);
    return r->datagram_heads != NULL && r->source_heads != NULL && r->datagrams != NULL &&
           r->sources != NULL && r->out != NULL &&
           otus_block_pool_open(&r->pool, (r->config.max_octets + OTUS_REASSEMBLY_BLOCK - 1) /
                                              OTUS_REASSEMBLY_BLOCK);
}

static void link_free_entries(struct otus_reassembly *r)
{
    uint32_t num = r->config.max_datagrams;
    for (uint32_t i = 0; i < num; i++) {
        r->datagrams[i].hash_next = i + 1 < num ? i + 1 : NONE;
        r->sources[i].hash_next = i + 1 < num ? i + 1 : NONE;
    }
    memset(r->datagram_heads, 0xff, (r->hash_mask + 1u) * sizeof *r->datagram_heads);
    memset(r->source_heads, 0xff, (r->hash_mask + 1u) * sizeof *r->source_heads);
    r->free_datagram = 0;
    r->free_source = 0;
    r->by_age = (struct list){NONE, NONE};
}

static bool is_sane(const struct otus_reassembly_config *config)
{
    return config->max_datagrams > 0 && config->max_datagrams <= MAX_CONFIGURED &&
           config->max_fragments > 1 && config->max_fragments <= MAX_CONFIGURED &&
           config->max_octets > 0 && config->max_octets <= UINT32_MAX - OTUS_REASSEMBLY_BLOCK &&
           config->max_datagrams_per_source > 0 && config->timeout_ms > 0;
}

enum otus_status otus_reassembly_new(struct otus_reassembly **out_reassembly,
                                     const struct otus_reassembly_config *config,
                                     struct otus_counters *counters)
{
    if (!is_sane(config))
        return OTUS_E_INVALID;
    struct otus_reassembly *r = calloc(1, sizeof *r);
    if (r == NULL)
        return OTUS_E_NOMEM;
    r->config = *config;
    r->counters = counters;
    r->timeout_ns = config->timeout_ms * UINT64_C(1000000);
    if (!take_memory(r)) {
        otus_reassembly_free(r);
        return OTUS_E_NOMEM;
    }
    if (getrandom(&r->secret, sizeof r->secret, GRND_NONBLOCK) != (ssize_t)sizeof r->secret)
        r->secret = (uint64_t)(uintptr_t)r->out; /* early boot: an address has to do */
    link_free_entries(r);
    *out_reassembly = r;
    return OTUS_OK;
}

void otus_reassembly_free(struct otus_reassembly *r)
{
    if (r == NULL)
        return;
    otus_block_pool_close(&r->pool);
    free(r->datagram_heads);
    free(r->source_heads);
    free(r->datagrams);
    free(r->sources);
    free(r->out);
    free(r);
}

/* ---- lists and tables ---- */

static struct link *link_of(struct otus_reassembly *r, uint32_t index, bool by_source)
{
    struct datagram *d = &r->datagrams[index];
    return by_source ? &d->by_source : &d->by_age;
}

static void list_append(struct otus_reassembly *r, struct list *list, uint32_t index,
                        bool by_source)
{
    *link_of(r, index, by_source) = (struct link){list->newest, NONE};
    if (list->newest != NONE)
        link_of(r, list->newest, by_source)->newer = index;
    else
        list->oldest = index;
    list->newest = index;
}

static void list_remove(struct otus_reassembly *r, struct list *list, uint32_t index,
                        bool by_source)
{
    struct link link = *link_of(r, index, by_source);
    if (link.older != NONE)
        link_of(r, link.older, by_source)->newer = link.newer;
    else
        list->oldest = link.newer;
    if (link.newer != NONE)
        link_of(r, link.newer, by_source)->older = link.older;
    else
        list->newest = link.older;
}

static uint64_t mix_address(uint64_t state, const uint8_t ip[16])
{
    uint64_t half[2];
    memcpy(half, ip, sizeof half);
    return otus_mix64(otus_mix64(state, half[0]), half[1]);
}

static uint32_t hash_key(const struct otus_reassembly *r, const struct key *key)
{
    uint64_t hash = mix_address(mix_address(r->secret, key->src_ip), key->dst_ip);
    hash = otus_mix64(hash, key->context);
    hash = otus_mix64(hash, (uint64_t)key->id << 16 | (uint64_t)key->protocol << 8 | key->version);
    return (uint32_t)hash & r->hash_mask;
}

static uint32_t hash_source(const struct otus_reassembly *r, const uint8_t ip[16], uint8_t version)
{
    return (uint32_t)otus_mix64(mix_address(r->secret, ip), version) & r->hash_mask;
}

static uint32_t find_datagram(const struct otus_reassembly *r, const struct key *key,
                              uint32_t bucket)
{
    uint32_t index = r->datagram_heads[bucket];
    while (index != NONE && memcmp(&r->datagrams[index].key, key, sizeof *key) != 0)
        index = r->datagrams[index].hash_next;
    return index;
}

static uint32_t find_source(const struct otus_reassembly *r, const uint8_t ip[16], uint8_t version)
{
    uint32_t index = r->source_heads[hash_source(r, ip, version)];
    while (index != NONE && (r->sources[index].version != version ||
                             memcmp(r->sources[index].ip, ip, sizeof r->sources[index].ip) != 0))
        index = r->sources[index].hash_next;
    return index;
}

static void unchain_datagram(struct otus_reassembly *r, uint32_t index)
{
    uint32_t *at = &r->datagram_heads[r->datagrams[index].bucket];
    while (*at != index)
        at = &r->datagrams[*at].hash_next;
    *at = r->datagrams[index].hash_next;
}

static void unchain_source(struct otus_reassembly *r, uint32_t index)
{
    const struct source *source = &r->sources[index];
    uint32_t *at = &r->source_heads[hash_source(r, source->ip, source->version)];
    while (*at != index)
        at = &r->sources[*at].hash_next;
    *at = source->hash_next;
}

/* There is one: there are as many sources as datagrams. */
static uint32_t find_or_add_source(struct otus_reassembly *r, const struct key *key)
{
    uint32_t index = find_source(r, key->src_ip, key->version);
    if (index != NONE)
        return index;
    index = r->free_source;
    struct source *source = &r->sources[index];
    r->free_source = source->hash_next;
    uint32_t bucket = hash_source(r, key->src_ip, key->version);
    memcpy(source->ip, key->src_ip, sizeof source->ip);
    source->version = key->version;
    source->num_datagrams = 0;
    source->datagrams = (struct list){NONE, NONE};
    source->hash_next = r->source_heads[bucket];
    r->source_heads[bucket] = index;
    return index;
}

/* ---- ends of datagrams ---- */

static void set_gauges(const struct otus_reassembly *r)
{
    otus_count_set(r->counters, OTUS_COUNT_FRAGMENTS_HELD, r->num_held);
    otus_count_set(r->counters, OTUS_COUNT_DATAGRAMS_HELD, r->num_datagrams);
}

/* Gives back what the datagram holds and counts its fragments under reason. */
static void drop_held(struct otus_reassembly *r, struct datagram *d, enum otus_counter reason)
{
    if (d->state == REFUSED)
        return;
    otus_map_release(&d->map, &r->pool);
    if (d->header_block != OTUS_NO_BLOCK)
        otus_block_give(&r->pool, d->header_block);
    d->header_block = OTUS_NO_BLOCK;
    otus_count_by(r->counters, reason, d->held);
    r->num_held -= d->held;
    r->num_datagrams--;
    set_gauges(r);
}

static void forget(struct otus_reassembly *r, uint32_t index)
{
    struct datagram *d = &r->datagrams[index];
    struct source *source = &r->sources[d->source];
    unchain_datagram(r, index);
    list_remove(r, &r->by_age, index, false);
    list_remove(r, &source->datagrams, index, true);
    if (--source->num_datagrams == 0) {
        unchain_source(r, d->source);
        source->hash_next = r->free_source;
        r->free_source = d->source;
    }
    d->hash_next = r->free_datagram;
    r->free_datagram = index;
}

static void evict(struct otus_reassembly *r, uint32_t index, enum otus_counter reason)
{
    drop_held(r, &r->datagrams[index], reason);
    forget(r, index);
}

/* Drops the datagram with the fragment in hand and remembers it until its time
 * is up: RFC 5722 4: "the reassembly process MUST be abandoned and all the
 * fragments [...] including those not yet received, MUST be silently discarded". */
static enum otus_status refuse(struct otus_reassembly *r, struct datagram *d,
                               enum otus_counter reason)
{
    drop_held(r, d, reason);
    otus_count(r->counters, reason);
    d->state = REFUSED;
    d->reason = (uint16_t)reason;
    return OTUS_E_AGAIN;
}

/* A clock that was set back must not keep datagrams for ever. */
static bool is_over(const struct otus_reassembly *r, const struct datagram *d, uint64_t now_ns)
{
    uint64_t age_ns = now_ns >= d->created_ns ? now_ns - d->created_ns : d->created_ns - now_ns;
    return age_ns > r->timeout_ns;
}

void otus_reassembly_expire(struct otus_reassembly *r, uint64_t now_ns)
{
    while (r->by_age.oldest != NONE && is_over(r, &r->datagrams[r->by_age.oldest], now_ns))
        evict(r, r->by_age.oldest, OTUS_COUNT_FRAGMENT_TIMEOUT);
}

void otus_reassembly_flush(struct otus_reassembly *r)
{
    while (r->by_age.oldest != NONE)
        evict(r, r->by_age.oldest, OTUS_COUNT_FRAGMENT_TIMEOUT);
}

/* ---- fragments ---- */

static uint32_t add_datagram(struct otus_reassembly *r, const struct key *key, uint32_t bucket,
                             uint64_t now_ns)
{
    /* Evictions first: the last datagram of a source takes the source with it. */
    uint32_t source_index = find_source(r, key->src_ip, key->version);
    if (source_index != NONE &&
        r->sources[source_index].num_datagrams >= r->config.max_datagrams_per_source)
        evict(r, r->sources[source_index].datagrams.oldest, OTUS_COUNT_FRAGMENT_LIMIT_SOURCE);
    if (r->free_datagram == NONE)
        evict(r, r->by_age.oldest, OTUS_COUNT_FRAGMENT_LIMIT_DATAGRAMS);

    uint32_t index = r->free_datagram;
    struct datagram *d = &r->datagrams[index];
    r->free_datagram = d->hash_next;
    d->key = *key;
    d->bucket = bucket;
    d->created_ns = now_ns;
    d->held = 0;
    d->payload_len = LEN_UNKNOWN;
    d->end = 0;
    d->header_len = 0;
    d->header_block = OTUS_NO_BLOCK;
    d->state = COLLECTING;
    otus_map_clear(&d->map);
    d->hash_next = r->datagram_heads[bucket];
    r->datagram_heads[bucket] = index;
    d->source = find_or_add_source(r, key);
    struct source *source = &r->sources[d->source];
    source->num_datagrams++;
    list_append(r, &source->datagrams, index, true);
    list_append(r, &r->by_age, index, false);
    r->num_datagrams++;
    return index;
}

static bool is_possible(const struct otus_fragment *fragment)
{
    uint32_t len = fragment->payload.len;
    if (len == 0 || fragment->header.len > MAX_HEADER_LEN)
        return false;
    /* RFC 8200 4.5: a length that is no multiple of 8 with the M flag set is an
     * error; RFC 791 3.1 has fragments end on 8-octet boundaries likewise. */
    if (fragment->more && len % OTUS_UNIT != 0)
        return false;
    /* RFC 791 3.1: the total length has 16 bits. RFC 8200 4.5: the payload "would
     * exceed 65,535 octets": discard. */
    uint32_t header_len = fragment->version == 4 ? fragment->header.len : 0;
    return header_len + fragment->off + len <= MAX_DATAGRAM_LEN;
}

/* Whether the fragment contradicts where the datagram ends. */
static bool contradicts_end(const struct datagram *d, const struct otus_fragment *fragment)
{
    uint32_t end = fragment->off + fragment->payload.len;
    if (d->payload_len != LEN_UNKNOWN)
        return fragment->more ? end > d->payload_len : end != d->payload_len;
    return !fragment->more && end < d->end;
}

/* Makes room by dropping the oldest datagrams, but not this one. */
static bool make_room(struct otus_reassembly *r, uint32_t index)
{
    uint32_t oldest = r->by_age.oldest;
    if (oldest == index)
        oldest = r->datagrams[index].by_age.newer;
    if (oldest == NONE)
        return false;
    evict(r, oldest, OTUS_COUNT_FRAGMENT_LIMIT_OCTETS);
    return true;
}

static bool keep_header(struct otus_reassembly *r, uint32_t index,
                        const struct otus_fragment *fragment)
{
    struct datagram *d = &r->datagrams[index];
    uint8_t *to = d->header;
    if (fragment->header.len > INLINE_HEADER_LEN) {
        while ((d->header_block = otus_block_take(&r->pool)) == OTUS_NO_BLOCK) {
            if (!make_room(r, index))
                return false;
        }
        to = otus_block_octets(&r->pool, d->header_block);
    }
    memcpy(to, fragment->header.at, fragment->header.len);
    d->header_len = fragment->header.len;
    d->next_header_at = fragment->next_header_at;
    d->next_header = fragment->protocol;
    return true;
}

/* Takes the fragment's octets in; false when there is no room even alone. */
static bool keep(struct otus_reassembly *r, uint32_t index, const struct otus_fragment *fragment)
{
    struct datagram *d = &r->datagrams[index];
    while (!otus_map_reserve(&d->map, &r->pool, fragment->off, fragment->payload.len)) {
        if (!make_room(r, index))
            return false;
    }
    if (fragment->off == 0 && d->header_len == 0 && !keep_header(r, index, fragment))
        return false;
    otus_map_write(&d->map, &r->pool, fragment->off, fragment->payload);
    uint32_t end = fragment->off + fragment->payload.len;
    if (end > d->end)
        d->end = end;
    if (!fragment->more)
        d->payload_len = end;
    d->held++;
    r->num_held++;
    return true;
}

static uint16_t header_checksum(const uint8_t *ip, uint32_t hlen)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < hlen; i += 2)
        sum += otus_load_be16(ip + i);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* RFC 791 3.2, RFC 8200 4.5: the header of the whole datagram. */
static void write_header(const struct datagram *d, uint8_t *ip)
{
    uint32_t len = d->header_len + d->payload_len;
    if (d->key.version == 4) {
        otus_store_be16(ip + 2, (uint16_t)len);
        otus_store_be16(ip + 6, 0);
        otus_store_be16(ip + 10, 0);
        otus_store_be16(ip + 10, header_checksum(ip, d->header_len));
    } else {
        otus_store_be16(ip + 4, (uint16_t)(len - IPV6_HEADER_LEN));
        ip[d->next_header_at] = d->next_header;
    }
}

static enum otus_status complete(struct otus_reassembly *r, struct otus_slice *out_datagram,
                                 uint32_t index)
{
    struct datagram *d = &r->datagrams[index];
    uint32_t len = d->header_len + d->payload_len;
    uint32_t max_len = MAX_DATAGRAM_LEN + (d->key.version == 6 ? (uint32_t)IPV6_HEADER_LEN : 0);
    if (len > max_len) {
        /* Only now that the first fragment's header is known: RFC 8200 4.5. */
        evict(r, index, OTUS_COUNT_FRAGMENT_INVALID);
        return OTUS_E_AGAIN;
    }
    uint8_t *out = r->out + OTUS_REASSEMBLY_HEADROOM;
    const uint8_t *header =
        d->header_block == OTUS_NO_BLOCK ? d->header : otus_block_octets(&r->pool, d->header_block);
    memcpy(out, header, d->header_len);
    otus_map_read(&d->map, &r->pool, out + d->header_len, d->payload_len);
    write_header(d, out);
    *out_datagram = (struct otus_slice){out, len};

    /* The fragment in hand goes on as the datagram; it is accounted for there. */
    d->held--;
    r->num_held--;
    otus_count(r->counters, OTUS_COUNT_REASSEMBLED);
    evict(r, index, OTUS_COUNT_FRAGMENT_ABSORBED);
    return OTUS_OK;
}

/* No hole is left, so that the first fragment with its header is there too. */
static bool is_complete(const struct datagram *d)
{
    return d->payload_len != LEN_UNKNOWN && d->map.num_units == otus_units_of(d->payload_len);
}

/* Octets that are there already, all or some of them. True: go on with it. */
static bool admit_overlap(struct otus_reassembly *r, struct datagram *d,
                          const struct otus_fragment *fragment, bool covered)
{
    bool same = covered && otus_map_equals(&d->map, &r->pool, fragment->off, fragment->payload);
    bool ends_it = !fragment->more && d->payload_len == LEN_UNKNOWN;
    if (same && !ends_it) {
        /* RFC 8200 4.5: "exact duplicate fragments" may be told from overlapping ones. */
        otus_count(r->counters, OTUS_COUNT_FRAGMENT_DUPLICATE);
        return false;
    }
    if (fragment->version == 6) {
        (void)refuse(r, d, OTUS_COUNT_FRAGMENT_OVERLAP);
        return false;
    }
    if (!same)
        otus_count(r->counters, OTUS_COUNT_FRAGMENT_OVERLAPPED);
    if (covered && !ends_it) {
        otus_count(r->counters, OTUS_COUNT_FRAGMENT_DUPLICATE);
        return false;
    }
    return true;
}

static enum otus_status put(struct otus_reassembly *r, struct otus_slice *out_datagram,
                            const struct otus_fragment *fragment, uint32_t index)
{
    struct datagram *d = &r->datagrams[index];
    if (d->state == REFUSED) {
        otus_count(r->counters, d->reason);
        return OTUS_E_AGAIN;
    }
    if (contradicts_end(d, fragment)) {
        if (fragment->version == 6)
            return refuse(r, d, OTUS_COUNT_FRAGMENT_OVERLAP);
        otus_count(r->counters, OTUS_COUNT_FRAGMENT_INVALID);
        return OTUS_E_AGAIN;
    }
    uint32_t covered = otus_map_covered(&d->map, &r->pool, fragment->off, fragment->payload.len);
    if (OTUS_UNLIKELY(covered != 0) &&
        !admit_overlap(r, d, fragment, covered == otus_units_of(fragment->payload.len)))
        return OTUS_E_AGAIN;
    if (d->held == r->config.max_fragments)
        return refuse(r, d, OTUS_COUNT_FRAGMENT_LIMIT_FRAGMENTS);
    if (!keep(r, index, fragment))
        return refuse(r, d, OTUS_COUNT_FRAGMENT_LIMIT_OCTETS);
    return is_complete(d) ? complete(r, out_datagram, index) : OTUS_E_AGAIN;
}

enum otus_status otus_reassembly_put(struct otus_reassembly *r, struct otus_slice *out_datagram,
                                     const struct otus_fragment *fragment)
{
    otus_reassembly_expire(r, fragment->ts_ns);
    if (!is_possible(fragment)) {
        otus_count(r->counters, OTUS_COUNT_FRAGMENT_INVALID);
        return OTUS_E_AGAIN;
    }
    struct key key = {
        .context = fragment->context,
        .id = fragment->id,
        .protocol = fragment->version == 4 ? fragment->protocol : 0,
        .version = fragment->version,
    };
    memcpy(key.src_ip, fragment->src_ip, sizeof key.src_ip);
    memcpy(key.dst_ip, fragment->dst_ip, sizeof key.dst_ip);
    uint32_t bucket = hash_key(r, &key);
    uint32_t index = find_datagram(r, &key, bucket);
    if (index == NONE)
        index = add_datagram(r, &key, bucket, fragment->ts_ns);
    enum otus_status status = put(r, out_datagram, fragment, index);
    set_gauges(r);
    return status;
}
