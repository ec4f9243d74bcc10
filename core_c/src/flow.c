/* The flow registry: see flow.h.
 *
 * Two tables (flow_table.h). The flow table, here, maps a pair of ports to its entry; the call
 * table, in flow_call.c, maps a Call-ID to the hashes of its endpoints, so that the end of a dialog
 * costs what the dialog has. Nothing points from one table into the other: a hash that finds
 * nothing, or an entry of another call, is skipped, and so an eviction on one side needs no word to
 * the other.
 *
 * RTP and RTCP of one endpoint mostly have neighbouring ports, one call and one fate, so both are
 * in one entry, which is found by the even port. Where the two ports are of two calls, each has an
 * entry of the same key.
 *
 * Readers take no lock. Each bucket carries a sequence number that is odd while a writer changes
 * it or an entry of its; a reader that saw it change reads again. An entry that is given back was
 * taken out of its bucket before, so who still reads it sees that too; it stays an entry, and the
 * worst that a late reader does is to set another one's time. Every word of an entry is
 * read and written atomically (relaxed), the fences give the order. */
#include "flow_internal.h"

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "octet_search.h"

enum {
    KEY_WORDS = 5,
    CALL_ID_WORDS = OTUS_FLOW_MAX_VALUE / 8,
    LINE_WORDS = 8, /* of a cache line */
    KEPT_OCTETS = OTUS_FLOW_MAX_VALUE - 17,
    HASHED_OCTETS = 256, /* of a tag or branch */
};
static_assert(sizeof(struct otus_flow_key) == KEY_WORDS * 8, "compared as words");

/* What one line holds tells whether the entry is meant; a second one has most Call-IDs. */
struct entry {
    uint64_t key[KEY_WORDS]; /* with the even port */
    uint64_t call_hash;      /* of the Call-ID */
    uint64_t seen_ns;        /* when it was put or hit last */
    uint64_t form;           /* kind at the even port, kind at the odd port, octets of Call-ID */
    uint64_t call_id[CALL_ID_WORDS]; /* what a short one leaves over is not touched */
};
static_assert(sizeof(struct entry) == OTUS_ITEM_OCTETS, "an item of the pool");
static_assert(offsetof(struct entry, call_id) == 64, "starts a line");

/* --- the form of an entry --- */

static inline uint64_t form_of(const uint8_t kind[2], uint8_t len)
{
    return kind[0] | (uint64_t)kind[1] << 8 | (uint64_t)len << 16;
}

static inline uint8_t kind_at(uint64_t form, uint32_t is_odd)
{
    return (uint8_t)(form >> (8 * is_odd));
}

static inline uint8_t call_id_len(uint64_t form)
{
    return (uint8_t)(form >> 16);
}

/* The ports of the pair that are in use: bit 0 the even one, bit 1 the odd one. */
static inline uint32_t ports_of(uint64_t form)
{
    return (uint32_t)(kind_at(form, 0) != 0) | (uint32_t)(kind_at(form, 1) != 0) << 1;
}

static inline uint64_t without_ports(uint64_t form, uint32_t ports)
{
    return form & ~((ports & 1 ? (uint64_t)0xff : 0) | (ports & 2 ? (uint64_t)0xff00 : 0));
}

static inline uint32_t num_ports(uint64_t form)
{
    uint32_t ports = ports_of(form);
    return (ports & 1) + (ports >> 1);
}

/* --- hashing: keyed, so that a sender can't aim at one bucket --- */

static inline uint64_t mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The last word reaches back over octets that were mixed in before: with the length it still
 * tells one text from another. */
static uint64_t hash_octets(const struct otus_flow_registry *registry, struct otus_slice text)
{
    const uint64_t *seed = registry->seed;
    uint64_t hash = seed[0] ^ text.len;
    uint64_t word = 0;
    if (text.len < 8) {
        memcpy(&word, text.at, text.len);
    } else {
        for (uint32_t i = 0; i + 8 < text.len; i += 8)
            hash = mix(hash ^ otus_load8(text.at + i), seed[1] + i);
        word = otus_load8(text.at + text.len - 8);
    }
    hash = mix(hash ^ word, seed[2]);
    return mix(hash, seed[0] ^ 0x9e3779b97f4a7c15u);
}

