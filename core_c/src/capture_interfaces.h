/* Which interfaces show a frame a second time; private to capture_afpacket.c. */
#ifndef OTUS_CAPTURE_INTERFACES_H
#define OTUS_CAPTURE_INTERFACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "otus/status.h"

enum { OTUS_MAX_INTERFACE_INDEX = 8192 }; /* interfaces beyond are never ignored */

enum otus_sighting {
    OTUS_SIGHTING_UNKNOWN = 0,     /* an interface that came after the last look */
    OTUS_SIGHTING_FIRST = 1,       /* count every frame */
    OTUS_SIGHTING_OUT_AGAIN = 2,   /* frames on their way out are seen coming in elsewhere */
    OTUS_SIGHTING_UPPER_AGAIN = 3, /* every frame is seen on a device below as well */
};

struct otus_interfaces {
    uint8_t sighting[OTUS_MAX_INTERFACE_INDEX];
    uint8_t buffer[32 * 1024]; /* for the kernel's answer */
};

/* Asks the kernel (rtnetlink) for all interfaces of this namespace. */
OTUS_MUST_CHECK enum otus_status otus_interfaces_look(struct otus_interfaces *interfaces);

/* "eth0, lo": the names that exist, cut where out_text ends. */
void otus_interfaces_names(char *out_text, size_t len);

#endif
