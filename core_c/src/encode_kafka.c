/* Kafka record sections. Two passes: the first finds each record's partition and
 * size, the second writes every record to its final place, so that no octet is
 * moved twice and no room is guessed.
 *
 * A record (KIP-98): length varint, attributes i8, timestampDelta varlong,
 * offsetDelta varint, key, value, headers; lengths are zigzag varints. */
#include "otus/kafka.h"

#include "encoder.h"

enum {
    KEY_ROOM = OTUS_TEXT_PROTOCOL + 2 * (OTUS_TEXT_IP + 1 + OTUS_TEXT_U32 + 1),
    NUM_NETWORK_HEADERS = 5, /* src_ip, src_port, dst_ip, dst_port, protocol */
    /* Their names and values, each after a length of one octet. */
    NETWORK_ROOM = 2 * (OTUS_TEXT_IP + OTUS_TEXT_U32) + OTUS_TEXT_PROTOCOL + 48,
    NS_PER_MS = 1000000,
    MAX_OUTPUT = 0x7fffffff,
    MAX_ASKED_FOR = 1024, /* octets of a record's payload or labels */
};

/* A header's name after its length, a zigzag varint of one octet. */
#define HEADER_NAME(length, text)                                                                  \
    ((struct otus_slice){(const uint8_t *)(length text), sizeof(text)})

/* One record, looked up. */
struct source {
    struct otus_slice key;
    struct otus_slice value;
    struct otus_slice payload_type;
    struct otus_slice labels;  /* struct otus_label[] */
    struct otus_slice network; /* headers, as they are stored; empty unless the value is raw */
    int64_t ts_ms;
    uint8_t key_room[KEY_ROOM];
    uint8_t network_room[NETWORK_ROOM];
};

static uint32_t load_le32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint32_t murmur2(struct otus_slice key)
{
    const uint32_t multiplier = 0x5bd1e995;
    uint32_t hash = 0x9747b28c ^ key.len;
    uint32_t whole = key.len & ~3u;
    for (uint32_t i = 0; i < whole; i += 4) {
        uint32_t four = load_le32(key.at + i) * multiplier;
        four = (four ^ four >> 24) * multiplier;
        hash = hash * multiplier ^ four;
    }
    uint32_t rest = key.len - whole;
    if (rest > 2)
        hash ^= (uint32_t)key.at[whole + 2] << 16;
    if (rest > 1)
        hash ^= (uint32_t)key.at[whole + 1] << 8;
    if (rest > 0)
        hash = (hash ^ key.at[whole]) * multiplier;
    hash = (hash ^ hash >> 13) * multiplier;
    return hash ^ hash >> 15;
}

uint32_t otus_kafka_partition(struct otus_slice key, uint32_t num_partitions)
{
    return (murmur2(key) & 0x7fffffff) % num_partitions;
}

/* --- Varints -------------------------------------------------------------- */

static uint64_t zigzag(int64_t value)
{
    return (uint64_t)value << 1 ^ (uint64_t)(value >> 63);
}

static uint32_t varint_len(int64_t value)
{
    uint32_t bits = 64 - (uint32_t)__builtin_clzll(zigzag(value) | 1);
    return (bits + 6) / 7;
}

static inline uint8_t *put_varint(uint8_t *out, int64_t value)
{
    uint64_t left = zigzag(value);
    while (left >= 0x80) {
        *out++ = (uint8_t)(left | 0x80);
        left >>= 7;
    }
    *out++ = (uint8_t)left;
    return out;
}

static uint32_t sized_len(uint32_t len)
{
    return varint_len(len) + len;
}

/* A call for every label would cost more than the copying: most have less than 32
 * octets, which two copies that may overlap bring over. */
static inline uint8_t *put_octets(uint8_t *out, struct otus_slice octets)
{
    const uint8_t *at = octets.at;
    uint32_t len = octets.len;
    if (len > 32) {
        memcpy(out, at, len);
    } else if (len >= 16) {
        memcpy(out, at, 16);
        memcpy(out + len - 16, at + len - 16, 16);
    } else if (len >= 8) {
        memcpy(out, at, 8);
        memcpy(out + len - 8, at + len - 8, 8);
    } else if (len >= 4) {
        memcpy(out, at, 4);
        memcpy(out + len - 4, at + len - 4, 4);
    } else {
        for (uint32_t i = 0; i < len; i++)
            out[i] = at[i];
    }
    return out + len;
}

static inline uint8_t *put_sized(uint8_t *out, struct otus_slice octets)
{
    return put_octets(put_varint(out, octets.len), octets);
}

