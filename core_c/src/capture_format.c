#include "capture_format.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum {
    PCAP_FILE_HEADER = 24,
    PCAP_RECORD_HEADER = 16,
    PREFETCH_RECORDS = 16,
    PCAP_MODIFIED_EXTRA = 8, /* interface index, protocol, packet type, padding */
    BLOCK_OVERHEAD = 12,     /* type, total length, and the total length once more */
};

enum pcapng_block {
    BLOCK_SECTION_HEADER = 0x0A0D0D0A, /* the same in either octet order */
    BLOCK_INTERFACE = 1,
    BLOCK_PACKET = 2, /* obsolete */
    BLOCK_SIMPLE_PACKET = 3,
    BLOCK_ENHANCED_PACKET = 6,
};

static const uint32_t byte_order_magic = 0x1A2B3C4D;

void otus_format_reset(struct otus_format *format)
{
    format->kind = OTUS_FORMAT_UNKNOWN;
    format->swapped = false;
    format->modified = false;
    format->old = false;
    format->offset = 0;
    format->skip = 0;
    format->num_interfaces = 0;
    format->reason[0] = '\0';
}

__attribute__((format(printf, 2, 3))) static enum otus_status malformed(struct otus_format *format,
                                                                        const char *text, ...)
{
    int len =
        snprintf(format->reason, sizeof format->reason, "at octet %" PRIu64 ": ", format->offset);
    va_list args;
    va_start(args, text);
    vsnprintf(format->reason + len, sizeof format->reason - (size_t)len, text, args);
    va_end(args);
    return OTUS_E_MALFORMED;
}

static inline uint32_t order32(uint32_t value, bool swapped)
{
    return swapped ? __builtin_bswap32(value) : value;
}

static inline uint16_t order16(uint16_t value, bool swapped)
{
    return swapped ? __builtin_bswap16(value) : value;
}

OTUS_MUST_CHECK static inline bool read_u32(struct otus_cursor *cursor, uint32_t *out_value,
                                            bool swapped)
{
    uint32_t value;
    if (!otus_cursor_copy(cursor, &value, sizeof value))
        return false;
    *out_value = order32(value, swapped);
    return true;
}

OTUS_MUST_CHECK static inline bool read_u16(struct otus_cursor *cursor, uint16_t *out_value,
                                            bool swapped)
{
    uint16_t value;
    if (!otus_cursor_copy(cursor, &value, sizeof value))
        return false;
    *out_value = order16(value, swapped);
    return true;
}

/* --- pcap --- */

static bool pcap_magic(struct otus_format *format, uint32_t magic)
{
    format->modified = false;
    format->multiplier = 1000;
    switch (magic) {
    case 0xa1b2c3d4:
        return true;
    case 0xa1b23c4d:
        format->multiplier = 1;
        return true;
    case 0xa1b2cd34: /* Kuznetsov's patched libpcap */
        format->modified = true;
        return true;
    default:
        return false;
    }
}

static enum otus_status pcap_file_header(struct otus_format *format, struct otus_cursor *window)
{
    struct otus_cursor header;
    uint32_t link = 0;
    uint16_t major = 0;
    uint16_t minor = 0;
    if (!otus_cursor_take(window, &header, PCAP_FILE_HEADER))
        return OTUS_E_PARTIAL;
    /* magic, version; time zone, accuracy and snaplen: nothing here depends on them. */
    if (!otus_cursor_skip(&header, 4) || !read_u16(&header, &major, format->swapped) ||
        !read_u16(&header, &minor, format->swapped) || !otus_cursor_skip(&header, 12) ||
        !read_u32(&header, &link, format->swapped))
        return OTUS_E_PARTIAL;
    format->old = major == 2 && minor < 4;
    format->link_type = (uint16_t)(link & 0xffff); /* above: FCS length, reserved bits */
    format->kind = OTUS_FORMAT_PCAP;
    return OTUS_E_AGAIN;
}

static enum otus_status first_octets(struct otus_format *format, struct otus_cursor *window)
{
    struct otus_cursor ahead = *window;
    uint32_t magic = 0;
    if (!otus_cursor_copy(&ahead, &magic, sizeof magic))
        return OTUS_E_PARTIAL;
    if (magic == BLOCK_SECTION_HEADER) {
        format->kind = OTUS_FORMAT_PCAPNG;
        return OTUS_E_AGAIN;
    }
    format->swapped = false;
    if (pcap_magic(format, magic))
        return pcap_file_header(format, window);
    format->swapped = true;
    if (pcap_magic(format, __builtin_bswap32(magic)))
        return pcap_file_header(format, window);
    if ((magic & 0xffff) == order16(0x8b1f, __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__))
        return malformed(format, "gzip data where a capture file was expected");
    return malformed(format, "neither pcap nor pcapng (magic 0x%08" PRIx32 ")", magic);
}

