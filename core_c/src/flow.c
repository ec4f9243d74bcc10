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
    LINE = 64, /* octets of a cache line */
    KEY_WORDS = 5,
    VALUE_WORDS = 17,
    KEPT_OCTETS = OTUS_FLOW_MAX_VALUE - 17,
    HASHED_OCTETS = 256, /* of a tag or branch */
};
static_assert(sizeof(struct otus_flow_key) == KEY_WORDS * 8, "compared as words");
static_assert(sizeof(struct otus_flow_value) == VALUE_WORDS * 8, "copied as words");

struct entry {
    uint64_t key[KEY_WORDS];
    uint64_t hash;               /* of the key */
    uint64_t call_hash;          /* of the Call-ID */
    uint64_t value[VALUE_WORDS]; /* last: what a short Call-ID leaves over is not touched */
};
static_assert(sizeof(struct entry) == 3 * LINE, "two of them hold a Call-ID of 70 octets");

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

/* Of a key's words: multiplications that do not wait for each other, since each packet asks. */
static inline uint64_t hash_key(const struct otus_flow_registry *registry, const uint64_t *words)
{
    const uint64_t *seed = registry->seed;
    uint64_t ends = mix(words[0] ^ seed[0], words[1] ^ seed[1]);
    uint64_t rest = mix(words[2] ^ seed[2], words[3] ^ seed[3]);
    return mix(ends ^ rest ^ seed[0], words[4] ^ seed[1]);
}

