/* Frames of a burst whose turn it is not yet: their flows are asked for ahead.
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
    /* Packets between the two questions, and between them and the lookup. */
    DISTANCE = 6,
    /* Flows below which the registry's lines are in a cache anyway. */
    MIN_FLOWS = 512,
};

/* The ends of the frame's packet, if it may be one of RTP or RTCP. */
static bool guess(struct otus_packet_meta *out_meta, const struct otus_raw_packet *raw)
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
    *out_meta = (struct otus_packet_meta){
        .ip_version = 4,
        .protocol = IP_UDP,
        .src_port = otus_load_be16(ip + IPV4_LEN),
        .dst_port = otus_load_be16(ip + IPV4_LEN + 2),
    };
    memcpy(out_meta->src_ip, ip + 12, 4);
    memcpy(out_meta->dst_ip, ip + 16, 4);
    return true;
}

static void ask_buckets(struct otus_pipeline *pipeline, uint32_t index)
{
    struct otus_packet_meta meta;
    if (index >= pipeline->burst_num)
        return;
    pipeline->has_ahead[index] = guess(&meta, &pipeline->burst[index]);
    if (pipeline->has_ahead[index])
        otus_flow_ask_buckets(pipeline->config.flows, &pipeline->ahead[index], &meta);
}

static void ask_entry(const struct otus_pipeline *pipeline, uint32_t index)
{
    if (index < pipeline->burst_num && pipeline->has_ahead[index])
        otus_flow_ask_entry(pipeline->config.flows, &pipeline->ahead[index]);
}

void otus_ahead_start(struct otus_pipeline *pipeline)
{
    bool has_rtp = false;
    for (uint32_t i = 0; i < pipeline->num_parsers; i++)
        has_rtp = has_rtp || pipeline->stages[i].kind == OTUS_STAGE_PARSE_RTP;
    pipeline->looks_ahead = has_rtp && pipeline->config.flows != NULL &&
                            otus_flow_count(pipeline->config.flows) >= MIN_FLOWS;
    if (!pipeline->looks_ahead)
        return;
    for (uint32_t i = 0; i < 2 * DISTANCE; i++)
        ask_buckets(pipeline, i);
    for (uint32_t i = 0; i < DISTANCE; i++)
        ask_entry(pipeline, i);
}

void otus_ahead_next(struct otus_pipeline *pipeline, uint32_t index)
{
    ask_buckets(pipeline, index + 2 * DISTANCE);
    ask_entry(pipeline, index + DISTANCE);
}
