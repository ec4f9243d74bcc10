/* The flow registry: see flow.h.
 *
 * Two tables of buckets. The flow table, here, maps an endpoint to its entry; a bucket is
 * one cache line of tags and one of times in front of eight entries, so that finding a place
 * or what is over touches no entry. The oldest entry gives way when its bucket is full. The call
 * table, in flow_call.c, maps a Call-ID to the hashes of its endpoints, so that the end of a dialog
 * costs what the dialog has. Nothing points from one table into the other: a hash that finds
 * nothing, or an entry of another call, is skipped, and so an eviction on one side needs no word to
 * the other.
 *
 * Readers take no lock. Each bucket carries a sequence number that is odd while a writer
 * changes it; a reader that saw it change reads again. Every word of an entry is read and
 * written atomically (relaxed), the fences give the order. Writers hold one of a few
 * spinlocks, chosen by bucket, one at a time. */
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "flow_internal.h"

enum {
    SLOTS = 8, /* entries of a bucket */
    KEY_WORDS = 5,
    VALUE_WORDS = 17,
    KEPT_OCTETS = OTUS_FLOW_MAX_VALUE - 17,
    HASHED_OCTETS = 256, /* of a tag or branch */
};
static_assert(sizeof(struct otus_flow_key) == KEY_WORDS * 8, "compared as words");
static_assert(sizeof(struct otus_flow_value) <= VALUE_WORDS * 8, "copied as words");

struct entry {
    uint64_t key[KEY_WORDS];
    uint64_t hash;               /* of the key */
    uint64_t call_hash;          /* of the Call-ID */
    uint64_t value[VALUE_WORDS]; /* last: what a short Call-ID leaves over is not touched */
};

struct bucket {
    _Alignas(64) uint32_t sequence;       /* odd: being written */
    uint32_t tag[SLOTS];                  /* low half of the hash, 0: free */
    _Alignas(64) uint64_t seen_ns[SLOTS]; /* when each entry was put or hit last */
};

