/* RTP and RTCP headers. */
#include <stdlib.h>

#include "otus/rtp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct otus_rtp_header rtp;
    struct otus_rtcp_header rtcp;
    if (otus_rtp_parse(&rtp, data, (uint32_t)size) == OTUS_OK &&
        rtp.payload.off + rtp.payload.len > size)
        abort();
    if (otus_rtcp_parse(&rtcp, data, (uint32_t)size) == OTUS_OK &&
        (size_t)rtcp.num_packets * 4 > size)
        abort();
    (void)otus_rtp_is_rtcp(data, (uint32_t)size);
    return 0;
}
