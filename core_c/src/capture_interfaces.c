/* On `any` one frame is seen on each device that it passes: on eth0 and again on
 * eth0.100 and br0, on loopback and on a veth pair going out and coming in. */
#include "capture_interfaces.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "otus/cursor.h"

struct link_facts {
    uint32_t index;
    uint32_t master; /* bridge, bond, team or VRF that it is a port of; 0: none */
    bool has_lower;  /* IFLA_LINK in this namespace: device below, or veth peer */
    bool loopback;
    char kind[16];
};

/* Takes the next netlink attribute (struct rtattr and its padding). */
static bool next_attribute(struct otus_cursor *attributes, uint16_t *out_type,
                           struct otus_cursor *out_value)
{
    struct rtattr head;
    if (!otus_cursor_copy(attributes, &head, sizeof head) || head.rta_len < sizeof head)
        return false;
    const size_t len = head.rta_len - sizeof head;
    if (!otus_cursor_take(attributes, out_value, len))
        return false;
    const size_t padding = (4U - len % 4U) % 4U;
    if (!otus_cursor_skip(attributes, padding))
        attributes->at = attributes->end; /* the last one may lack it */
    *out_type = head.rta_type;
    return true;
}

static void read_kind(struct link_facts *facts, struct otus_cursor info)
{
    struct otus_cursor value;
    uint16_t type = 0;
    while (next_attribute(&info, &type, &value))
        if (type == IFLA_INFO_KIND) {
            size_t len = otus_cursor_left(&value);
            if (len >= sizeof facts->kind)
                len = sizeof facts->kind - 1;
            if (!otus_cursor_copy(&value, facts->kind, len))
                return;
        }
}

/* Reads the payload of an RTM_NEWLINK. */
static struct link_facts read_link(struct otus_cursor payload)
{
    struct link_facts facts = {.index = 0};
    struct ifinfomsg link;
    struct otus_cursor value;
    uint16_t type = 0;
    bool elsewhere = false;
    if (!otus_cursor_copy(&payload, &link, sizeof link))
        return facts;
    facts.index = (uint32_t)link.ifi_index;
    facts.loopback = (link.ifi_flags & IFF_LOOPBACK) != 0;
    while (next_attribute(&payload, &type, &value)) {
        uint32_t number = 0;
        if (type == IFLA_LINKINFO)
            read_kind(&facts, value);
        else if (type == IFLA_LINK_NETNSID)
            elsewhere = true;
        else if (type == IFLA_MASTER && otus_cursor_copy(&value, &number, sizeof number))
            facts.master = number;
        else if (type == IFLA_LINK && otus_cursor_copy(&value, &number, sizeof number))
            facts.has_lower = number != 0;
    }
    facts.has_lower = facts.has_lower && !elsewhere;
    return facts;
}

static void set(struct otus_interfaces *interfaces, uint32_t index, enum otus_sighting sighting)
{
    if (index < OTUS_MAX_INTERFACE_INDEX && interfaces->sighting[index] < (uint8_t)sighting)
        interfaces->sighting[index] = (uint8_t)sighting;
}

static void judge(struct otus_interfaces *interfaces, const struct link_facts *facts)
{
    set(interfaces, facts->index, OTUS_SIGHTING_FIRST);
    if (facts->loopback || (facts->has_lower && strcmp(facts->kind, "veth") == 0))
        set(interfaces, facts->index, OTUS_SIGHTING_OUT_AGAIN);
    if (facts->has_lower && strcmp(facts->kind, "vlan") == 0)
        set(interfaces, facts->index, OTUS_SIGHTING_UPPER_AGAIN);
    if (facts->master != 0)
        set(interfaces, facts->master, OTUS_SIGHTING_UPPER_AGAIN);
}

/* Returns true when the dump is complete. */
static bool judge_messages(struct otus_interfaces *interfaces, size_t len)
{
    struct otus_cursor messages = otus_cursor_of(interfaces->buffer, len);
    struct nlmsghdr head;
    while (otus_cursor_copy(&messages, &head, sizeof head)) {
        struct otus_cursor payload;
        if (head.nlmsg_type == NLMSG_DONE || head.nlmsg_type == NLMSG_ERROR ||
            head.nlmsg_len < sizeof head ||
            !otus_cursor_take(&messages, &payload, head.nlmsg_len - sizeof head))
            return true;
        if (head.nlmsg_type == RTM_NEWLINK) {
            struct link_facts facts = read_link(payload);
            judge(interfaces, &facts);
        }
        if (!otus_cursor_skip(&messages, (4U - head.nlmsg_len % 4U) % 4U))
            return false;
    }
    return false;
}

enum otus_status otus_interfaces_look(struct otus_interfaces *interfaces)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg link;
    } request = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof request.link),
                            .nlmsg_type = RTM_GETLINK,
                            .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
                 .link = {.ifi_family = AF_UNSPEC}};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return OTUS_E_SYSTEM;
    enum otus_status status = OTUS_E_SYSTEM;
    if (send(fd, &request, request.header.nlmsg_len, 0) >= 0) {
        memset(interfaces->sighting, 0, sizeof interfaces->sighting);
        ssize_t got = 0;
        do {
            got = recv(fd, interfaces->buffer, sizeof interfaces->buffer, 0);
        } while ((got < 0 && errno == EINTR) ||
                 (got > 0 && !judge_messages(interfaces, (size_t)got)));
        if (got > 0)
            status = OTUS_OK;
    }
    close(fd);
    return status;
}

void otus_interfaces_names(char *out_text, size_t len)
{
    struct if_nameindex *names = if_nameindex();
    size_t used = 0;
    out_text[0] = '\0';
    for (struct if_nameindex *at = names; at != NULL && at->if_name != NULL; at++) {
        int put = snprintf(out_text + used, len - used, "%s%s", used != 0 ? ", " : "", at->if_name);
        if (put < 0 || (size_t)put >= len - used)
            break;
        used += (size_t)put;
    }
    if (names != NULL)
        if_freenameindex(names);
}
