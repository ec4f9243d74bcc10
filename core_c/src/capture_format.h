/* pcap and pcapng, parsed from a window of octets: shared by the sources that
 * read a descriptor and that read memory. Private to capture*.c.
 *
 * Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng. */
#ifndef OTUS_CAPTURE_FORMAT_H
#define OTUS_CAPTURE_FORMAT_H

#include "otus/packet.h"

enum {
    /* libpcap's MAXIMUM_SNAPLEN is 262144; BIG TCP frames are up to 512 KiB. */
    OTUS_FORMAT_MAX_FRAME = 1 << 20,
    /* A frame's block with its header and options. A window must be able to hold this. */
    OTUS_FORMAT_MAX_BLOCK = OTUS_FORMAT_MAX_FRAME + (1 << 16),
    OTUS_FORMAT_MAX_INTERFACES = 1024, /* of one pcapng section */
};

enum otus_format_kind {
    OTUS_FORMAT_UNKNOWN = 0, /* the first octets have not been seen yet */
    OTUS_FORMAT_PCAP,
    OTUS_FORMAT_PCAPNG,
};

/* How a pcapng interface writes its time: ns = ticks * multiplier / divisor, or
 * with shift: ticks * 10^9 >> shift. */
struct otus_format_interface {
    uint64_t multiplier;
    uint64_t divisor;
    uint64_t offset_ns;
    uint32_t snap_len;
    uint16_t link_type;
    uint8_t shift;
};

struct otus_format {
    enum otus_format_kind kind;
    bool swapped;        /* octet order differs from this machine's */
    bool modified;       /* 24-octet record headers with interface and packet type */
    bool old;            /* pcap before version 2.4: caplen and wirelen may be swapped */
    uint16_t link_type;  /* pcap */
    uint32_t multiplier; /* pcap: fraction to ns */
    uint64_t offset;     /* octets consumed so far */
    uint64_t skip;       /* octets of a block that nobody needs, still to come */
    uint32_t num_interfaces;
    char reason[160]; /* after OTUS_E_MALFORMED, or at the end of a file that is cut off */
    struct otus_format_interface interfaces[OTUS_FORMAT_MAX_INTERFACES];
};

void otus_format_reset(struct otus_format *format);

/* Consumes one header, block or record.
 *
 * Returns OTUS_OK with a frame; OTUS_E_AGAIN when something without a frame was
 * consumed; OTUS_E_PARTIAL when the window holds no whole one, nothing consumed;
 * OTUS_E_MALFORMED with format->reason. The frame borrows the window's octets. */
OTUS_MUST_CHECK enum otus_status otus_format_step(struct otus_format *format,
                                                  struct otus_raw_packet *out_packet,
                                                  struct otus_cursor *window);

/* Steps until max frames are there (OTUS_OK) or the window holds no more: the
 * status that ended it, with *out_num frames given all the same. */
OTUS_MUST_CHECK enum otus_status otus_format_burst(struct otus_format *format,
                                                   struct otus_raw_packet *out_packets,
                                                   uint32_t *out_num, uint32_t max,
                                                   struct otus_cursor *window);

/* What it means that nothing comes behind this window: OTUS_E_END, with a reason
 * where the last record is cut off, or OTUS_E_MALFORMED where there was no header. */
OTUS_MUST_CHECK enum otus_status otus_format_end(struct otus_format *format,
                                                 const struct otus_cursor *window);

#endif
