/* Decodes the frames of capture files with every tunnel followed, and prints one
 * JSON object a frame: what the comparison with an oracle reads.
 *
 * decode_dump [-r] [-t timeout_ms] [-f max_fragments] [-k tunnel_bits] FILE...
 * -r: frames from standard input instead, each with a 24-octet header in host
 * order: u64 ts_ns, u32 caplen, u32 wirelen, u16 link type, u16 flags, u16 TCI,
 * u16 TPID. */
#include "otus/capture.h"
#include "otus/decode.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct dump {
    struct otus_counters counters;
    struct otus_counters before;
    struct otus_decoder *decoder;
    struct otus_packet packet;
    uint64_t num_frames;
};

static void print_address(const char *name, uint8_t version, const uint8_t ip[16])
{
    char text[INET6_ADDRSTRLEN] = "";
    if (version != 0 && inet_ntop(version == 4 ? AF_INET : AF_INET6, ip, text, sizeof text) == NULL)
        abort();
    printf(",\"%s\":\"%s\"", name, text);
}

static void print_octets(const char *name, struct otus_slice octets)
{
    printf(",\"%s\":\"", name);
    for (uint32_t i = 0; i < octets.len; i++)
        printf("%02x", octets.at[i]);
    putchar('"');
}

static void print_tunnels(const struct otus_packet *packet)
{
    static const char *const kind[OTUS_NUM_TUNNEL_KINDS] = {"none",   "vxlan", "gre",  "erspan",
                                                            "geneve", "ipip",  "gtpu", "tzsp"};
    printf(",\"tunnels\":[");
    for (uint32_t i = 0; i < packet->meta.num_tunnels; i++) {
        const struct otus_tunnel *tunnel = &packet->tunnels[i];
        printf("%s{\"kind\":\"%s\",\"version\":%u,\"vlan\":%u", i == 0 ? "" : ",",
               kind[tunnel->kind], tunnel->version, tunnel->vlan);
        if ((tunnel->flags & OTUS_TUNNEL_HAS_KEY) != 0)
            printf(",\"key\":%" PRIu32, tunnel->key);
        printf(",\"ip_version\":%u", tunnel->ip_version);
        print_address("src", tunnel->ip_version, tunnel->src_ip);
        print_address("dst", tunnel->ip_version, tunnel->dst_ip);
        putchar('}');
    }
    putchar(']');
}

static void print_packet(const struct otus_packet *packet)
{
    const struct otus_packet_meta *meta = &packet->meta;
    printf(",\"v\":%u", meta->ip_version);
    print_address("src", meta->ip_version, meta->src_ip);
    print_address("dst", meta->ip_version, meta->dst_ip);
    printf(",\"proto\":%u,\"ttl\":%u,\"total_len\":%" PRIu32 ",\"ethertype\":%u", meta->protocol,
           meta->ttl, meta->ip_total_len, meta->ethertype);
    if ((meta->flags & OTUS_PACKET_TRANSPORT) != 0)
        printf(",\"sport\":%u,\"dport\":%u", meta->src_port, meta->dst_port);
    if (meta->protocol == 6)
        printf(",\"seq\":%" PRIu32 ",\"ack\":%" PRIu32 ",\"flags\":%u", meta->tcp_seq,
               meta->tcp_ack, meta->tcp_flags);
    printf(",\"reassembled\":%s,\"truncated\":%s,\"vlans\":[",
           (meta->flags & OTUS_PACKET_REASSEMBLED) != 0 ? "true" : "false",
           (meta->flags & OTUS_PACKET_TRUNCATED) != 0 ? "true" : "false");
    for (uint32_t i = 0; i < meta->num_vlans; i++)
        printf("%s%u", i == 0 ? "" : ",", meta->vlans[i]);
    putchar(']');
    print_tunnels(packet);
    print_octets("payload", packet->payload);
}

static void print_reasons(const struct dump *dump)
{
    const char *comma = "";
    printf(",\"counted\":[");
    for (uint32_t id = 0; id < OTUS_NUM_COUNTERS; id++) {
        const char *group = otus_counter_group(id);
        if (dump->counters.value[id] == dump->before.value[id] || strcmp(group, "gauge") == 0 ||
            strcmp(group, "received") == 0 || strcmp(group, "decoded") == 0)
            continue;
        printf("%s\"%s.%s\"", comma, group, otus_counter_reason(id));
        comma = ",";
    }
    putchar(']');
}

static void dump_frame(struct dump *dump, const struct otus_raw_packet *raw)
{
    dump->before = dump->counters;
    enum otus_status status = otus_decode(dump->decoder, &dump->packet, raw);
    printf("{\"frame\":%" PRIu64 ",\"status\":\"%s\"", ++dump->num_frames,
           status == OTUS_OK        ? "ok"
           : status == OTUS_E_AGAIN ? "held"
                                    : "undecodable");
    print_reasons(dump);
    if (status == OTUS_OK)
        print_packet(&dump->packet);
    printf("}\n");
}

static void dump_file(struct dump *dump, const char *path)
{
    char message[256];
    struct otus_file_config config = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    struct otus_capture *capture;
    if (config.fd < 0 ||
        otus_capture_open_file(&capture, message, sizeof message, &config) != OTUS_OK) {
        fprintf(stderr, "%s: %s\n", path, config.fd < 0 ? "can't be opened" : message);
        return;
    }
    struct otus_raw_packet raw[64];
    uint32_t num;
    while (otus_capture_next(capture, raw, &num, 64, 0) == OTUS_OK) {
        for (uint32_t i = 0; i < num; i++)
            dump_frame(dump, &raw[i]);
    }
    otus_capture_close(capture);
}

static bool read_exactly(void *octets, size_t len)
{
    return fread(octets, 1, len, stdin) == len;
}

static void dump_stdin(struct dump *dump)
{
    static uint8_t octets[1 << 18];
    struct otus_raw_packet raw = {.data = octets};
    while (read_exactly(&raw.ts_ns, 8) && read_exactly(&raw.caplen, 4) &&
           read_exactly(&raw.wirelen, 4) && read_exactly(&raw.link_type, 2) &&
           read_exactly(&raw.flags, 2) && read_exactly(&raw.vlan_tci, 2) &&
           read_exactly(&raw.vlan_tpid, 2) && raw.caplen <= sizeof octets &&
           read_exactly(octets, raw.caplen))
        dump_frame(dump, &raw);
}

int main(int argc, char **argv)
{
    static struct dump dump;
    struct otus_decoder_config config;
    bool from_stdin = false;
    otus_decoder_config_init(&config);
    config.tunnels = (1u << OTUS_NUM_TUNNEL_KINDS) - 2;
    for (int option; (option = getopt(argc, argv, "rt:f:k:")) != -1;) {
        if (option == 'r')
            from_stdin = true;
        else if (option == 't')
            config.fragment_timeout_ms = (uint32_t)strtoul(optarg, NULL, 10);
        else if (option == 'f')
            config.max_fragments = (uint32_t)strtoul(optarg, NULL, 10);
        else if (option == 'k')
            config.tunnels = (uint32_t)strtoul(optarg, NULL, 0);
        else
            return 2;
    }
    if (otus_decoder_new(&dump.decoder, &config, &dump.counters) != OTUS_OK) {
        fprintf(stderr, "decode_dump: unusable configuration\n");
        return 2;
    }
    if (from_stdin)
        dump_stdin(&dump);
    for (int i = optind; i < argc; i++)
        dump_file(&dump, argv[i]);
    otus_decoder_free(dump.decoder);
    return 0;
}
