/* Media endpoints of a SIP message into the flow registry: RFC 3264, RFC 8866. */
#include <arpa/inet.h>

#include "otus/sip_labels.h"
#include "sip_internal.h"

enum {
    MAX_PORTS_PER_MEDIA = 8, /* of m=<port>/<number>: a bound on what one line can claim */
    PROTOCOL_UDP = 17,
};

/* The endpoints of a message, put together. */
struct registration {
    struct otus_flow_registry *registry;
    struct otus_counters *counters;
    const uint8_t *octets;
    struct otus_slice owner;
    uint64_t now_ns;
    uint32_t num_ports;
    struct otus_flow_ports ports[OTUS_FLOW_MAX_PORTS];
    struct otus_flow_value call_id;
};

/* A literal address that media can come to; names and the unspecified address are none. */
static bool read_literal(struct otus_flow_key *key, const uint8_t *octets, struct otus_span span)
{
    char text[INET6_ADDRSTRLEN];
    static const uint8_t unspecified[16] = {0};
    if (span.len == 0 || span.len >= sizeof text)
        return false;
    memcpy(text, octets + span.off, span.len);
    text[span.len] = '\0';
    memset(key->ip, 0, sizeof key->ip);
    if (inet_pton(AF_INET, text, key->ip) == 1)
        key->ip_version = 4;
    else if (inet_pton(AF_INET6, text, key->ip) == 1)
        key->ip_version = 6;
    else
        return false;
    /* RFC 3264 8.4: 0.0.0.0 was the old way to put a call on hold. */
    return memcmp(key->ip, unspecified, sizeof unspecified) != 0;
}

static void put_ports(struct registration *registration)
{
    otus_flow_put_ports(registration->registry, registration->ports, registration->num_ports,
                        &registration->call_id, registration->owner, registration->now_ns,
                        registration->counters);
    registration->num_ports = 0;
}

/* Whether the port of an address is one of the same two: RTP and RTCP behind it are a pair. */
static bool is_pair(const struct otus_flow_key *last, const struct otus_flow_key *key,
                    uint16_t port)
{
    return (last->port ^ port) <= 1 && last->ip_version == key->ip_version &&
           memcmp(last->ip, key->ip, sizeof key->ip) == 0;
}

static void add_endpoint(struct registration *registration, const struct otus_flow_key *key,
                         uint16_t port, enum otus_flow_kind kind)
{
    if (port == 0)
        return;
    struct otus_flow_ports *ports = registration->ports;
    if (registration->num_ports == 0 ||
        !is_pair(&ports[registration->num_ports - 1].key, key, port)) {
        if (registration->num_ports == OTUS_FLOW_MAX_PORTS)
            put_ports(registration);
        ports[registration->num_ports] = (struct otus_flow_ports){.key = *key};
        ports[registration->num_ports++].key.port = port;
    }
    ports[registration->num_ports - 1].kind[port & 1] = (uint8_t)kind;
}

/* RTP/AVP, RTP/SAVPF, UDP/TLS/RTP/SAVPF, TCP/RTP/AVP, ...; not udptl, TCP/MSRP, DTLS/SCTP. */
static bool is_rtp(const uint8_t *octets, struct otus_span protocol)
{
    for (uint32_t i = 0; i + 4 <= protocol.len; i++)
        if (memcmp(octets + protocol.off + i, "RTP/", 4) == 0)
            return true;
    return false;
}

/* RFC 8866 5.14: with n ports, RTP is on every second one, RTCP on those between. */
static void add_media(struct registration *registration, const struct otus_sdp_media *media)
{
    struct otus_flow_key key = {.protocol = PROTOCOL_UDP};
    if (media->port == 0 || !is_rtp(registration->octets, media->protocol) ||
        !read_literal(&key, registration->octets, media->address))
        return; /* RFC 3264 6: port 0 rejects the media */
    uint32_t num = media->num_ports < MAX_PORTS_PER_MEDIA ? media->num_ports : MAX_PORTS_PER_MEDIA;
    bool is_pair_rule =
        media->rtcp_port == media->port + 1 && media->rtcp_address.len == 0 && !media->rtcp_mux;
    enum otus_flow_kind kind = media->rtcp_mux ? OTUS_FLOW_RTP_RTCP_MUX : OTUS_FLOW_RTP;
    for (uint32_t i = 0; i < num; i++) {
        uint32_t port = media->port + 2 * i;
        if (port > UINT16_MAX)
            break;
        add_endpoint(registration, &key, (uint16_t)port, kind);
        if (is_pair_rule && port < UINT16_MAX)
            add_endpoint(registration, &key, (uint16_t)(port + 1), OTUS_FLOW_RTCP);
    }
    if (is_pair_rule || media->rtcp_mux)
        return;
    if (media->rtcp_address.len == 0 ||
        read_literal(&key, registration->octets, media->rtcp_address))
        add_endpoint(registration, &key, media->rtcp_port, OTUS_FLOW_RTCP);
}

