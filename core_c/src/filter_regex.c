/* Patterns of matches(): automata built whole by the compiler, run here. */
#include "filter_internal.h"

bool filter_automaton_run(const struct filter_automaton *automaton, struct otus_slice text)
{
    uint32_t state = automaton->start;
    for (uint32_t i = 0; i < text.len; i++) {
        uint32_t class = automaton->classes[text.at[i]];
        state = automaton->next[state * automaton->num_classes + class];
        if (state <= FILTER_ACCEPT)
            return state == FILTER_ACCEPT;
    }
    return automaton->accepts_at_end[state] != 0;
}

bool filter_automaton_is_sound(const struct filter_automaton *automaton)
{
    /* States 0 and 1 have a fixed meaning and are always there. */
    if (automaton->num_states < 2 || automaton->start >= automaton->num_states ||
        automaton->num_classes == 0 || automaton->num_classes > 256)
        return false;
    for (uint32_t i = 0; i < 256; i++) {
        if (automaton->classes[i] >= automaton->num_classes)
            return false;
    }
    uint32_t num = (uint32_t)automaton->num_states * automaton->num_classes;
    for (uint32_t i = 0; i < num; i++) {
        if (automaton->next[i] >= automaton->num_states)
            return false;
    }
    return true;
}