/* --- Looking a record up -------------------------------------------------- */

static bool find(const struct otus_kafka_input *input, struct otus_slice *out_slice,
                 struct otus_span span)
{
    if (span.off > input->arena_len || span.len > input->arena_len - span.off)
        return false;
    *out_slice = (struct otus_slice){input->arena + span.off, span.len};
    return true;
}

/* Batches are larger than the caches that are near: a record's octets are asked for
 * while those before it are worked on. What is asked for need not exist. */
static void ask_for(const struct otus_kafka_input *input, uint32_t position)
{
    enum { RECORDS_AHEAD = 8, OCTETS_AHEAD = 3, CACHE_LINE = 64 };
    if (position + RECORDS_AHEAD >= input->num_indices)
        return;
    const uint8_t *far = input->records + (size_t)input->indices[position + RECORDS_AHEAD] *
                                              sizeof(struct otus_record);
    for (size_t at = 0; at < sizeof(struct otus_record); at += CACHE_LINE)
        __builtin_prefetch(far + at);
    uint32_t near = input->indices[position + OCTETS_AHEAD];
    if (near >= input->num_records)
        return;
    struct otus_span payload;
    struct otus_span labels;
    const uint8_t *record = input->records + (size_t)near * sizeof(struct otus_record);
    memcpy(&payload, record + offsetof(struct otus_record, payload), sizeof payload);
    memcpy(&labels, record + offsetof(struct otus_record, labels), sizeof labels);
    uint32_t num = payload.len < MAX_ASKED_FOR ? payload.len : MAX_ASKED_FOR;
    for (uint32_t at = 0; at < num; at += CACHE_LINE)
        __builtin_prefetch(input->arena + payload.off + at);
    num = labels.len < MAX_ASKED_FOR ? labels.len : MAX_ASKED_FOR;
    for (uint32_t at = 0; at < num; at += CACHE_LINE)
        __builtin_prefetch(input->arena + labels.off + at);
}

/* One end of the 5-tuple as text: "192.0.2.1 5060". */
static uint32_t put_end(uint8_t *out, uint32_t *out_ip_len, const struct otus_packet_meta *meta,
                        const uint8_t ip[16], uint16_t port)
{
    uint32_t len = otus_text_ip(out, meta->ip_version, ip);
    *out_ip_len = len;
    out[len++] = ' ';
    return len + otus_text_u32(out + len, port);
}

static int compare_ends(const uint8_t *a, uint32_t a_ip_len, uint16_t a_port, const uint8_t *b,
                        uint32_t b_ip_len, uint16_t b_port)
{
    uint32_t common = a_ip_len < b_ip_len ? a_ip_len : b_ip_len;
    int order = memcmp(a, b, common);
    if (order == 0)
        order = (int)a_ip_len - (int)b_ip_len;
    return order != 0 ? order : (int)a_port - (int)b_port;
}

/* The 5-tuple as DecodedPacket.flow_key has it: one text for both directions. */
static void make_flow_key(struct source *source, const struct otus_packet_meta *meta)
{
    uint8_t ends[2][OTUS_TEXT_IP + 1 + OTUS_TEXT_U32];
    uint32_t ip_len[2];
    uint32_t len[2];
    len[0] = put_end(ends[0], &ip_len[0], meta, meta->src_ip, meta->src_port);
    len[1] = put_end(ends[1], &ip_len[1], meta, meta->dst_ip, meta->dst_port);
    int low =
        compare_ends(ends[0], ip_len[0], meta->src_port, ends[1], ip_len[1], meta->dst_port) <= 0
            ? 0
            : 1;
    uint8_t *out = source->key_room;
    out += otus_text_protocol(out, meta->protocol);
    for (int i = 0; i < 2; i++) {
        int which = i == 0 ? low : 1 - low;
        *out++ = ' ';
        memcpy(out, ends[which], len[which]);
        out += len[which];
    }
    source->key = (struct otus_slice){source->key_room, (uint32_t)(out - source->key_room)};
}

static uint8_t *put_text(uint8_t *out, struct otus_slice name, const uint8_t *text, uint32_t len)
{
    return put_sized(put_octets(out, name), (struct otus_slice){text, len});
}

