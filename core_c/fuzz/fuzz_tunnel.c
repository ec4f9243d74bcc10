/* What stands behind a right outer header: the first octet picks the tunnel and
 * the outer IP version, the rest is the tunnel's header and what it carries. */
#include "decode_checks.h"

static const struct {
    uint8_t protocol;
    uint16_t port; /* 0: right above IP */
} carriers[] = {{17, 4789},  {17, 4790}, {17, 6081}, {17, 2152},
                {17, 37008}, {47, 0},    {4, 0},     {41, 0}};

static uint8_t *put_outer(uint8_t *at, bool ipv6, uint8_t protocol, uint32_t len)
{
    memset(at, 0x02, 12);
    otus_store_be16(at + 12, ipv6 ? 0x86dd : 0x0800);
    at += 14;
    memset(at, 0, 40);
    at[0] = ipv6 ? 0x60 : 0x45;
    if (ipv6) {
        otus_store_be16(at + 4, (uint16_t)len);
        at[6] = protocol;
        return at + 40;
    }
    otus_store_be16(at + 2, (uint16_t)(len + 20));
    at[9] = protocol;
    return at + 20;
}

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
    static struct otus_counters counters;
    if (len < 1 || len > 4000)
        return 0;
    uint8_t protocol = carriers[octets[0] & 7].protocol;
    uint16_t port = carriers[octets[0] & 7].port;
    uint32_t payload_len = (uint32_t)len - 1;
    uint32_t ip_payload_len = payload_len + (port != 0 ? 8 : 0);
    uint8_t frame[4096];
    uint8_t *at = put_outer(frame, (octets[0] & 8) != 0, protocol, ip_payload_len);
    if (port != 0) {
        memset(at, 0, 8);
        otus_store_be16(at + 2, port);
        otus_store_be16(at + 4, (uint16_t)ip_payload_len);
        at += 8;
    }
    memcpy(at, octets + 1, payload_len);
    at += payload_len;

    size_t frame_len = (size_t)(at - frame);
    uint8_t *copy = malloc(frame_len);
    FUZZ_REQUIRE(copy != NULL);
    memcpy(copy, frame, frame_len);
    struct otus_raw_packet raw = {.data = copy,
                                  .caplen = (uint32_t)frame_len,
                                  .wirelen = (uint32_t)frame_len,
                                  .link_type = OTUS_LINK_ETHERNET};
    struct otus_decoder *decoder = open_small_decoder(&counters);
    decode_and_check(decoder, &counters, &raw);
    decode_and_check(decoder, &counters, &raw); /* again: a duplicate where it was a fragment */
    close_decoder(decoder, &counters);
    free(copy);
    return 0;
}
