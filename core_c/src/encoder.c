#include "encoder.h"

#include <stdlib.h>

static bool label_octet_is_allowed(char octet, bool first)
{
    bool alphanumeric = (octet >= 'a' && octet <= 'z') || (octet >= '0' && octet <= '9');
    return alphanumeric || (!first && (octet == '.' || octet == '_' || octet == '-'));
}

enum otus_status otus_encoder_name_label(struct otus_encoder *encoder, uint32_t id,
                                         const char *name)
{
    static_assert(OTUS_MAX_LABEL_NAME + 4 <= ENCODER_LABEL_SLOT, "a name and its marks");
    size_t len = strnlen(name, OTUS_MAX_LABEL_NAME + 1);
    if (id >= OTUS_MAX_LABELS || len == 0 || len > OTUS_MAX_LABEL_NAME)
        return OTUS_E_INVALID;
    for (size_t i = 0; i < len; i++) {
        if (!label_octet_is_allowed(name[i], i == 0))
            return OTUS_E_INVALID;
    }
    struct encoder_label *label = &encoder->labels[id];
    label->json[0] = '"';
    memcpy(label->json + 1, name, len);
    memcpy(label->json + 1 + len, "\":\"", 3);
    label->json_len = (uint8_t)(len + 4);
    label->name_len = (uint8_t)len;
    return OTUS_OK;
}

/* At most six octets for each. */
static uint8_t *put_escaped(uint8_t *at, const char *text)
{
    const uint8_t *from = (const uint8_t *)text;
    const uint8_t *stop = from + strlen(text);
    while (from < stop)
        at = json_escape_one(at, &from, stop);
    return at;
}

static uint8_t *put_literal(uint8_t *at, const char *literal)
{
    size_t len = strlen(literal);
    memcpy(at, literal, len);
    return at + len;
}

static enum otus_status render_json(struct otus_encoder *encoder,
                                    const struct otus_envelope *envelope)
{
    enum { LITERALS = 128 };
    size_t len =
        strlen(envelope->task_id) + strlen(envelope->agent_id) + strlen(envelope->pipeline_id);
    encoder->json_head = calloc(1, 6 * len + LITERALS + ENCODER_HEAD_STEP);
    if (encoder->json_head == NULL)
        return OTUS_E_NOMEM;
    uint8_t *at = put_literal(encoder->json_head, "Z\",\"task_id\":\"");
    at = put_escaped(at, envelope->task_id);
    at = put_literal(at, "\",\"agent_id\":\"");
    at = put_escaped(at, envelope->agent_id);
    at = put_literal(at, "\",\"pipeline_id\":\"");
    at = put_escaped(at, envelope->pipeline_id);
    at = put_literal(at, "\",\"src_ip\":\"");
    encoder->json_head_len = (uint32_t)(at - encoder->json_head);
    return OTUS_OK;
}

static enum otus_status name_labels(struct otus_encoder *encoder, const char *const *names)
{
    for (uint32_t id = 0; id < OTUS_MAX_LABELS; id++) {
        const char *name = names != NULL ? names[id] : NULL;
        if (name == NULL)
            name = otus_label_name(id);
        if (name == NULL)
            continue;
        enum otus_status status = otus_encoder_name_label(encoder, id, name);
        if (status != OTUS_OK)
            return status;
    }
    return OTUS_OK;
}

enum otus_status otus_encoder_new(struct otus_encoder **out_encoder,
                                  const struct otus_envelope *envelope)
{
    if (envelope->task_id == NULL || envelope->agent_id == NULL || envelope->pipeline_id == NULL)
        return OTUS_E_INVALID;
    struct otus_encoder *encoder = calloc(1, sizeof *encoder);
    if (encoder == NULL)
        return OTUS_E_NOMEM;
    encoder->json = json_form_best();
    encoder->raw_payload = envelope->raw_payload;
    enum otus_status status = render_json(encoder, envelope);
    if (status == OTUS_OK)
        status = encoder_render_protobuf(encoder, envelope);
    if (status == OTUS_OK)
        status = name_labels(encoder, envelope->label_names);
    if (status != OTUS_OK) {
        otus_encoder_free(encoder);
        return status;
    }
    *out_encoder = encoder;
    return OTUS_OK;
}

void otus_encoder_free(struct otus_encoder *encoder)
{
    if (encoder == NULL)
        return;
    free(encoder->json_head);
    free(encoder->protobuf_head);
    free(encoder);
}
