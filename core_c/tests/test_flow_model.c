/* The flow registry beside a model of it: any sequence of what messages and packets do gives what
 * a table without hashes, buckets and pool gives, and no item is lost or given out twice. */
#include "flow_internal.h"

#include <stdlib.h>

#include "check.h"

enum {
    NUM_CALLS = 6,
    NUM_TAGS = 4, /* the first is none */
    NUM_HOSTS = 3,
    NUM_PEERS = 2, /* the first is any */
    NUM_PORTS = 6,
    NUM_ENDPOINTS = NUM_HOSTS * NUM_PEERS * NUM_PORTS,
    TTL_MS = 1000,
};
static const uint64_t TTL_NS = (uint64_t)TTL_MS * 1000000;

/* --- the model --- */

struct model_dialog {
    uint32_t one, other;
};

struct model_call {
    uint32_t owner[NUM_ENDPOINTS]; /* 1 and the tag; 0: not the call's */
    struct model_dialog dialogs[OTUS_CALL_DIALOGS];
    uint32_t num_dialogs;
    bool has_invite[NUM_TAGS]; /* by branch */
    bool has_more;
    bool is_known, is_offerless;
    uint32_t offerless_cseq;
};

struct model {
    uint8_t kind[NUM_ENDPOINTS]; /* 0: none */
    uint32_t call[NUM_ENDPOINTS];
    uint64_t seen_ns[NUM_CALLS][NUM_ENDPOINTS / 2]; /* of a call's ports of a pair */
    struct model_call calls[NUM_CALLS];
};

static uint64_t *seen_of(struct model *model, uint32_t endpoint)
{
    return &model->seen_ns[model->call[endpoint]][endpoint / 2];
}

static bool model_has(struct model *model, uint32_t endpoint, uint64_t now)
{
    uint64_t seen = *seen_of(model, endpoint);
    return model->kind[endpoint] != 0 && !(now > seen && now - seen > TTL_NS);
}

static void model_put(struct model *model, uint32_t call, uint32_t pair, const uint8_t kind[2],
                      uint32_t owner, uint64_t now)
{
    for (uint32_t port = 2 * pair; port < 2 * pair + 2; port++)
        if (model->kind[port] != 0 && model->call[port] == call && !model_has(model, port, now))
            model->kind[port] = 0;
    for (uint32_t i = 0; i < 2; i++) {
        if (kind[i] == 0)
            continue;
        model->kind[2 * pair + i] = kind[i];
        model->call[2 * pair + i] = call;
        model->calls[call].owner[2 * pair + i] = 1 + owner;
    }
    model->seen_ns[call][pair] = now;
    model->calls[call].is_known = true;
}

/* What is over may have been swept already: it is not to be there again. */
static bool model_would_revive(struct model *model, uint64_t now, uint64_t earlier)
{
    bool would = false;
    for (uint32_t i = 0; i < NUM_ENDPOINTS; i++)
        would |= model->kind[i] != 0 && !model_has(model, i, now) && model_has(model, i, earlier);
    return would;
}

static void model_hit(struct model *model, uint32_t endpoint, uint64_t now)
{
    uint64_t *seen = seen_of(model, endpoint);
    if (now > *seen && now - *seen > TTL_NS / 16)
        *seen = now;
}

static struct model_dialog *model_dialog_of(struct model_call *call, uint32_t one, uint32_t other)
{
    for (uint32_t i = 0; i < call->num_dialogs; i++) {
        struct model_dialog *dialog = &call->dialogs[i];
        if ((dialog->one == one && dialog->other == other) ||
            (dialog->one == other && dialog->other == one))
            return dialog;
    }
    return NULL;
}

static void model_add_dialog(struct model_call *call, uint32_t one, uint32_t other)
{
    if (model_dialog_of(call, one, other) != NULL)
        return;
    if (call->num_dialogs == OTUS_CALL_DIALOGS)
        call->has_more = true;
    else
        call->dialogs[call->num_dialogs++] = (struct model_dialog){one, other};
}

static bool model_is_in_dialog(const struct model_call *call, uint32_t tag)
{
    for (uint32_t i = 0; i < call->num_dialogs; i++)
        if (call->dialogs[i].one == tag || call->dialogs[i].other == tag)
            return true;
    return false;
}

static bool model_goes_on(const struct model_call *call)
{
    bool goes_on = call->num_dialogs != 0 || call->has_more;
    for (uint32_t i = 0; i < NUM_TAGS; i++)
        goes_on |= call->has_invite[i];
    return goes_on;
}

