/* Between the IP decoders and the reassembly pool. */
#include "decode_internal.h"

enum otus_layer otus_decode_fragment(struct otus_walk *walk, struct otus_fragment *fragment)
{
    (void)fragment;
    otus_count(walk->decoder->counters, OTUS_COUNT_FRAGMENT_DISABLED);
    return OTUS_LAYER_HELD;
}
