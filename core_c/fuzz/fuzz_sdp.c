/* A session description on its own, inside octets that are not its. */
#include <stdlib.h>

#include "otus/sdp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct otus_sdp sdp;
    uint32_t skip = size > 0 ? data[0] % 4 : 0;
    if (skip > size)
        skip = 0;
    struct otus_span body = {skip, (uint32_t)size - skip};
    if (otus_sdp_parse(&sdp, data, body) != OTUS_OK)
        return 0;
    if (sdp.num_media > OTUS_SDP_MAX_MEDIA || sdp.num_codecs > OTUS_SDP_MAX_CODECS ||
        sdp.num_candidates > OTUS_SDP_MAX_CANDIDATES)
        abort();
    for (uint32_t i = 0; i < sdp.num_media; i++)
        if (sdp.media[i].address.off + sdp.media[i].address.len > size ||
            sdp.media[i].protocol.off + sdp.media[i].protocol.len > size)
            abort();
    for (uint32_t i = 0; i < sdp.num_candidates; i++)
        if (sdp.candidates[i].off + sdp.candidates[i].len > size)
            abort();
    return 0;
}
