/* The floor: libpcap reads the file and counts, nothing else. */
#include <pcap/pcap.h>
#include <stdio.h>

static void count(u_char *user, const struct pcap_pkthdr *header, const u_char *octets)
{
    (void)header;
    (void)octets;
    ++*(unsigned long *)user;
}

int main(int argc, char **argv)
{
    char message[PCAP_ERRBUF_SIZE];
    unsigned long num = 0;
    pcap_t *pcap = argc == 2 ? pcap_open_offline(argv[1], message) : NULL;
    if (pcap == NULL)
        return 1;
    pcap_loop(pcap, -1, count, (u_char *)&num);
    pcap_close(pcap);
    printf("%lu\n", num);
    return 0;
}