static inline uint64_t word_load(const uint64_t *at)
{
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

static inline void word_store(uint64_t *at, uint64_t value)
{
    __atomic_store_n(at, value, __ATOMIC_RELAXED);
}

/* --- hashing: keyed, so that a sender can't aim at one bucket --- */

static inline uint64_t mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The low half of the hash is the tag, the high half has picked the bucket. */
static inline uint32_t tag_of(uint64_t hash)
{
    return (uint32_t)hash | 1; /* never 0 */
}

static uint64_t hash_words(const struct otus_flow_registry *registry, const uint64_t *words,
                           uint32_t num)
{
    uint64_t hash = registry->seed[0];
    for (uint32_t i = 0; i < num; i++)
        hash = mix(hash ^ words[i], registry->seed[1] + i);
    return mix(hash, registry->seed[0] ^ 0x9e3779b97f4a7c15u);
}

uint64_t otus_flow_hash_call(const struct otus_flow_registry *registry,
                             const struct otus_flow_value *value)
{
    uint64_t words[OTUS_FLOW_MAX_VALUE / 8 + 1] = {0};
    memcpy(words, value->octets, value->len);
    uint32_t num = (value->len + 7u) / 8;
    words[num] = value->len;
    uint64_t hash = hash_words(registry, words, num + 1);
    return hash == 0 ? 1 : hash;
}

uint32_t otus_flow_hash_text(const struct otus_flow_registry *registry, struct otus_slice text)
{
    uint64_t hash = registry->seed[0] ^ text.len;
    /* Of a longer one the start and the length tell enough, and each endpoint asks. */
    uint32_t len = text.len < HASHED_OCTETS ? text.len : HASHED_OCTETS;
    if (len == 0)
        return 0;
    for (uint32_t i = 0; i < len; i += 8) {
        uint64_t word = 0;
        memcpy(&word, text.at + i, len - i < 8 ? len - i : 8);
        hash = mix(hash ^ word, registry->seed[1] + i);
    }
    return tag_of(hash);
}

void otus_flow_set_call_id(struct otus_flow_value *value, struct otus_slice call_id)
{
    static const char digits[] = "0123456789abcdef";
    if (call_id.len <= OTUS_FLOW_MAX_VALUE) {
        value->len = (uint8_t)call_id.len;
        if (call_id.len != 0)
            memcpy(value->octets, call_id.at, call_id.len);
        return;
    }
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a: the same in every process */
    for (uint32_t i = 0; i < call_id.len; i++)
        hash = (hash ^ call_id.at[i]) * 0x100000001b3u;
    memcpy(value->octets, call_id.at, KEPT_OCTETS);
    value->octets[KEPT_OCTETS] = '~';
    for (uint32_t i = 0; i < 16; i++)
        value->octets[KEPT_OCTETS + 1 + i] = (uint8_t)digits[hash >> (60 - 4 * i) & 15];
    value->len = OTUS_FLOW_MAX_VALUE;
}

/* --- open and close --- */

static void draw_seed(uint64_t seed[2])
{
    if (getrandom(seed, 2 * sizeof *seed, GRND_NONBLOCK) != (ssize_t)(2 * sizeof *seed)) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        seed[0] ^= (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15u;
        seed[1] ^= (uint64_t)now.tv_sec * 0xd6e8feb86659fd93u + (uint64_t)(uintptr_t)seed;
    }
    seed[1] |= 1;
}

static void *take_zeroed(size_t num, size_t size)
{
    void *memory = aligned_alloc(64, (num * size + 63) / 64 * 64);
    if (memory != NULL)
        memset(memory, 0, num * size);
    return memory;
}

enum otus_status otus_flow_registry_new(struct otus_flow_registry **out_registry,
                                        uint32_t max_flows, uint32_t ttl_ms)
{
    if (max_flows == 0 || max_flows > 1u << 26 || ttl_ms == 0)
        return OTUS_E_INVALID;
    struct otus_flow_registry *registry = take_zeroed(1, sizeof *registry);
    if (registry == NULL)
        return OTUS_E_NOMEM;
    /* A quarter more than asked for: buckets fill unevenly. */
    registry->num_buckets = (max_flows + max_flows / 4) / SLOTS + 1;
    /* Two endpoints and more to a call, RTP and RTCP of each side. */
    registry->num_call_buckets = max_flows / 2 / OTUS_CALL_SLOTS + 1;
    registry->ttl_ns = (uint64_t)ttl_ms * 1000000;
    registry->buckets = take_zeroed(registry->num_buckets, sizeof *registry->buckets);
    registry->entries = calloc((size_t)registry->num_buckets * SLOTS, sizeof *registry->entries);
    registry->calls =
        calloc((size_t)registry->num_call_buckets * OTUS_CALL_SLOTS, sizeof *registry->calls);
    if (registry->buckets == NULL || registry->entries == NULL || registry->calls == NULL) {
        otus_flow_registry_free(registry);
        return OTUS_E_NOMEM;
    }
    draw_seed(registry->seed);
    *out_registry = registry;
    return OTUS_OK;
}

void otus_flow_registry_free(struct otus_flow_registry *registry)
{
    if (registry == NULL)
        return;
    free(registry->buckets);
    free(registry->entries);
    free(registry->calls);
    free(registry);
}

/* --- the flow table --- */

static struct otus_lock *flow_lock(struct otus_flow_registry *registry, uint32_t bucket)
{
    return &registry->flow_locks[bucket % OTUS_FLOW_LOCKS];
}

static void write_begin(struct bucket *bucket)
{
    __atomic_store_n(&bucket->sequence, bucket->sequence + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static void write_end(struct bucket *bucket)
{
    __atomic_store_n(&bucket->sequence, bucket->sequence + 1, __ATOMIC_RELEASE);
}

static void set_tag(struct bucket *bucket, uint32_t slot, uint32_t tag)
{
    __atomic_store_n(&bucket->tag[slot], tag, __ATOMIC_RELAXED);
}

static bool is_expired(const struct otus_flow_registry *registry, const struct bucket *bucket,
                       uint32_t slot, uint64_t now_ns)
{
    uint64_t seen = word_load(&bucket->seen_ns[slot]);
    return now_ns > seen && now_ns - seen > registry->ttl_ns;
}

static bool key_equals(const struct entry *entry, const uint64_t *key)
{
    uint64_t differs = 0;
    for (uint32_t i = 0; i < KEY_WORDS; i++)
        differs |= word_load(&entry->key[i]) ^ key[i];
    return differs == 0;
}

/* Where the key is or goes: its own slot, a free or expired one, or the oldest's. */
struct place {
    uint32_t slot;
    bool is_same;
    bool is_free;
    bool is_expired;
};

static struct place find_place(const struct otus_flow_registry *registry,
                               const struct bucket *bucket, const struct entry *entries,
                               const uint64_t *key, uint32_t tag, uint64_t now_ns)
{
    struct place best = {0, false, false, false};
    uint64_t oldest = UINT64_MAX;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        if (bucket->tag[slot] == tag && key_equals(&entries[slot], key))
            return (struct place){slot, true, false, false};
        bool is_free = bucket->tag[slot] == 0;
        uint64_t seen = is_free ? 0 : word_load(&bucket->seen_ns[slot]);
        if (!best.is_free && (is_free || seen < oldest)) {
            oldest = seen;
            best = (struct place){slot, false, is_free,
                                  !is_free && is_expired(registry, bucket, slot, now_ns)};
        }
    }
    return best;
}

static void write_entry(struct bucket *bucket, struct entry *entry, uint32_t slot,
                        const uint64_t *key, const struct otus_flow_value *value, uint64_t hash,
                        uint64_t call_hash, uint64_t now_ns)
{
    uint64_t words[VALUE_WORDS] = {0};
    uint32_t octets = (uint32_t)offsetof(struct otus_flow_value, octets) + value->len;
    memcpy(words, value, octets);
    write_begin(bucket);
    for (uint32_t i = 0; i < KEY_WORDS; i++)
        word_store(&entry->key[i], key[i]);
    for (uint32_t i = 0; i * 8 < octets; i++)
        word_store(&entry->value[i], words[i]);
    entry->hash = hash; /* only read under the lock, as is call_hash */
    entry->call_hash = call_hash;
    word_store(&bucket->seen_ns[slot], now_ns);
    set_tag(bucket, slot, tag_of(hash));
    write_end(bucket);
}

static void remove_slot(struct otus_flow_registry *registry, struct bucket *bucket, uint32_t slot)
{
    write_begin(bucket);
    set_tag(bucket, slot, 0);
    write_end(bucket);
    __atomic_fetch_sub(&registry->count, 1, __ATOMIC_RELAXED);
}

/* Without the lock: what is seen here is looked at again under it. */
static bool has_expired(const struct otus_flow_registry *registry, const struct bucket *bucket,
                        uint64_t now_ns)
{
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (__atomic_load_n(&bucket->tag[slot], __ATOMIC_RELAXED) != 0 &&
            is_expired(registry, bucket, slot, now_ns))
            return true;
    return false;
}

/* Each put looks over one bucket more, so that what is over goes away in time. */
static void sweep(struct otus_flow_registry *registry, uint64_t now_ns)
{
    uint32_t turn = __atomic_fetch_add(&registry->sweep, 1, __ATOMIC_RELAXED);
    uint32_t index = turn % registry->num_buckets;
    struct bucket *bucket = &registry->buckets[index];
    if (!has_expired(registry, bucket, now_ns))
        return;
    struct otus_lock *lock = flow_lock(registry, index);
    otus_lock_take(lock);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (bucket->tag[slot] != 0 && is_expired(registry, bucket, slot, now_ns))
            remove_slot(registry, bucket, slot);
    otus_lock_give(lock);
}

bool otus_flow_put(struct otus_flow_registry *registry, const struct otus_flow_key *key,
                   const struct otus_flow_value *value, struct otus_slice owner, uint64_t now_ns)
{
    uint64_t words[KEY_WORDS];
    memcpy(words, key, sizeof words);
    uint64_t hash = hash_words(registry, words, KEY_WORDS);
    uint32_t index = otus_bucket_of(hash, registry->num_buckets);
    struct bucket *bucket = &registry->buckets[index];
    /* Both tables are larger than caches: their lines are asked for together. */
    __builtin_prefetch(&bucket->tag, 1);
    __builtin_prefetch(&bucket->seen_ns, 1);
    uint64_t call_hash = otus_flow_hash_call(registry, value);
    otus_flow_prefetch_call(registry, call_hash);
    struct entry *entries = registry->entries + (size_t)index * SLOTS;
    struct otus_lock *lock = flow_lock(registry, index);

    if (key->peer_port != 0)
        __atomic_store_n(&registry->has_peers, 1, __ATOMIC_RELAXED);
    otus_lock_take(lock);
    struct place place = find_place(registry, bucket, entries, words, tag_of(hash), now_ns);
    write_entry(bucket, &entries[place.slot], place.slot, words, value, hash, call_hash, now_ns);
    otus_lock_give(lock);

    if (place.is_free)
        __atomic_fetch_add(&registry->count, 1, __ATOMIC_RELAXED);
    otus_flow_note_endpoint(registry, call_hash, hash, otus_flow_hash_text(registry, owner),
                            now_ns);
    sweep(registry, now_ns);
    return !place.is_same && !place.is_free && !place.is_expired;
}

/* A hit keeps the flow alive. Written now and then only, so that readers on other cores
 * do not pass the line to and fro for every packet. */
static void refresh(const struct otus_flow_registry *registry, struct bucket *bucket, uint32_t slot,
                    uint64_t now_ns)
{
    uint64_t seen = word_load(&bucket->seen_ns[slot]);
    if (now_ns > seen && now_ns - seen > registry->ttl_ns / 16)
        word_store(&bucket->seen_ns[slot], now_ns);
}

static void copy_value(struct otus_flow_value *out_value, const struct entry *entry)
{
    uint64_t words[VALUE_WORDS];
    words[0] = word_load(&entry->value[0]);
    uint8_t head[2];
    memcpy(head, words, sizeof head);
    uint32_t len = head[1] <= OTUS_FLOW_MAX_VALUE ? head[1] : 0; /* torn: read again anyway */
    uint32_t octets = (uint32_t)offsetof(struct otus_flow_value, octets) + len;
    for (uint32_t i = 1; i * 8 < octets; i++)
        words[i] = word_load(&entry->value[i]);
    memcpy(out_value, words, octets);
}

enum lookup { LOOKUP_MISS, LOOKUP_HIT, LOOKUP_AGAIN };

/* One try at reading the bucket. */
static enum lookup look_up(struct otus_flow_registry *registry, struct otus_flow_value *out_value,
                           const uint64_t *key, uint64_t hash, uint64_t now_ns)
{
    uint32_t index = otus_bucket_of(hash, registry->num_buckets);
    struct bucket *bucket = &registry->buckets[index];
    const struct entry *entries = registry->entries + (size_t)index * SLOTS;
    uint32_t before = __atomic_load_n(&bucket->sequence, __ATOMIC_ACQUIRE);
    if (before & 1)
        return LOOKUP_AGAIN;
    uint32_t slot = 0;
    while (slot < SLOTS &&
           !(__atomic_load_n(&bucket->tag[slot], __ATOMIC_RELAXED) == tag_of(hash) &&
             key_equals(&entries[slot], key)))
        slot++;
    bool is_alive = slot < SLOTS && !is_expired(registry, bucket, slot, now_ns);
    if (is_alive)
        copy_value(out_value, &entries[slot]);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&bucket->sequence, __ATOMIC_RELAXED) != before)
        return LOOKUP_AGAIN;
    if (is_alive)
        refresh(registry, bucket, slot, now_ns);
    return is_alive ? LOOKUP_HIT : LOOKUP_MISS;
}