/* Where the value is the payload, the headers say between whom it went. */
static void make_network_headers(struct source *source, const struct otus_packet_meta *meta)
{
    uint8_t text[OTUS_TEXT_IP + OTUS_TEXT_U32 + OTUS_TEXT_PROTOCOL];
    uint8_t *out = source->network_room;
    uint32_t len = otus_text_ip(text, meta->ip_version, meta->src_ip);
    out = put_text(out, HEADER_NAME("\x0c", "src_ip"), text, len);
    len = otus_text_u32(text, meta->src_port);
    out = put_text(out, HEADER_NAME("\x10", "src_port"), text, len);
    len = otus_text_ip(text, meta->ip_version, meta->dst_ip);
    out = put_text(out, HEADER_NAME("\x0c", "dst_ip"), text, len);
    len = otus_text_u32(text, meta->dst_port);
    out = put_text(out, HEADER_NAME("\x10", "dst_port"), text, len);
    len = otus_text_protocol(text, meta->protocol);
    out = put_text(out, HEADER_NAME("\x10", "protocol"), text, len);
    source->network =
        (struct otus_slice){source->network_room, (uint32_t)(out - source->network_room)};
}

static struct otus_span value_span(const struct otus_record *record, uint32_t value)
{
    return value == OTUS_KAFKA_RAW        ? record->payload
           : value == OTUS_KAFKA_PROTOBUF ? record->protobuf
                                          : record->json;
}

static bool look_up(struct source *source, const struct otus_kafka_input *input, uint32_t value,
                    uint32_t index)
{
    struct otus_record record;
    memcpy(&record, input->records + (size_t)index * sizeof record, sizeof record);
    source->ts_ms = (int64_t)(record.meta.ts_ns / NS_PER_MS);
    source->network.len = 0;
    if (!find(input, &source->key, record.key) || !find(input, &source->labels, record.labels) ||
        !find(input, &source->value, value_span(&record, value)))
        return false;
    if (record.key.len == 0)
        make_flow_key(source, &record.meta);
    if (value == OTUS_KAFKA_RAW)
        make_network_headers(source, &record.meta);
    if (record.payload_type == OTUS_PAYLOAD_PLUGIN)
        return find(input, &source->payload_type, record.payload_name);
    const char *name = encode_payload_type_name(record.payload_type);
    source->payload_type = (struct otus_slice){(const uint8_t *)name, (uint32_t)strlen(name)};
    return true;
}

/* --- Headers -------------------------------------------------------------- */

/* A label that becomes a header: its name and value. Moves *labels on; false
 * after the last. *out_damaged where a span lies outside the arena. */
static bool next_label(const struct otus_kafka_input *input, struct otus_slice *labels,
                       struct otus_slice *out_name, struct otus_slice *out_value, bool *out_damaged)
{
    struct otus_label label;
    while (labels->len >= sizeof label) {
        memcpy(&label, labels->at, sizeof label);
        labels->at += sizeof label;
        labels->len -= (uint32_t)sizeof label;
        if (label.id >= input->num_label_names || input->label_names[label.id].len == 0)
            continue;
        *out_name = input->label_names[label.id];
        if (find(input, out_value, (struct otus_span){label.off, label.len}))
            return true;
        *out_damaged = true;
        return false;
    }
    return false;
}

/* Octets that are no UTF-8 become U+FFFD, as in every other form of a record. */
static uint32_t repaired_len(struct otus_slice text)
{
    const uint8_t *end = text.at + text.len;
    uint32_t len = 0;
    for (const uint8_t *at = text.at; at < end;) {
        int octets = *at < 0x80 ? 1 : encode_utf8_character(at, end);
        len += octets > 0 ? (uint32_t)octets : 3;
        at += octets > 0 ? octets : -octets;
    }
    return len;
}

static uint8_t *put_repaired(uint8_t *out, struct otus_slice text)
{
    const uint8_t *end = text.at + text.len;
    for (const uint8_t *at = text.at; at < end;) {
        int octets = *at < 0x80 ? 1 : encode_utf8_character(at, end);
        if (octets > 0)
            memcpy(out, at, (size_t)octets);
        else
            memcpy(out, "\xef\xbf\xbd", 3);
        out += octets > 0 ? octets : 3;
        at += octets > 0 ? octets : -octets;
    }
    return out;
}

static bool is_ascii(struct otus_slice text)
{
    uint64_t all = 0;
    uint64_t word = 0;
    uint32_t at = 0;
    for (; at + sizeof word <= text.len; at += (uint32_t)sizeof word) {
        memcpy(&word, text.at + at, sizeof word);
        all |= word;
    }
    for (; at < text.len; at++)
        all |= text.at[at];
    return (all & 0x8080808080808080u) == 0;
}

static const struct otus_slice PAYLOAD_TYPE = HEADER_NAME("\x18", "payload_type");