/* One number each, whatever the machine's octet order: nothing reads them as a key again. */
static inline void words_of_key(uint64_t out_words[KEY_WORDS], const struct otus_flow_key *key)
{
    out_words[0] = key->ip_version | (uint64_t)key->protocol << 8 | (uint64_t)key->port << 16 |
                   (uint64_t)key->peer_port << 32;
    memcpy(out_words + 1, key->ip, sizeof key->ip);
    memcpy(out_words + 3, key->peer_ip, sizeof key->peer_ip);
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

static void draw_seed(uint64_t seed[4])
{
    if (getrandom(seed, 4 * sizeof *seed, GRND_NONBLOCK) != (ssize_t)(4 * sizeof *seed)) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        seed[0] ^= (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15u;
        seed[1] ^= (uint64_t)now.tv_sec * 0xd6e8feb86659fd93u + (uint64_t)(uintptr_t)seed;
        seed[2] ^= mix(seed[0], seed[1] | 1);
        seed[3] ^= mix(seed[1], seed[0] | 1);
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
    /* Zero pages until they are written: only a line's alignment is missing. */
    registry->entry_memory =
        calloc((size_t)registry->num_buckets * SLOTS + 1, sizeof *registry->entries);
    registry->calls =
        calloc((size_t)registry->num_call_buckets * OTUS_CALL_SLOTS, sizeof *registry->calls);
    if (registry->buckets == NULL || registry->entry_memory == NULL || registry->calls == NULL) {
        otus_flow_registry_free(registry);
        return OTUS_E_NOMEM;
    }
    uintptr_t start = (uintptr_t)registry->entry_memory;
    registry->entries = (void *)(registry->entry_memory + (LINE - start % LINE) % LINE);
    draw_seed(registry->seed);
    *out_registry = registry;
    return OTUS_OK;
}

void otus_flow_registry_free(struct otus_flow_registry *registry)
{
    if (registry == NULL)
        return;
    free(registry->buckets);
    free(registry->entry_memory);
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
    words_of_key(words, key);
    uint64_t hash = hash_key(registry, words);
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

static inline void copy_value(struct otus_flow_value *out_value, const struct entry *entry)
{
    uint8_t *out = (uint8_t *)out_value;
    uint64_t word = word_load(&entry->value[0]);
    memcpy(out, &word, sizeof word);
    if (out_value->len > OTUS_FLOW_MAX_VALUE)
        out_value->len = 0; /* torn: read again anyway */
    uint32_t octets = (uint32_t)offsetof(struct otus_flow_value, octets) + out_value->len;
    for (uint32_t i = 1; i * 8 < octets; i++) {
        word = word_load(&entry->value[i]);
        memcpy(out + (size_t)i * 8, &word, sizeof word);
    }
}

enum lookup { LOOKUP_MISS, LOOKUP_HIT, LOOKUP_AGAIN };

/* The slots that may hold a key: a bit each, found without a branch on which. */
static inline uint32_t slots_with_tag(const struct bucket *bucket, uint32_t tag)
{
    uint32_t slots = 0;
#pragma GCC unroll 8
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        slots |= (uint32_t)(__atomic_load_n(&bucket->tag[slot], __ATOMIC_RELAXED) == tag) << slot;
    return slots;
}

/* One try at reading the bucket. */
static inline enum lookup look_up(struct otus_flow_registry *registry,
                                  struct otus_flow_value *out_value, const uint64_t *key,
                                  uint64_t hash, uint64_t now_ns)
{
    uint32_t index = otus_bucket_of(hash, registry->num_buckets);
    struct bucket *bucket = &registry->buckets[index];
    const struct entry *entries = registry->entries + (size_t)index * SLOTS;
    uint32_t before = __atomic_load_n(&bucket->sequence, __ATOMIC_ACQUIRE);
    if (before & 1)
        return LOOKUP_AGAIN;
    uint32_t slots = slots_with_tag(bucket, tag_of(hash));
    uint32_t slot = 0;
    for (; slots != 0; slots &= slots - 1) {
        slot = (uint32_t)__builtin_ctz(slots);
        if (OTUS_LIKELY(key_equals(&entries[slot], key)))
            break;
    }
    bool is_alive = slots != 0 && !is_expired(registry, bucket, slot, now_ns);
    if (is_alive)
        copy_value(out_value, &entries[slot]);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&bucket->sequence, __ATOMIC_RELAXED) != before)
        return LOOKUP_AGAIN;
    if (is_alive)
        refresh(registry, bucket, slot, now_ns);
    return is_alive ? LOOKUP_HIT : LOOKUP_MISS;
}

static bool get(struct otus_flow_registry *registry, struct otus_flow_value *out_value,
                const uint64_t *key, uint64_t now_ns)
{
    uint64_t hash = hash_key(registry, key);
    for (uint32_t tries = 1;; tries++) {
        enum lookup result = look_up(registry, out_value, key, hash, now_ns);
        if (OTUS_LIKELY(result != LOOKUP_AGAIN))
            return result == LOOKUP_HIT;
        if (tries % OTUS_FLOW_SPINS == 0)
            sched_yield(); /* the writer may have lost its processor */
    }
}

bool otus_flow_get(struct otus_flow_registry *registry, struct otus_flow_value *out_value,
                   const struct otus_flow_key *key, uint64_t now_ns)
{
    uint64_t words[KEY_WORDS];
    words_of_key(words, key);
    return get(registry, out_value, words, now_ns);
}

/* The key of one end of a packet, of any peer. */
static inline void words_of_end(uint64_t out_words[KEY_WORDS], const struct otus_packet_meta *meta,
                                uint16_t port, const uint8_t ip[16])
{
    out_words[0] = meta->ip_version | (uint64_t)meta->protocol << 8 | (uint64_t)port << 16;
    memcpy(out_words + 1, ip, 16);
    out_words[3] = 0;
    out_words[4] = 0;
}

/* With the other end as its peer. */
static inline void set_peer(uint64_t words[KEY_WORDS], uint16_t port, const uint8_t ip[16])
{
    words[0] |= (uint64_t)port << 32;
    memcpy(words + 3, ip, 16);
}

bool otus_flow_find(struct otus_flow_registry *registry, struct otus_flow_value *out_value,
                    const struct otus_packet_meta *meta, uint64_t now_ns)
{
    uint64_t to[KEY_WORDS], from[KEY_WORDS];
    words_of_end(to, meta, meta->dst_port, meta->dst_ip);
    if (get(registry, out_value, to, now_ns))
        return true;
    words_of_end(from, meta, meta->src_port, meta->src_ip);
    if (OTUS_UNLIKELY(__atomic_load_n(&registry->has_peers, __ATOMIC_RELAXED) != 0)) {
        uint64_t back[KEY_WORDS];
        memcpy(back, from, sizeof back);
        set_peer(to, meta->src_port, meta->src_ip);
        set_peer(back, meta->dst_port, meta->dst_ip);
        if (get(registry, out_value, to, now_ns) || get(registry, out_value, back, now_ns))
            return true;
    }
    return get(registry, out_value, from, now_ns);
}

void otus_flow_ask_buckets(const struct otus_flow_registry *registry,
                           struct otus_flow_ahead *out_ahead, const struct otus_packet_meta *meta)
{
    uint64_t key[KEY_WORDS];
    words_of_end(key, meta, meta->dst_port, meta->dst_ip);
    out_ahead->hash[0] = hash_key(registry, key);
    words_of_end(key, meta, meta->src_port, meta->src_ip);
    out_ahead->hash[1] = hash_key(registry, key);
    for (uint32_t end = 0; end < 2; end++) {
        uint32_t index = otus_bucket_of(out_ahead->hash[end], registry->num_buckets);
        __builtin_prefetch(&registry->buckets[index].tag);
        __builtin_prefetch(&registry->buckets[index].seen_ns);
    }
}

void otus_flow_ask_entry(const struct otus_flow_registry *registry,
                         const struct otus_flow_ahead *ahead)
{
    for (uint32_t end = 0; end < 2; end++) {
        uint64_t hash = ahead->hash[end];
        uint32_t index = otus_bucket_of(hash, registry->num_buckets);
        uint32_t slots = slots_with_tag(&registry->buckets[index], tag_of(hash));
        if (slots == 0)
            continue;
        const struct entry *entry =
            &registry->entries[(size_t)index * SLOTS + (uint32_t)__builtin_ctz(slots)];
        __builtin_prefetch(entry->key);
        __builtin_prefetch(entry->value + 1); /* of most Call-IDs the rest */
        return;
    }
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
