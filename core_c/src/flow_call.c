/* The call table of the flow registry: which endpoints a call has, and when they go.
 *
 * A Call-ID may stand for several dialogs: a forked INVITE is answered by several phones
 * (RFC 3261 12.1), a B2BUA may keep the Call-ID on both of its legs. So each endpoint is
 * noted with its party's tag, and goes when the last dialog of that party is over. */
#include "flow_internal.h"

/* The records of the bucket that a Call-ID belongs to. */
struct records {
    struct otus_flow_registry *registry;
    struct otus_home home;
    uint64_t hash;
    uint64_t now_ns; /* of the message */
    struct otus_counters *counters;
};

/* Endpoints to remove, taken out of the records under their lock: writers hold one lock at
 * a time. */
struct leaving {
    uint64_t endpoint[OTUS_TABLE_SLOTS * OTUS_CALL_ENDPOINTS];
    uint32_t num;
};

static struct records records_of(struct otus_flow_registry *registry, uint64_t call_hash,
                                 uint64_t now_ns, struct otus_counters *counters)
{
    struct otus_home home = otus_home_of(&registry->tables.calls, call_hash);
    return (struct records){registry, home, call_hash, now_ns, counters};
}

static struct records records_of_call_id(struct otus_flow_registry *registry,
                                         struct otus_slice call_id, uint64_t now_ns,
                                         struct otus_counters *counters)
{
    return records_of(registry, otus_flow_hash_call(registry, call_id), now_ns, counters);
}

static uint32_t slots_of(const struct records *records)
{
    return otus_slots_of(records->home.bucket, records->hash);
}

static struct otus_call *record_at(const struct records *records, uint32_t slot)
{
    return otus_item_at(&records->registry->tables.calls, records->home.bucket, slot);
}

static void use_slot(const struct records *records, uint32_t slot)
{
    otus_slot_use(records->home.bucket, slot, otus_tick_of(records->now_ns));
}

/* The call's next record, of those that slots still names; NULL behind the last. */
static struct otus_call *next_record(const struct records *records, uint32_t *slots,
                                     uint32_t *out_slot)
{
    while (*slots != 0) {
        *out_slot = otus_next_slot(slots);
        struct otus_call *call = record_at(records, *out_slot);
        if (call->hash == records->hash)
            return call;
    }
    return NULL;
}

/* OTUS_TABLE_SLOTS: the call has no head. */
static uint32_t find_head_slot(const struct records *records)
{
    const struct otus_call *call;
    uint32_t slot;
    for (uint32_t slots = slots_of(records); (call = next_record(records, &slots, &slot)) != NULL;)
        if (call->is_head)
            return slot;
    return OTUS_TABLE_SLOTS;
}

static struct otus_call *find_head(const struct records *records)
{
    uint32_t slot = find_head_slot(records);
    return slot == OTUS_TABLE_SLOTS ? NULL : record_at(records, slot);
}

/* Whether anything was heard of the call within the TTL: a message, or media of an endpoint. */
static bool is_in_use(const struct records *records, const struct otus_call *call, uint32_t slot)
{
    uint32_t used = otus_slot_used(records->home.bucket, slot);
    if (otus_ticks_between(used, otus_tick_of(records->now_ns)) <=
        otus_flow_ttl_ticks(records->registry))
        return true;
    for (uint32_t k = 0; k < call->num_endpoints; k++)
        if (otus_flow_is_alive(records->registry, call->endpoint[k], call->hash, records->now_ns))
            return true;
    return false;
}

/* A new record, where the bucket is full in place of the oldest one. A call keeps its head, which
 * alone knows of dialogs. */
static struct otus_call *add_record(const struct records *records)
{
    uint32_t head = find_head_slot(records);
    uint32_t kept = head == OTUS_TABLE_SLOTS ? 0 : 1u << head;
    uint32_t slot = otus_slot_take(&records->registry->tables.calls, records->home,
                                   otus_tick_of(records->now_ns), kept);
    struct otus_call *call = record_at(records, slot);
    if (records->home.bucket->tag[slot] != 0 && records->counters != NULL &&
        is_in_use(records, call, slot))
        otus_count(records->counters, OTUS_COUNT_CALLS_EVICTED);
    *call = (struct otus_call){.hash = records->hash, .is_head = kept == 0};
    otus_slot_name(records->home.bucket, slot, records->hash);
    use_slot(records, slot);
    return call;
}

static struct otus_call *take_head(const struct records *records)
{
    uint32_t slot = find_head_slot(records);
    if (slot == OTUS_TABLE_SLOTS)
        return add_record(records);
    use_slot(records, slot);
    return record_at(records, slot);
}

static void drop_endpoint(struct otus_call *call, uint32_t k)
{
    uint32_t last = --call->num_endpoints;
    call->endpoint[k] = call->endpoint[last];
    call->owner[k] = call->owner[last];
}

