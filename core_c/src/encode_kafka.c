/* Kafka record sections, in two passes. Records lie in memory that another core
 * wrote, so that looking at them is what costs: the first pass reads no more of each
 * than its key, gives it to a section and says how large it is at most. The second
 * writes every record to its final place, one behind the other, in sections that have
 * room for the sum of that.
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
    MAX_ASKED_FOR = 1024,     /* octets of a record's payload or labels */
    LONGEST_PAYLOAD_TYPE = 4, /* octets of a name that the core gives */
    MAX_VARINT = 5,
    MAX_VARLONG = 10,
    COPIED = 64, /* octets that are copied of a short name or value */
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

static struct otus_span value_span(const struct otus_record *record, uint32_t value)
{
    return value == OTUS_KAFKA_RAW        ? record->payload
           : value == OTUS_KAFKA_PROTOBUF ? record->protobuf
                                          : record->json;
}

enum { CACHE_LINE = 64, RECORDS_AHEAD = 8, OCTETS_AHEAD = 4 };

static void ask_for_span(const struct otus_kafka_input *input, struct otus_span span)
{
    uint32_t num = span.len < MAX_ASKED_FOR ? span.len : MAX_ASKED_FOR;
    for (uint32_t at = 0; at < num; at += CACHE_LINE)
        __builtin_prefetch(input->arena + span.off + at);
}

/* The record that is `ahead` of a position; NULL where there is none. */
static const uint8_t *record_ahead(const struct otus_kafka_input *input, uint32_t position,
                                   uint32_t ahead)
{
    if (position + ahead >= input->num_indices)
        return NULL;
    uint32_t index = input->indices[position + ahead];
    return index < input->num_records ? input->records + (size_t)index * sizeof(struct otus_record)
                                      : NULL;
}

/* Batches are larger than the caches that are near: what a record is to be read for is
 * asked for while those before it are worked on. What is asked for need not exist. */
static void ask_for_key(const struct otus_kafka_input *input, uint32_t position)
{
    const uint8_t *far = record_ahead(input, position, 2 * RECORDS_AHEAD);
    const uint8_t *near = record_ahead(input, position, RECORDS_AHEAD);
    if (far == NULL || near == NULL)
        return;
    for (size_t at = 0; at < sizeof(struct otus_record); at += CACHE_LINE)
        __builtin_prefetch(far + at);
    struct otus_span key;
    memcpy(&key, near + offsetof(struct otus_record, key), sizeof key);
    __builtin_prefetch(input->arena + key.off);
}