/* Of a key's words: multiplications that do not wait for each other, since each packet asks. Its
 * lowest bits are free for the ports of the pair. */
static inline uint64_t hash_key(const struct otus_flow_registry *registry, const uint64_t *words)
{
    const uint64_t *seed = registry->seed;
    uint64_t ends = mix(words[0] ^ seed[0], words[1] ^ seed[1]);
    uint64_t rest = mix(words[2] ^ seed[2], words[3] ^ seed[3]);
    return mix(ends ^ rest ^ seed[0], words[4] ^ seed[1]) & ~(uint64_t)OTUS_PORTS_OF_HASH;
}

/* One number each, whatever the machine's octet order: nothing reads them as a key again. */
static inline uint64_t first_word(uint32_t ip_version, uint32_t protocol, uint16_t port,
                                  uint16_t peer_port)
{
    return ip_version | (uint64_t)protocol << 8 | (uint64_t)(port & ~1u) << 16 |
           (uint64_t)peer_port << 32;
}

static inline void words_of_key(uint64_t out_words[KEY_WORDS], const struct otus_flow_key *key)
{
    out_words[0] = first_word(key->ip_version, key->protocol, key->port, key->peer_port);
    memcpy(out_words + 1, key->ip, sizeof key->ip);
    memcpy(out_words + 3, key->peer_ip, sizeof key->peer_ip);
}

static struct otus_slice octets_of(const struct otus_flow_value *value)
{
    return (struct otus_slice){value->octets, value->len};
}

uint64_t otus_flow_hash_call(const struct otus_flow_registry *registry, struct otus_slice call_id)
{
    struct otus_flow_value value;
    if (OTUS_LIKELY(call_id.len <= OTUS_FLOW_MAX_VALUE))
        return hash_octets(registry, call_id);
    otus_flow_set_call_id(&value, call_id);
    return hash_octets(registry, octets_of(&value));
}