/* The ports of an endpoint go with one party; those of a pair may go with two. */
static bool has_endpoint(struct otus_call *call, uint64_t endpoint, uint32_t owner)
{
    const uint64_t ports = endpoint & OTUS_PORTS_OF_HASH;
    bool is_there = false;
    for (uint32_t k = call->num_endpoints; k-- > 0;) {
        if ((call->endpoint[k] ^ endpoint) > OTUS_PORTS_OF_HASH)
            continue;
        if (call->owner[k] == owner) {
            call->endpoint[k] |= ports;
            is_there = true;
            continue;
        }
        call->endpoint[k] &= ~ports;
        if ((call->endpoint[k] & OTUS_PORTS_OF_HASH) == 0)
            drop_endpoint(call, k);
    }
    return is_there;
}

static void note_endpoint(const struct records *records, uint64_t endpoint, uint32_t owner)
{
    struct otus_call *call, *room = NULL;
    uint32_t slot, slot_with_room = 0;
    bool is_there = false;
    for (uint32_t slots = slots_of(records);
         (call = next_record(records, &slots, &slot)) != NULL;) {
        if (has_endpoint(call, endpoint, owner)) {
            use_slot(records, slot);
            is_there = true;
        } else if (call->num_endpoints < OTUS_CALL_ENDPOINTS) {
            room = call;
            slot_with_room = slot;
        }
    }
    if (is_there)
        return;
    if (room != NULL)
        use_slot(records, slot_with_room);
    else
        room = add_record(records);
    room->endpoint[room->num_endpoints] = endpoint;
    room->owner[room->num_endpoints++] = owner;
}

void otus_flow_note_endpoints(struct otus_flow_registry *registry, uint64_t call_hash,
                              const uint64_t *endpoints, uint32_t num, uint32_t owner,
                              uint64_t now_ns, struct otus_counters *counters)
{
    struct records records = records_of(registry, call_hash, now_ns, counters);
    otus_stripe_take(records.home.stripe);
    for (uint32_t i = 0; i < num; i++)
        note_endpoint(&records, endpoints[i], owner);
    otus_stripe_give(records.home.stripe);
}

static void add_invite(struct otus_call *head, uint32_t branch)
{
    for (uint32_t i = 0; i < head->num_invites; i++)
        if (head->invite[i] == branch)
            return;
    if (head->num_invites == OTUS_CALL_INVITES)
        head->has_more = true;
    else
        head->invite[head->num_invites++] = branch;
}

static void drop_invite(struct otus_call *head, uint32_t branch)
{
    for (uint32_t i = 0; i < head->num_invites; i++)
        if (head->invite[i] == branch)
            head->invite[i] = head->invite[--head->num_invites];
}

static uint32_t find_dialog(const struct otus_call *head, uint32_t one, uint32_t other)
{
    uint32_t i = 0;
    while (i < head->num_dialogs && !(head->dialog[i][0] == one && head->dialog[i][1] == other) &&
           !(head->dialog[i][0] == other && head->dialog[i][1] == one))
        i++;
    return i;
}

static void add_dialog(struct otus_call *head, uint32_t one, uint32_t other)
{
    if (find_dialog(head, one, other) != head->num_dialogs)
        return;
    if (head->num_dialogs == OTUS_CALL_DIALOGS) {
        head->has_more = true;
        return;
    }
    head->dialog[head->num_dialogs][0] = one;
    head->dialog[head->num_dialogs++][1] = other;
}

static void drop_dialog(struct otus_call *head, uint32_t one, uint32_t other)
{
    uint32_t at = find_dialog(head, one, other);
    if (at == head->num_dialogs)
        return;
    uint32_t last = --head->num_dialogs;
    head->dialog[at][0] = head->dialog[last][0];
    head->dialog[at][1] = head->dialog[last][1];
}

static bool is_in_dialog(const struct otus_call *head, uint32_t tag)
{
    for (uint32_t i = 0; i < head->num_dialogs; i++)
        if (head->dialog[i][0] == tag || head->dialog[i][1] == tag)
            return true;
    return false;
}

/* Takes the party's endpoints out of the record, unless it is in a dialog still. */
static void leave_party(struct leaving *leaving, struct otus_call *call,
                        const struct otus_call *head, uint32_t tag)
{
    if (tag == 0 || is_in_dialog(head, tag))
        return;
    for (uint32_t k = call->num_endpoints; k-- > 0;) {
        if (call->owner[k] != tag)
            continue;
        leaving->endpoint[leaving->num++] = call->endpoint[k];
        drop_endpoint(call, k);
    }
}

/* Takes out the endpoints of two parties, or of all where nothing of the call goes on.
 * The lock is held. */
