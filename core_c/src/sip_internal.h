/* What the parts of the SIP parser share. */
#ifndef OTUS_SIP_INTERNAL_H
#define OTUS_SIP_INTERNAL_H

#include <assert.h>

#include "lines.h"
#include "octet_search.h"
#include "otus/sip.h"

enum {
    /* The shortest header field is "a:" and LF, so no message of 64 KiB, whatever it
     * holds, has more. */
    OTUS_SIP_MAX_HEADERS = 65536 / 3 + 1,
    OTUS_SIP_NAME_SLOTS = 256,
    OTUS_SIP_MAX_NAME = 23, /* octets that a known name may have; the longest has 19 */
    OTUS_SIP_MAX_MULTIPART_DEPTH = 4,
};

/* A known header name in lower case as lines are compared with it: its first sixteen octets, the
 * colon behind a shorter one included, and its last eight. `fold` has the case bit of letters and
 * all bits of the octets that do not matter. One cache line. */
struct otus_sip_name {
    uint8_t text[16], fold[16];
    uint64_t tail, tail_fold;
    uint32_t id;
    uint32_t len;
    uint8_t unused[8];
};
static_assert(sizeof(struct otus_sip_name) == 64, "a slot is found by a shift");

/* Known names by a hash without collisions; free slots are equal to no name. */
struct otus_sip_names {
    uint32_t multiplier;
    uint8_t compact[32]; /* header id by the letter's low five bits */
    struct otus_sip_name slot[OTUS_SIP_NAME_SLOTS];
};

struct otus_sip_parser {
    otus_lines_scan scan;
    struct otus_sip_header *headers;
    uint32_t max_headers;
    uint32_t last[OTUS_SIP_NUM_HEADER_IDS]; /* of each id that this message repeats */
    struct otus_sip_names names;
    struct otus_lines lines;
    struct otus_sdp sdp;
};

/* Octets of a message with the length that bounds every read. */
struct otus_sip_text {
    const uint8_t *octets;
    uint32_t len;
};

OTUS_COLD void otus_sip_flag(struct otus_sip_message *message, enum otus_sip_anomaly anomaly);

/* --- sip_names.c --- */
void otus_sip_names_init(struct otus_sip_names *out_names);

/* The id of a name of len octets at off, in whichever case and form. */
uint32_t otus_sip_name_id(const struct otus_sip_names *names, struct otus_sip_text text,
                          uint32_t off, uint32_t len);

/* Five bits of a letter, whatever its case, are those of its place in the alphabet: no two
 * names have the first, the third and the length alike. Four octets are read. */
static inline uint32_t otus_sip_name_slot(uint32_t multiplier, const uint8_t *at, uint32_t len)
{
    return (((otus_load4(at) & 0x001f001f) | len << 8) * multiplier) >> (32 - 8);
}
static_assert(OTUS_SIP_NAME_SLOTS == 1 << 8, "otus_sip_name_slot() gives eight bits");

/* The same for the long form alone, with the colon right behind, where sixteen octets can be read
 * at `at`, however short the name. NULL where no such name is known. */
static inline const struct otus_sip_name *otus_sip_find_name(const struct otus_sip_names *names,
                                                             const uint8_t *at, size_t len)
{
    const struct otus_sip_name *name =
        &names->slot[otus_sip_name_slot(names->multiplier, at, (uint32_t)len)];
    if (OTUS_UNLIKELY(!otus_equals16(at, name->fold, name->text)))
        return NULL;
    if (OTUS_UNLIKELY(len >= 16) && /* the colon was not among the octets that are equal */
        (name->len != len || ((otus_load8(at + len - 8) | name->tail_fold) ^ name->tail) != 0))
        return NULL;
    return name;
}

/* RFC 3261 7.1: methods are case-sensitive, so "invite" is an extension method. */
struct otus_sip_method_name {
    uint8_t text[16]; /* padded with zeros */
    uint8_t len;
    uint8_t shift; /* of eight octets: leaves those of the name */
};
extern const struct otus_sip_method_name otus_sip_method_names[];

/* Methods by a hash of their first three letters, a little-endian number. */
enum { OTUS_SIP_METHOD_SLOTS = 32, OTUS_SIP_METHOD_OCTETS = 9 /* of the longest */ };
extern const uint8_t otus_sip_method_slots[OTUS_SIP_METHOD_SLOTS];
#define OTUS_SIP_METHOD_SLOT(letters) ((letters)*0x32d59u >> (32 - 5))

/* The method that the octets at `at` start with, whatever stands behind it; nine octets are read.
 */
static inline uint8_t otus_sip_find_method(const uint8_t *at)
{
    uint8_t id = otus_sip_method_slots[OTUS_SIP_METHOD_SLOT(otus_load4(at) & 0xffffff)];
    const struct otus_sip_method_name *name = &otus_sip_method_names[id];
    bool equals = (otus_load8(at) ^ otus_load8(name->text)) << name->shift == 0 &&
                  (name->len < OTUS_SIP_METHOD_OCTETS || at[8] == name->text[8]);
    return equals ? id : (uint8_t)OTUS_SIP_METHOD_OTHER;
}

