/* No program is accepted until the verifier is here. */
#include "otus/filter.h"

#include <stdio.h>

enum otus_status otus_filter_load(struct otus_filter **out_filter, char *message,
                                  size_t message_len, const uint8_t *program, size_t len)
{
    (void)out_filter;
    (void)program;
    snprintf(message, message_len, "filter program of %zu octets refused: no verifier", len);
    return OTUS_E_UNSUPPORTED;
}

void otus_filter_free(struct otus_filter *filter)
{
    (void)filter;
}

bool otus_filter_run(const struct otus_filter *filter, const struct otus_filter_input *input)
{
    (void)filter;
    (void)input;
    return false;
}
