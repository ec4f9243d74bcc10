/* The native stages: parsers in the task's order, then processors. */
#include <time.h>

#include "octet_search.h"
#include "pipeline_internal.h"
#include "text.h"

enum { IP_UDP = 17, IP_TCP = 6, IP_SCTP = 132 };
enum { RTCP_SR = 200, RTCP_APP = 204 };

#define SLICE(literal)                                                                             \
    (struct otus_slice)                                                                            \
    {                                                                                              \
        (const uint8_t *)(literal), sizeof(literal) - 1                                            \
    }

struct otus_slice otus_payload_type_name(const struct otus_work *work)
{
    if (OTUS_LIKELY(work->payload_type == OTUS_PAYLOAD_SIP))
        return SLICE("sip");
    switch (work->payload_type) {
    case OTUS_PAYLOAD_RTP:
        return SLICE("rtp");
    case OTUS_PAYLOAD_RTCP:
        return SLICE("rtcp");
    case OTUS_PAYLOAD_PLUGIN:
        return work->payload_name;
    default:
        return SLICE("raw");
    }
}

static struct otus_slice sip_transport(const struct otus_packet_meta *meta)
{
    if (OTUS_UNLIKELY((meta->flags & OTUS_PACKET_WEBSOCKET) != 0))
        return SLICE("ws");
    if (OTUS_LIKELY(meta->protocol == IP_UDP))
        return SLICE("udp");
    switch (meta->protocol) {
    case IP_TCP:
        return SLICE("tcp");
    case IP_SCTP:
        return SLICE("sctp");
    default:
        return SLICE("other");
    }
}

static uint32_t sip_flags(const struct otus_packet_meta *meta)
{
    uint32_t flags = 0;
    if (meta->flags & OTUS_PACKET_STREAM)
        flags |= OTUS_SIP_ON_STREAM;
    if (meta->flags & OTUS_PACKET_TRUNCATED)
        flags |= OTUS_SIP_TRUNCATED;
    return flags;
}

static bool parse_sip_message(struct otus_pipeline *pipeline, struct otus_work *work)
{
    work->sip_ready = otus_sip_parse(pipeline->sip_parser, &pipeline->sip, work->payload.at,
                                     work->payload.len, sip_flags(work->meta)) == OTUS_OK;
    if (work->sip_ready && pipeline->config.flows != NULL)
        otus_sip_ask_media(pipeline->config.flows, &pipeline->sip);
    return work->sip_ready;
}

static void ask_for_offer(struct otus_pipeline *pipeline)
{
    if (pipeline->config.flows != NULL)
        pipeline->sip.is_delayed_offer =
            otus_sip_is_delayed_offer(pipeline->config.flows, &pipeline->sip);
}

/* Copies the message to where its record keeps it: all that is read of it from here on, its
 * labels first, then need not be moved again. False where there is no room for it. */
static bool move_message(struct otus_pipeline *pipeline, struct otus_work *work)
{
    struct otus_arena *arena = &pipeline->batch.arena;
    struct otus_span span;
    if (OTUS_UNLIKELY(otus_lies_in(arena, work->payload.at)))
        return true;
    if (OTUS_UNLIKELY(!otus_arena_put(arena, &span, work->payload)))
        return false;
    const uint8_t *at = arena->base + span.off;
    pipeline->sip.octets = at + (pipeline->sip.octets - work->payload.at);
    work->payload.at = at;
    return true;
}

static void take(struct otus_work *work, uint8_t payload_type, uint32_t stage)
{
    work->state = OTUS_RECORD_PARSED;
    work->payload_type = payload_type;
    work->parser = (uint16_t)stage;
}

static void parse_sip(struct otus_pipeline *pipeline, struct otus_work *work, uint32_t index,
                      struct otus_tally *tally)
{
    if (!otus_sip_can_handle(work->payload.at, work->payload.len))
        return;
    if (OTUS_UNLIKELY(!parse_sip_message(pipeline, work))) {
        work->state = OTUS_RECORD_DROPPED;
        otus_tally_add(tally, OTUS_COUNT_PARSE_ERROR_SIP);
        return;
    }
    take(work, OTUS_PAYLOAD_SIP, index);
    otus_tally_add(tally, OTUS_COUNT_PARSED_SIP);
    if (OTUS_UNLIKELY(!move_message(pipeline, work))) {
        pipeline->labels.incomplete = true;
        return;
    }
    otus_sip_labels(&pipeline->sip, sip_transport(work->meta), &pipeline->labels,
                    &pipeline->batch.arena);
    const struct otus_stage *stage = &pipeline->stages[index];
    for (uint32_t i = 0; OTUS_UNLIKELY(i < stage->num_header_labels); i++) {
        const struct otus_header_label *wanted = &stage->header_labels[i];
        struct otus_slice value;
        if (otus_sip_find_header(&pipeline->sip, wanted->name, strlen(wanted->name), &value))
            otus_label_put(&pipeline->labels, wanted->id,
                           otus_sip_unfold(&pipeline->labels, &pipeline->batch.arena, value));
    }
    ask_for_offer(pipeline); /* before the message itself is known */
    if (pipeline->config.flows != NULL)
        otus_sip_register_media(pipeline->config.flows, &pipeline->sip, pipeline->has_rtp,
                                work->meta->ts_ns, &pipeline->counters);
}