/* The same for a method that is all of a span. */
uint8_t otus_sip_method_id(struct otus_sip_text text, struct otus_span method);

/* RFC 3261 25.1 token. */
extern const uint8_t otus_sip_token_octets[256]; /* 1 where the octet may be in a token */
static inline bool otus_sip_is_token_octet(uint8_t octet)
{
    return otus_sip_token_octets[octet] != 0;
}
static inline bool otus_sip_is_token(const uint8_t *octets, uint32_t from, uint32_t to)
{
    for (size_t i = from; i < to; i++)
        if (!otus_sip_is_token_octet(octets[i]))
            return false;
    return from < to;
}

/* --- sip_start_line.c --- */
/* Reads the line into out_message; false where it starts no SIP message. */
bool otus_sip_parse_start_line(struct otus_sip_message *out_message, const struct otus_lines *lines,
                               struct otus_span line);

/* --- sip_address.c --- */
enum otus_sip_field_flag {
    OTUS_SIP_FIELD_BAD = 1 << 0,
    OTUS_SIP_FIELD_UNTERMINATED = 1 << 1,
};

/* The first octet of [from, to) that is one of up to four, all of them marks; or to. */
static inline uint32_t otus_find_mark4(const struct otus_lines *lines, uint32_t from, uint32_t to,
                                       uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
    if (OTUS_UNLIKELY(to > OTUS_LINES_MARKED))
        return otus_find4(lines->octets, lines->len, from, to, a, b, c, d);
    for (size_t at = from;; at++) {
        at = otus_lines_mark(lines, (uint32_t)at, to);
        if (at == to)
            return to;
        uint8_t octet = lines->octets[at];
        if (octet == a || octet == b || octet == c || octet == d)
            return (uint32_t)at;
    }
}

static inline uint32_t otus_find_mark3(const struct otus_lines *lines, uint32_t from, uint32_t to,
                                       uint8_t a, uint8_t b, uint8_t c)
{
    return otus_find_mark4(lines, from, to, a, b, c, a);
}

static inline uint32_t otus_find_mark2(const struct otus_lines *lines, uint32_t from, uint32_t to,
                                       uint8_t a, uint8_t b)
{
    return otus_find_mark4(lines, from, to, a, b, a, a);
}

static inline uint32_t otus_find_mark(const struct otus_lines *lines, uint32_t from, uint32_t to,
                                      uint8_t a)
{
    return otus_find_mark4(lines, from, to, a, a, a, a);
}

/* Reads one address from value and moves *pos behind it: to the comma that ends
 * it or to the value's end. Returns bits of enum otus_sip_field_flag. */
uint32_t otus_sip_parse_address(struct otus_sip_address *out_address,
                                const struct otus_lines *lines, uint32_t *pos, uint32_t end,
                                bool is_list);
uint32_t otus_sip_parse_via(struct otus_sip_via *out_via, const struct otus_lines *lines,
                            uint32_t *pos, uint32_t end);

/* The same for any value, white space in front of it skipped: what the two above say of the
 * shapes that they read by a shorter way is what these say. */
__attribute__((noinline)) uint32_t otus_sip_parse_any_address(struct otus_sip_address *out_address,
                                                              const struct otus_lines *lines,
                                                              uint32_t *pos, uint32_t end,
                                                              bool is_list);
__attribute__((noinline)) uint32_t otus_sip_parse_any_via(struct otus_sip_via *out_via,
                                                          const struct otus_lines *lines,
                                                          uint32_t *pos, uint32_t end);

/* --- sip_fields.c --- */
/* 1*DIGIT up to max; false on anything else. */
bool otus_sip_parse_number(uint64_t *out_number, const uint8_t *octets, struct otus_span value,
                           uint64_t max);
/* Whether it starts with a scheme and a colon, and goes on. */
bool otus_sip_has_scheme(const uint8_t *octets, struct otus_span uri);
static inline bool otus_sip_is_uri(const uint8_t *octets, struct otus_span uri)
{
    return OTUS_LIKELY(uri.len > 4 && otus_is_sip_scheme(octets + uri.off)) ||
           otus_sip_has_scheme(octets, uri);
}

/* A set of header ids as bits of one number. */
#define OTUS_SIP_BIT(id) ((uint64_t)1 << (id))

/* Fills the message's fields from its headers and names what is wrong with them. repeated:
 * OTUS_SIP_BIT() of the ids that there are more than once. */
void otus_sip_take_fields(struct otus_sip_message *message, const struct otus_lines *lines,
                          uint64_t repeated);

/* --- sip_body.c --- */
/* Limits the body by Content-Length and reads the SDP in it. */
void otus_sip_take_body(struct otus_sip_parser *parser, struct otus_sip_message *message,
                        uint32_t body_off, uint32_t flags);

/* --- sdp.c --- */
/* As otus_sdp_parse(), over lines that are scanned already; lines->start is the body's. */
enum otus_status otus_sdp_parse_lines(struct otus_sdp *out_sdp, struct otus_lines *lines,
                                      struct otus_span body);

#endif
