/* The Protobuf form of records: its wire format octet by octet, and every size of
 * room. tests/core/test_encode.py reads whole records with the official library. */
#include <stdlib.h>

#include "check.h"
#include "encode_sample.h"
#include "guard.h"
#include "protobuf_writer.h"

static const struct otus_envelope envelope = {
    .task_id = "t", .agent_id = "", .pipeline_id = "\xff"};

static void test_fields(void)
{
    uint8_t room[400];
    struct protobuf_writer writer = {room, room + sizeof room, false};
    protobuf_number(&writer, 1, 0); /* the default: left out */
    protobuf_put_number(&writer, 1, 0);
    protobuf_number(&writer, 2, 300);
    struct otus_slice bad = {(const uint8_t *)"a\xe2\x82z", 4};
    protobuf_string(&writer, 3, bad);
    protobuf_name(&writer, 16, "x");
    static const uint8_t want[] = "\x08\x00\x10\xac\x02\x1a\x05"
                                  "a\xef\xbf\xbdz\x82\x01\x01x";
    CHECK(!writer.full);
    CHECK_OCTETS(room, (size_t)(writer.at - room), want, sizeof want - 1);
}

/* A field whose length is known late moves up where its length takes two octets. */
static void test_length_of_two_octets(void)
{
    uint8_t room[400];
    uint8_t text[200];
    memset(text, 'y', sizeof text);
    struct protobuf_writer writer = {room, room + sizeof room, false};
    uint8_t *start = protobuf_begin(&writer, 1);
    protobuf_put_text(&writer, text, sizeof text);
    protobuf_finish(&writer, start);
    CHECK_EQ(writer.at - room, 3 + 200);
    CHECK_OCTETS(room, 3, "\x0a\xc8\x01", 3);
    CHECK_OCTETS(room + 3, 200, text, 200);
}

static void test_sample_in_every_room(void)
{
    struct guard_buffer text = guard_copy(sample_text, sizeof sample_text - 1);
    struct sample sample;
    sample_fill(&sample, text.octets, (uint32_t)text.len);
    struct otus_encoder *encoder;
    if (otus_encoder_new(&encoder, &envelope) != OTUS_OK)
        abort();
    static uint8_t whole[4096];
    struct otus_arena enough = {whole, 0, sizeof whole};
    struct otus_span want;
    CHECK_EQ(otus_encode_protobuf(&enough, &want, encoder, &sample.input), OTUS_OK);
    CHECK_OCTETS(whole, 8, "\x0a\x01t\x1a\x03\xef\xbf\xbd", 8);
    for (uint32_t room = 0; room <= want.len + 40; room++) {
        struct guard_buffer out = guard_new(room);
        struct otus_arena arena = {out.octets, 0, room};
        struct otus_span span = {7, 7};
        enum otus_status status = otus_encode_protobuf(&arena, &span, encoder, &sample.input);
        if (room < want.len || status == OTUS_E_LIMIT) {
            CHECK_EQ(status, OTUS_E_LIMIT);
            CHECK_EQ(arena.used, 0);
            CHECK(room < want.len + 2 * PROTOBUF_VARINT); /* a tag and a length are asked for */
        } else {
            CHECK_OCTETS(out.octets, span.len, whole, want.len);
        }
        guard_free(&out);
    }
    otus_encoder_free(encoder);
    guard_free(&text);
}

int main(void)
{
    test_fields();
    test_length_of_two_octets();
    test_sample_in_every_room();
    return check_summary();
}
