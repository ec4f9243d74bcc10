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
 */
const uint8_t otus_sip_token_octets[256] = {
    ['!'] = 1, ['%'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1, ['_'] = 1,
    ['`'] = 1, ['~'] = 1, ['0'] = 1,  ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1,
    ['6'] = 1, ['7'] = 1, ['8'] = 1,  ['9'] = 1, ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1,
    ['E'] = 1, ['F'] = 1, ['G'] = 1,  ['H'] = 1, ['I'] = 1, ['J'] = 1, ['K'] = 1, ['L'] = 1,
    ['M'] = 1, ['N'] = 1, ['O'] = 1,  ['P'] = 1, ['Q'] = 1, ['R'] = 1, ['S'] = 1, ['T'] = 1,
    ['U'] = 1, ['V'] = 1, ['W'] = 1,  ['X'] = 1, ['Y'] = 1, ['Z'] = 1, ['a'] = 1, ['b'] = 1,
    ['c'] = 1, ['d'] = 1, ['e'] = 1,  ['f'] = 1, ['g'] = 1, ['h'] = 1, ['i'] = 1, ['j'] = 1,
    ['k'] = 1, ['l'] = 1, ['m'] = 1,  ['n'] = 1, ['o'] = 1, ['p'] = 1, ['q'] = 1, ['r'] = 1,
    ['s'] = 1, ['t'] = 1, ['u'] = 1,  ['v'] = 1, ['w'] = 1, ['x'] = 1, ['y'] = 1, ['z'] = 1,
};

static void name_init(struct otus_sip_name *out_name, const char *text, uint32_t id)
{
    uint32_t len = (uint32_t)strlen(text);
    memset(out_name->text, 0xff, sizeof out_name->text);
    memset(out_name->fold, 0xff, sizeof out_name->fold);
    for (uint32_t i = 0; i < sizeof out_name->text && i <= len; i++) {
        uint8_t octet = i < len ? otus_lower((uint8_t)text[i]) : ':';
        out_name->text[i] = octet;
        out_name->fold[i] = octet >= 'a' && octet <= 'z' ? 0x20 : 0;
    }
    for (uint32_t i = 0; len >= 8 && i < 8; i++) {
        uint64_t octet = otus_lower((uint8_t)text[len - 8 + i]);
        out_name->tail |= octet << (8 * i);
        out_name->tail_fold |= (uint64_t)(octet >= 'a' && octet <= 'z' ? 0x20 : 0) << (8 * i);
    }
    out_name->id = id;
    out_name->len = len;
}

/* Puts each name into the slot of its own; false where two names want the same. */
static bool fill_slots(struct otus_sip_names *names)
{
    memset(names->slot, 0, sizeof names->slot);
    for (uint32_t i = 0; i < OTUS_SIP_NAME_SLOTS; i++)
        names->slot[i].fold[0] = 0xff; /* and no octet with all bits set is 0, as text is */
    for (uint32_t id = 1; id < OTUS_SIP_NUM_HEADER_IDS; id++) {
        uint8_t text[OTUS_SIP_MAX_NAME + 1] = ":::"; /* what may stand behind "To" */
        uint32_t len = (uint32_t)strlen(header_table[id].name);
        memcpy(text, header_table[id].name, len);
        struct otus_sip_name *name = &names->slot[otus_sip_name_slot(names->multiplier, text, len)];
        if (name->len != 0)
            return false;
        name_init(name, header_table[id].name, id);
    }
    return true;
}

void otus_sip_names_init(struct otus_sip_names *out_names)
{
    memset(out_names, 0, sizeof *out_names);
    for (uint32_t id = 1; id < OTUS_SIP_NUM_HEADER_IDS; id++)
        if (header_table[id].compact != 0)
            out_names->compact[header_table[id].compact & 0x1f] = (uint8_t)id;
    /* About one multiplier in forty keeps the names apart. */
    out_names->multiplier = 0x9e3779b1u;
    while (!fill_slots(out_names))
        out_names->multiplier += 0x3c6ef362u;
}

static uint32_t compact_id(const struct otus_sip_names *names, uint8_t octet)
{
    uint8_t lower = otus_lower(octet);
    return lower >= 'a' && lower <= 'z' ? names->compact[lower & 0x1f] : OTUS_SIP_HEADER_OTHER;
}

uint32_t otus_sip_name_id(const struct otus_sip_names *names, struct otus_sip_text text,
                          uint32_t off, uint32_t len)
{
    const uint8_t *at = text.octets + off;
    if (OTUS_UNLIKELY(len <= 1))
        return len == 1 ? compact_id(names, at[0]) : OTUS_SIP_HEADER_OTHER;
    if (OTUS_UNLIKELY(len > OTUS_SIP_MAX_NAME))
        return OTUS_SIP_HEADER_OTHER;
    /* A copy, since the name may end where the message ends, and with white space. */
    uint8_t name[OTUS_SIP_MAX_NAME + 1];
    memset(name, ':', sizeof name);
    memcpy(name, at, len);
    const struct otus_sip_name *known = otus_sip_find_name(names, name, len);
    return known != NULL ? known->id : (uint32_t)OTUS_SIP_HEADER_OTHER;
}

const struct otus_sip_method_name otus_sip_method_names[] = {
#define METHOD_SHIFT(len) (uint8_t)((len) < 8 ? 8 * (8 - (len)) : 0)
#define METHOD_ROW(name)                                                                           \
    [OTUS_SIP_METHOD_##name] = {#name, sizeof #name - 1, METHOD_SHIFT(sizeof #name - 1)},
    OTUS_SIP_METHODS(METHOD_ROW)
#undef METHOD_ROW
#undef METHOD_SHIFT
};

/* Two methods in one slot would not compile. */
const uint8_t otus_sip_method_slots[OTUS_SIP_METHOD_SLOTS] = {
#define SLOT(a, b, c) OTUS_SIP_METHOD_SLOT((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16)
    [SLOT('A', 'C', 'K')] = OTUS_SIP_METHOD_ACK,
    [SLOT('B', 'Y', 'E')] = OTUS_SIP_METHOD_BYE,
    [SLOT('C', 'A', 'N')] = OTUS_SIP_METHOD_CANCEL,
    [SLOT('I', 'N', 'F')] = OTUS_SIP_METHOD_INFO,
    [SLOT('I', 'N', 'V')] = OTUS_SIP_METHOD_INVITE,
    [SLOT('M', 'E', 'S')] = OTUS_SIP_METHOD_MESSAGE,
    [SLOT('N', 'O', 'T')] = OTUS_SIP_METHOD_NOTIFY,
    [SLOT('O', 'P', 'T')] = OTUS_SIP_METHOD_OPTIONS,
    [SLOT('P', 'R', 'A')] = OTUS_SIP_METHOD_PRACK,
    [SLOT('P', 'U', 'B')] = OTUS_SIP_METHOD_PUBLISH,
    [SLOT('R', 'E', 'F')] = OTUS_SIP_METHOD_REFER,
    [SLOT('R', 'E', 'G')] = OTUS_SIP_METHOD_REGISTER,
    [SLOT('S', 'U', 'B')] = OTUS_SIP_METHOD_SUBSCRIBE,
    [SLOT('U', 'P', 'D')] = OTUS_SIP_METHOD_UPDATE,
#undef SLOT
};

uint8_t otus_sip_method_id(struct otus_sip_text text, struct otus_span method)
{
    uint8_t copy[OTUS_SIP_METHOD_OCTETS] = {0}; /* of one at the message's end */
    const uint8_t *at = text.octets + method.off;
    if (method.len > OTUS_SIP_METHOD_OCTETS)
        return OTUS_SIP_METHOD_OTHER;
    if (OTUS_UNLIKELY(text.len - method.off < OTUS_SIP_METHOD_OCTETS)) {
        memcpy(copy, at, method.len);
        at = copy;
    }
    uint8_t id = otus_sip_find_method(at);
    return otus_sip_method_names[id].len == method.len ? id : (uint8_t)OTUS_SIP_METHOD_OTHER;
}
