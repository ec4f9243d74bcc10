/* Names of header fields, methods and anomalies. */
#include <assert.h>
#include <stddef.h>

#include "sip_internal.h"

static const struct {
    const char *name;
    char compact;
} header_table[OTUS_SIP_NUM_HEADER_IDS] = {
#define HEADER_ROW(id, name, compact) [OTUS_SIP_HEADER_##id] = {(name), (compact)},
    OTUS_SIP_HEADERS(HEADER_ROW)
#undef HEADER_ROW
};

static const struct {
    const char *name;
    const char *meaning;
} anomaly_table[OTUS_SIP_NUM_ANOMALIES] = {
#define ANOMALY_ROW(id, name, meaning) [OTUS_SIP_ANOMALY_##id] = {(name), (meaning)},
    OTUS_SIP_ANOMALIES(ANOMALY_ROW)
#undef ANOMALY_ROW
};

static_assert(OTUS_SIP_NUM_ANOMALIES <= 64, "anomalies are bits of one 64-bit number");
static_assert(OTUS_SIP_NUM_HEADER_IDS < 255, "slots of the name table are octets");

const char *otus_sip_header_name(uint32_t id)
{
    return id < OTUS_SIP_NUM_HEADER_IDS ? header_table[id].name : NULL;
}

char otus_sip_header_compact(uint32_t id)
{
    return (char)(id < OTUS_SIP_NUM_HEADER_IDS ? header_table[id].compact : 0);
}

const char *otus_sip_anomaly_name(uint32_t id)
{
    return id < OTUS_SIP_NUM_ANOMALIES ? anomaly_table[id].name : NULL;
}

const char *otus_sip_anomaly_meaning(uint32_t id)
{
    return id < OTUS_SIP_NUM_ANOMALIES ? anomaly_table[id].meaning : NULL;
}

/* RFC 3261 25.1: token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~")
 * One bit an octet, sixty-four to a word. */
bool otus_sip_is_token_octet(uint8_t octet)
{
    static const uint64_t tokens[4] = {
        0x03ff6ca200000000u, /* ! % ' * + - . 0-9 */
        0x47ffffff87fffffeu, /* A-Z _ ` a-z ~ : bit 63 (DEL) clear, 62 (~) set */
        0,
        0,
    };
    return (tokens[octet >> 6] >> (octet & 63)) & 1;
}

bool otus_sip_is_token(struct otus_sip_text text, uint32_t from, uint32_t to)
{
    if (from >= to)
        return false;
    for (uint32_t i = from; i < to; i++)
        if (!otus_sip_is_token_octet(text.octets[i]))
            return false;
    return true;
}

static inline uint32_t name_hash(uint8_t first, uint8_t last, uint32_t len)
{
    uint32_t key = (uint32_t)(first & 0x1f) | (uint32_t)(last & 0x1f) << 5 | len << 10;
    return (key * 0x9e3779b1u) >> (32 - 7);
}
static_assert(OTUS_SIP_NAME_SLOTS == 1 << 7, "name_hash() gives seven bits");

static void name_init(struct otus_sip_name *out_name, const char *text, uint32_t id)
{
    *out_name = (struct otus_sip_name){.id = id, .len = (uint32_t)strlen(text)};
    for (uint32_t i = 0; i < out_name->len; i++) {
        uint8_t octet = otus_lower((uint8_t)text[i]);
        bool is_letter = octet >= 'a' && octet <= 'z';
        uint32_t shift = 8 * (i % 8);
        out_name->word[i / 8] |= (uint64_t)octet << shift;
        out_name->mask[i / 8] |= (uint64_t)0xff << shift;
        out_name->fold[i / 8] |= (uint64_t)(is_letter ? 0x20 : 0) << shift;
    }
}

void otus_sip_names_init(struct otus_sip_names *out_names)
{
    memset(out_names, 0, sizeof *out_names);
    for (uint32_t id = 1; id < OTUS_SIP_NUM_HEADER_IDS; id++) {
        const char *text = header_table[id].name;
        struct otus_sip_name *name = &out_names->name[id];
        name_init(name, text, id);
        uint32_t slot = name_hash((uint8_t)text[0], (uint8_t)text[name->len - 1], name->len);
        while (out_names->slot[slot] != 0) /* linear probing */
            slot = (slot + 1) % OTUS_SIP_NAME_SLOTS;
        out_names->slot[slot] = (uint8_t)id;
        if (header_table[id].compact != 0)
            out_names->compact[header_table[id].compact & 0x1f] = (uint8_t)id;
    }
}

static inline bool name_equals(const struct otus_sip_name *name, const uint8_t *at)
{
    uint64_t differs = ((otus_load8(at) | name->fold[0]) ^ name->word[0]) & name->mask[0];
    differs |= ((otus_load8(at + 8) | name->fold[1]) ^ name->word[1]) & name->mask[1];
    if (name->len > 16)
        differs |= ((otus_load8(at + 16) | name->fold[2]) ^ name->word[2]) & name->mask[2];
    return differs == 0;
}

uint32_t otus_sip_name_id(const struct otus_sip_names *names, struct otus_sip_text text,
                          uint32_t off, uint32_t len)
{
    const uint8_t *at = text.octets + off;
    if (len <= 1) {
        bool is_letter = len == 1 && otus_lower(at[0]) >= 'a' && otus_lower(at[0]) <= 'z';
        return is_letter ? names->compact[at[0] & 0x1f] : OTUS_SIP_HEADER_OTHER;
    }
    if (len > OTUS_SIP_NAME_WORDS * 8)
        return OTUS_SIP_HEADER_OTHER;

    uint8_t near_end[OTUS_SIP_NAME_WORDS * 8];
    uint32_t slot = name_hash(at[0], at[len - 1], len);
    if (OTUS_UNLIKELY(text.len - off < sizeof near_end)) {
        memset(near_end, 0, sizeof near_end);
        memcpy(near_end, at, len);
        at = near_end;
    }
    for (; names->slot[slot] != 0; slot = (slot + 1) % OTUS_SIP_NAME_SLOTS) {
        const struct otus_sip_name *name = &names->name[names->slot[slot]];
        if (name->len == len && name_equals(name, at))
            return name->id;
    }
    return OTUS_SIP_HEADER_OTHER;
}

/* RFC 3261 7.1: methods are case-sensitive, so "invite" is an extension method. */
uint8_t otus_sip_method_id(struct otus_sip_text text, struct otus_span method)
{
    static const struct {
        uint8_t name[16]; /* padded with zeros */
        uint8_t len;
        uint8_t id;
    } methods[] = {
#define METHOD_ROW(name) {#name, sizeof #name - 1, OTUS_SIP_METHOD_##name},
        OTUS_SIP_METHODS(METHOD_ROW)
#undef METHOD_ROW
    };
    if (method.len < 3 || method.len > 9)
        return OTUS_SIP_METHOD_OTHER;

    uint8_t octets[16] = {0};
    memcpy(octets, text.octets + method.off, method.len);
    uint64_t head = otus_load8(octets);
    for (uint32_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (otus_load8(methods[i].name) == head && methods[i].len == method.len &&
            methods[i].name[8] == octets[8])
            return methods[i].id;
    return OTUS_SIP_METHOD_OTHER;
}