uint32_t otus_flow_hash_text(const struct otus_flow_registry *registry, struct otus_slice text)
{
    /* Of a longer one the start and the length tell enough, and each endpoint asks. */
    uint32_t len = text.len;
    if (len == 0)
        return 0;
    if (len > HASHED_OCTETS)
        text.len = HASHED_OCTETS;
    return (uint32_t)mix(hash_octets(registry, text) ^ len, registry->seed[1]) | 1; /* never 0 */
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

enum otus_status otus_flow_registry_new(struct otus_flow_registry **out_registry,
                                        uint32_t max_flows, uint32_t ttl_ms)
{
    if (max_flows == 0 || max_flows > 1u << 26 || ttl_ms == 0)
        return OTUS_E_INVALID;
    size_t len = (sizeof(struct otus_flow_registry) + 63) / 64 * 64;
    struct otus_flow_registry *registry = aligned_alloc(64, len);
    if (registry == NULL)
        return OTUS_E_NOMEM;
    memset(registry, 0, len);
    /* A quarter more than asked for: buckets fill unevenly. Calls mostly have two endpoints, so
     * there is room for twice as many: one that gives way leaves its endpoints to the TTL. */
    enum otus_status status =
        otus_tables_open(&registry->tables, max_flows + max_flows / 4, max_flows);
    if (status != OTUS_OK) {
        free(registry);
        return status;
    }
    registry->ttl_ns = (uint64_t)ttl_ms * 1000000;
    draw_seed(registry->seed);
    *out_registry = registry;
    return OTUS_OK;
}

void otus_flow_registry_free(struct otus_flow_registry *registry)
{
    if (registry == NULL)
        return;
    otus_tables_close(&registry->tables);
    free(registry);
}

/* --- putting --- */

static bool is_expired(const struct otus_flow_registry *registry, const struct entry *entry,
                       uint64_t now_ns)
{
    uint64_t seen = otus_word_load(&entry->seen_ns);
    return now_ns > seen && now_ns - seen > registry->ttl_ns;
}

static bool key_equals(const struct entry *entry, const uint64_t *key)
{
    uint64_t differs = 0;
#pragma GCC unroll 5
    for (uint32_t i = 0; i < KEY_WORDS; i++)
        differs |= otus_word_load(&entry->key[i]) ^ key[i];
    return differs == 0;
}

static void set_form(struct otus_bucket *bucket, struct entry *entry, uint64_t form)
{
    if (entry->form == form)
        return;
    otus_write_begin(bucket);
    otus_word_store(&entry->form, form);
    otus_write_end(bucket);
}

/* Takes ports from an entry, and the entry away where none is left; returns how many it had. */
static uint32_t drop_ports(struct otus_table *table, struct otus_home home, uint32_t slot,
                           uint32_t ports)
{
    struct entry *entry = otus_item_at(table, home.bucket, slot);
    uint32_t before = num_ports(entry->form);
    uint64_t form = without_ports(entry->form, ports);
    if (ports_of(form) == 0)
        otus_slot_drop(table, home, slot);
    else
        set_form(home.bucket, entry, form);
    return before - num_ports(form);
}

/* What is put: for one pair of ports. */
struct put {
    uint64_t key[KEY_WORDS];
    uint64_t hash;
    uint64_t form;
};

static void write_entry(struct entry *entry, const struct put *put,
                        const struct otus_flow_value *call_id, uint64_t call_hash, uint64_t now_ns)
{
    for (uint32_t i = 0; i < KEY_WORDS; i++)
        otus_word_store(&entry->key[i], put->key[i]);
    for (uint32_t i = 0; i < call_id->len; i += 8)
        otus_word_store(&entry->call_id[i / 8], otus_load8(call_id->octets + i));
    otus_word_store(&entry->call_hash, call_hash);
    otus_word_store(&entry->form, put->form);
    otus_word_store(&entry->seen_ns, now_ns);
}

/* The call's own entry of the pair keeps the port that is not put; another call's gives the
 * ports that are. */
static struct entry *find_own(struct otus_table *table, struct otus_home home,
                              const struct put *put, uint64_t call_hash, uint32_t *out_slot,
                              uint32_t *num_lost)
{
    struct entry *own = NULL;
    for (uint32_t slots = otus_slots_of(home.bucket, put->hash); slots != 0;) {
        uint32_t slot = otus_next_slot(&slots);
        struct entry *entry = otus_item_at(table, home.bucket, slot);
        if (!key_equals(entry, put->key))
            continue;
        if (entry->call_hash == call_hash) {
            own = entry;
            *out_slot = slot;
        } else {
            *num_lost += drop_ports(table, home, slot, ports_of(put->form));
        }
    }
    return own;
}

/* Each put looks over one bucket more, so that what is over goes away in time. Without the lock:
 * what is seen here is looked at again under it. */
static bool may_have_expired(const struct otus_flow_registry *registry,
                             const struct otus_bucket *bucket, uint64_t now_ns)
{
    int32_t most = otus_flow_ttl_ticks(registry);
    uint32_t now = otus_tick_of(now_ns);
    uint32_t over = 0;
    for (uint32_t slot = 0; slot < OTUS_TABLE_SLOTS; slot++)
        over |= (uint32_t)(otus_ticks_between(otus_slot_used(bucket, slot), now) > most) << slot;
    return (over & ~otus_slots_with(bucket, 0)) != 0;
}

/* Endpoints that came and went. */
struct tally {
    uint32_t num_added;
    uint32_t num_lost;
    struct otus_counters *counters; /* NULL: nobody's */
};

static void put_pair(struct otus_flow_registry *registry, const struct put *put,
                     const struct otus_flow_value *call_id, uint64_t call_hash, uint64_t now_ns,
                     struct tally *tally)
{
    struct otus_table *table = &registry->tables.flows;
    struct otus_home home = otus_home_of(table, put->hash);
    uint32_t tick = otus_tick_of(now_ns), slot;
    otus_stripe_take(home.stripe);
    struct entry *entry = find_own(table, home, put, call_hash, &slot, &tally->num_lost);
    if (entry != NULL) {
        bool is_over = is_expired(registry, entry, now_ns);
        uint64_t others = without_ports(entry->form, ports_of(put->form));
        tally->num_lost += num_ports(entry->form);
        set_form(home.bucket, entry, is_over ? put->form : put->form | others);
        tally->num_added += num_ports(entry->form);
        otus_word_store(&entry->seen_ns, now_ns);
    } else {
        slot = otus_slot_take(table, home, tick, 0);
        entry = otus_item_at(table, home.bucket, slot);
        if (home.bucket->tag[slot] != 0) {
            tally->num_lost += num_ports(entry->form);
            if (tally->counters != NULL && !is_expired(registry, entry, now_ns))
                otus_count_by(tally->counters, OTUS_COUNT_FLOWS_EVICTED, num_ports(entry->form));
        }
        tally->num_added += num_ports(put->form);
        otus_write_begin(home.bucket);
        write_entry(entry, put, call_id, call_hash, now_ns);
        otus_slot_name(home.bucket, slot, put->hash);
        otus_write_end(home.bucket);
    }
    otus_slot_use(home.bucket, slot, tick);
    otus_stripe_give(home.stripe);
}

static void count_by(struct otus_flow_registry *registry, uint32_t by)
{
    if (by != 0)
        __atomic_fetch_add(&registry->count, by, __ATOMIC_RELAXED);
}

static void sweep(struct otus_flow_registry *registry, uint64_t now_ns)
{
    struct otus_table *table = &registry->tables.flows;
    uint32_t turn = __atomic_fetch_add(&registry->sweep, 1, __ATOMIC_RELAXED);
    struct otus_home home = otus_home_at(table, turn % table->num_buckets);
    if (OTUS_LIKELY(!may_have_expired(registry, home.bucket, now_ns)))
        return;
    uint32_t num_lost = 0;
    otus_stripe_take(home.stripe);
    for (uint32_t slot = 0; slot < OTUS_TABLE_SLOTS; slot++)
        if (home.bucket->tag[slot] != 0 &&
            is_expired(registry, otus_item_at(table, home.bucket, slot), now_ns))
            num_lost += drop_ports(table, home, slot, OTUS_PORTS_OF_HASH);
    otus_stripe_give(home.stripe);
    count_by(registry, 0 - num_lost);
}

void otus_flow_ask_endpoint(const struct otus_flow_registry *registry, uint64_t endpoint)
{
    const struct otus_table *table = &registry->tables.flows;
    __builtin_prefetch(&table->buckets[otus_bucket_of(table, endpoint)], 1);
}

void otus_flow_ask_call(const struct otus_flow_registry *registry, struct otus_slice call_id)
{
    const struct otus_table *table = &registry->tables.calls;
    uint64_t hash = otus_flow_hash_call(registry, call_id);
    __builtin_prefetch(&table->buckets[otus_bucket_of(table, hash)], 1);
}

void otus_flow_put_ports(struct otus_flow_registry *registry, const struct otus_flow_ports *ports,
                         uint32_t num, const struct otus_flow_value *call_id,
                         struct otus_slice owner, uint64_t now_ns, struct otus_counters *counters)
{
    struct put puts[OTUS_FLOW_MAX_PORTS];
    uint64_t endpoints[OTUS_FLOW_MAX_PORTS] = {0};
    struct tally tally = {.counters = counters};
    uint64_t call_hash = otus_flow_hash_call(registry, octets_of(call_id));
    num = num < OTUS_FLOW_MAX_PORTS ? num : OTUS_FLOW_MAX_PORTS;
    /* The table is larger than caches: its lines are asked for, and come while the call takes
     * note. */
    for (uint32_t i = 0; i < num; i++) {
        words_of_key(puts[i].key, &ports[i].key);
        puts[i].hash = hash_key(registry, puts[i].key);
        puts[i].form = form_of(ports[i].kind, call_id->len);
        endpoints[i] = puts[i].hash | ports_of(puts[i].form);
        otus_flow_ask_endpoint(registry, puts[i].hash);
        if (ports[i].key.peer_port != 0)
            __atomic_store_n(&registry->has_peers, 1, __ATOMIC_RELAXED);
    }
    otus_flow_note_endpoints(registry, call_hash, endpoints, num,
                             otus_flow_hash_text(registry, owner), now_ns, counters);
    for (uint32_t i = 0; i < num; i++)
        put_pair(registry, &puts[i], call_id, call_hash, now_ns, &tally);
    count_by(registry, tally.num_added - tally.num_lost);
    for (uint32_t i = 0; i < num; i++)
        sweep(registry, now_ns);
}

void otus_flow_put(struct otus_flow_registry *registry, const struct otus_flow_key *key,
                   const struct otus_flow_value *value, struct otus_slice owner, uint64_t now_ns,
                   struct otus_counters *counters)
{
    struct otus_flow_ports ports = {.key = *key};
    ports.kind[key->port & 1] = value->kind;
    otus_flow_put_ports(registry, &ports, 1, value, owner, now_ns, counters);
}

/* --- looking up --- */

/* A hit keeps the flow alive. Written now and then only, so that readers on other cores
 * do not pass the line to and fro for every packet. */
static inline void refresh(const struct otus_flow_registry *registry, struct otus_bucket *bucket,
                           uint32_t slot, struct entry *entry, uint64_t now_ns)
{
    uint64_t seen = otus_word_load(&entry->seen_ns);
    if (now_ns > seen && now_ns - seen > registry->ttl_ns / 16) {
        otus_word_store(&entry->seen_ns, now_ns);
        otus_slot_use(bucket, slot, otus_tick_of(now_ns));
    }
}

static inline void copy_word(struct otus_flow_value *out_value, const struct entry *entry,
                             uint32_t i)
{
    uint64_t word = otus_word_load(&entry->call_id[i]);
    memcpy(out_value->octets + (size_t)i * 8, &word, sizeof word);
}

static inline void copy_value(struct otus_flow_value *out_value, const struct entry *entry,
                              uint64_t form, uint32_t is_odd)
{
    uint32_t len = call_id_len(form);
    out_value->kind = kind_at(form, is_odd);
    out_value->len = (uint8_t)len;
    /* One line of it whatever the length: quicker than to ask after each word. */
#pragma GCC unroll 8
    for (uint32_t i = 0; i < LINE_WORDS; i++)
        copy_word(out_value, entry, i);
    for (uint32_t i = LINE_WORDS; i * 8 < len && i < CALL_ID_WORDS; i++)
        copy_word(out_value, entry, i);
}

enum lookup { LOOKUP_MISS, LOOKUP_HIT, LOOKUP_AGAIN };

/* One try at reading the bucket. */
static inline enum lookup look_up(struct otus_flow_registry *registry,
                                  struct otus_flow_value *out_value, const uint64_t *key,
                                  uint32_t is_odd, uint64_t hash, uint64_t now_ns)
{
    struct otus_table *table = &registry->tables.flows;
    struct otus_bucket *bucket = &table->buckets[otus_bucket_of(table, hash)];
    struct entry *entry = NULL;
    uint64_t form = 0;
    uint32_t before = __atomic_load_n(&bucket->sequence, __ATOMIC_ACQUIRE);
    if (before & 1)
        return LOOKUP_AGAIN;
    uint32_t slot = 0;
    bool is_found = false;
    for (uint32_t slots = otus_slots_of(bucket, hash); slots != 0 && !is_found;) {
        slot = otus_next_slot(&slots);
        entry = otus_item_at(table, bucket, slot);
        form = otus_word_load(&entry->form);
        is_found = key_equals(entry, key) && kind_at(form, is_odd) != 0;
    }
    bool is_alive = is_found && !is_expired(registry, entry, now_ns);
    if (is_alive)
        copy_value(out_value, entry, form, is_odd);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&bucket->sequence, __ATOMIC_RELAXED) != before)
        return LOOKUP_AGAIN;
    if (is_alive)
        refresh(registry, bucket, slot, entry, now_ns);
    return is_alive ? LOOKUP_HIT : LOOKUP_MISS;
}

