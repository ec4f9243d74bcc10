/* Names and octet conversions that the JSON and the Protobuf form share. */
#include "encoder.h"

#include "otus/batch.h"

static bool method_is(const struct otus_sip_message *message, uint8_t method_id)
{
    return message->method_id == method_id;
}

/* RFC 3264, RFC 6337 section 2. UPDATE and INVITE offer, ACK and what answers an UPDATE or
 * a PRACK answers. A response to INVITE answers too, unless the INVITE came without an
 * offer. A PRACK can do either. */
const char *encode_offer_answer(const struct otus_sip_message *message)
{
    if (message->sdp == NULL)
        return NULL;
    bool has_answer_role = method_is(message, OTUS_SIP_METHOD_INVITE) ||
                           method_is(message, OTUS_SIP_METHOD_UPDATE) ||
                           method_is(message, OTUS_SIP_METHOD_PRACK);
    if (!message->is_request)
        return !has_answer_role || message->status_code >= 300 ? NULL
               : message->is_delayed_offer                     ? "offer"
                                                               : "answer";
    if (method_is(message, OTUS_SIP_METHOD_ACK))
        return "answer";
    if (method_is(message, OTUS_SIP_METHOD_PRACK))
        return "unknown";
    return has_answer_role ? "offer" : NULL;
}

const char *encode_anomaly_name(uint32_t id)
{
    static const char *const names[OTUS_SIP_NUM_ANOMALIES] = {
#define ANOMALY_NAME(id, name, meaning) [OTUS_SIP_ANOMALY_##id] = (name),
        OTUS_SIP_ANOMALIES(ANOMALY_NAME)
#undef ANOMALY_NAME
    };
    return id < OTUS_SIP_NUM_ANOMALIES ? names[id] : "";
}

bool encode_carries_rtp(const uint8_t *protocol, uint32_t len)
{
    for (uint32_t i = 0; i + 3 <= len; i++)
        if (memcmp(protocol + i, "RTP", 3) == 0)
            return true;
    return false;
}

const char *encode_direction(uint32_t direction)
{
    static const char *const names[] = {
        [OTUS_SDP_SENDRECV] = "sendrecv",
        [OTUS_SDP_SENDONLY] = "sendonly",
        [OTUS_SDP_RECVONLY] = "recvonly",
        [OTUS_SDP_INACTIVE] = "inactive",
    };
    return direction < sizeof names / sizeof names[0] ? names[direction] : names[0];
}

const char *encode_static_codec(uint32_t payload_type)
{
    static const char *const names[] = {
        [0] = "PCMU/8000",    [3] = "GSM/8000",    [4] = "G723/8000",   [5] = "DVI4/8000",
        [6] = "DVI4/16000",   [7] = "LPC/8000",    [8] = "PCMA/8000",   [9] = "G722/8000",
        [10] = "L16/44100/2", [11] = "L16/44100",  [12] = "QCELP/8000", [13] = "CN/8000",
        [14] = "MPA/90000",   [15] = "G728/8000",  [16] = "DVI4/11025", [17] = "DVI4/22050",
        [18] = "G729/8000",   [25] = "CelB/90000", [26] = "JPEG/90000", [28] = "nv/90000",
        [31] = "H261/90000",  [32] = "MPV/90000",  [33] = "MP2T/90000", [34] = "H263/90000",
    };
    if (payload_type >= sizeof names / sizeof names[0] || names[payload_type] == NULL)
        return "";
    return names[payload_type];
}

const char *encode_payload_type_name(uint32_t payload_type)
{
    switch (payload_type) {
    case OTUS_PAYLOAD_SIP:
        return "sip";
    case OTUS_PAYLOAD_RTP:
        return "rtp";
    case OTUS_PAYLOAD_RTCP:
        return "rtcp";
    case OTUS_PAYLOAD_PLUGIN:
        return "";
    default:
        return "raw";
    }
}

uint32_t encode_base64(uint8_t *out, const uint8_t *octets, uint32_t len)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t *at = out;
    uint32_t i = 0;
    for (; i + 3 <= len; i += 3) {
        uint32_t group = (uint32_t)octets[i] << 16 | (uint32_t)octets[i + 1] << 8 | octets[i + 2];
        *at++ = (uint8_t)alphabet[group >> 18];
        *at++ = (uint8_t)alphabet[(group >> 12) & 63];
        *at++ = (uint8_t)alphabet[(group >> 6) & 63];
        *at++ = (uint8_t)alphabet[group & 63];
    }
    if (i < len) {
        uint32_t group = (uint32_t)octets[i] << 16;
        if (i + 1 < len)
            group |= (uint32_t)octets[i + 1] << 8;
        *at++ = (uint8_t)alphabet[group >> 18];
        *at++ = (uint8_t)alphabet[(group >> 12) & 63];
        *at++ = i + 1 < len ? (uint8_t)alphabet[(group >> 6) & 63] : (uint8_t)'=';
        *at++ = '=';
    }
    return (uint32_t)(at - out);
}

static bool is_white(uint8_t octet)
{
    return octet == ' ' || octet == '\t';
}

static bool is_line_end(uint8_t octet)
{
    return octet == '\r' || octet == '\n';
}

bool encode_next_line(struct otus_cursor *value, struct otus_cursor *out_line)
{
    if (otus_cursor_left(value) == 0)
        return false;
    const uint8_t *start = value->at;
    const uint8_t *line_end = start;
    while (line_end < value->end && !is_line_end(*line_end))
        line_end++;
    const uint8_t *next = line_end;
    while (next < value->end && (is_line_end(*next) || is_white(*next)))
        next++;
    if (next < value->end) {
        /* White space before the line end is part of the fold as well. */
        while (line_end > start && is_white(line_end[-1]))
            line_end--;
    }
    out_line->at = start;
    out_line->end = line_end;
    value->at = next;
    return true;
}

bool encode_next_word(struct otus_cursor *list, struct otus_cursor *out_word)
{
    while (list->at < list->end && *list->at == ' ')
        list->at++;
    out_word->at = list->at;
    while (list->at < list->end && *list->at != ' ')
        list->at++;
    out_word->end = list->at;
    return out_word->end > out_word->at;
}