/* swapped, modified and old are constants at the call sites of the hot loop. */
static inline enum otus_status pcap_record(struct otus_format *format,
                                           struct otus_raw_packet *out_packet,
                                           struct otus_cursor *window, bool swapped, bool modified,
                                           bool old)
{
    struct otus_cursor ahead = *window;
    uint32_t header[4]; /* seconds, fraction, caplen, wirelen */
    if (!otus_cursor_copy(&ahead, header, PCAP_RECORD_HEADER))
        return OTUS_E_PARTIAL;
    uint32_t caplen = order32(header[2], swapped);
    uint32_t wirelen = order32(header[3], swapped);
    /* Files before 2.3 have them in the other order, those of 2.3 some of them:
     * libpcap's sf-pcap.c. What was captured is never the longer one. */
    if (old && caplen > wirelen) {
        uint32_t first = caplen;
        caplen = wirelen;
        wirelen = first;
    }
    if (OTUS_UNLIKELY(caplen > OTUS_FORMAT_MAX_FRAME))
        return malformed(format, "a record claims %" PRIu32 " octets, more than %d", caplen,
                         OTUS_FORMAT_MAX_FRAME);
    uint32_t if_index = 0;
    uint8_t packet_type = 0;
    if (modified) {
        struct otus_cursor extra;
        if (!otus_cursor_take(&ahead, &extra, PCAP_MODIFIED_EXTRA) ||
            !read_u32(&extra, &if_index, swapped) || !otus_cursor_skip(&extra, 2) ||
            !otus_cursor_u8(&extra, &packet_type))
            return OTUS_E_PARTIAL;
    }
    const uint8_t *data = ahead.at;
    if (!otus_cursor_skip(&ahead, caplen))
        return OTUS_E_PARTIAL;
    *out_packet = (struct otus_raw_packet){
        .data = data,
        .ts_ns = (uint64_t)order32(header[0], swapped) * 1000000000U +
                 (uint64_t)order32(header[1], swapped) * format->multiplier,
        .caplen = caplen,
        .wirelen = wirelen,
        .if_index = if_index,
        .link_type = format->link_type,
        .flags = packet_type == 4 /* PACKET_OUTGOING */ ? OTUS_RAW_OUTGOING : 0,
    };
    /* Where the next records are is known only from this one: assume that they are
     * as long, or each would be waited for (and its packet's headers after it). */
    const size_t guess = PREFETCH_RECORDS * (PCAP_RECORD_HEADER + (size_t)caplen);
    otus_cursor_prefetch(window, guess);
    otus_cursor_prefetch(window, guess + 64);
    *window = ahead;
    return OTUS_OK;
}

/* --- pcapng --- */

/* if_tsresol: the high bit chooses 2^-n over 10^-n (pcapng 4.2). */
static bool interface_resolution(struct otus_format_interface *interface, uint8_t resolution)
{
    uint8_t exponent = resolution & 0x7f;
    interface->multiplier = 1;
    interface->divisor = 1;
    interface->shift = 0;
    if (resolution & 0x80) {
        interface->shift = exponent;
        return exponent < 64;
    }
    if (exponent > 19)
        return false;
    for (; exponent < 9; exponent++)
        interface->multiplier *= 10;
    for (; exponent > 9; exponent--)
        interface->divisor *= 10;
    return true;
}

static uint64_t interface_ns(const struct otus_format_interface *interface, uint32_t high,
                             uint32_t low)
{
    uint64_t ticks = (uint64_t)high << 32 | low;
    if (interface->shift != 0)
        return (uint64_t)((unsigned __int128)ticks * 1000000000U >> interface->shift) +
               interface->offset_ns;
    /* The usual resolutions need no 64-bit division. */
    if (interface->divisor != 1)
        ticks /= interface->divisor;
    return ticks * interface->multiplier + interface->offset_ns;
}

