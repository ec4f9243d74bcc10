/* Reads SIP messages from files or one from standard input and prints every parsed field as
 * one JSON object a message: what the golden and corpus tests compare.
 *
 *   sip_dump [--stream] [--truncated] [--frame] [FILE ...]
 *
 * A string holds the message's octets as ISO 8859-1, so that nothing is lost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "otus/sip.h"

static void print_octets(const uint8_t *at, uint32_t len)
{
    putchar('"');
    for (uint32_t i = 0; i < len; i++) {
        if (at[i] == '"' || at[i] == '\\')
            printf("\\%c", at[i]);
        else if (at[i] < 0x20 || at[i] > 0x7e)
            printf("\\u%04x", at[i]);
        else
            putchar(at[i]);
    }
    putchar('"');
}

static void print_span(const struct otus_sip_message *message, const char *name,
                       struct otus_span span)
{
    printf("\"%s\": ", name);
    if (span.len == 0 && span.off == 0)
        printf("null");
    else
        print_octets(message->octets + span.off, span.len);
    printf(", ");
}

static const char *truth(bool value)
{
    return value ? "true" : "false";
}

static void print_address(const struct otus_sip_message *message, const char *name,
                          const struct otus_sip_address *address)
{
    printf("\"%s\": {", name);
    print_span(message, "display_name", address->display_name);
    print_span(message, "uri", address->uri);
    print_span(message, "params", address->params);
    print_span(message, "tag", address->tag);
    printf("\"_\": 0}, ");
}

static void print_via(const struct otus_sip_message *message)
{
    const struct otus_sip_via *via = &message->via;
    printf("\"via\": {");
    print_span(message, "transport", via->transport);
    print_span(message, "sent_by", via->sent_by);
    print_span(message, "branch", via->branch);
    print_span(message, "received", via->received);
    print_span(message, "rport", via->rport);
    printf("\"has_rport\": %s}, ", truth(via->has_rport));
}

static void print_headers(const struct otus_sip_message *message)
{
    printf("\"headers\": [");
    for (uint32_t i = 0; i < message->num_headers; i++) {
        const struct otus_sip_header *header = &message->headers[i];
        const char *known = otus_sip_header_name(header->id);
        printf("%s[", i == 0 ? "" : ", ");
        print_octets(message->octets + header->name.off, header->name.len);
        printf(", ");
        print_octets(message->octets + header->value.off, header->value.len);
        printf(", \"%s\", %u, %u]", known == NULL ? "" : known, header->folded, header->next);
    }
    printf("], ");
}

static void print_codecs(const struct otus_sip_message *message, const struct otus_sdp_media *media)
{
    printf("\"codecs\": [");
    for (uint32_t i = 0; i < media->num_codecs; i++) {
        const struct otus_sdp_codec *codec = &message->sdp->codecs[media->first_codec + i];
        const char *known = otus_sdp_static_encoding(codec->payload_type);
        printf("%s[%u, ", i == 0 ? "" : ", ", codec->payload_type);
        if (codec->encoding.len != 0)
            print_octets(message->octets + codec->encoding.off, codec->encoding.len);
        else
            printf("\"%s\"", known == NULL ? "" : known);
        printf("]");
    }
    printf("], ");
}

static void print_media(const struct otus_sip_message *message, const struct otus_sdp_media *media)
{
    static const char *const directions[] = {"sendrecv", "sendonly", "recvonly", "inactive"};
    printf("{");
    print_span(message, "media", media->media);
    print_span(message, "protocol", media->protocol);
    print_span(message, "address", media->address);
    print_span(message, "mid", media->mid);
    print_span(message, "rtcp_address", media->rtcp_address);
    printf("\"port\": %u, \"num_ports\": %u, \"rtcp_port\": %u, \"direction\": \"%s\", ",
           media->port, media->num_ports, media->rtcp_port, directions[media->direction]);
    printf("\"rtcp_mux\": %s, ", truth(media->rtcp_mux));
    print_codecs(message, media);
    printf("\"candidates\": [");
    for (uint32_t i = 0; i < media->num_candidates; i++) {
        struct otus_span span = message->sdp->candidates[media->first_candidate + i];
        printf("%s", i == 0 ? "" : ", ");
        print_octets(message->octets + span.off, span.len);
    }
    printf("]}");
}

static void print_sdp(const struct otus_sip_message *message)
{
    const struct otus_sdp *sdp = message->sdp;
    if (sdp == NULL) {
        printf("\"sdp\": null, ");
        return;
    }
    printf("\"sdp\": {");
    print_span(message, "origin", sdp->origin);
    print_span(message, "session_name", sdp->session_name);
    print_span(message, "address", sdp->address);
    print_span(message, "bundle", sdp->bundle);
    printf("\"truncated\": %s, \"bad\": %s, \"media\": [", truth(sdp->truncated), truth(sdp->bad));
    for (uint32_t i = 0; i < sdp->num_media; i++) {
        printf("%s", i == 0 ? "" : ", ");
        print_media(message, &sdp->media[i]);
    }
    printf("]}, ");
}

static void print_message(const struct otus_sip_message *message)
{
    printf("\"is_request\": %s, \"method_id\": %u, \"status_code\": %u, \"cseq\": %u, "
           "\"has_cseq\": %s, \"len\": %u, \"content_length\": %lld, ",
           truth(message->is_request), message->method_id, message->status_code, message->cseq,
           truth(message->has_cseq), message->len, (long long)message->content_length);
    print_span(message, "start_line", message->start_line);
    print_span(message, "method", message->method);
    print_span(message, "request_uri", message->request_uri);
    print_span(message, "reason", message->reason);
    print_span(message, "call_id", message->call_id);
    print_span(message, "cseq_method", message->cseq_method);
    print_span(message, "user_agent", message->user_agent);
    print_span(message, "content_type", message->content_type);
    print_span(message, "body", message->body);
    print_address(message, "from", &message->from);
    print_address(message, "to", &message->to);
    print_address(message, "contact", &message->contact);
    print_via(message);
    print_headers(message);
    print_sdp(message);
    printf("\"anomalies\": [");
    const char *comma = "";
    for (uint32_t id = 0; id < OTUS_SIP_NUM_ANOMALIES; id++) {
        if (message->anomalies >> id & 1) {
            printf("%s\"%s\"", comma, otus_sip_anomaly_name(id));
            comma = ", ";
        }
    }
    printf("]}\n");
}

static uint8_t *read_all(FILE *file, uint32_t *out_len)
{
    const size_t size = 1 << 20; /* far beyond any message of the tests */
    uint8_t *octets = malloc(size);
    if (octets == NULL)
        return NULL;
    *out_len = (uint32_t)fread(octets, 1, size, file);
    /* Exactly as long as the message: a sanitizer then sees each octet read past it. */
    uint8_t *exact = realloc(octets, *out_len == 0 ? 1 : *out_len);
    if (exact == NULL)
        free(octets);
    return exact;
}

