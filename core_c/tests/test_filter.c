/* Filter programs put together by hand: what loads, what is refused, what they
 * say. tests/core/test_filter.py holds the compiler's programs equal to others. */
#include "check.h"
#include "filter_internal.h"
#include "guard.h"

struct program {
    uint8_t octets[2048];
    size_t len;
};

static void put16(struct program *program, uint32_t value)
{
    program->octets[program->len++] = (uint8_t)value;
    program->octets[program->len++] = (uint8_t)(value >> 8);
}

static void put_head(struct program *program, uint32_t code, uint32_t strings, uint32_t ints,
                     uint32_t lists, uint32_t ips, uint32_t automata)
{
    memcpy(program->octets, "OTUF", 4);
    program->len = 4;
    const uint32_t counts[] = {1, code, strings, ints, lists, ips, automata, 0};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        put16(program, counts[i]);
}

static void put_instruction(struct program *program, uint32_t operation, uint32_t left,
                            uint32_t right, uint32_t holds, uint32_t fails)
{
    put16(program, operation);
    put16(program, left);
    put16(program, right);
    put16(program, holds);
    put16(program, fails);
    put16(program, 0);
}

static void put_string(struct program *program, const char *text)
{
    put16(program, (uint32_t)strlen(text));
    put16(program, 0);
    memcpy(program->octets + program->len, text, strlen(text));
    program->len += strlen(text);
}

static struct otus_filter *load(const struct program *program, enum otus_status want)
{
    struct guard_buffer copy = guard_copy(program->octets, program->len);
    char message[80] = "unset";
    struct otus_filter *filter = NULL;
    CHECK_EQ(otus_filter_load(&filter, message, sizeof message, copy.octets, copy.len), want);
    CHECK((message[0] != '\0') == (want != OTUS_OK));
    guard_free(&copy); /* the filter has a copy of its own */
    return filter;
}

static bool run_with_method(const struct otus_filter *filter, const char *method)
{
    static const struct otus_packet_meta meta;
    struct otus_label_set labels;
    const uint8_t *octets = (const uint8_t *)method;
    otus_label_clear(&labels, octets);
    if (method != NULL)
        otus_label_put(&labels, OTUS_LABEL_SIP_METHOD,
                       (struct otus_slice){octets, (uint32_t)strlen(method)});
    struct otus_filter_input input = {.meta = &meta, .labels = &labels};
    return otus_filter_run(filter, &input);
}

enum {
    METHOD = FILTER_FROM_LABEL << 12 | OTUS_LABEL_SIP_METHOD,
    STRINGS = FILTER_FROM_STRINGS << 12
};

static void test_equal_and_absent(void)
{
    struct program program;
    put_head(&program, 2, 2, 0, 0, 0, 0);
    put_instruction(&program, FILTER_STRING_EQUAL, METHOD, STRINGS, FILTER_HOLDS, 1);
    put_instruction(&program, FILTER_STRING_EQUAL, METHOD, STRINGS | 1, FILTER_HOLDS, FILTER_FAILS);
    put_string(&program, "OPTIONS");
    put_string(&program, "");
    struct otus_filter *filter = load(&program, OTUS_OK);
    if (filter == NULL)
        return;
    CHECK(run_with_method(filter, "OPTIONS"));
    CHECK(!run_with_method(filter, "OPTION"));
    CHECK(!run_with_method(filter, "INVITE"));
    CHECK(run_with_method(filter, NULL));
    otus_filter_free(filter);
    otus_filter_free(NULL);
}

/* What one instruction with these numbers is: sound or not. */
static void check_instruction(enum otus_status want, uint32_t operation, uint32_t left,
                              uint32_t right, uint32_t holds, uint32_t fails)
{
    struct program program;
    put_head(&program, 2, 1, 0, 1, 0, 0);
    put_instruction(&program, operation, left, right, holds, fails);
    put_instruction(&program, FILTER_ALWAYS, 0, 0, FILTER_HOLDS, FILTER_HOLDS);
    put_string(&program, "x");
    put16(&program, 0); /* a list of strings 0 .. 1 */
    put16(&program, 1);
    otus_filter_free(load(&program, want));
}