bool otus_flow_get(struct otus_flow_registry *registry, struct otus_flow_value *out_value,
                   const struct otus_flow_key *key, uint64_t now_ns)
{
    uint64_t words[KEY_WORDS];
    memcpy(words, key, sizeof words);
    uint64_t hash = hash_words(registry, words, KEY_WORDS);
    for (uint32_t tries = 1;; tries++) {
        enum lookup result = look_up(registry, out_value, words, hash, now_ns);
        if (OTUS_LIKELY(result != LOOKUP_AGAIN))
            return result == LOOKUP_HIT;
        if (tries % OTUS_FLOW_SPINS == 0)
            sched_yield(); /* the writer may have lost its processor */
    }
}

bool otus_flow_find(struct otus_flow_registry *registry, struct otus_flow_value *out_value,
                    const struct otus_packet_meta *meta, uint64_t now_ns)
{
    struct otus_flow_key key = {
        .ip_version = meta->ip_version,
        .protocol = meta->protocol,
        .port = meta->dst_port,
    };
    memcpy(key.ip, meta->dst_ip, sizeof key.ip);
    if (otus_flow_get(registry, out_value, &key, now_ns))
        return true;
    if (__atomic_load_n(&registry->has_peers, __ATOMIC_RELAXED)) {
        key.peer_port = meta->src_port;
        memcpy(key.peer_ip, meta->src_ip, sizeof key.peer_ip);
        if (otus_flow_get(registry, out_value, &key, now_ns))
            return true;
        struct otus_flow_key back = {
            .ip_version = meta->ip_version,
            .protocol = meta->protocol,
            .port = meta->src_port,
            .peer_port = meta->dst_port,
        };
        memcpy(back.ip, meta->src_ip, sizeof back.ip);
        memcpy(back.peer_ip, meta->dst_ip, sizeof back.peer_ip);
        if (otus_flow_get(registry, out_value, &back, now_ns))
            return true;
    }
    struct otus_flow_key source = {
        .ip_version = meta->ip_version,
        .protocol = meta->protocol,
        .port = meta->src_port,
    };
    memcpy(source.ip, meta->src_ip, sizeof source.ip);
    return otus_flow_get(registry, out_value, &source, now_ns);
}

void otus_flow_remove_endpoint(struct otus_flow_registry *registry, uint64_t hash,
                               uint64_t call_hash)
{
    uint32_t index = otus_bucket_of(hash, registry->num_buckets);
    struct bucket *bucket = &registry->buckets[index];
    const struct entry *entries = registry->entries + (size_t)index * SLOTS;
    struct otus_lock *lock = flow_lock(registry, index);
    otus_lock_take(lock);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (bucket->tag[slot] == tag_of(hash) && entries[slot].hash == hash &&
            entries[slot].call_hash == call_hash)
            remove_slot(registry, bucket, slot);
    otus_lock_give(lock);
}

uint32_t otus_flow_count(const struct otus_flow_registry *registry)
{
    return __atomic_load_n(&registry->count, __ATOMIC_RELAXED);
}
