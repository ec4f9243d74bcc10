/* Keys, values and registries for the tests of the flow registry. */
#ifndef OTUS_TEST_FLOW_FIXTURE_H
#define OTUS_TEST_FLOW_FIXTURE_H

#include "check.h"
#include "flow_internal.h"

enum { SECOND = 1000000000 };

static inline struct otus_flow_key key_of(uint32_t address, uint16_t port)
{
    struct otus_flow_key key = {.ip_version = 4, .protocol = 17, .port = port};
    memcpy(key.ip, &address, sizeof address);
    return key;
}

static inline struct otus_flow_value value_of(const char *call_id)
{
    struct otus_flow_value value = {.kind = OTUS_FLOW_RTP};
    otus_flow_set_call_id(&value,
                          (struct otus_slice){(const uint8_t *)call_id, (uint32_t)strlen(call_id)});
    return value;
}

static inline struct otus_slice slice_of(const char *text)
{
    return (struct otus_slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

#define NOBODY ((struct otus_slice){(const uint8_t *)"", 0})

/* The end of a call of which no dialog is known. */
static inline void end_call(struct otus_flow_registry *registry, struct otus_slice call_id)
{
    struct otus_flow_dialog dialog = {
        .call_id = call_id, .from_tag = NOBODY, .to_tag = NOBODY, .branch = NOBODY};
    otus_flow_ended(registry, &dialog);
}

static inline struct otus_flow_registry *registry_of(uint32_t max_flows, uint32_t ttl_ms)
{
    struct otus_flow_registry *registry = NULL;
    CHECK(otus_flow_registry_new(&registry, max_flows, ttl_ms) == OTUS_OK);
    return registry;
}

#endif
