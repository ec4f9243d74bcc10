/* Writes Protobuf fields into a caller's room.
 *
 * A field is written where its octets fit in front of `end`, or else sets `full`.
 * Behind `end` there are PROTOBUF_SLACK octets more of the room: tags, numbers and
 * lengths are written without asking, and texts are copied by whole vectors. */
#ifndef OTUS_PROTOBUF_WRITER_H
#define OTUS_PROTOBUF_WRITER_H

#include "encoder.h"

enum {
    PROTOBUF_VARINT = 10,
    PROTOBUF_STEP = 16,   /* octets of a text that are copied at once */
    PROTOBUF_SLACK = 128, /* a few tags and numbers, or a text's last step */
};
static_assert((int)PROTOBUF_STEP <= (int)OTUS_ENCODE_BEHIND, "what is readable behind a text");

enum protobuf_wire_type {
    PROTOBUF_WIRE_VARINT = 0,
    PROTOBUF_WIRE_FIXED64 = 1,
    PROTOBUF_WIRE_OCTETS = 2,
};

struct protobuf_writer {
    uint8_t *at;
    uint8_t *end;
    bool full;
};

static inline uint8_t *protobuf_varint(uint8_t *at, uint64_t value)
{
    while (OTUS_UNLIKELY(value >= 0x80)) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at = (uint8_t)value;
    return at + 1;
}

/* Whether len octets fit; sets full where not. */
static inline bool protobuf_fits(struct protobuf_writer *writer, size_t len)
{
    if (OTUS_LIKELY(writer->end - writer->at >= (ptrdiff_t)len))
        return true;
    writer->full = true;
    return false;
}

static inline __attribute__((always_inline)) uint8_t *protobuf_tag(uint8_t *at, uint32_t field,
                                                                   enum protobuf_wire_type type)
{
    uint32_t tag = field << 3 | (uint32_t)type; /* of at most two octets */
    if (tag < 0x80) {
        at[0] = (uint8_t)tag;
        return at + 1;
    }
    at[0] = (uint8_t)(tag | 0x80);
    at[1] = (uint8_t)(tag >> 7);
    return at + 2;
}

/* Also where the value is the default: for fields that are told apart from absent ones. */
static inline __attribute__((always_inline)) void protobuf_put_number(
    struct protobuf_writer *writer, uint32_t field, uint64_t value)
{
    if (protobuf_fits(writer, 0))
        writer->at = protobuf_varint(protobuf_tag(writer->at, field, PROTOBUF_WIRE_VARINT), value);
}

static inline __attribute__((always_inline)) void protobuf_number(struct protobuf_writer *writer,
                                                                  uint32_t field, uint64_t value)
{
    if (value != 0)
        protobuf_put_number(writer, field, value);
}

/* Octets as they are, also where there are none. */
static inline __attribute__((always_inline)) void protobuf_put_octets(
    struct protobuf_writer *writer, uint32_t field, const void *octets, uint32_t len)
{
    if (!protobuf_fits(writer, len))
        return;
    uint8_t *at = protobuf_tag(writer->at, field, PROTOBUF_WIRE_OCTETS);
    at = protobuf_varint(at, len);
    if (len != 0)
        memcpy(at, octets, len);
    writer->at = at + len;
}

/* A field whose length is known at its end only: begin, write, finish. `kept` octets
 * are kept for the length; what was written moves where it takes more or fewer. */
static inline __attribute__((always_inline)) uint8_t *protobuf_begin(struct protobuf_writer *writer,
                                                                     uint32_t field, uint32_t kept)
{
    if (protobuf_fits(writer, 0))
        writer->at = protobuf_tag(writer->at, field, PROTOBUF_WIRE_OCTETS) + kept;
    return writer->at;
}

static inline __attribute__((always_inline)) void protobuf_finish(struct protobuf_writer *writer,
                                                                  uint8_t *start, uint32_t kept)
{
    if (OTUS_UNLIKELY(writer->full))
        return;
    uint8_t len_octets[PROTOBUF_VARINT];
    size_t len = (size_t)(writer->at - start);
    if (kept == 1 && OTUS_LIKELY(len < 0x80)) {
        start[-1] = (uint8_t)len;
        return;
    }
    uint32_t num = (uint32_t)(protobuf_varint(len_octets, len) - len_octets);
    uint8_t *moved = start - kept + num;
    if (num != kept)
        memmove(moved, start, len); /* by at most nine octets: the slack holds them */
    memcpy(start - kept, len_octets, num);
    writer->at = moved + len;
}

/* A text with OTUS_ENCODE_BEHIND readable, to where PROTOBUF_STEP octets more may be
 * touched. False where it, or what lies behind it, is not all ASCII. */
static inline bool protobuf_copy_ascii(uint8_t *out, struct otus_slice text)
{
    typedef uint64_t step __attribute__((vector_size(PROTOBUF_STEP)));
    step seen = {0, 0};
    for (uint32_t i = 0; i < text.len; i += PROTOBUF_STEP) {
        step octets;
        memcpy(&octets, text.at + i, sizeof octets);
        memcpy(out + i, &octets, sizeof octets);
        seen |= octets;
    }
    return ((seen[0] | seen[1]) & 0x8080808080808080u) == 0;
}

/* The general form of protobuf_put_string(): U+FFFD where octets are no UTF-8, since a
 * decoder refuses the whole record otherwise. */
void protobuf_put_repaired(struct protobuf_writer *writer, uint32_t field, struct otus_slice text);

/* A text with OTUS_ENCODE_BEHIND readable. */
static inline __attribute__((always_inline)) void protobuf_put_string(
    struct protobuf_writer *writer, uint32_t field, struct otus_slice text)
{
    if (!protobuf_fits(writer, text.len))
        return;
    uint8_t *at = protobuf_tag(writer->at, field, PROTOBUF_WIRE_OCTETS);
    at = protobuf_varint(at, text.len);
    if (OTUS_LIKELY(protobuf_copy_ascii(at, text)))
        writer->at = at + text.len;
    else
        protobuf_put_repaired(writer, field, text);
}

static inline __attribute__((always_inline)) void protobuf_string(struct protobuf_writer *writer,
                                                                  uint32_t field,
                                                                  struct otus_slice text)
{
    if (text.len != 0)
        protobuf_put_string(writer, field, text);
}

/* A name of ours: ASCII. */
static inline __attribute__((always_inline)) void protobuf_name(struct protobuf_writer *writer,
                                                                uint32_t field, const char *name)
{
    protobuf_put_octets(writer, field, name, (uint32_t)strlen(name));
}

/* encode_protobuf.c: the inside of a string field, repaired. */
void protobuf_put_text(struct protobuf_writer *writer, const uint8_t *octets, uint32_t len);

/* encode_protobuf_sip.c: the fields of message Sip. */
void protobuf_sip_fields(struct protobuf_writer *writer, const struct otus_sip_message *message);

#endif