/* A label whose value is a number. */
static void put_number(struct otus_label_set *labels, struct otus_arena *arena, uint32_t id,
                       uint32_t value)
{
    uint8_t *at = otus_arena_take(arena, OTUS_TEXT_U32);
    if (OTUS_UNLIKELY(at == NULL)) {
        labels->incomplete = true;
        return;
    }
    /* All ten digits, and then those without the zeros in front. */
    uint32_t high = value / 10000, low = value % 10000;
    otus_text_pair(at, high / 10000);
    otus_text_pair(at + 2, high % 10000 / 100);
    otus_text_pair(at + 4, high % 100);
    otus_text_pair(at + 6, low / 100);
    otus_text_pair(at + 8, low % 100);
    uint64_t digits = otus_load8(at) ^ 0x3030303030303030u;
    uint32_t zeros =
        digits != 0 ? (uint32_t)__builtin_ctzll(digits) / 8 : 8 + (uint32_t)(at[8] == '0');
    otus_label_put(labels, id, (struct otus_slice){at + zeros, OTUS_TEXT_U32 - zeros});
}

static bool parse_rtp_header(struct otus_pipeline *pipeline, struct otus_work *work, bool is_rtcp)
{
    enum otus_status status =
        is_rtcp ? otus_rtcp_parse(&pipeline->rtcp, work->payload.at, work->payload.len)
                : otus_rtp_parse(&pipeline->rtp, work->payload.at, work->payload.len);
    work->rtp_ready = status == OTUS_OK;
    return work->rtp_ready;
}

/* Which of the two it is: the octets say more than the description. A port pair is what a
 * sender guesses who was told nothing (RFC 3550 11), and RTCP comes to the port of RTP from
 * those who multiplex unasked: there only as SR to APP, which RFC 3551 6 keeps free. */
static bool is_rtcp_there(uint8_t kind, struct otus_slice payload)
{
    return otus_rtp_is_rtcp(payload.at, payload.len) &&
           (kind != OTUS_FLOW_RTP || (payload.at[1] >= RTCP_SR && payload.at[1] <= RTCP_APP));
}

static void parse_rtp(struct otus_pipeline *pipeline, struct otus_work *work, uint32_t index,
                      struct otus_tally *tally)
{
    /* RFC 3550 5.1: version 2 in the top bits. Cheaper than the registry. */
    if (pipeline->config.flows == NULL || work->meta->protocol != IP_UDP || work->payload.len < 8 ||
        work->payload.at[0] >> 6 != 2)
        return;
    if (!otus_flow_find(pipeline->config.flows, &pipeline->flow, work->meta, work->meta->ts_ns))
        return;
    bool is_rtcp = is_rtcp_there(pipeline->flow.kind, work->payload);
    if (!parse_rtp_header(pipeline, work, is_rtcp)) {
        work->state = OTUS_RECORD_DROPPED;
        otus_tally_add(tally, OTUS_COUNT_PARSE_ERROR_RTP);
        return;
    }
    struct otus_slice call_id = {pipeline->flow.octets, pipeline->flow.len};
    struct otus_label_set *labels = &pipeline->labels;
    struct otus_arena *arena = &pipeline->batch.arena;
    if (is_rtcp) {
        take(work, OTUS_PAYLOAD_RTCP, index);
        otus_tally_add(tally, OTUS_COUNT_PARSED_RTCP);
        otus_label_copy(labels, arena, OTUS_LABEL_RTCP_CALL_ID, call_id);
        put_number(labels, arena, OTUS_LABEL_RTCP_SSRC, pipeline->rtcp.ssrc);
        put_number(labels, arena, OTUS_LABEL_RTCP_PACKET_TYPE, pipeline->rtcp.packet_type);
    } else {
        take(work, OTUS_PAYLOAD_RTP, index);
        otus_tally_add(tally, OTUS_COUNT_PARSED_RTP);
        otus_label_copy(labels, arena, OTUS_LABEL_RTP_CALL_ID, call_id);
        put_number(labels, arena, OTUS_LABEL_RTP_SSRC, pipeline->rtp.ssrc);
        put_number(labels, arena, OTUS_LABEL_RTP_PAYLOAD_TYPE, pipeline->rtp.payload_type);
    }
}

