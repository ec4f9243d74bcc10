#include "otus/labels.h"

#include <stddef.h>

static const struct {
    const char *name;
    enum otus_label_type type;
} label_table[OTUS_NUM_LABELS] = {
#define LABEL_ROW(id, name_text, type_id) [OTUS_LABEL_##id] = {(name_text), OTUS_LABEL_##type_id},
    OTUS_LABELS(LABEL_ROW)
#undef LABEL_ROW
};

const char *otus_label_name(uint32_t id)
{
    return id < OTUS_NUM_LABELS ? label_table[id].name : NULL;
}

enum otus_label_type otus_label_type(uint32_t id)
{
    return id < OTUS_NUM_LABELS ? label_table[id].type : OTUS_LABEL_STRING;
}

void otus_label_put(struct otus_label_set *set, uint32_t id, struct otus_slice value)
{
    uint32_t index = set->num;
    while (index != 0 && set->label[index - 1].id >= id)
        index--;
    if (otus_label_has(set, id)) {
        set->value_octets -= set->label[index].len;
    } else {
        if (OTUS_UNLIKELY(index != set->num))
            memmove(&set->label[index + 1], &set->label[index],
                    (set->num - index) * sizeof set->label[0]);
        set->num++;
        set->present[id / 64] |= (uint64_t)1 << (id % 64);
    }
    set->value_octets += value.len;
    set->label[index] = (struct otus_label){id, (uint32_t)(value.at - set->octets), value.len};
}

void otus_label_copy(struct otus_label_set *set, struct otus_arena *arena, uint32_t id,
                     struct otus_slice value)
{
    struct otus_span span;
    if (otus_arena_put(arena, &span, value))
        otus_label_put(set, id, (struct otus_slice){arena->base + span.off, span.len});
    else
        set->incomplete = true;
}