static enum otus_status interface_option(struct otus_format *format,
                                         struct otus_format_interface *interface, uint16_t code,
                                         struct otus_cursor value)
{
    enum { OPTION_TSRESOL = 9, OPTION_TSOFFSET = 14 };
    uint8_t resolution = 0;
    uint32_t half[2] = {0, 0};
    if (code == OPTION_TSRESOL && otus_cursor_u8(&value, &resolution)) {
        if (!interface_resolution(interface, resolution))
            return malformed(format, "interface time resolution 0x%02x", resolution);
    } else if (code == OPTION_TSOFFSET && read_u32(&value, &half[0], format->swapped) &&
               read_u32(&value, &half[1], format->swapped)) {
        bool little = (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) != format->swapped;
        uint64_t seconds = (uint64_t)half[little ? 1 : 0] << 32 | half[little ? 0 : 1];
        interface->offset_ns = seconds * 1000000000U; /* signed seconds: wraps as it should */
    }
    return OTUS_OK;
}

static enum otus_status interface_block(struct otus_format *format, struct otus_cursor body)
{
    struct otus_format_interface interface = {.multiplier = 1000, .divisor = 1};
    uint16_t code = 0;
    uint16_t len = 0;
    if (!read_u16(&body, &interface.link_type, format->swapped) || !otus_cursor_skip(&body, 2) ||
        !read_u32(&body, &interface.snap_len, format->swapped))
        return malformed(format, "interface block too short");
    if (format->num_interfaces == OTUS_FORMAT_MAX_INTERFACES)
        return malformed(format, "more than %d interfaces in a section",
                         OTUS_FORMAT_MAX_INTERFACES);
    while (read_u16(&body, &code, format->swapped) && read_u16(&body, &len, format->swapped) &&
           code != 0) {
        struct otus_cursor value;
        if (!otus_cursor_take(&body, &value, len))
            break; /* options that run over the block's end: keep what was read */
        enum otus_status status = interface_option(format, &interface, code, value);
        if (status != OTUS_OK)
            return status;
        if (!otus_cursor_skip(&body, (4U - len % 4U) % 4U))
            break;
    }
    format->interfaces[format->num_interfaces++] = interface;
    return OTUS_E_AGAIN;
}

static enum otus_status section_block(struct otus_format *format, struct otus_cursor body)
{
    uint32_t magic = 0;
    uint16_t major = 0;
    if (!read_u32(&body, &magic, format->swapped) || !read_u16(&body, &major, format->swapped))
        return malformed(format, "section header too short");
    if (major != 1)
        return malformed(format, "pcapng version %u", major);
    /* The section length is a hint for skipping: reading on finds the same end. */
    format->num_interfaces = 0;
    return OTUS_E_AGAIN;
}

static bool outbound_option(struct otus_cursor options, bool swapped)
{
    uint16_t code = 0;
    uint16_t len = 0;
    uint32_t flags = 0;
    while (read_u16(&options, &code, swapped) && read_u16(&options, &len, swapped) && code != 0) {
        if (code == 2 && len == 4) /* epb_flags: bits 0-1, 2 is outbound */
            return read_u32(&options, &flags, swapped) && (flags & 3) == 2;
        if (!otus_cursor_skip(&options, len + (4U - len % 4U) % 4U))
            return false;
    }
    return false;
}

static enum otus_status packet_octets(struct otus_format *format,
                                      struct otus_raw_packet *out_packet, uint32_t interface_id,
                                      uint32_t high, uint32_t low, struct otus_cursor *body)
{
    if (OTUS_UNLIKELY(interface_id >= format->num_interfaces))
        return malformed(format, "packet of interface %" PRIu32 ", which no block describes",
                         interface_id);
    const struct otus_format_interface *interface = &format->interfaces[interface_id];
    out_packet->data = body->at;
    out_packet->ts_ns = interface_ns(interface, high, low);
    out_packet->if_index = interface_id;
    out_packet->link_type = interface->link_type;
    out_packet->vlan_tci = 0;
    out_packet->vlan_tpid = 0;
    out_packet->flags = 0;
    if (OTUS_UNLIKELY(out_packet->caplen > OTUS_FORMAT_MAX_FRAME) ||
        !otus_cursor_skip(body, out_packet->caplen))
        return malformed(format, "a packet of %" PRIu32 " octets does not fit its block",
                         out_packet->caplen);
    return OTUS_OK;
}