static int dump(struct otus_sip_parser *parser, FILE *file, uint32_t flags, bool frame)
{
    uint32_t len;
    uint8_t *octets = read_all(file, &len);
    if (octets == NULL)
        return 1;
    struct otus_sip_message message;
    printf("{\"can_handle\": %s, ", truth(otus_sip_can_handle(octets, len)));
    if (frame) {
        uint32_t frame_len = 0;
        enum otus_status status = otus_sip_frame(&frame_len, octets, len, 65536);
        printf("\"frame\": \"%s\", \"frame_len\": %u, ", otus_status_name(status), frame_len);
    }
    enum otus_status status = otus_sip_parse(parser, &message, octets, len, flags);
    printf("\"status\": \"%s\"", otus_status_name(status));
    if (status == OTUS_OK) {
        printf(", ");
        print_message(&message);
    } else {
        printf("}\n");
    }
    free(octets);
    return 0;
}

int main(int argc, char **argv)
{
    struct otus_sip_parser *parser;
    uint32_t flags = 0;
    bool frame = false;
    int failed = 0;
    int num_files = 0;
    if (otus_sip_parser_new(&parser) != OTUS_OK)
        return 1;
    for (int i = 1; i < argc && !failed; i++) {
        if (strcmp(argv[i], "--stream") == 0) {
            flags |= OTUS_SIP_ON_STREAM;
        } else if (strcmp(argv[i], "--truncated") == 0) {
            flags |= OTUS_SIP_TRUNCATED;
        } else if (strcmp(argv[i], "--frame") == 0) {
            frame = true;
        } else {
            FILE *file = fopen(argv[i], "rb");
            num_files++;
            failed = file == NULL || dump(parser, file, flags, frame);
            if (file != NULL)
                fclose(file);
        }
    }
    if (num_files == 0 && !failed)
        failed = dump(parser, stdin, flags, frame);
    otus_sip_parser_free(parser);
    return failed;
}