static void ask_for_octets(const struct otus_kafka_input *input, uint32_t position, uint32_t value)
{
    const uint8_t *far = record_ahead(input, position, RECORDS_AHEAD);
    const uint8_t *near = record_ahead(input, position, OCTETS_AHEAD);
    if (far == NULL || near == NULL)
        return;
    for (size_t at = 0; at < sizeof(struct otus_record); at += CACHE_LINE)
        __builtin_prefetch(far + at);
    struct otus_record record;
    memcpy(&record, near, sizeof record);
    ask_for_span(input, record.payload); /* which most labels are part of */
    ask_for_span(input, record.labels);
    if (value != OTUS_KAFKA_RAW)
        ask_for_span(input, value_span(&record, value));
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

static struct otus_record load_record(const struct otus_kafka_input *input, uint32_t index)
{
    struct otus_record record;
    memcpy(&record, input->records + (size_t)index * sizeof record, sizeof record);
    return record;
}

static bool find_key(struct source *source, const struct otus_kafka_input *input,
                     const struct otus_record *record)
{
    if (!find(input, &source->key, record->key))
        return false;
    if (record->key.len == 0)
        make_flow_key(source, &record->meta);
    return true;
}

static bool look_up(struct source *source, const struct otus_kafka_input *input, uint32_t value,
                    uint32_t index)
{
    struct otus_record record = load_record(input, index);
    source->ts_ms = (int64_t)(record.meta.ts_ns / NS_PER_MS);
    source->network.len = 0;
    if (!find_key(source, input, &record) || !find(input, &source->labels, record.labels) ||
        !find(input, &source->value, value_span(&record, value)))
        return false;
    if (value == OTUS_KAFKA_RAW)
        make_network_headers(source, &record.meta);
    if (record.payload_type == OTUS_PAYLOAD_PLUGIN)
        return find(input, &source->payload_type, record.payload_name);
    const char *name = encode_payload_type_name(record.payload_type);
    source->payload_type = (struct otus_slice){(const uint8_t *)name, (uint32_t)strlen(name)};
    return true;
}

/* --- Headers -------------------------------------------------------------- */

/* The next label that becomes a header. OTUS_E_END after the last, OTUS_E_MALFORMED
 * where its value lies outside the arena. Moves *labels on. */
static inline enum otus_status next_label(struct otus_slice *labels, struct otus_slice *out_name,
                                          struct otus_slice *out_value,
                                          const struct otus_kafka_input *input)
{
    struct otus_label label;
    while (labels->len >= sizeof label) {
        memcpy(&label, labels->at, sizeof label);
        labels->at += sizeof label;
        labels->len -= (uint32_t)sizeof label;
        if (label.id >= input->num_label_names || input->label_names[label.id].len == 0)
            continue;
        *out_name = input->label_names[label.id];
        return find(input, out_value, (struct otus_span){label.off, label.len}) ? OTUS_OK
                                                                                : OTUS_E_MALFORMED;
    }
    return OTUS_E_END;
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

static const struct otus_slice PAYLOAD_TYPE = HEADER_NAME("\x18", "payload_type");

/* Room for one record. Beyond the end are COPIED octets that may be written to. */
struct room {
    uint8_t *at;
    const uint8_t *end;
};

static bool has_room(const struct room *room, uint64_t len)
{
    return len <= (uint64_t)(room->end - room->at);
}

/* Puts a length before the octets that begin at first, where room for another was left. */
static void put_length(struct room *room, uint8_t *at, uint8_t *first, uint32_t len)
{
    uint32_t room_left = varint_len(len);
    if (OTUS_UNLIKELY(at + room_left != first)) {
        memmove(at + room_left, first, (size_t)(room->at - first));
        room->at = at + room_left + (room->at - first);
    }
    (void)put_varint(at, len);
}

/* Most names and values are short. How short is what a processor guesses wrong: COPIED
 * octets are copied, whatever the length, where so many can be read. *all gathers them. */
static inline uint8_t *put_short(uint8_t *out, struct otus_slice octets, uint32_t readable,
                                 uint64_t *all)
{
    uint64_t words[COPIED / sizeof(uint64_t)];
    if (OTUS_LIKELY(octets.len <= COPIED && readable >= COPIED)) {
        memcpy(words, octets.at, COPIED);
        memcpy(out, words, COPIED);
        for (size_t i = 0; i < COPIED / sizeof(uint64_t); i++)
            *all |= words[i];
    } else {
        memcpy(out, octets.at, octets.len);
        *all = UINT64_MAX;
    }
    return out + octets.len;
}

static enum otus_status put_label(struct room *room, const struct otus_kafka_input *input,
                                  struct otus_slice name, struct otus_slice value)
{
    uint64_t all = 0;
    if (!has_room(room, (uint64_t)name.len + MAX_VARINT + value.len))
        return OTUS_E_PARTIAL;
    uint8_t *at = put_octets(room->at, name);
    uint8_t *end = put_varint(at, value.len);
    end = put_short(end, value, (uint32_t)(input->arena + input->arena_len - value.at), &all);
    /* Octets of the neighbours are among them: that is looked at again. */
    if (OTUS_UNLIKELY((all & 0x8080808080808080u) != 0) && !encode_is_utf8(value.at, value.len)) {
        uint32_t len = repaired_len(value);
        if (!has_room(room, (uint64_t)name.len + MAX_VARINT + len))
            return OTUS_E_PARTIAL;
        end = put_repaired(put_varint(at, len), value);
    }
    room->at = end;
    return OTUS_OK;
}

/* All headers behind their number. */
static enum otus_status put_headers(struct room *room, const struct otus_kafka_input *input,
                                    const struct source *source)
{
    struct otus_slice labels = source->labels;
    struct otus_slice name;
    struct otus_slice value;
    uint32_t num_labels = labels.len / (uint32_t)sizeof(struct otus_label);
    uint32_t num = input->num_fixed_headers + 1 + (source->network.len ? NUM_NETWORK_HEADERS : 0);
    uint32_t supposed = num + num_labels;
    uint32_t before = MAX_VARINT + input->fixed_headers.len + PAYLOAD_TYPE.len + MAX_VARINT;
    if (!has_room(room, (uint64_t)before + source->payload_type.len + source->network.len))
        return OTUS_E_PARTIAL;
    uint8_t *number = room->at;
    uint8_t *first = number + varint_len(supposed);
    room->at = put_octets(first, input->fixed_headers);
    room->at = put_sized(put_octets(room->at, PAYLOAD_TYPE), source->payload_type);
    room->at = put_octets(room->at, source->network);
    enum otus_status status;
    while ((status = next_label(&labels, &name, &value, input)) == OTUS_OK) {
        status = put_label(room, input, name, value);
        if (OTUS_UNLIKELY(status != OTUS_OK))
            return status;
        num++;
    }
    put_length(room, number, first, num);
    return status == OTUS_E_END ? OTUS_OK : status;
}

/* --- Planning ------------------------------------------------------------- */

enum {
    /* Of a record, beside what its lengths are known of: attributes, its own length,
     * timestampDelta, offsetDelta, the number of headers. */
    FIXED_ROOM = 1 + 4 * MAX_VARINT + MAX_VARLONG,
    /* Of a section, beside its records: what is copied too much, and what a length is
     * taken for before it is known. */
    SECTION_ROOM = COPIED + 32,
};

struct planner {
    const struct otus_kafka_inputs *from;
    struct otus_kafka_section *sections;
    uint32_t num_sections;
    uint32_t *open;         /* by partition: its open section, or OTUS_KAFKA_NO_SECTION */
    uint32_t longest_label; /* of the input in hand: octets of its longest header name */
    uint64_t total;         /* octets of all records at most */
};

static uint32_t longest_name(const struct otus_kafka_input *input)
{
    uint32_t longest = 0;
    for (uint32_t i = 0; i < input->num_label_names; i++)
        if (input->label_names[i].len > longest)
            longest = input->label_names[i].len;
    return longest;
}

/* Octets of the labels' headers at most, by what the record says of them: that no
 * octet is looked at is why there is a bound. It holds as long as all are UTF-8. */
static bool bound_labels(uint64_t *out_len, const struct planner *planner,
                         const struct otus_kafka_input *input, const struct otus_record *record)
{
    *out_len = 0;
    if (planner->longest_label == 0)
        return true; /* no label becomes a header */
    if (!planner->from->is_exact && record->labels_octets <= input->arena_len) {
        uint64_t num = record->labels.len / sizeof(struct otus_label);
        *out_len = num * (planner->longest_label + varint_len(record->labels_octets)) +
                   record->labels_octets;
        return true;
    }
    struct otus_slice labels;
    struct otus_slice name;
    struct otus_slice text;
    if (!find(input, &labels, record->labels))
        return false;
    enum otus_status status;
    while ((status = next_label(&labels, &name, &text, input)) == OTUS_OK)
        *out_len += name.len + sized_len(repaired_len(text));
    return status == OTUS_E_END;
}

/* Octets of a record at most; false where it is damaged, or has no value. */
static bool bound_record(uint64_t *out_len, const struct planner *planner,
                         const struct otus_kafka_input *input, const struct otus_record *record,
                         uint32_t key_len)
{
    uint32_t value = planner->from->value;
    struct otus_slice octets;
    uint64_t labels;
    if (!find(input, &octets, value_span(record, value)) ||
        !bound_labels(&labels, planner, input, record))
        return false;
    /* A packet may be without payload, but no record without its encoded form. */
    if (octets.len == 0 && value != OTUS_KAFKA_RAW)
        return false;
    uint32_t kind = record->payload_type == OTUS_PAYLOAD_PLUGIN ? record->payload_name.len
                                                                : LONGEST_PAYLOAD_TYPE;
    *out_len = FIXED_ROOM + (uint64_t)sized_len(key_len) + sized_len(octets.len) +
               input->fixed_headers.len + PAYLOAD_TYPE.len + sized_len(kind) + labels +
               (value == OTUS_KAFKA_RAW ? NETWORK_ROOM : 0);
    return true;
}

/* The section that a record of at most so many octets goes to. */
static uint32_t place(struct planner *planner, struct otus_slice key, uint32_t len)
{
    uint32_t partition = otus_kafka_partition(key, planner->from->num_partitions);
    uint32_t number = planner->open[partition];
    if (number == OTUS_KAFKA_NO_SECTION ||
        planner->sections[number].room + (uint64_t)len >
            (uint64_t)planner->from->max_section_octets + SECTION_ROOM) {
        number = planner->num_sections++;
        planner->open[partition] = number;
        planner->sections[number] =
            (struct otus_kafka_section){.partition = partition, .room = SECTION_ROOM};
        planner->total += SECTION_ROOM;
    }
    planner->sections[number].room += len;
    return number;
}

static enum otus_status plan_input(struct planner *planner, uint32_t *out_places,
                                   const struct otus_kafka_input *input)
{
    planner->longest_label = longest_name(input);
    for (uint32_t i = 0; i < input->num_indices; i++) {
        if (input->indices[i] >= input->num_records)
            return OTUS_E_INVALID;
        struct source source;
        uint64_t len;
        ask_for_key(input, i);
        struct otus_record record = load_record(input, input->indices[i]);
        out_places[i] = OTUS_KAFKA_NO_SECTION;
        if (!find_key(&source, input, &record) ||
            !bound_record(&len, planner, input, &record, source.key.len))
            continue;
        planner->total += len;
        if (planner->total > MAX_OUTPUT)
            return OTUS_E_LIMIT;
        out_places[i] = place(planner, source.key, (uint32_t)len);
    }
    return OTUS_OK;
}

enum otus_status otus_kafka_plan(uint32_t *out_places, struct otus_kafka_section *out_sections,
                                 uint32_t *out_num_sections, uint32_t *out_octets,
                                 uint32_t *scratch, const struct otus_kafka_inputs *from)
{
    struct planner planner = {.from = from, .sections = out_sections, .open = scratch};
    for (uint32_t i = 0; i < from->num_partitions; i++)
        scratch[i] = OTUS_KAFKA_NO_SECTION;
    for (uint32_t i = 0; i < from->num_inputs; i++) {
        enum otus_status status = plan_input(&planner, out_places, &from->inputs[i]);
        if (status != OTUS_OK)
            return status;
        out_places += from->inputs[i].num_indices;
    }
    uint32_t off = 0;
    for (uint32_t i = 0; i < planner.num_sections; i++) {
        out_sections[i].off = off;
        off += out_sections[i].room;
    }
    *out_num_sections = planner.num_sections;
    *out_octets = off;
    return OTUS_OK;
}

/* --- Writing -------------------------------------------------------------- */

/* Puts a record behind those that its section has. OTUS_E_PARTIAL where there is no
 * room for it, though it was planned; OTUS_E_LIMIT and OTUS_E_MALFORMED where it is too
 * large or damaged, and then the section is as it was. */
static enum otus_status put_record(uint8_t *out, struct otus_kafka_section *section,
                                   const struct otus_kafka_input *input,
                                   const struct source *source, uint32_t max_octets)
{
    uint8_t *start = out + section->off + section->len;
    struct room room = {start, out + section->off + section->room - COPIED};
    int64_t base_ts_ms = section->num_records == 0 ? source->ts_ms : section->base_ts_ms;
    uint64_t octets = (uint64_t)source->key.len + source->value.len;
    if (octets > max_octets)
        return OTUS_E_LIMIT;
    if (!has_room(&room, FIXED_ROOM + octets))
        return OTUS_E_PARTIAL;
    uint8_t *body = start + varint_len((int64_t)octets + input->fixed_headers.len);
    room.at = body;
    *room.at++ = 0; /* attributes: none are defined */
    room.at = put_varint(room.at, source->ts_ms - base_ts_ms);
    room.at = put_varint(room.at, section->num_records);
    room.at = put_sized(room.at, source->key);
    room.at = put_sized(room.at, source->value);
    const uint8_t *headers = room.at;
    enum otus_status status = put_headers(&room, input, source);
    if (status != OTUS_OK)
        return status;
    if (octets + (uint64_t)(room.at - headers) > max_octets)
        return OTUS_E_LIMIT;
    put_length(&room, start, body, (uint32_t)(room.at - body));
    section->len += (uint32_t)(room.at - start);
    section->num_records++;
    section->base_ts_ms = base_ts_ms;
    if (section->num_records == 1 || source->ts_ms > section->max_ts_ms)
        section->max_ts_ms = source->ts_ms;
    return OTUS_OK;
}

static enum otus_status write_input(uint8_t *out, struct otus_kafka_section *sections,
                                    uint32_t num_sections, uint32_t *places,
                                    const struct otus_kafka_input *input,
                                    const struct otus_kafka_inputs *from)
{
    for (uint32_t i = 0; i < input->num_indices; i++) {
        struct source source;
        ask_for_octets(input, i, from->value);
        if (places[i] == OTUS_KAFKA_NO_SECTION)
            continue;
        if (places[i] >= num_sections || input->indices[i] >= input->num_records)
            return OTUS_E_INVALID;
        enum otus_status status = OTUS_E_MALFORMED;
        if (look_up(&source, input, from->value, input->indices[i]))
            status =
                put_record(out, &sections[places[i]], input, &source, from->max_message_octets);
        if (status == OTUS_E_PARTIAL)
            return status;
        if (status != OTUS_OK)
            places[i] = OTUS_KAFKA_NO_SECTION;
    }
    return OTUS_OK;
}

enum otus_status otus_kafka_write(uint8_t *out, uint32_t out_len,
                                  struct otus_kafka_section *sections, uint32_t num_sections,
                                  uint32_t *places, const struct otus_kafka_inputs *from)
{
    for (uint32_t i = 0; i < num_sections; i++) {
        if (sections[i].off > out_len || sections[i].room > out_len - sections[i].off ||
            sections[i].room < SECTION_ROOM)
            return OTUS_E_LIMIT;
        sections[i].len = sections[i].num_records = 0;
    }
    for (uint32_t i = 0; i < from->num_inputs; i++) {
        enum otus_status status =
            write_input(out, sections, num_sections, places, &from->inputs[i], from);
        if (status != OTUS_OK)
            return status;
        places += from->inputs[i].num_indices;
    }
    return OTUS_OK;
}