static void test_operands_and_jumps(void)
{
    const enum otus_status bad = OTUS_E_INVALID;
    check_instruction(OTUS_OK, FILTER_STRING_EQUAL, METHOD, STRINGS, 1, FILTER_FAILS);
    check_instruction(bad, FILTER_STRING_EQUAL, METHOD, STRINGS, 0, FILTER_FAILS);
    check_instruction(bad, FILTER_STRING_EQUAL, METHOD, STRINGS, 1, 2);
    check_instruction(bad, FILTER_STRING_EQUAL, METHOD, STRINGS, 1, 0);
    check_instruction(bad, FILTER_STRING_EQUAL, METHOD, STRINGS | 1, 1, 1);
    check_instruction(bad, FILTER_STRING_EQUAL, OTUS_MAX_LABELS, STRINGS, 1, 1);
    check_instruction(bad, FILTER_STRING_EQUAL, FILTER_FROM_INTS << 12, STRINGS, 1, 1);
    check_instruction(bad, FILTER_STRING_EQUAL, 0xf000, STRINGS, 1, 1);
    check_instruction(bad, FILTER_STRING_EQUAL, FILTER_FROM_NETWORK << 12 | FILTER_SRC_PORT,
                      STRINGS, 1, 1);
    check_instruction(bad, FILTER_NUM_OPERATIONS, METHOD, STRINGS, 1, 1);
    check_instruction(bad, FILTER_LABEL_IS, METHOD, STRINGS, 1, 1); /* the loader's own */
    check_instruction(bad, FILTER_LABEL_INT_IS, METHOD, STRINGS, 1, 1);
    check_instruction(OTUS_OK, FILTER_STRING_IN, METHOD, 0, 1, 1);
    check_instruction(bad, FILTER_STRING_IN, METHOD, 1, 1, 1);
    check_instruction(bad, FILTER_INT_IN, METHOD, 0, 1, 1); /* the pool has no number */
    check_instruction(bad, FILTER_IP_IN, FILTER_FROM_NETWORK << 12, 0, 1, 1);
    check_instruction(bad, FILTER_INT_EQUAL, METHOD, FILTER_FROM_INTS << 12, 1, 1);
    check_instruction(bad, FILTER_MATCHES, METHOD, 0, 1, 1);
    check_instruction(OTUS_OK, FILTER_HAS, OTUS_MAX_LABELS - 1, 0, 1, 1);
    check_instruction(bad, FILTER_HAS, OTUS_MAX_LABELS, 0, 1, 1);
    check_instruction(OTUS_OK, FILTER_FLAG, FILTER_FROM_NETWORK << 12 | FILTER_REASSEMBLED, 0, 1,
                      1);
    check_instruction(bad, FILTER_FLAG, FILTER_FROM_NETWORK << 12 | FILTER_VLAN, 0, 1, 1);
}

/* `b` anywhere: states 2 (searching), 1 (found); classes: 1 is 'b'. */
static void put_automaton(struct program *program, uint32_t following)
{
    put16(program, 3);
    put16(program, 2);
    put16(program, 2);
    put16(program, 0);
    memset(program->octets + program->len, 0, 256);
    program->octets[program->len + 'b'] = 1;
    program->len += 256;
    memcpy(program->octets + program->len, "\0\1\0", 3);
    program->len += 3;
    const uint32_t next[] = {0, 0, 1, 1, following, 1};
    for (size_t i = 0; i < sizeof next / sizeof next[0]; i++)
        put16(program, next[i]);
}

static void test_automata(void)
{
    struct program program;
    put_head(&program, 1, 0, 0, 0, 0, 1);
    put_instruction(&program, FILTER_MATCHES, METHOD, 0, FILTER_HOLDS, FILTER_FAILS);
    size_t before = program.len;
    put_automaton(&program, 2);
    struct otus_filter *filter = load(&program, OTUS_OK);
    if (filter == NULL)
        return;
    CHECK(run_with_method(filter, "aaab"));
    CHECK(!run_with_method(filter, "aaa"));
    CHECK(!run_with_method(filter, NULL));
    otus_filter_free(filter);
    program.len = before;
    put_automaton(&program, 3); /* a state that is not there */
    load(&program, OTUS_E_INVALID);
    program.len = before;
    put_automaton(&program, 2);
    program.octets[before + 8 + 'c'] = 2; /* a class that is not there */
    load(&program, OTUS_E_INVALID);
}

static void load_cut(void *context, const uint8_t *octets, size_t len)
{
    const struct program *program = context;
    char message[8];
    struct otus_filter *filter = NULL;
    enum otus_status status = otus_filter_load(&filter, message, sizeof message, octets, len);
    CHECK_EQ(status, len == program->len ? OTUS_OK : OTUS_E_INVALID);
    otus_filter_free(filter);
}

static void test_every_truncation(void)
{
    struct program program;
    put_head(&program, 1, 1, 1, 1, 1, 1);
    put_instruction(&program, FILTER_MATCHES, METHOD, 0, FILTER_HOLDS, FILTER_FAILS);
    put_string(&program, "text");
    for (int i = 0; i < 4; i++)
        put16(&program, 7);
    put16(&program, 0);
    put16(&program, 1);
    memset(program.octets + program.len, 4, 17);
    program.len += 17;
    put_automaton(&program, 2);
    guard_every_truncation(load_cut, &program, program.octets, program.len);
}

int main(void)
{
    test_equal_and_absent();
    test_operands_and_jumps();
    test_automata();
    test_every_truncation();
    return check_summary();
}