/* What the header area of a record comes to. */
struct header_plan {
    uint32_t len; /* octets, its count included */
    uint32_t num_headers;
    bool is_clean; /* every label is UTF-8 as it stands */
};

/* False where a span is damaged. */
static bool plan_headers(struct header_plan *out_plan, const struct otus_kafka_input *input,
                         const struct source *source)
{
    struct otus_slice labels = source->labels;
    struct otus_slice name;
    struct otus_slice value;
    bool damaged = false;
    bool is_clean = true;
    uint32_t count = input->num_fixed_headers + 1;
    uint32_t len = input->fixed_headers.len + PAYLOAD_TYPE.len +
                   sized_len(source->payload_type.len) + source->network.len;
    if (source->network.len != 0)
        count += NUM_NETWORK_HEADERS;
    while (next_label(input, &labels, &name, &value, &damaged)) {
        uint32_t value_len = value.len;
        if (OTUS_UNLIKELY(!is_ascii(value)) && !encode_is_utf8(value.at, value.len)) {
            is_clean = false;
            value_len = repaired_len(value);
        }
        len += name.len + sized_len(value_len);
        count++;
    }
    *out_plan = (struct header_plan){len + varint_len(count), count, is_clean};
    return !damaged;
}

static uint8_t *put_headers(uint8_t *out, const struct otus_kafka_input *input,
                            const struct source *source, const struct otus_kafka_place *at)
{
    struct otus_slice labels = source->labels;
    struct otus_slice name;
    struct otus_slice value;
    bool damaged = false;
    out = put_varint(out, at->num_headers);
    out = put_octets(out, input->fixed_headers);
    out = put_sized(put_octets(out, PAYLOAD_TYPE), source->payload_type);
    out = put_octets(out, source->network);
    while (next_label(input, &labels, &name, &value, &damaged)) {
        out = put_octets(out, name);
        if (OTUS_LIKELY(at->is_clean))
            out = put_sized(out, value);
        else
            out = put_repaired(put_varint(out, repaired_len(value)), value);
    }
    return out;
}

/* --- Planning ------------------------------------------------------------- */

/* Octets after the length field, for its place in a section. */
static uint32_t body_len(const struct source *source, uint32_t headers, int64_t ts_delta,
                         uint32_t offset_delta)
{
    return 1 + varint_len(ts_delta) + varint_len(offset_delta) + sized_len(source->key.len) +
           sized_len(source->value.len) + headers;
}

struct planner {
    struct otus_kafka_section *sections;
    uint32_t num_sections;
    uint32_t *open; /* by partition: its open section, or OTUS_KAFKA_NO_SECTION */
    const struct otus_kafka_inputs *from;
};

static struct otus_kafka_section *open_section(struct planner *planner, uint32_t partition,
                                               int64_t ts_ms)
{
    uint32_t number = planner->num_sections++;
    planner->open[partition] = number;
    struct otus_kafka_section *section = &planner->sections[number];
    *section = (struct otus_kafka_section){
        .partition = partition, .base_ts_ms = ts_ms, .max_ts_ms = ts_ms};
    return section;
}

static void place(struct planner *planner, struct otus_kafka_place *out_place,
                  const struct source *source, uint32_t headers)
{
    uint32_t partition = otus_kafka_partition(source->key, planner->from->num_partitions);
    uint32_t number = planner->open[partition];
    struct otus_kafka_section *section = NULL;
    uint32_t len = 0;
    if (number != OTUS_KAFKA_NO_SECTION) {
        section = &planner->sections[number];
        len = body_len(source, headers, source->ts_ms - section->base_ts_ms, section->num_records);
        if (section->len + sized_len(len) > planner->from->max_section_octets)
            section = NULL;
    }
    if (section == NULL) {
        section = open_section(planner, partition, source->ts_ms);
        len = body_len(source, headers, 0, 0);
    }
    out_place->section = planner->open[partition];
    out_place->offset_delta = section->num_records++;
    out_place->body_len = len;
    section->len += sized_len(len);
    if (source->ts_ms > section->max_ts_ms)
        section->max_ts_ms = source->ts_ms;
}

static bool fits(const struct otus_kafka_inputs *from, const struct source *source,
                 uint32_t headers)
{
    uint64_t octets = (uint64_t)source->key.len + source->value.len + headers;
    /* A packet may be without payload, but no record without its encoded form. */
    bool has_value = source->value.len != 0 || from->value == OTUS_KAFKA_RAW;
    return has_value && octets <= from->max_message_octets;
}

