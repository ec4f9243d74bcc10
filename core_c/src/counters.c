#include "otus/counters.h"

#include <stddef.h>

static const char *const group_names[OTUS_NUM_COUNTER_GROUPS] = {
#define GROUP_NAME(id, name) [OTUS_GROUP_##id] = (name),
    OTUS_COUNTER_GROUPS(GROUP_NAME)
#undef GROUP_NAME
};

static const struct {
    const char *reason;
    const char *meaning;
    enum otus_counter_group group;
} counter_table[OTUS_NUM_COUNTERS] = {
#define COUNTER_ROW(id, group_id, reason_text, meaning_text)                                       \
    [OTUS_COUNT_##id] = {(reason_text), (meaning_text), OTUS_GROUP_##group_id},
    OTUS_COUNTERS(COUNTER_ROW)
#undef COUNTER_ROW
};

const char *otus_counter_reason(uint32_t id)
{
    return id < OTUS_NUM_COUNTERS ? counter_table[id].reason : NULL;
}

const char *otus_counter_group(uint32_t id)
{
    return id < OTUS_NUM_COUNTERS ? group_names[counter_table[id].group] : NULL;
}

const char *otus_counter_meaning(uint32_t id)
{
    return id < OTUS_NUM_COUNTERS ? counter_table[id].meaning : NULL;
}
