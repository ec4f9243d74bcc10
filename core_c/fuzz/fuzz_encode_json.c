/* Records of any octets and any spans of them, as JSON and as Protobuf, into rooms of any
 * size: nothing is touched outside them, the text is UTF-8 on one line, and every
 * form of the JSON encoder writes the same. */
#include <stdlib.h>
#include <string.h>

#include "encoder.h"

enum {
    MAX_HEADERS = 40,
    MAX_OCTETS = 4096, /* looked at: each header may name all of them */
};

struct source {
    struct otus_cursor at;
    const uint8_t *octets;
    uint32_t len;
};

static uint16_t take(struct source *source)
{
    uint16_t value = 0;
    return otus_cursor_be16(&source->at, &value) ? value : 0;
}

/* Any part of the octets, as the parser of a message gives them. */
static struct otus_span span(struct source *source)
{
    uint16_t off = take(source);
    uint16_t len = take(source);
    uint32_t first = source->len == 0 ? 0 : off % source->len;
    return (struct otus_span){first, source->len == 0 ? 0 : len % (source->len - first + 1)};
}

static struct otus_slice slice(struct source *source)
{
    struct otus_span found = span(source);
    return (struct otus_slice){source->octets + found.off, found.len};
}

static void fill_address(struct otus_sip_address *address, struct source *source)
{
    address->display_name = span(source);
    address->uri = span(source);
    address->params = span(source);
    address->tag = span(source);
}

static void fill_sdp(struct otus_sdp *sdp, struct source *source)
{
    memset(sdp, 0, sizeof *sdp);
    sdp->origin = span(source);
    sdp->session_name = span(source);
    sdp->bundle = span(source);
    sdp->num_media = take(source) % 4;
    for (uint32_t i = 0; i < sdp->num_media; i++) {
        struct otus_sdp_media *media = &sdp->media[i];
        media->media = span(source);
        media->protocol = span(source);
        media->port = take(source);
        media->direction = (uint8_t)take(source);
        media->first_codec = take(source);
        media->num_codecs = take(source) % 8;
        media->first_candidate = take(source);
        media->num_candidates = take(source) % 8;
    }
    for (uint32_t i = 0; i < 8; i++) {
        sdp->codecs[i].encoding = span(source);
        sdp->codecs[i].payload_type = (uint8_t)take(source);
        sdp->candidates[i] = span(source);
    }
}

static void fill_message(struct otus_sip_message *message, struct otus_sip_header *headers,
                         struct otus_sdp *sdp, struct source *source)
{
    memset(message, 0, sizeof *message);
    message->octets = source->octets;
    message->len = source->len;
    uint16_t bits = take(source);
    message->is_request = bits & 1;
    message->method_id = (uint8_t)(bits >> 8 & 15);
    message->status_code = take(source);
    message->content_length = (bits & 2) != 0 ? -1 : (int64_t)take(source) << (bits & 31);
    message->anomalies = (uint64_t)take(source) << 16 | take(source);
    message->start_line = span(source);
    message->method = span(source);
    message->request_uri = span(source);
    message->reason = span(source);
    message->call_id = span(source);
    fill_address(&message->from, source);
    fill_address(&message->contact, source);
    message->via.branch = span(source);
    message->via.has_rport = bits & 4;
    message->body = span(source);
    memset(message->first, bits & 8 ? 1 : 0, sizeof message->first);
    message->headers = headers;
    message->num_headers = take(source) % MAX_HEADERS;
    for (uint32_t i = 0; i < message->num_headers; i++) {
        headers[i] = (struct otus_sip_header){.name = span(source),
                                              .value = span(source),
                                              .id = take(source) % 40,
                                              .folded = bits & 1};
    }
    if (bits & 16) {
        fill_sdp(sdp, source);
        message->sdp = sdp;
    }
}

static void check_text(const uint8_t *octets, uint32_t len)
{
    if (len < 2 || octets[0] != '{' || octets[len - 1] != '}' || !encode_is_utf8(octets, len))
        abort();
    bool quoted = false;
    int depth = 0;
    for (uint32_t i = 0; i < len; i++) {
        if (octets[i] < 0x20)
            abort();
        if (quoted && octets[i] == '\\')
            i++;
        else if (octets[i] == '"')
            quoted = !quoted;
        else if (!quoted)
            depth +=
                (octets[i] == '{' || octets[i] == '[') - (octets[i] == '}' || octets[i] == ']');
    }
    if (quoted || depth != 0)
        abort();
}

