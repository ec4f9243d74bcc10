/* What must hold after every otus_decode(), whatever the frame. */
#ifndef OTUS_DECODE_CHECKS_H
#define OTUS_DECODE_CHECKS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "otus/decode.h"

#define FUZZ_REQUIRE(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* By table, not by name: it is asked after every frame. */
static inline uint64_t checks_group(const struct otus_counters *counters,
                                    enum otus_counter_group group)
{
#define CHECKS_GROUP(id, group, reason, meaning) OTUS_GROUP_##group,
    static const uint8_t group_of[] = {OTUS_COUNTERS(CHECKS_GROUP)};
#undef CHECKS_GROUP
    uint64_t sum = 0;
    for (uint32_t id = 0; id < OTUS_NUM_COUNTERS; id++) {
        if (group_of[id] == group)
            sum += counters->value[id];
    }
    return sum;
}

/* RECEIVED = DECODED + UNDECODABLE + FRAGMENT + fragments held. */
static inline void require_balance(const struct otus_counters *counters)
{
    FUZZ_REQUIRE(counters->value[OTUS_COUNT_RECEIVED] ==
                 checks_group(counters, OTUS_GROUP_DECODED) +
                     checks_group(counters, OTUS_GROUP_UNDECODABLE) +
                     checks_group(counters, OTUS_GROUP_FRAGMENT) +
                     counters->value[OTUS_COUNT_FRAGMENTS_HELD]);
}

static inline void require_inside(struct otus_slice part, struct otus_slice whole)
{
    FUZZ_REQUIRE(part.at >= whole.at && part.at + part.len <= whole.at + whole.len);
}

/* Reads every octet that the packet refers to: the sanitizer sees a stale one. */
static inline void require_readable(struct otus_slice octets)
{
    uint8_t sum = 0;
    for (uint32_t i = 0; i < octets.len; i++)
        sum ^= octets.at[i];
    __asm__ volatile("" ::"r"(sum));
}

static inline void require_sound(const struct otus_packet *packet)
{
    const struct otus_packet_meta *meta = &packet->meta;
    FUZZ_REQUIRE(meta->num_tunnels <= OTUS_MAX_TUNNELS && meta->num_vlans <= OTUS_MAX_VLANS);
    FUZZ_REQUIRE(meta->ip_version == 4 || meta->ip_version == 6);
    require_readable(packet->datagram);
    require_inside(packet->transport, packet->datagram);
    require_inside(packet->payload, packet->transport);
    if ((meta->flags & OTUS_PACKET_REASSEMBLED) == 0)
        require_inside(packet->datagram, packet->frame);
    for (uint32_t i = 0; i < meta->num_vlans; i++)
        FUZZ_REQUIRE(meta->vlans[i] < 4096);
    for (uint32_t i = 0; i < meta->num_tunnels; i++) {
        const struct otus_tunnel *tunnel = &packet->tunnels[i];
        FUZZ_REQUIRE(tunnel->kind > OTUS_TUNNEL_NONE && tunnel->kind < OTUS_NUM_TUNNEL_KINDS);
        FUZZ_REQUIRE(tunnel->ip_version == 4 || tunnel->ip_version == 6);
        FUZZ_REQUIRE(tunnel->vlan < 4096);
    }
    if (meta->ip_version == 4) {
        static const uint8_t zeros[12];
        FUZZ_REQUIRE(memcmp(meta->src_ip + 4, zeros, 12) == 0);
        FUZZ_REQUIRE(memcmp(meta->dst_ip + 4, zeros, 12) == 0);
    }
}

/* Small limits, so that inputs of a few frames reach them. */
static inline struct otus_decoder *open_small_decoder(struct otus_counters *counters)
{
    struct otus_decoder_config config;
    struct otus_decoder *decoder;
    otus_decoder_config_init(&config);
    config.tunnels = (1u << OTUS_NUM_TUNNEL_KINDS) - 2;
    config.max_datagrams = 6;
    config.max_fragments = 8;
    config.max_fragment_octets = 40 * 2048;
    config.max_datagrams_per_source = 4;
    config.fragment_timeout_ms = 100;
    memset(counters, 0, sizeof *counters);
    FUZZ_REQUIRE(otus_decoder_new(&decoder, &config, counters) == OTUS_OK);
    return decoder;
}

static inline void decode_and_check(struct otus_decoder *decoder,
                                    const struct otus_counters *counters,
                                    const struct otus_raw_packet *raw)
{
    static struct otus_packet packet;
    enum otus_status status = otus_decode(decoder, &packet, raw);
    require_balance(counters);
    if (status == OTUS_OK)
        require_sound(&packet);
}

static inline void close_decoder(struct otus_decoder *decoder, const struct otus_counters *counters)
{
    otus_decoder_flush(decoder);
    FUZZ_REQUIRE(counters->value[OTUS_COUNT_FRAGMENTS_HELD] == 0);
    FUZZ_REQUIRE(counters->value[OTUS_COUNT_DATAGRAMS_HELD] == 0);
    require_balance(counters);
    otus_decoder_free(decoder);
}

#endif
