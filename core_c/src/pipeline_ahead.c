/* Frames of a burst whose turn it is not yet: their flows are asked for ahead.
 *
 * The end that a packet goes to mostly is a known one; where it is not, the end that it comes from
 * is asked for (symmetric RTP, RFC 4961), as otus_flow_find() does.
 *
 * What is read here is a guess at what the decoder will find, plain Ethernet, IPv4 and UDP with
 * RTP in it, as media mostly come. A frame that is anything else, or a lie, costs what a lookup
 * costs that nothing was asked for. */
#include "pipeline_internal.h"

enum {
    ETHERNET_LEN = 14,
    VLAN_LEN = 4,
    IPV4_LEN = 20,
    UDP_LEN = 8,
    ETHERTYPE_IPV4 = 0x0800,
    ETHERTYPE_VLAN = 0x8100,
    IP_UDP = 17,
    RTP_VERSION = 2,
    /* Packets between the questions, and between the last and the lookup. */
    DISTANCE = 4,
    /* Flows below which the registry's lines are in a cache anyway. */
    MIN_FLOWS = 512,
};

enum { NOT_ASKED, ASKED_DESTINATION, ASKED_SOURCE };

/* Where the frame's packet goes to, or comes from, if it may be one of RTP or RTCP. */
static bool guess(struct otus_flow_key *out_key, const struct otus_raw_packet *raw, bool is_source)
{
    struct otus_cursor at = otus_cursor_of(raw->data, raw->caplen);
    const uint8_t *ethernet = otus_cursor_header(&at, ETHERNET_LEN);
    if (raw->link_type != OTUS_LINK_ETHERNET || ethernet == NULL)
        return false;
    uint16_t ethertype = otus_load_be16(ethernet + 12);
    if (ethertype == ETHERTYPE_VLAN) {
        const uint8_t *tag = otus_cursor_header(&at, VLAN_LEN);
        if (tag == NULL)
            return false;
        ethertype = otus_load_be16(tag + 2);
    }
    const uint8_t *ip = otus_cursor_header(&at, IPV4_LEN + UDP_LEN + 1);
    if (ethertype != ETHERTYPE_IPV4 || ip == NULL || ip[0] != 0x45 || ip[9] != IP_UDP ||
        ip[IPV4_LEN + UDP_LEN] >> 6 != RTP_VERSION)
        return false;
    *out_key = (struct otus_flow_key){
        .ip_version = 4,
        .protocol = IP_UDP,
        .port = otus_load_be16(ip + IPV4_LEN + (is_source ? 0 : 2)),
    };
    memcpy(out_key->ip, ip + (is_source ? 12 : 16), 4);
    return true;
}

static void ask_bucket(struct otus_pipeline *pipeline, uint32_t index, bool is_source)
{
    struct otus_ahead *ahead = &pipeline->ahead[index];
    struct otus_flow_key key;
    ahead->asked = NOT_ASKED;
    if (!guess(&key, &pipeline->burst[index], is_source))
        return;
    ahead->asked = is_source ? ASKED_SOURCE : ASKED_DESTINATION;
    ahead->hash = otus_flow_ask_bucket(pipeline->config.flows, &key);
}

static void ask_destination(struct otus_pipeline *pipeline, uint32_t index)
{
    if (index < pipeline->burst_num)
        ask_bucket(pipeline, index, false);
}

static void ask_again(struct otus_pipeline *pipeline, uint32_t index)
{
    if (index < pipeline->burst_num && pipeline->ahead[index].asked == ASKED_DESTINATION &&
        !otus_flow_ask_entry(pipeline->config.flows, pipeline->ahead[index].hash))
        ask_bucket(pipeline, index, true);
}

static void ask_last(struct otus_pipeline *pipeline, uint32_t index)
{
    if (index < pipeline->burst_num && pipeline->ahead[index].asked == ASKED_SOURCE)
        (void)otus_flow_ask_entry(pipeline->config.flows, pipeline->ahead[index].hash);
}

void otus_ahead_start(struct otus_pipeline *pipeline)
{
    pipeline->looks_ahead = pipeline->has_rtp && pipeline->config.flows != NULL &&
                            otus_flow_count(pipeline->config.flows) >= MIN_FLOWS;
    if (!pipeline->looks_ahead)
        return;
    for (uint32_t i = 0; i < 3 * DISTANCE; i++)
        ask_destination(pipeline, i);
    for (uint32_t i = 0; i < 2 * DISTANCE; i++)
        ask_again(pipeline, i);
    for (uint32_t i = 0; i < DISTANCE; i++)
        ask_last(pipeline, i);
}

void otus_ahead_next(struct otus_pipeline *pipeline, uint32_t index)
{
    ask_destination(pipeline, index + 3 * DISTANCE);
    ask_again(pipeline, index + 2 * DISTANCE);
    ask_last(pipeline, index + DISTANCE);
}