static inline enum otus_status enhanced_packet(struct otus_format *format,
                                               struct otus_raw_packet *out_packet,
                                               struct otus_cursor body, bool obsolete)
{
    const bool swapped = format->swapped;
    uint32_t word[5]; /* interface, time high, time low, caplen, wirelen */
    if (!otus_cursor_copy(&body, word, sizeof word))
        return malformed(format, "packet block too short");
    for (uint32_t i = 0; i < 5; i++)
        word[i] = order32(word[i], swapped);
    if (obsolete) {
        /* 16 bits of interface, 16 of drops: in memory order, so by halves of the word. */
        bool little = (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) != swapped;
        word[0] = little ? word[0] & 0xffff : word[0] >> 16;
    }
    out_packet->caplen = word[3];
    out_packet->wirelen = word[4];
    enum otus_status status = packet_octets(format, out_packet, word[0], word[1], word[2], &body);
    if (status == OTUS_OK && otus_cursor_left(&body) > 4 &&
        otus_cursor_skip(&body, (4U - word[3] % 4U) % 4U) && outbound_option(body, swapped))
        out_packet->flags = OTUS_RAW_OUTGOING;
    return status;
}

static enum otus_status simple_packet(struct otus_format *format,
                                      struct otus_raw_packet *out_packet, struct otus_cursor body)
{
    if (!read_u32(&body, &out_packet->wirelen, format->swapped))
        return malformed(format, "simple packet block too short");
    if (format->num_interfaces == 0)
        return malformed(format, "simple packet block before any interface");
    /* pcapng 4.4: the captured length is the least of the packet's and the snap length. */
    uint32_t caplen = out_packet->wirelen;
    uint32_t snap_len = format->interfaces[0].snap_len;
    if (snap_len != 0 && caplen > snap_len)
        caplen = snap_len;
    if (caplen > otus_cursor_left(&body))
        caplen = (uint32_t)otus_cursor_left(&body);
    out_packet->caplen = caplen;
    enum otus_status status = packet_octets(format, out_packet, 0, 0, 0, &body);
    out_packet->ts_ns = 0; /* the block carries no time */
    return status;
}

/* The octet order of a section is in its header, behind the length. */
static enum otus_status section_order(struct otus_format *format, struct otus_cursor ahead)
{
    uint32_t magic = 0;
    if (!otus_cursor_skip(&ahead, 8) || !otus_cursor_copy(&ahead, &magic, sizeof magic))
        return OTUS_E_PARTIAL;
    if (magic == byte_order_magic)
        format->swapped = false;
    else if (magic == __builtin_bswap32(byte_order_magic))
        format->swapped = true;
    else
        return malformed(format, "section header without its byte-order magic");
    return OTUS_OK;
}

static enum otus_status skip_block(struct otus_format *format, struct otus_cursor *window,
                                   uint32_t total_len)
{
    format->skip = total_len;
    size_t here = otus_cursor_left(window);
    if (here > total_len)
        here = total_len;
    if (!otus_cursor_skip(window, here))
        return OTUS_E_PARTIAL;
    format->skip -= here;
    return OTUS_E_AGAIN;
}

static enum otus_status block_body(struct otus_format *format, struct otus_raw_packet *out_packet,
                                   uint32_t type, struct otus_cursor body)
{
    switch (type) {
    case BLOCK_SECTION_HEADER:
        return section_block(format, body);
    case BLOCK_INTERFACE:
        return interface_block(format, body);
    case BLOCK_ENHANCED_PACKET:
        return enhanced_packet(format, out_packet, body, false);
    case BLOCK_PACKET:
        return enhanced_packet(format, out_packet, body, true);
    case BLOCK_SIMPLE_PACKET:
        return simple_packet(format, out_packet, body);
    default:
        return OTUS_E_AGAIN; /* names, statistics, custom blocks */
    }
}

static bool block_is_known(uint32_t type)
{
    return type == BLOCK_SECTION_HEADER || type == BLOCK_INTERFACE || type == BLOCK_PACKET ||
           type == BLOCK_SIMPLE_PACKET || type == BLOCK_ENHANCED_PACKET;
}

