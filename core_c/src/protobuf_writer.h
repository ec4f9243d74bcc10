/* Writes Protobuf fields into a caller's room; what does not fit sets `full`. */
#ifndef OTUS_PROTOBUF_WRITER_H
#define OTUS_PROTOBUF_WRITER_H

#include "encoder.h"

enum { PROTOBUF_VARINT = 10 };

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

static inline size_t protobuf_room(const struct protobuf_writer *writer)
{
    return (size_t)(writer->end - writer->at);
}

static inline uint32_t protobuf_varint(uint8_t *out, uint64_t value)
{
    uint32_t len = 0;
    while (value >= 0x80) {
        out[len++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    out[len++] = (uint8_t)value;
    return len;
}

/* Whether len octets and two varints fit; sets full where not. */
static inline bool protobuf_fits(struct protobuf_writer *writer, size_t len)
{
    if (OTUS_LIKELY(protobuf_room(writer) >= len + 2 * PROTOBUF_VARINT))
        return true;
    writer->full = true;
    return false;
}

static inline void protobuf_tag(struct protobuf_writer *writer, uint32_t field,
                                enum protobuf_wire_type type)
{
    writer->at += protobuf_varint(writer->at, field << 3 | (uint32_t)type);
}

/* Also where the value is the default: for fields that are told apart from absent ones. */
static inline void protobuf_put_number(struct protobuf_writer *writer, uint32_t field,
                                       uint64_t value)
{
    if (!protobuf_fits(writer, 0))
        return;
    protobuf_tag(writer, field, PROTOBUF_WIRE_VARINT);
    writer->at += protobuf_varint(writer->at, value);
}

static inline void protobuf_number(struct protobuf_writer *writer, uint32_t field, uint64_t value)
{
    if (value != 0)
        protobuf_put_number(writer, field, value);
}

/* Octets as they are, also where there are none. */
static inline void protobuf_put_octets(struct protobuf_writer *writer, uint32_t field,
                                       const uint8_t *octets, uint32_t len)
{
    if (!protobuf_fits(writer, len))
        return;
    protobuf_tag(writer, field, PROTOBUF_WIRE_OCTETS);
    writer->at += protobuf_varint(writer->at, len);
    if (len != 0)
        memcpy(writer->at, octets, len);
    writer->at += len;
}

/* A field whose length is known at its end only: begin, write, finish. One octet
 * is kept for the length, and what was written moves up where that is too few. */
static inline uint8_t *protobuf_begin(struct protobuf_writer *writer, uint32_t field)
{
    if (protobuf_fits(writer, 0)) {
        protobuf_tag(writer, field, PROTOBUF_WIRE_OCTETS);
        writer->at++;
    }
    return writer->at;
}

static inline void protobuf_finish(struct protobuf_writer *writer, uint8_t *start)
{
    if (OTUS_UNLIKELY(writer->full))
        return;
    uint8_t len_octets[PROTOBUF_VARINT];
    size_t len = (size_t)(writer->at - start);
    uint32_t num = protobuf_varint(len_octets, len);
    if (num > 1) {
        if (!protobuf_fits(writer, 0))
            return;
        memmove(start + num - 1, start, len);
        writer->at += num - 1;
    }
    memcpy(start - 1, len_octets, num);
}

/* The inside of a string field: U+FFFD where octets are no UTF-8, since a decoder
 * refuses the whole record otherwise. */
void protobuf_put_text(struct protobuf_writer *writer, const uint8_t *octets, uint32_t len);

static inline void protobuf_put_string(struct protobuf_writer *writer, uint32_t field,
                                       struct otus_slice text)
{
    if (OTUS_LIKELY(encode_is_utf8(text.at, text.len))) {
        protobuf_put_octets(writer, field, text.at, text.len);
        return;
    }
    uint8_t *start = protobuf_begin(writer, field);
    protobuf_put_text(writer, text.at, text.len);
    protobuf_finish(writer, start);
}

static inline void protobuf_string(struct protobuf_writer *writer, uint32_t field,
                                   struct otus_slice text)
{
    if (text.len != 0)
        protobuf_put_string(writer, field, text);
}

/* A name of ours: ASCII. */
static inline void protobuf_name(struct protobuf_writer *writer, uint32_t field, const char *name)
{
    protobuf_put_octets(writer, field, (const uint8_t *)name, (uint32_t)strlen(name));
}

/* encode_protobuf_sip.c: the fields of message Sip. */
void protobuf_sip_fields(struct protobuf_writer *writer, const struct otus_sip_message *message);

#endif
