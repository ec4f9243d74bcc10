/* What the loader, the verifier and the runner of filter programs share. */
#ifndef OTUS_FILTER_INTERNAL_H
#define OTUS_FILTER_INTERNAL_H

#include "otus/filter.h"

/* Numbers of the format: otus_sdk/expression/compiler.py writes it. */
enum filter_operation {
    FILTER_ALWAYS = 0,
    FILTER_HAS = 1,
    FILTER_FLAG = 2,
    FILTER_STRING_EQUAL = 3,
    FILTER_STRING_BELOW = 4,
    FILTER_STRING_AT_MOST = 5,
    FILTER_STRING_IN = 6,
    FILTER_STARTS_WITH = 7,
    FILTER_ENDS_WITH = 8,
    FILTER_CONTAINS = 9,
    FILTER_MATCHES = 10,
    FILTER_INT_EQUAL = 11,
    FILTER_INT_BELOW = 12,
    FILTER_INT_AT_MOST = 13,
    FILTER_INT_IN = 14,
    FILTER_IP_EQUAL = 15,
    FILTER_IP_IN = 16,
    FILTER_NUM_OPERATIONS,
    /* What the loader makes of the tests that most expressions are made of. */
    FILTER_LABEL_IS,     /* STRING_EQUAL of a label and a string of the program */
    FILTER_LABEL_INT_IS, /* INT_EQUAL of a label and a number of the program */
};

/* The top four bits of an operand. */
enum filter_operand {
    FILTER_FROM_LABEL = 0,
    FILTER_FROM_NETWORK = 1,
    FILTER_FROM_STRINGS = 2,
    FILTER_FROM_INTS = 3,
};

enum filter_network_field {
    FILTER_SRC_IP = 0,
    FILTER_DST_IP = 1,
    FILTER_PROTOCOL = 2,
    FILTER_TUNNEL = 3,
    FILTER_PAYLOAD_TYPE = 4,
    FILTER_NUM_STRING_FIELDS,
    FILTER_SRC_PORT = 16,
    FILTER_DST_PORT = 17,
    FILTER_IP_VERSION = 18,
    FILTER_TTL = 19,
    FILTER_VLAN = 20,
    FILTER_CAPLEN = 21,
    FILTER_WIRELEN = 22,
    FILTER_END_OF_INT_FIELDS,
    FILTER_TRUNCATED = 32,
    FILTER_REASSEMBLED = 33,
    FILTER_END_OF_FLAGS,
};

enum {
    FILTER_HOLDS = 0xffff,
    FILTER_FAILS = 0xfffe,
    FILTER_MAX_INSTRUCTIONS = 4096,
    FILTER_MAX_POOL = 4096,
    FILTER_MAX_PROGRAM = 1 << 20,
    FILTER_DEAD = 0, /* states of an automaton */
    FILTER_ACCEPT = 1,
};

struct filter_instruction {
    uint8_t operation;
    uint8_t left_from; /* enum filter_operand */
    uint8_t right_from;
    uint16_t left; /* index: label id, network field, pool */
    uint16_t right;
    uint16_t holds; /* where to go on, FILTER_HOLDS, FILTER_FAILS */
    uint16_t fails;
};

struct filter_list {
    uint16_t first;
    uint16_t num;
};

struct filter_ip {
    uint8_t version;
    uint8_t octets[16];
};

struct filter_automaton {
    uint16_t num_states;
    uint16_t num_classes;
    uint16_t start;
    uint8_t classes[256];
    const uint8_t *accepts_at_end; /* by state */
    const uint16_t *next;          /* by state * num_classes + class */
};

struct otus_filter {
    uint8_t *octets; /* a copy of the program, where strings and state sets lie */
    uint16_t *transitions;
    struct filter_instruction *code;
    struct otus_slice *strings;
    int64_t *ints;
    struct filter_list *lists;
    struct filter_ip *ips;
    struct filter_automaton *automata;
    uint16_t num_code;
    uint16_t num_strings;
    uint16_t num_ints;
    uint16_t num_lists;
    uint16_t num_ips;
    uint16_t num_automata;
};

/* filter_regex.c: whether the automaton matches anywhere in the text. One
 * look-up an octet, whatever the pattern. */
bool filter_automaton_run(const struct filter_automaton *automaton, struct otus_slice text);
/* Every class and state in range. */
bool filter_automaton_is_sound(const struct filter_automaton *automaton);

#endif
