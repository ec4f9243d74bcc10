/* The call table of the flow registry: which endpoints a call has, and when they go.
 *
 * A Call-ID may stand for several dialogs: a forked INVITE is answered by several phones
 * (RFC 3261 12.1), a B2BUA may keep the Call-ID on both of its legs. So each endpoint is
 * noted with its party's tag, and goes when the last dialog of that party is over. */
#include "flow_internal.h"

/* The records of the bucket that a Call-ID belongs to. */
struct records {
    struct otus_call *calls;
    struct otus_lock *lock;
    uint64_t hash;
};

/* Endpoints to remove, taken out of the records under their lock: writers hold one lock at
 * a time. */
struct leaving {
    uint64_t endpoint[OTUS_CALL_SLOTS * OTUS_CALL_ENDPOINTS];
    uint32_t num;
};

static struct records records_of(struct otus_flow_registry *registry, uint64_t call_hash)
{
    uint32_t bucket = otus_bucket_of(call_hash, registry->num_call_buckets);
    return (struct records){registry->calls + (size_t)bucket * OTUS_CALL_SLOTS,
                            &registry->call_locks[bucket % OTUS_FLOW_LOCKS], call_hash};
}

static struct records records_of_call_id(struct otus_flow_registry *registry,
                                         struct otus_slice call_id)
{
    struct otus_flow_value value = {0};
    otus_flow_set_call_id(&value, call_id);
    return records_of(registry, otus_flow_hash_call(registry, &value));
}

static struct otus_call *find_head(const struct records *records)
{
    for (uint32_t i = 0; i < OTUS_CALL_SLOTS; i++)
        if (records->calls[i].hash == records->hash && records->calls[i].is_head)
            return &records->calls[i];
    return NULL;
}

/* A new record in place of the oldest of the bucket; a free one is oldest. */
static struct otus_call *add_record(const struct records *records, uint64_t now_ns)
{
    bool has_head = find_head(records) != NULL;
    struct otus_call *oldest = &records->calls[0];
    for (uint32_t i = 1; i < OTUS_CALL_SLOTS; i++)
        if (records->calls[i].put_ns < oldest->put_ns)
            oldest = &records->calls[i];
    *oldest = (struct otus_call){
        .hash = records->hash, .put_ns = now_ns == 0 ? 1 : now_ns, .is_head = !has_head};
    return oldest;
}

static struct otus_call *take_head(const struct records *records, uint64_t now_ns)
{
    struct otus_call *head = find_head(records);
    if (head == NULL)
        return add_record(records, now_ns);
    head->put_ns = now_ns == 0 ? 1 : now_ns;
    return head;
}

void otus_flow_note_endpoint(struct otus_flow_registry *registry, uint64_t call_hash,
                             uint64_t endpoint, uint32_t owner, uint64_t now_ns)
{
    struct records records = records_of(registry, call_hash);
    struct otus_call *room = NULL;
    otus_lock_take(records.lock);
    for (uint32_t i = 0; i < OTUS_CALL_SLOTS; i++) {
        struct otus_call *call = &records.calls[i];
        if (call->hash != call_hash)
            continue;
        for (uint32_t k = 0; k < call->num_endpoints; k++) {
            if (call->endpoint[k] == endpoint) {
                call->owner[k] = owner;
                call->put_ns = now_ns == 0 ? 1 : now_ns;
                otus_lock_give(records.lock);
                return;
            }
        }
        if (call->num_endpoints < OTUS_CALL_ENDPOINTS)
            room = call;
    }
    if (room == NULL)
        room = add_record(&records, now_ns);
    room->put_ns = now_ns == 0 ? 1 : now_ns;
    room->endpoint[room->num_endpoints] = endpoint;
    room->owner[room->num_endpoints++] = owner;
    otus_lock_give(records.lock);
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
        uint32_t last = --call->num_endpoints;
        call->endpoint[k] = call->endpoint[last];
        call->owner[k] = call->owner[last];
    }
}

/* Takes out the endpoints of two parties, or of all where nothing of the call goes on.
 * The lock is held. */
