/* libosip2: libpcap reads, fixed offsets find the UDP payload, osip parses the message. */
#include <osipparser2/osip_parser.h>
#include <pcap/pcap.h>
#include <stdio.h>

enum { HEADERS = 14 + 20 + 8 };

static void parse(u_char *user, const struct pcap_pkthdr *header, const u_char *octets)
{
    osip_message_t *message = NULL;
    if (header->caplen <= HEADERS || osip_message_init(&message) != 0)
        return;
    if (osip_message_parse(message, (const char *)octets + HEADERS, header->caplen - HEADERS) == 0)
        ++*(unsigned long *)user;
    osip_message_free(message);
}

int main(int argc, char **argv)
{
    char error[PCAP_ERRBUF_SIZE];
    unsigned long num = 0;
    parser_init();
    pcap_t *pcap = argc == 2 ? pcap_open_offline(argv[1], error) : NULL;
    if (pcap == NULL)
        return 1;
    pcap_loop(pcap, -1, parse, (u_char *)&num);
    pcap_close(pcap);
    printf("%lu\n", num);
    return 0;
}