static struct otus_slice slice_of(const struct otus_sip_message *message, struct otus_span span)
{
    return (struct otus_slice){message->octets + span.off, span.len};
}

static void put_description(struct otus_flow_registry *registry,
                            const struct otus_sip_message *message,
                            const struct otus_flow_dialog *dialog, uint64_t now_ns,
                            struct otus_counters *counters)
{
    struct registration registration; /* large, and most of it is never read */
    registration.registry = registry;
    registration.counters = counters;
    registration.octets = message->octets;
    registration.owner = message->is_request ? dialog->from_tag : dialog->to_tag;
    registration.now_ns = now_ns;
    registration.num_ports = 0;
    otus_flow_set_call_id(&registration.call_id, dialog->call_id);
    for (uint32_t i = 0; i < message->sdp->num_media; i++)
        add_media(&registration, &message->sdp->media[i]);
    if (registration.num_ports != 0)
        put_ports(&registration);
}

/* RFC 3261 22: answered by the same request with credentials. */
static bool is_challenge(const struct otus_sip_message *message)
{
    return message->status_code == 401 || message->status_code == 407;
}

static struct otus_flow_dialog dialog_of(const struct otus_sip_message *message)
{
    return (struct otus_flow_dialog){
        .call_id = slice_of(message, message->call_id),
        .from_tag = slice_of(message, message->from.tag),
        .to_tag = slice_of(message, message->to.tag),
        .branch = slice_of(message, message->via.branch),
        .cseq = message->cseq,
    };
}

void otus_sip_ask_media(const struct otus_flow_registry *registry,
                        const struct otus_sip_message *message)
{
    bool changes_dialog = message->method_id == OTUS_SIP_METHOD_INVITE
                              ? message->is_request || message->status_code >= 200
                              : message->method_id == OTUS_SIP_METHOD_BYE && !message->is_request;
    if ((changes_dialog || message->sdp != NULL) && message->call_id.len != 0)
        otus_flow_ask_call(registry, slice_of(message, message->call_id));
}

bool otus_sip_is_delayed_offer(struct otus_flow_registry *registry,
                               const struct otus_sip_message *message)
{
    if (message->is_request || message->method_id != OTUS_SIP_METHOD_INVITE ||
        message->sdp == NULL || message->call_id.len == 0)
        return false;
    struct otus_flow_dialog dialog = dialog_of(message);
    return otus_flow_is_offerless(registry, &dialog);
}

void otus_sip_register_media(struct otus_flow_registry *registry,
                             const struct otus_sip_message *message, bool has_rtp, uint64_t now_ns,
                             struct otus_counters *counters)
{
    struct otus_flow_dialog dialog = dialog_of(message);
    bool is_invite = message->method_id == OTUS_SIP_METHOD_INVITE;
    uint32_t final = message->status_code >= 200 ? message->status_code : 0;
    if (dialog.call_id.len == 0)
        return;
    /* RFC 3261 15.1.1: the session ends when the BYE is answered, whatever the answer (200,
     * 481, 408), and not when it is sent. CANCEL ends nothing: the 487 to its INVITE does. */
    if (final != 0 && message->method_id == OTUS_SIP_METHOD_BYE) {
        if (!is_challenge(message))
            otus_flow_ended(registry, &dialog);
        return;
    }
    if (final >= 300 && is_invite) {
        if (is_challenge(message))
            otus_flow_challenged(registry, &dialog);
        else
            otus_flow_refused(registry, &dialog);
        return;
    }
    if (message->is_request && is_invite)
        otus_flow_invited(registry, &dialog, message->sdp != NULL, now_ns, counters);
    if (message->sdp != NULL && has_rtp)
        put_description(registry, message, &dialog, now_ns, counters);
    if (final != 0 && is_invite)
        otus_flow_answered(registry, &dialog, now_ns, counters);
}