/* What the end of a dialog between two parties takes away. */
static void model_leave(struct model *model, uint32_t number, uint32_t one, uint32_t other)
{
    struct model_call *call = &model->calls[number];
    bool goes_on = model_goes_on(call);
    for (uint32_t i = 0; i < NUM_ENDPOINTS; i++) {
        uint32_t tag = call->owner[i] - 1;
        bool leaves = (tag == one || tag == other) && tag != 0 && !model_is_in_dialog(call, tag);
        if (call->owner[i] == 0 || (goes_on && !leaves))
            continue;
        call->owner[i] = 0;
        if (model->call[i] == number)
            model->kind[i] = 0;
    }
    if (!goes_on)
        *call = (struct model_call){0};
}

/* --- what is done to both --- */

struct run {
    struct otus_flow_registry *registry;
    struct otus_counters counters;
    struct model model;
    uint64_t random;
    uint64_t now;
    bool is_small; /* what is there may give way, and what is over be there still */
};

static uint32_t draw(struct run *run, uint32_t num)
{
    run->random = run->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((run->random >> 33) % num);
}

static struct otus_flow_key key_of(uint32_t endpoint)
{
    static const uint16_t ports[NUM_PORTS] = {4000, 4001, 4002, 4003, 65534, 65535};
    uint32_t host = endpoint / NUM_PORTS % NUM_HOSTS;
    struct otus_flow_key key = {
        .ip_version = host == 2 ? 6 : 4, .protocol = 17, .port = ports[endpoint % NUM_PORTS]};
    key.ip[0] = (uint8_t)(1 + host % 2); /* the third looks as the first, but for its version */
    if (endpoint / (NUM_PORTS * NUM_HOSTS) != 0) {
        key.peer_ip[0] = 9;
        key.peer_port = 9000;
    }
    return key;
}

/* Those of several lengths: less than a word, a few, more than a line, and more than is kept. */
static struct otus_slice call_id_of(uint32_t call)
{
    static const uint32_t lens[NUM_CALLS] = {1, 7, 24, 64, 100, 300};
    static uint8_t octets[NUM_CALLS][300];
    memset(octets[call], 'a' + (int)call, lens[call]);
    return (struct otus_slice){octets[call], lens[call]};
}

static struct otus_slice text_of(uint32_t tag)
{
    static const char *const texts[NUM_TAGS] = {"", "t1", "a tag of some octets", "t3"};
    return (struct otus_slice){(const uint8_t *)texts[tag], (uint32_t)strlen(texts[tag])};
}

static void put(struct run *run)
{
    struct otus_flow_ports ports[3];
    uint32_t call = draw(run, NUM_CALLS), owner = draw(run, NUM_TAGS), num = 1 + draw(run, 3);
    struct otus_flow_value value;
    otus_flow_set_call_id(&value, call_id_of(call));
    for (uint32_t i = 0; i < num; i++) {
        uint32_t endpoint = draw(run, NUM_ENDPOINTS);
        uint8_t kind[2] = {(uint8_t)draw(run, 4), (uint8_t)draw(run, 4)};
        if (kind[0] == 0 && kind[1] == 0)
            kind[endpoint & 1] = OTUS_FLOW_RTP;
        ports[i] = (struct otus_flow_ports){key_of(endpoint), {kind[0], kind[1]}};
        model_put(&run->model, call, endpoint / 2, kind, owner, run->now);
    }
    otus_flow_put_ports(run->registry, ports, num, &value, text_of(owner), run->now,
                        &run->counters);
}

static void check_value(struct run *run, const struct otus_flow_value *got, uint32_t endpoint)
{
    struct otus_flow_value want;
    otus_flow_set_call_id(&want, call_id_of(run->model.call[endpoint]));
    CHECK_OCTETS(got->octets, got->len, want.octets, want.len);
    if (!run->is_small)
        CHECK_EQ(got->kind, run->model.kind[endpoint]);
}

static void get(struct run *run)
{
    uint32_t endpoint = draw(run, NUM_ENDPOINTS);
    struct otus_flow_key key = key_of(endpoint);
    struct otus_flow_value got;
    bool is_there = otus_flow_get(run->registry, &got, &key, run->now);
    if (!run->is_small)
        CHECK_EQ(is_there, model_has(&run->model, endpoint, run->now));
    if (is_there) {
        check_value(run, &got, endpoint);
        model_hit(&run->model, endpoint, run->now);
    }
}