static enum otus_status pcapng_block(struct otus_format *format, struct otus_raw_packet *out_packet,
                                     struct otus_cursor *window)
{
    struct otus_cursor ahead = *window;
    struct otus_cursor body;
    uint32_t type = 0;
    uint32_t total_len = 0;
    uint32_t trailer = 0;
    if (!read_u32(&ahead, &type, format->swapped))
        return OTUS_E_PARTIAL;
    if (type == BLOCK_SECTION_HEADER) {
        enum otus_status status = section_order(format, *window);
        if (status != OTUS_OK)
            return status;
    }
    if (!read_u32(&ahead, &total_len, format->swapped))
        return OTUS_E_PARTIAL;
    if (total_len < BLOCK_OVERHEAD || total_len % 4 != 0)
        return malformed(format, "block length %" PRIu32, total_len);
    if (total_len > OTUS_FORMAT_MAX_BLOCK) {
        if (block_is_known(type))
            return malformed(format, "a block claims %" PRIu32 " octets, more than %d", total_len,
                             OTUS_FORMAT_MAX_BLOCK);
        return skip_block(format, window, total_len);
    }
    if (!otus_cursor_take(&ahead, &body, total_len - BLOCK_OVERHEAD) ||
        !read_u32(&ahead, &trailer, format->swapped))
        return OTUS_E_PARTIAL;
    if (trailer != total_len)
        return malformed(format, "block lengths differ (%" PRIu32 " before, %" PRIu32 " behind)",
                         total_len, trailer);
    enum otus_status status = block_body(format, out_packet, type, body);
    if (status == OTUS_OK || status == OTUS_E_AGAIN)
        *window = ahead;
    return status;
}

/* --- both --- */

static enum otus_status step(struct otus_format *format, struct otus_raw_packet *out_packet,
                             struct otus_cursor *window)
{
    if (OTUS_UNLIKELY(format->skip != 0)) {
        uint64_t here = otus_cursor_left(window);
        if (here > format->skip)
            here = format->skip;
        if (here == 0 || !otus_cursor_skip(window, (size_t)here))
            return OTUS_E_PARTIAL;
        format->skip -= here;
        return OTUS_E_AGAIN;
    }
    switch (format->kind) {
    case OTUS_FORMAT_PCAP:
        return pcap_record(format, out_packet, window, format->swapped, format->modified,
                           format->old);
    case OTUS_FORMAT_PCAPNG:
        return pcapng_block(format, out_packet, window);
    case OTUS_FORMAT_UNKNOWN:
        break;
    }
    return first_octets(format, window);
}

enum otus_status otus_format_step(struct otus_format *format, struct otus_raw_packet *out_packet,
                                  struct otus_cursor *window)
{
    const size_t before = otus_cursor_left(window);
    enum otus_status status = step(format, out_packet, window);
    format->offset += before - otus_cursor_left(window);
    return status;
}

/* The case that files are nearly always: this machine's order, classic records. */
static enum otus_status plain_burst(struct otus_format *format, struct otus_raw_packet *out_packets,
                                    uint32_t *out_num, uint32_t max, struct otus_cursor *window)
{
    enum otus_status status = OTUS_OK;
    uint32_t num = 0;
    const size_t before = otus_cursor_left(window);
    size_t left = before;
    while (num < max) {
        /* Kept current for the message of a malformed record. */
        status = pcap_record(format, &out_packets[num], window, false, false, false);
        if (OTUS_UNLIKELY(status != OTUS_OK))
            break;
        num++;
        format->offset += left - otus_cursor_left(window);
        left = otus_cursor_left(window);
    }
    *out_num = num;
    return status;
}

enum otus_status otus_format_burst(struct otus_format *format, struct otus_raw_packet *out_packets,
                                   uint32_t *out_num, uint32_t max, struct otus_cursor *window)
{
    uint32_t num = 0;
    enum otus_status status = OTUS_OK;
    if (format->kind == OTUS_FORMAT_PCAP && !format->swapped && !format->modified && !format->old)
        return plain_burst(format, out_packets, out_num, max, window);
    while (num < max) {
        status = otus_format_step(format, &out_packets[num], window);
        if (status == OTUS_OK)
            num++;
        else if (status != OTUS_E_AGAIN)
            break;
    }
    *out_num = num;
    return num == max ? OTUS_OK : status;
}

enum otus_status otus_format_end(struct otus_format *format, const struct otus_cursor *window)
{
    size_t left = otus_cursor_left(window);
    if (format->kind == OTUS_FORMAT_UNKNOWN) {
        if (left == 0)
            snprintf(format->reason, sizeof format->reason, "the file is empty");
        else
            snprintf(format->reason, sizeof format->reason,
                     "%zu octets are too few for a capture file's header", left);
        return OTUS_E_MALFORMED;
    }
    if (left != 0 || format->skip != 0)
        snprintf(format->reason, sizeof format->reason,
                 "the file is cut off inside its last record, at octet %" PRIu64, format->offset);
    return OTUS_E_END;
}