static bool get(struct otus_flow_registry *registry, struct otus_flow_value *out_value,
                const uint64_t *key, uint32_t is_odd, uint64_t now_ns)
{
    uint64_t hash = hash_key(registry, key);
    for (uint32_t tries = 1;; tries++) {
        enum lookup result = look_up(registry, out_value, key, is_odd, hash, now_ns);
        if (OTUS_LIKELY(result != LOOKUP_AGAIN))
            return result == LOOKUP_HIT;
        if (tries % OTUS_TABLE_SPINS == 0)
            sched_yield(); /* the writer may have lost its processor */
    }
}

bool otus_flow_get(struct otus_flow_registry *registry, struct otus_flow_value *out_value,
                   const struct otus_flow_key *key, uint64_t now_ns)
{
    uint64_t words[KEY_WORDS];
    words_of_key(words, key);
    return get(registry, out_value, words, key->port & 1, now_ns);
}

/* The key of one end of a packet, of any peer. */
static inline void words_of_end(uint64_t out_words[KEY_WORDS], const struct otus_packet_meta *meta,
                                uint16_t port, const uint8_t ip[16])
{
    out_words[0] = first_word(meta->ip_version, meta->protocol, port, 0);
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
    uint32_t to_odd = meta->dst_port & 1, from_odd = meta->src_port & 1;
    words_of_end(to, meta, meta->dst_port, meta->dst_ip);
    if (get(registry, out_value, to, to_odd, now_ns))
        return true;
    words_of_end(from, meta, meta->src_port, meta->src_ip);
    if (OTUS_UNLIKELY(__atomic_load_n(&registry->has_peers, __ATOMIC_RELAXED) != 0)) {
        uint64_t back[KEY_WORDS];
        memcpy(back, from, sizeof back);
        set_peer(to, meta->src_port, meta->src_ip);
        set_peer(back, meta->dst_port, meta->dst_ip);
        if (get(registry, out_value, to, to_odd, now_ns) ||
            get(registry, out_value, back, from_odd, now_ns))
            return true;
    }
    return get(registry, out_value, from, from_odd, now_ns);
}