/* The record by one form, or nothing where it did not fit. */
static struct otus_slice encode_json(uint8_t *room, uint32_t size, struct otus_encoder *encoder,
                                     const struct json_form *form,
                                     const struct otus_encode_input *input)
{
    struct otus_arena arena = {room, 0, size};
    struct otus_span at;
    encoder->json = form;
    if (otus_encode_json(&arena, &at, encoder, input) != OTUS_OK)
        return (struct otus_slice){NULL, 0};
    check_text(room + at.off, at.len);
    return (struct otus_slice){room + at.off, at.len};
}

/* room and other: size octets each, on the heap, so that the sanitizer watches their ends. */
static void encode(struct otus_encoder *encoder, const struct otus_encode_input *input,
                   uint8_t *room, uint8_t *other, uint32_t size)
{
    if (room == NULL || other == NULL)
        abort();
    struct otus_slice text = encode_json(room, size, encoder, json_form_best(), input);
    const struct json_form *forms[] = {&json_form_portable, &json_form_baseline};
    for (uint32_t i = 0; i < 2; i++) {
        struct otus_slice same = encode_json(other, size, encoder, forms[i], input);
        /* Where the room ends, forms may differ by a step. */
        if (text.at != NULL && same.at != NULL &&
            (text.len != same.len || memcmp(text.at, same.at, text.len) != 0))
            abort();
    }
    struct otus_arena arena = {other, 0, size};
    struct otus_span at;
    if (otus_encode_protobuf(&arena, &at, encoder, input) == OTUS_OK &&
        at.off + at.len != arena.used)
        abort();
}

static void encode_in_small_room(struct otus_encoder *encoder,
                                 const struct otus_encode_input *input, uint32_t size)
{
    uint8_t *room = malloc(size + 1u);
    uint8_t *other = malloc(size + 1u);
    encode(encoder, input, room, other, size);
    free(room);
    free(other);
}

/* Taken once: the sanitizer marks each octet of what is taken and freed. */
static void encode_in_large_room(struct otus_encoder *encoder,
                                 const struct otus_encode_input *input)
{
    enum { SIZE = 1 << 22 }; /* a batch's arena */
    static uint8_t *rooms[2];
    for (uint32_t i = 0; i < 2; i++) {
        if (rooms[i] == NULL)
            rooms[i] = malloc(SIZE);
    }
    encode(encoder, input, rooms[0], rooms[1], SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
    static const char *const names[OTUS_MAX_LABELS] = {[OTUS_NUM_LABELS] = "own.label"};
    static struct otus_sip_header headers[MAX_HEADERS];
    static struct otus_sdp sdp;
    if (len > MAX_OCTETS)
        len = MAX_OCTETS;
    /* A copy with what encoders may read behind it and no octet more. */
    uint8_t *copy = malloc(len + OTUS_ENCODE_BEHIND);
    if (copy == NULL)
        abort();
    memcpy(copy, octets, len);
    memset(copy + len, '"', OTUS_ENCODE_BEHIND);
    octets = copy;
    struct source source = {otus_cursor_of(octets, len), octets, (uint32_t)len};
    struct otus_envelope envelope = {"task", "a\"g", "\xff", (take(&source) & 1) != 0, names};
    struct otus_encoder *encoder;
    if (otus_encoder_new(&encoder, &envelope) != OTUS_OK)
        abort();
    struct otus_packet_meta meta = {.ip_version = 6, .protocol = (uint8_t)take(&source)};
    meta.ts_ns = (uint64_t)take(&source) << 48;
    meta.flags = take(&source);
    meta.num_vlans = (uint8_t)take(&source);
    meta.num_tunnels = (uint8_t)(take(&source) % (OTUS_MAX_TUNNELS + 1));
    static const struct otus_tunnel tunnels[OTUS_MAX_TUNNELS];
    struct otus_label_set labels;
    otus_label_clear(&labels, octets);
    for (uint32_t id = 0; id <= OTUS_NUM_LABELS; id += 1 + take(&source) % 8)
        otus_label_put(&labels, id, slice(&source));
    struct otus_sip_message message;
    fill_message(&message, headers, &sdp, &source);
    struct otus_encode_input input = {
        .meta = &meta,
        .tunnels = tunnels,
        .labels = &labels,
        .payload_type = OTUS_PAYLOAD_SIP,
        .payload = {octets, (uint32_t)len},
        .sip = &message,
    };
    uint32_t size = take(&source);
    encode_in_small_room(encoder, &input, size);
    encode_in_large_room(encoder, &input);
    otus_encoder_free(encoder);
    free(copy);
    return 0;
}