/* The records of one input. *total is what all records come to so far. */
static enum otus_status plan_input(struct planner *planner, struct otus_kafka_place *out_places,
                                   uint64_t *total, const struct otus_kafka_input *input)
{
    for (uint32_t i = 0; i < input->num_indices; i++) {
        if (input->indices[i] >= input->num_records)
            return OTUS_E_INVALID;
        struct source source;
        struct header_plan headers;
        ask_for(input, i);
        out_places[i] = (struct otus_kafka_place){.section = OTUS_KAFKA_NO_SECTION};
        if (!look_up(&source, input, planner->from->value, input->indices[i]) ||
            !plan_headers(&headers, input, &source) || !fits(planner->from, &source, headers.len))
            continue;
        place(planner, &out_places[i], &source, headers.len);
        out_places[i].num_headers = headers.num_headers;
        out_places[i].is_clean = headers.is_clean;
        *total += sized_len(out_places[i].body_len);
        if (*total > MAX_OUTPUT)
            return OTUS_E_LIMIT;
    }
    return OTUS_OK;
}

enum otus_status otus_kafka_measure(struct otus_kafka_place *out_places,
                                    struct otus_kafka_section *out_sections,
                                    uint32_t *out_num_sections, uint32_t *out_octets,
                                    uint32_t *scratch, const struct otus_kafka_inputs *from)
{
    struct planner planner = {out_sections, 0, scratch, from};
    for (uint32_t i = 0; i < from->num_partitions; i++)
        scratch[i] = OTUS_KAFKA_NO_SECTION;
    uint64_t total = 0;
    for (uint32_t i = 0; i < from->num_inputs; i++) {
        enum otus_status status = plan_input(&planner, out_places, &total, &from->inputs[i]);
        if (status != OTUS_OK)
            return status;
        out_places += from->inputs[i].num_indices;
    }
    uint32_t off = 0;
    for (uint32_t i = 0; i < planner.num_sections; i++) {
        out_sections[i].off = off;
        off += out_sections[i].len;
    }
    *out_num_sections = planner.num_sections;
    *out_octets = (uint32_t)total;
    return OTUS_OK;
}

/* --- Writing -------------------------------------------------------------- */

static uint8_t *put_record(uint8_t *out, const struct otus_kafka_input *input,
                           const struct source *source, const struct otus_kafka_place *at,
                           int64_t base_ts_ms)
{
    out = put_varint(out, at->body_len);
    *out++ = 0; /* attributes: none are defined */
    out = put_varint(out, source->ts_ms - base_ts_ms);
    out = put_varint(out, at->offset_delta);
    out = put_sized(out, source->key);
    out = put_sized(out, source->value);
    return put_headers(out, input, source, at);
}

static enum otus_status write_input(uint8_t *out, struct otus_kafka_section *sections,
                                    uint32_t num_sections, const struct otus_kafka_place *places,
                                    const struct otus_kafka_input *input, uint32_t value)
{
    for (uint32_t i = 0; i < input->num_indices; i++) {
        const struct otus_kafka_place *at = &places[i];
        ask_for(input, i);
        if (at->section == OTUS_KAFKA_NO_SECTION)
            continue;
        struct source source;
        if (at->section >= num_sections || !look_up(&source, input, value, input->indices[i]))
            return OTUS_E_INVALID;
        struct otus_kafka_section *section = &sections[at->section];
        uint32_t len = sized_len(at->body_len);
        if (len > section->len - section->written)
            return OTUS_E_INVALID;
        uint8_t *start = out + section->off + section->written;
        uint8_t *end = put_record(start, input, &source, at, section->base_ts_ms);
        if ((uint32_t)(end - start) != len)
            return OTUS_E_INVALID;
        section->written += len;
    }
    return OTUS_OK;
}

enum otus_status otus_kafka_write(uint8_t *out, uint32_t out_len,
                                  struct otus_kafka_section *sections, uint32_t num_sections,
                                  const struct otus_kafka_place *places,
                                  const struct otus_kafka_inputs *from)
{
    for (uint32_t i = 0; i < num_sections; i++) {
        if (sections[i].off > out_len || sections[i].len > out_len - sections[i].off)
            return OTUS_E_LIMIT;
        sections[i].written = 0;
    }
    for (uint32_t i = 0; i < from->num_inputs; i++) {
        enum otus_status status =
            write_input(out, sections, num_sections, places, &from->inputs[i], from->value);
        if (status != OTUS_OK)
            return status;
        places += from->inputs[i].num_indices;
    }
    return OTUS_OK;
}
