/* The framer of streams: a message ends inside what is there, an answer does not change with
 * what follows, and what is partial was not framed before. */
#include <stdlib.h>

#include "otus/sip.h"

enum { MAX_MESSAGE = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t len = 0;
    enum otus_status status = otus_sip_frame(&len, data, (uint32_t)size, MAX_MESSAGE);
    if (status == OTUS_OK) {
        uint32_t exact = 0;
        if (len == 0 || len > size || len > 2 * MAX_MESSAGE)
            abort();
        if (otus_sip_frame(&exact, data, len, MAX_MESSAGE) != OTUS_OK || exact != len)
            abort();
    }
    /* A shorter prefix is partial, refused alike, or the same message. */
    for (uint32_t n = 0; n < size && n < 64; n++) {
        uint32_t prefix = 0;
        enum otus_status early = otus_sip_frame(&prefix, data, n, MAX_MESSAGE);
        if (early == OTUS_OK && (status != OTUS_OK || prefix != len))
            abort();
        if (early == OTUS_E_MALFORMED && status == OTUS_OK)
            abort();
    }
    return 0;
}
