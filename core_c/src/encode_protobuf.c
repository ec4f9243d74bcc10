/* One record as one otus.v1.Record: to come with configs/otus.proto. */
#include "encoder.h"

enum otus_status encoder_render_protobuf(struct otus_encoder *encoder,
                                         const struct otus_envelope *envelope)
{
    (void)encoder;
    (void)envelope;
    return OTUS_OK;
}

enum otus_status otus_encode_protobuf(struct otus_arena *arena, struct otus_span *out_span,
                                      struct otus_encoder *encoder,
                                      const struct otus_encode_input *input)
{
    (void)arena;
    (void)out_span;
    (void)encoder;
    (void)input;
    return OTUS_E_UNSUPPORTED;
}