void otus_restore_payload(struct otus_pipeline *pipeline, struct otus_work *work)
{
    if (work->payload_type == OTUS_PAYLOAD_SIP && !work->sip_ready) {
        if (parse_sip_message(pipeline, work))
            ask_for_offer(pipeline);
    } else if ((work->payload_type == OTUS_PAYLOAD_RTP ||
                work->payload_type == OTUS_PAYLOAD_RTCP) &&
               !work->rtp_ready)
        (void)parse_rtp_header(pipeline, work, work->payload_type == OTUS_PAYLOAD_RTCP);
}

static void run_filter(struct otus_pipeline *pipeline, struct otus_work *work,
                       const struct otus_stage *stage, struct otus_tally *tally)
{
    struct otus_filter_input input = {.meta = work->meta,
                                      .tunnels = work->tunnels,
                                      .labels = &pipeline->labels,
                                      .payload_type = otus_payload_type_name(work)};
    bool matches = otus_filter_run(stage->filter, &input);
    if (OTUS_LIKELY(matches == (stage->action == OTUS_FILTER_KEEP_IF)))
        return;
    work->state = OTUS_RECORD_DROPPED;
    otus_tally_add(tally, OTUS_COUNT_PROCESS_FILTER);
}

static void run_label(struct otus_pipeline *pipeline, const struct otus_stage *stage)
{
    for (uint32_t i = 0; i < stage->num_labels; i++) {
        const char *value = stage->labels[i].value;
        otus_label_copy(&pipeline->labels, &pipeline->batch.arena, stage->labels[i].id,
                        (struct otus_slice){(const uint8_t *)value, (uint32_t)strlen(value)});
    }
}

static uint32_t run_parsers(struct otus_pipeline *pipeline, struct otus_work *work, uint32_t first,
                            struct otus_tally *tally)
{
    for (uint32_t i = first; i < pipeline->num_parsers; i++) {
        enum otus_stage_kind kind = pipeline->stages[i].kind;
        if (OTUS_UNLIKELY(kind == OTUS_STAGE_PARSE_PYTHON))
            return i;
        if (work->state != OTUS_RECORD_OFFERED)
            continue;
        if (OTUS_LIKELY(kind == OTUS_STAGE_PARSE_SIP))
            parse_sip(pipeline, work, i, tally);
        else
            parse_rtp(pipeline, work, i, tally);
        if (work->state == OTUS_RECORD_DROPPED)
            return pipeline->num_stages;
    }
    if (OTUS_LIKELY(work->state != OTUS_RECORD_OFFERED))
        return pipeline->num_parsers;
    if (!pipeline->config.forward_unmatched) {
        work->state = OTUS_RECORD_DROPPED;
        otus_tally_add(tally, OTUS_COUNT_UNMATCHED);
        return pipeline->num_stages;
    }
    otus_tally_add(tally, OTUS_COUNT_FORWARDED);
    work->state = OTUS_RECORD_PARSED;
    work->payload_type = OTUS_PAYLOAD_RAW;
    return pipeline->num_parsers;
}

static uint32_t run_processors(struct otus_pipeline *pipeline, struct otus_work *work,
                               uint32_t first, struct otus_tally *tally)
{
    for (uint32_t i = first; i < pipeline->num_stages; i++) {
        const struct otus_stage *stage = &pipeline->stages[i];
        if (stage->kind == OTUS_STAGE_PROCESS_PYTHON)
            return i;
        if (OTUS_LIKELY(stage->kind == OTUS_STAGE_FILTER))
            run_filter(pipeline, work, stage, tally);
        else
            run_label(pipeline, stage);
        if (OTUS_UNLIKELY(work->state == OTUS_RECORD_DROPPED || pipeline->labels.incomplete))
            break;
    }
    return pipeline->num_stages;
}

uint32_t otus_run_stages(struct otus_pipeline *pipeline, struct otus_work *work, uint32_t first,
                         struct otus_tally *tally)
{
    uint64_t start = work->sampled ? otus_now_ns(CLOCK_MONOTONIC) : 0;
    uint32_t at = first;
    /* Also where no parser is left: what none took is decided there. */
    if (OTUS_LIKELY(first <= pipeline->num_parsers)) {
        at = run_parsers(pipeline, work, first, tally);
        if (OTUS_UNLIKELY(work->sampled)) {
            uint64_t now = otus_now_ns(CLOCK_MONOTONIC);
            otus_latency_add(&pipeline->latency[OTUS_LATENCY_PARSE], now - start);
            start = now;
        }
        if (at < pipeline->num_parsers)
            return at;
    }
    /* Nothing is decided by labels that are not all there: the packet comes again. */
    if (OTUS_UNLIKELY(work->state == OTUS_RECORD_DROPPED || pipeline->labels.incomplete))
        return pipeline->num_stages;
    at = run_processors(pipeline, work, at, tally);
    if (OTUS_UNLIKELY(work->sampled))
        otus_latency_add(&pipeline->latency[OTUS_LATENCY_PROCESS],
                         otus_now_ns(CLOCK_MONOTONIC) - start);
    return at;
}
