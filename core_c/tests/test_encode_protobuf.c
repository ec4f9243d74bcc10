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
    uint8_t room[400 + PROTOBUF_SLACK];
    struct protobuf_writer writer = {room, room + 400, false};
    protobuf_number(&writer, 1, 0); /* the default: left out */
    protobuf_put_number(&writer, 1, 0);
    protobuf_number(&writer, 2, 300);
    static const uint8_t bad[4 + OTUS_ENCODE_BEHIND] = "a\xe2\x82z";
    protobuf_string(&writer, 3, (struct otus_slice){bad, 4});
    protobuf_name(&writer, 16, "x");
    static const uint8_t want[] = "\x08\x00\x10\xac\x02\x1a\x05"
                                  "a\xef\xbf\xbdz\x82\x01\x01x";
    CHECK(!writer.full);
    CHECK_OCTETS(room, (size_t)(writer.at - room), want, sizeof want - 1);
}

/* A field whose length is known late moves where its length takes more or fewer octets
 * than were kept. */
static void test_length_of_two_octets(void)
{
    uint8_t room[400 + PROTOBUF_SLACK];
    uint8_t text[200];
    memset(text, 'y', sizeof text);
    for (uint32_t kept = 1; kept <= 3; kept++) {
        struct protobuf_writer writer = {room, room + 400, false};
        uint8_t *start = protobuf_begin(&writer, 1, kept);
        protobuf_put_text(&writer, text, sizeof text);
        protobuf_finish(&writer, start, kept);
        CHECK_EQ(writer.at - room, 3 + 200);
        CHECK_OCTETS(room, 3, "\x0a\xc8\x01", 3);
        CHECK_OCTETS(room + 3, 200, text, 200);
    }
}

/* Texts of every length, clean or not, come out as they are or repaired, whatever
 * lies behind them. */
static void test_strings(void)
{
    for (uint32_t len = 1; len < 100; len++) {
        for (uint32_t bad = 0; bad <= len + 3; bad++) {
            struct guard_buffer text = guard_new(len + OTUS_ENCODE_BEHIND);
            memset(text.octets, 'a', text.len);
            text.octets[bad] = 0xff; /* in the text or behind it */
            uint8_t room[200 + PROTOBUF_SLACK];
            struct protobuf_writer writer = {room, room + 200, false};
            protobuf_string(&writer, 1, (struct otus_slice){text.octets, len});
            uint32_t want = bad < len ? len + 2 : len;
            CHECK_EQ(writer.at - room, 2 + want);
            CHECK_EQ(room[1], want);
            for (uint32_t i = 0; i < len; i++) {
                uint32_t at = 2 + i + (i > bad ? 2 : 0);
                CHECK_EQ(room[at], i == bad ? 0xef : 'a');
            }
            guard_free(&text);
        }
    }
}

static void test_sample_in_every_room(void)
{
    struct guard_buffer text = guard_new(sizeof sample_text - 1 + OTUS_ENCODE_BEHIND);
    memcpy(text.octets, sample_text, sizeof sample_text - 1);
    struct sample sample;
    sample_fill(&sample, text.octets, sizeof sample_text - 1);
    struct otus_encoder *encoder;
    if (otus_encoder_new(&encoder, &envelope) != OTUS_OK)
        abort();
    static uint8_t whole[4096];
    struct otus_arena enough = {whole, 0, sizeof whole};
    struct otus_span want;
    CHECK_EQ(otus_encode_protobuf(&enough, &want, encoder, &sample.input), OTUS_OK);
    CHECK_OCTETS(whole, 8, "\x0a\x01t\x1a\x03\xef\xbf\xbd", 8);
    for (uint32_t room = 0; room <= want.len + PROTOBUF_SLACK + 40; room++) {
        struct guard_buffer out = guard_new(room);
        struct otus_arena arena = {out.octets, 0, room};
        struct otus_span span = {7, 7};
        enum otus_status status = otus_encode_protobuf(&arena, &span, encoder, &sample.input);
        if (room < want.len || status == OTUS_E_LIMIT) {
            CHECK_EQ(status, OTUS_E_LIMIT);
            CHECK_EQ(arena.used, 0);
            CHECK(room < want.len + PROTOBUF_SLACK);
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
    test_strings();
    test_sample_in_every_room();
    return check_summary();
}