/* The call that a packet belongs to, as the registry's four questions have it. */
static void find(struct run *run)
{
    uint32_t any = draw(run, NUM_ENDPOINTS / NUM_PEERS);
    struct otus_flow_key key = key_of(any);
    struct otus_packet_meta meta = {
        .ip_version = key.ip_version, .protocol = 17, .src_port = 9000, .dst_port = key.port};
    bool is_back = draw(run, 2) != 0;
    memcpy(meta.dst_ip, key.ip, sizeof key.ip);
    meta.src_ip[0] = 9;
    if (is_back) {
        struct otus_packet_meta there = meta;
        meta.src_port = there.dst_port, meta.dst_port = there.src_port;
        memcpy(meta.src_ip, there.dst_ip, sizeof meta.src_ip);
        memcpy(meta.dst_ip, there.src_ip, sizeof meta.dst_ip);
    }
    uint32_t peered = any + NUM_ENDPOINTS / NUM_PEERS;
    uint32_t first = is_back ? peered : any, second = is_back ? any : peered;
    bool has_first = model_has(&run->model, first, run->now);
    bool has_second = model_has(&run->model, second, run->now);
    struct otus_flow_value got;
    bool is_there = otus_flow_find(run->registry, &got, &meta, run->now);
    if (run->is_small)
        return;
    CHECK_EQ(is_there, has_first || has_second);
    if (!is_there || (!has_first && !has_second))
        return;
    check_value(run, &got, has_first ? first : second);
    model_hit(&run->model, has_first ? first : second, run->now);
}

static void step_dialog(struct run *run)
{
    uint32_t number = draw(run, NUM_CALLS), from = draw(run, NUM_TAGS), to = draw(run, NUM_TAGS);
    uint32_t branch = draw(run, NUM_TAGS), what = draw(run, 6);
    struct model_call *call = &run->model.calls[number];
    struct otus_flow_dialog dialog = {.call_id = call_id_of(number),
                                      .from_tag = text_of(from),
                                      .to_tag = text_of(to),
                                      .branch = text_of(branch),
                                      .cseq = draw(run, 3)};
    struct model_dialog *known;
    switch (what) {
    case 0:
        otus_flow_invited(run->registry, &dialog, dialog.cseq == 1, run->now, &run->counters);
        call->is_offerless = dialog.cseq != 1;
        call->offerless_cseq = dialog.cseq;
        call->is_known = true;
        if (to != 0)
            model_add_dialog(call, from, to);
        else
            call->has_invite[branch] = true;
        break;
    case 1:
        otus_flow_answered(run->registry, &dialog, run->now, &run->counters);
        call->has_invite[branch] = false;
        call->is_known = true;
        model_add_dialog(call, from, to);
        break;
    case 2:
        otus_flow_challenged(run->registry, &dialog);
        call->has_invite[branch] = false;
        break;
    case 3:
        otus_flow_refused(run->registry, &dialog);
        call->has_invite[branch] = false;
        model_leave(&run->model, number, to, 0);
        break;
    case 4:
        otus_flow_ended(run->registry, &dialog);
        known = model_dialog_of(call, from, to);
        if (known != NULL)
            *known = call->dialogs[--call->num_dialogs];
        model_leave(&run->model, number, from, to);
        break;
    default:
        if (!run->is_small)
            CHECK_EQ(otus_flow_is_offerless(run->registry, &dialog),
                     call->is_offerless && call->offerless_cseq == dialog.cseq);
    }
}

/* As clocks do. */
static void step_back(struct run *run)
{
    uint64_t earlier = run->now - (uint64_t)draw(run, 40) * 1000000;
    if (!model_would_revive(&run->model, run->now, earlier))
        run->now = earlier;
}

/* --- items: each is in one slot, in one stripe's list, or among those that a stripe took at
 * once --- */

static void mark(uint8_t *is_marked, uint32_t num, uint32_t item)
{
    if (CHECK(item >= 1 && item < num))
        CHECK_EQ(is_marked[item]++, 0);
}

static uint32_t mark_table(const struct otus_table *table, uint8_t *is_marked, uint32_t num)
{
    uint32_t num_used = 0;
    for (uint32_t i = 0; i < table->num_buckets; i++) {
        CHECK_EQ(table->buckets[i].sequence & 1, 0);
        for (uint32_t slot = 0; slot < OTUS_TABLE_SLOTS; slot++)
            if (table->buckets[i].tag[slot] != 0) {
                mark(is_marked, num, table->buckets[i].item[slot]);
                num_used++;
            }
    }
    for (uint32_t i = 0; i < OTUS_TABLE_STRIPES; i++) {
        const struct otus_stripe *stripe = &table->stripes[i];
        CHECK_EQ(stripe->held, 0);
        for (uint32_t item = stripe->next; item < stripe->end; item++)
            mark(is_marked, num, item);
        uint32_t left = num; /* of a list that may be a ring */
        for (uint32_t item = stripe->free; item != 0 && left-- > 0;) {
            uint64_t before;
            mark(is_marked, num, item);
            memcpy(&before, table->pool->items + (size_t)item * OTUS_ITEM_OCTETS, sizeof before);
            item = (uint32_t)before;
        }
    }
    return num_used;
}

