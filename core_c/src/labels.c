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
