/* Batches with any spans as Kafka record sections: what was planned exactly has room for
 * all that is written, and each section holds as many whole records as it says. */
#include <stdlib.h>
#include <string.h>

#include "otus/cursor.h"
#include "otus/kafka.h"

enum {
    MAX_RECORDS = 16,
    MAX_LABELS = 4,
    NUM_INPUTS = 2,
    MAX_PARTITIONS = 8,
    MAX_ARENA = 1024,
};

struct batch {
    struct otus_record records[MAX_RECORDS];
    uint32_t indices[MAX_RECORDS];
};

static uint16_t take(struct otus_cursor *source)
{
    uint16_t value = 0;
    return otus_cursor_be16(source, &value) ? value : 0;
}

/* Mostly inside the arena, now and then not. */
static struct otus_span span(struct otus_cursor *source, uint32_t arena_len)
{
    uint16_t off = take(source);
    uint16_t len = take(source);
    if ((off & 0xf000) == 0xf000)
        return (struct otus_span){off * 65537u, len * 65537u};
    uint32_t first = arena_len == 0 ? 0 : off % arena_len;
    return (struct otus_span){first, arena_len == 0 ? 0 : len % (arena_len - first + 1)};
}

static void fill(struct batch *batch, struct otus_kafka_input *input, struct otus_cursor *source)
{
    static const struct otus_slice names[MAX_LABELS] = {{(const uint8_t *)"\x06"
                                                                          "a.b",
                                                         4},
                                                        {NULL, 0},
                                                        {(const uint8_t *)"\x06"
                                                                          "c.d",
                                                         4}};
    static const struct otus_slice fixed = {(const uint8_t *)"\x04id\x02x", 5};
    memset(batch, 0, sizeof *batch);
    input->num_records = take(source) % MAX_RECORDS;
    input->num_indices = input->num_records;
    for (uint32_t i = 0; i < input->num_records; i++) {
        struct otus_record *record = &batch->records[i];
        record->meta.ts_ns = (uint64_t)take(source) << (take(source) & 63);
        record->meta.ip_version = (uint8_t)take(source);
        record->meta.src_port = take(source);
        record->payload_type = (uint8_t)(take(source) % 8);
        record->key = span(source, input->arena_len);
        record->labels = span(source, input->arena_len);
        record->json = span(source, input->arena_len);
        record->protobuf = span(source, input->arena_len);
        record->payload = span(source, input->arena_len);
        record->payload_name = span(source, input->arena_len);
        record->labels_octets = take(source); /* as it should be, or not */
        batch->indices[i] = take(source) % (input->num_records + (i == 9));
    }
    input->records = (const uint8_t *)batch->records;
    input->indices = batch->indices;
    input->fixed_headers = fixed;
    input->num_fixed_headers = 1;
    input->label_names = names;
    input->num_label_names = MAX_LABELS;
}

static uint64_t varint(struct otus_cursor *at)
{
    uint64_t value = 0;
    for (uint32_t shift = 0; shift < 64; shift += 7) {
        uint8_t octet;
        if (!otus_cursor_u8(at, &octet))
            abort();
        value |= (uint64_t)(octet & 0x7f) << shift;
        if (octet < 0x80)
            break;
    }
    return value >> 1; /* lengths are not negative */
}

static void check_section(const struct otus_kafka_section *section, const uint8_t *octets)
{
    struct otus_cursor at = otus_cursor_of(octets + section->off, section->len);
    for (uint32_t i = 0; i < section->num_records; i++) {
        size_t len = (size_t)varint(&at);
        if (!otus_cursor_skip(&at, len))
            abort();
    }
    if (otus_cursor_left(&at) != 0)
        abort();
}

/* False where a section has too little room. */
static bool encode(const struct otus_kafka_inputs *from)
{
    uint32_t places[NUM_INPUTS * MAX_RECORDS];
    struct otus_kafka_section sections[NUM_INPUTS * MAX_RECORDS];
    uint32_t scratch[MAX_PARTITIONS];
    uint32_t num_sections;
    uint32_t octets;
    if (otus_kafka_plan(places, sections, &num_sections, &octets, scratch, from) != OTUS_OK)
        return true;
    uint8_t *out = malloc(octets + 1u); /* on the heap: the sanitizer watches its end */
    if (out == NULL)
        abort();
    enum otus_status status = otus_kafka_write(out, octets, sections, num_sections, places, from);
    if (status != OTUS_OK && status != OTUS_E_PARTIAL)
        abort();
    for (uint32_t i = 0; i < num_sections && status == OTUS_OK; i++) {
        if (sections[i].len > sections[i].room)
            abort();
        check_section(&sections[i], out);
    }
    free(out);
    return status == OTUS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
    struct otus_cursor source = otus_cursor_of(octets, len);
    uint32_t arena_len = len < MAX_ARENA ? (uint32_t)len : MAX_ARENA;
    uint8_t *arena = malloc(arena_len + 1u);
    if (arena == NULL)
        abort();
    if (arena_len != 0)
        memcpy(arena, octets, arena_len);
    struct otus_kafka_input inputs[NUM_INPUTS];
    struct batch batches[NUM_INPUTS];
    memset(inputs, 0, sizeof inputs);
    struct otus_kafka_inputs from = {
        .inputs = inputs,
        .num_inputs = NUM_INPUTS,
        .num_partitions = take(&source) % MAX_PARTITIONS + 1u,
        .max_section_octets = take(&source),
        .max_message_octets = take(&source),
        .value = take(&source) % 4u, /* one more than there are */
    };
    for (uint32_t i = 0; i < NUM_INPUTS; i++) {
        inputs[i].arena = arena;
        inputs[i].arena_len = arena_len;
        fill(&batches[i], &inputs[i], &source);
    }
    if (!encode(&from)) {
        from.is_exact = 1;
        if (!encode(&from))
            abort();
    }
    free(arena);
    return 0;
}