/* Returns how many items the calls have. */
static uint32_t check_items(const struct otus_flow_registry *registry)
{
    uint32_t num = registry->tables.pool.num_taken;
    uint8_t *is_marked = calloc(num, 1);
    if (!CHECK(is_marked != NULL))
        return 0;
    uint32_t num_flows = mark_table(&registry->tables.flows, is_marked, num);
    uint32_t num_calls = mark_table(&registry->tables.calls, is_marked, num);
    for (uint32_t item = 1; item < num; item++)
        CHECK_EQ(is_marked[item], 1);
    free(is_marked);
    CHECK(num_flows <= otus_flow_count(registry) && otus_flow_count(registry) <= 2 * num_flows);
    return num_calls;
}

static void end_all(struct run *run)
{
    for (uint32_t number = 0; number < NUM_CALLS; number++) {
        struct otus_flow_dialog dialog = {.call_id = call_id_of(number)};
        for (uint32_t from = 0; from < NUM_TAGS; from++)
            for (uint32_t to = 0; to < NUM_TAGS; to++) {
                dialog.from_tag = text_of(from);
                dialog.to_tag = text_of(to);
                dialog.branch = text_of(from);
                otus_flow_challenged(run->registry, &dialog);
                otus_flow_ended(run->registry, &dialog);
            }
    }
}

/* Of one call's records only: a bucket has room for all that a call has here, not for two calls'.
 */
static bool has_bucket_for_each(const struct otus_flow_registry *registry)
{
    uint32_t buckets[NUM_CALLS];
    for (uint32_t i = 0; i < NUM_CALLS; i++) {
        uint64_t hash = otus_flow_hash_call(registry, call_id_of(i));
        buckets[i] = otus_bucket_of(&registry->tables.calls, hash);
        for (uint32_t k = 0; k < i; k++)
            if (buckets[k] == buckets[i])
                return false;
    }
    return true;
}

/* In place of the registry's own seed, which is drawn by chance: a run that fails fails again. */
static void set_seed(struct run *run)
{
    uint64_t *seed = run->registry->seed;
    do
        for (uint32_t i = 0; i < 4; i++)
            seed[i] = (uint64_t)draw(run, UINT32_MAX) << 32 | draw(run, UINT32_MAX) | 1;
    while (!run->is_small && !has_bucket_for_each(run->registry));
}

static void run_steps(uint32_t max_flows, uint64_t seed, bool is_small)
{
    static struct run run;
    run = (struct run){.random = seed, .now = 1 << 30, .is_small = is_small};
    if (!CHECK(otus_flow_registry_new(&run.registry, max_flows, TTL_MS) == OTUS_OK))
        return;
    set_seed(&run);
    for (uint32_t i = 0; i < 3000; i++) {
        uint32_t what = draw(&run, 16);
        if (what < 5)
            put(&run);
        else if (what < 9)
            get(&run);
        else if (what < 12)
            find(&run);
        else if (what < 15)
            step_dialog(&run);
        else if (draw(&run, 4) != 0)
            run.now += (uint64_t)draw(&run, 400) * 1000000;
        else
            step_back(&run);
    }
    (void)check_items(run.registry);
    end_all(&run);
    if (!is_small) {
        CHECK_EQ(run.counters.value[OTUS_COUNT_FLOWS_EVICTED], 0);
        CHECK_EQ(run.counters.value[OTUS_COUNT_CALLS_EVICTED], 0);
    }
    bool has_more = false;
    for (uint32_t i = 0; i < NUM_CALLS; i++)
        has_more |= run.model.calls[i].has_more;
    uint32_t num_calls = check_items(run.registry);
    if (!is_small && !has_more) {
        CHECK_EQ(otus_flow_count(run.registry), 0);
        CHECK_EQ(num_calls, 0);
    }
    otus_flow_registry_free(run.registry);
}

int main(void)
{
    for (uint64_t seed = 0; seed < 100; seed++) {
        char about[32];
        snprintf(about, sizeof about, "seed %" PRIu64, seed);
        check_about = about;
        run_steps(4096, seed, false);
        run_steps((uint32_t)(1 + seed % 12), seed, true);
    }
    return check_summary();
}