static void leave(struct leaving *leaving, const struct records *records,
                  const struct otus_call *head, uint32_t one, uint32_t other)
{
    bool goes_on =
        head != NULL && (head->num_dialogs != 0 || head->num_invites != 0 || head->has_more);
    struct otus_call *call;
    uint32_t slot;
    leaving->num = 0;
    for (uint32_t slots = slots_of(records);
         (call = next_record(records, &slots, &slot)) != NULL;) {
        if (goes_on) {
            leave_party(leaving, call, head, one);
            leave_party(leaving, call, head, other);
            continue;
        }
        for (uint32_t k = 0; k < call->num_endpoints; k++)
            leaving->endpoint[leaving->num++] = call->endpoint[k];
        otus_slot_drop(&records->registry->tables.calls, records->home, slot);
    }
}

static void remove_all(struct otus_flow_registry *registry, const struct leaving *leaving,
                       uint64_t call_hash)
{
    for (uint32_t i = 0; i < leaving->num; i++)
        otus_flow_ask_endpoint(registry, leaving->endpoint[i]);
    for (uint32_t i = 0; i < leaving->num; i++)
        otus_flow_remove_endpoint(registry, leaving->endpoint[i], call_hash);
}

void otus_flow_invited(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog,
                       bool has_offer, uint64_t now_ns, struct otus_counters *counters)
{
    struct records records = records_of_call_id(registry, dialog->call_id, now_ns, counters);
    uint32_t from = otus_flow_hash_text(registry, dialog->from_tag);
    uint32_t to = otus_flow_hash_text(registry, dialog->to_tag);
    uint32_t branch = otus_flow_hash_text(registry, dialog->branch);
    otus_stripe_take(records.home.stripe);
    struct otus_call *head = take_head(&records);
    head->is_offerless = !has_offer;
    head->offerless_cseq = dialog->cseq;
    if (to != 0) /* RFC 3261 12.2: within a dialog, whose beginning may not have been seen */
        add_dialog(head, from, to);
    else
        add_invite(head, branch);
    otus_stripe_give(records.home.stripe);
}

bool otus_flow_is_offerless(struct otus_flow_registry *registry,
                            const struct otus_flow_dialog *dialog)
{
    struct records records = records_of_call_id(registry, dialog->call_id, 0, NULL);
    otus_stripe_take(records.home.stripe);
    const struct otus_call *head = find_head(&records);
    bool is_offerless = head != NULL && head->is_offerless && head->offerless_cseq == dialog->cseq;
    otus_stripe_give(records.home.stripe);
    return is_offerless;
}

void otus_flow_challenged(struct otus_flow_registry *registry,
                          const struct otus_flow_dialog *dialog)
{
    struct records records = records_of_call_id(registry, dialog->call_id, 0, NULL);
    uint32_t branch = otus_flow_hash_text(registry, dialog->branch);
    otus_stripe_take(records.home.stripe);
    struct otus_call *head = find_head(&records);
    if (head != NULL)
        drop_invite(head, branch);
    otus_stripe_give(records.home.stripe);
}

void otus_flow_answered(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog,
                        uint64_t now_ns, struct otus_counters *counters)
{
    struct records records = records_of_call_id(registry, dialog->call_id, now_ns, counters);
    uint32_t from = otus_flow_hash_text(registry, dialog->from_tag);
    uint32_t to = otus_flow_hash_text(registry, dialog->to_tag);
    uint32_t branch = otus_flow_hash_text(registry, dialog->branch);
    otus_stripe_take(records.home.stripe);
    struct otus_call *head = take_head(&records);
    drop_invite(head, branch);
    add_dialog(head, from, to);
    otus_stripe_give(records.home.stripe);
}

void otus_flow_refused(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog)
{
    struct records records = records_of_call_id(registry, dialog->call_id, 0, NULL);
    uint32_t to = otus_flow_hash_text(registry, dialog->to_tag);
    uint32_t branch = otus_flow_hash_text(registry, dialog->branch);
    struct leaving leaving;
    otus_stripe_take(records.home.stripe);
    struct otus_call *head = find_head(&records);
    if (head != NULL)
        drop_invite(head, branch);
    leave(&leaving, &records, head, to, 0);
    otus_stripe_give(records.home.stripe);
    remove_all(registry, &leaving, records.hash);
}

void otus_flow_ended(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog)
{
    struct records records = records_of_call_id(registry, dialog->call_id, 0, NULL);
    uint32_t from = otus_flow_hash_text(registry, dialog->from_tag);
    uint32_t to = otus_flow_hash_text(registry, dialog->to_tag);
    struct leaving leaving;
    otus_stripe_take(records.home.stripe);
    struct otus_call *head = find_head(&records);
    if (head != NULL)
        drop_dialog(head, from, to);
    leave(&leaving, &records, head, from, to);
    otus_stripe_give(records.home.stripe);
    remove_all(registry, &leaving, records.hash);
}
