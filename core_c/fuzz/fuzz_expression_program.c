/* Filter programs of any octets: refused, or run over packets to an answer. */
#include "otus/filter.h"

#include <stdlib.h>

static void fill_labels(struct otus_label_set *labels, const uint8_t *octets, size_t len)
{
    otus_label_clear(labels, octets);
    for (uint32_t id = 0; id < OTUS_MAX_LABELS; id += 1 + id % 3) {
        size_t off = id < len ? id : 0;
        size_t left = len - off;
        otus_label_put(labels, id,
                       (struct otus_slice){octets + off, (uint32_t)(left < 40 ? left : 40)});
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len)
{
    static const struct otus_tunnel tunnels[OTUS_MAX_TUNNELS] = {{.kind = OTUS_TUNNEL_GRE}};
    struct otus_filter *filter = NULL;
    char message[120];
    if (otus_filter_load(&filter, message, sizeof message, octets, len) != OTUS_OK) {
        if (filter != NULL || message[0] == '\0')
            abort();
        return 0;
    }
    struct otus_label_set labels;
    fill_labels(&labels, octets, len);
    for (uint32_t i = 0; i < 8; i++) {
        struct otus_packet_meta meta = {
            .ip_version = (uint8_t)(i & 2 ? 6 : 4),
            .protocol = (uint8_t)(i * 17),
            .num_tunnels = i & 1,
            .num_vlans = i & 1,
            .flags = i,
        };
        struct otus_filter_input input = {
            .meta = &meta,
            .tunnels = tunnels,
            .labels = &labels,
            .payload_type = {(const uint8_t *)"sip", 3},
        };
        if (otus_filter_run(filter, &input) != otus_filter_run(filter, &input))
            abort();
    }
    otus_filter_free(filter);
    return 0;
}
