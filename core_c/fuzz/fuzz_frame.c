/* Frames through the whole decoder. The input is a classic pcap file, so that
 * captures are seeds: link type and times from its headers, lengths clamped to
 * what is there. The top octet of a record's wire length gives the raw flags. */
#include "decode_checks.h"

enum { FILE_HEADER_LEN = 24, RECORD_HEADER_LEN = 16, MAX_FRAMES = 512 };

static uint32_t load_le32(const uint8_t *at)
{
    return (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
    static struct otus_counters counters;
    struct otus_cursor at = otus_cursor_of(octets, len);
    const uint8_t *file = otus_cursor_header(&at, FILE_HEADER_LEN);
    if (file == NULL)
        return 0;
    struct otus_decoder *decoder = open_small_decoder(&counters);
    struct otus_raw_packet raw = {.link_type = (uint16_t)load_le32(file + 20)};
    for (uint32_t n = 0; n < MAX_FRAMES; n++) {
        const uint8_t *record = otus_cursor_header(&at, RECORD_HEADER_LEN);
        if (record == NULL)
            break;
        uint32_t caplen = load_le32(record + 8);
        uint32_t wirelen = load_le32(record + 12);
        size_t left = otus_cursor_left(&at);
        raw.ts_ns =
            load_le32(record) * UINT64_C(1000000000) + load_le32(record + 4) * UINT64_C(1000);
        raw.caplen = caplen < left ? caplen : (uint32_t)left;
        raw.wirelen = wirelen & 0xffffff;
        raw.flags = (uint16_t)(wirelen >> 24 & 7);
        raw.vlan_tci = (uint16_t)wirelen;
        /* A copy of its own size, so that one octet too far is seen. */
        uint8_t *frame = malloc(raw.caplen != 0 ? raw.caplen : 1);
        FUZZ_REQUIRE(frame != NULL && otus_cursor_copy(&at, frame, raw.caplen));
        raw.data = frame;
        decode_and_check(decoder, &counters, &raw);
        free(frame);
    }
    close_decoder(decoder, &counters);
    return 0;
}