uint64_t otus_flow_ask_bucket(const struct otus_flow_registry *registry,
                              const struct otus_flow_key *key)
{
    const struct otus_table *table = &registry->tables.flows;
    uint64_t words[KEY_WORDS];
    words_of_key(words, key);
    uint64_t hash = hash_key(registry, words);
    __builtin_prefetch(&table->buckets[otus_bucket_of(table, hash)]);
    return hash;
}

bool otus_flow_ask_entry(const struct otus_flow_registry *registry, uint64_t hash)
{
    const struct otus_table *table = &registry->tables.flows;
    const struct otus_bucket *bucket = &table->buckets[otus_bucket_of(table, hash)];
    uint32_t slots = otus_slots_of(bucket, hash);
    if (slots == 0)
        return false;
    const struct entry *entry = otus_item_at(table, bucket, otus_next_slot(&slots));
    __builtin_prefetch(entry->key);
    __builtin_prefetch(entry->call_id); /* all of most */
    return true;
}

bool otus_flow_is_alive(const struct otus_flow_registry *registry, uint64_t endpoint,
                        uint64_t call_hash, uint64_t now_ns)
{
    const struct otus_table *table = &registry->tables.flows;
    const struct otus_bucket *bucket = &table->buckets[otus_bucket_of(table, endpoint)];
    for (uint32_t slots = otus_slots_of(bucket, endpoint); slots != 0;) {
        const struct entry *entry = otus_item_at(table, bucket, otus_next_slot(&slots));
        if (otus_word_load(&entry->call_hash) == call_hash && !is_expired(registry, entry, now_ns))
            return true;
    }
    return false;
}

void otus_flow_remove_endpoint(struct otus_flow_registry *registry, uint64_t endpoint,
                               uint64_t call_hash)
{
    struct otus_table *table = &registry->tables.flows;
    uint64_t hash = endpoint & ~(uint64_t)OTUS_PORTS_OF_HASH;
    struct otus_home home = otus_home_of(table, hash);
    uint32_t num_lost = 0;
    otus_stripe_take(home.stripe);
    for (uint32_t slots = otus_slots_of(home.bucket, hash); slots != 0;) {
        uint32_t slot = otus_next_slot(&slots);
        const struct entry *entry = otus_item_at(table, home.bucket, slot);
        if (entry->call_hash == call_hash && hash_key(registry, entry->key) == hash)
            num_lost += drop_ports(table, home, slot, endpoint & OTUS_PORTS_OF_HASH);
    }
    otus_stripe_give(home.stripe);
    count_by(registry, 0 - num_lost);
}

uint32_t otus_flow_count(const struct otus_flow_registry *registry)
{
    return __atomic_load_n(&registry->count, __ATOMIC_RELAXED);
}
