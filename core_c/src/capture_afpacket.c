/* AF_PACKET with a TPACKET_V3 ring. */
#include <stdio.h>

#include "capture_source.h"

enum otus_status otus_capture_open_afpacket(struct otus_capture **out_capture, char *message,
                                            size_t message_len,
                                            const struct otus_afpacket_config *config)
{
    (void)out_capture;
    snprintf(message, message_len, "can't capture on %s: not built yet", config->interface);
    return OTUS_E_UNSUPPORTED;
}
