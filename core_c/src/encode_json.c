/* JSON records: the form that the machine runs best, and what all forms share. */
#include "json_record.h"

const struct json_form json_form_baseline = {"baseline", put_record, put_payload, put_string};

const struct json_form *json_form_best(void)
{
    const struct json_form *avx512 = json_form_avx512();
    const struct json_form *avx2 = json_form_avx2();
    return avx512 != NULL ? avx512 : avx2 != NULL ? avx2 : &json_form_baseline;
}

static void set_second(struct otus_encoder *encoder, uint64_t ts_ns)
{
    if (OTUS_LIKELY(ts_ns - encoder->second_ns < 1000000000 && encoder->has_date))
        return;
    uint64_t second = ts_ns / 1000000000;
    otus_text_second(encoder->date, second);
    encoder->second_ns = second * 1000000000;
    encoder->has_date = true;
}

/* Where a form may start to write no more; NULL where the arena is as good as full. */
static uint8_t *room_end(const struct otus_arena *arena)
{
    return otus_arena_left(arena) > JSON_SLACK ? arena->base + arena->size - JSON_SLACK : NULL;
}

static enum otus_status finish(struct otus_arena *arena, struct otus_span *out_span,
                               const uint8_t *at, const uint8_t *end)
{
    if (OTUS_UNLIKELY(at >= end))
        return OTUS_E_LIMIT;
    uint32_t used = (uint32_t)(at - arena->base);
    *out_span = (struct otus_span){arena->used, used - arena->used};
    arena->used = used;
    return OTUS_OK;
}

enum otus_status otus_encode_json(struct otus_arena *arena, struct otus_span *out_span,
                                  struct otus_encoder *encoder,
                                  const struct otus_encode_input *input)
{
    uint8_t *end = room_end(arena);
    if (OTUS_UNLIKELY(end == NULL))
        return OTUS_E_LIMIT;
    set_second(encoder, input->meta->ts_ns);
    uint8_t *at = encoder->json->record(arena->base + arena->used, end, encoder, input);
    return finish(arena, out_span, at, end);
}

enum otus_status otus_encode_payload_json(struct otus_arena *arena, struct otus_span *out_span,
                                          const struct otus_encoder *encoder,
                                          const struct otus_encode_input *input)
{
    uint8_t *end = room_end(arena);
    if (OTUS_UNLIKELY(end == NULL))
        return OTUS_E_LIMIT;
    uint8_t *at = encoder->json->payload(arena->base + arena->used, end, input);
    return finish(arena, out_span, at, end);
}