static void leave(struct leaving *leaving, const struct records *records,
                  const struct otus_call *head, uint32_t one, uint32_t other)
{
    bool goes_on =
        head != NULL && (head->num_dialogs != 0 || head->num_invites != 0 || head->has_more);
    leaving->num = 0;
    for (uint32_t i = 0; i < OTUS_CALL_SLOTS; i++) {
        struct otus_call *call = &records->calls[i];
        if (call->hash != records->hash)
            continue;
        if (goes_on) {
            leave_party(leaving, call, head, one);
            leave_party(leaving, call, head, other);
            continue;
        }
        for (uint32_t k = 0; k < call->num_endpoints; k++)
            leaving->endpoint[leaving->num++] = call->endpoint[k];
        *call = (struct otus_call){0};
    }
}

static void remove_all(struct otus_flow_registry *registry, const struct leaving *leaving,
                       uint64_t call_hash)
{
    for (uint32_t i = 0; i < leaving->num; i++)
        otus_flow_remove_endpoint(registry, leaving->endpoint[i], call_hash);
}

void otus_flow_invited(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog,
                       bool has_offer, uint64_t now_ns)
{
    struct records records = records_of_call_id(registry, dialog->call_id);
    uint32_t from = otus_flow_hash_text(registry, dialog->from_tag);
    uint32_t to = otus_flow_hash_text(registry, dialog->to_tag);
    uint32_t branch = otus_flow_hash_text(registry, dialog->branch);
    otus_lock_take(records.lock);
    struct otus_call *head = take_head(&records, now_ns);
    head->is_offerless = !has_offer;
    head->offerless_cseq = dialog->cseq;
    if (to != 0) /* RFC 3261 12.2: within a dialog, whose beginning may not have been seen */
        add_dialog(head, from, to);
    else
        add_invite(head, branch);
    otus_lock_give(records.lock);
}

bool otus_flow_is_offerless(struct otus_flow_registry *registry,
                            const struct otus_flow_dialog *dialog)
{
    struct records records = records_of_call_id(registry, dialog->call_id);
    otus_lock_take(records.lock);
    const struct otus_call *head = find_head(&records);
    bool is_offerless = head != NULL && head->is_offerless && head->offerless_cseq == dialog->cseq;
    otus_lock_give(records.lock);
    return is_offerless;
}

void otus_flow_challenged(struct otus_flow_registry *registry,
                          const struct otus_flow_dialog *dialog)
{
    struct records records = records_of_call_id(registry, dialog->call_id);
    uint32_t branch = otus_flow_hash_text(registry, dialog->branch);
    otus_lock_take(records.lock);
    struct otus_call *head = find_head(&records);
    if (head != NULL)
        drop_invite(head, branch);
    otus_lock_give(records.lock);
}

void otus_flow_answered(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog,
                        uint64_t now_ns)
{
    struct records records = records_of_call_id(registry, dialog->call_id);
    uint32_t from = otus_flow_hash_text(registry, dialog->from_tag);
    uint32_t to = otus_flow_hash_text(registry, dialog->to_tag);
    uint32_t branch = otus_flow_hash_text(registry, dialog->branch);
    otus_lock_take(records.lock);
    struct otus_call *head = take_head(&records, now_ns);
    drop_invite(head, branch);
    add_dialog(head, from, to);
    otus_lock_give(records.lock);
}

void otus_flow_refused(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog)
{
    struct records records = records_of_call_id(registry, dialog->call_id);
    uint32_t to = otus_flow_hash_text(registry, dialog->to_tag);
    uint32_t branch = otus_flow_hash_text(registry, dialog->branch);
    struct leaving leaving;
    otus_lock_take(records.lock);
    struct otus_call *head = find_head(&records);
    if (head != NULL)
        drop_invite(head, branch);
    leave(&leaving, &records, head, to, 0);
    otus_lock_give(records.lock);
    remove_all(registry, &leaving, records.hash);
}

void otus_flow_ended(struct otus_flow_registry *registry, const struct otus_flow_dialog *dialog)
{
    struct records records = records_of_call_id(registry, dialog->call_id);
    uint32_t from = otus_flow_hash_text(registry, dialog->from_tag);
    uint32_t to = otus_flow_hash_text(registry, dialog->to_tag);
    struct leaving leaving;
    otus_lock_take(records.lock);
    struct otus_call *head = find_head(&records);
    if (head != NULL)
        drop_dialog(head, from, to);
    leave(&leaving, &records, head, from, to);
    otus_lock_give(records.lock);
    remove_all(registry, &leaving, records.hash);
}
