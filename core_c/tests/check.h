/* Checks for the C unit tests: a failed one is printed and counted, and the
 * program goes on. main() ends with `return check_summary();`. */
#ifndef OTUS_TEST_CHECK_H
#define OTUS_TEST_CHECK_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static unsigned long check_num_done __attribute__((unused));
static unsigned long check_num_failed __attribute__((unused));
/* What the checks are about at the moment, printed with a failure. */
static const char *check_about __attribute__((unused)) = "";

static inline bool check_that(bool holds, const char *file, int line, const char *text)
{
    check_num_done++;
    if (holds)
        return true;
    check_num_failed++;
    fprintf(stderr, "%s:%d: %s%sfailed: %s\n", file, line, check_about,
            check_about[0] != '\0' ? ": " : "", text);
    return false;
}

static inline bool check_equal(int64_t got, int64_t want, const char *file, int line,
                               const char *text)
{
    if (check_that(got == want, file, line, text))
        return true;
    fprintf(stderr, "    got %" PRId64 " (0x%" PRIx64 "), want %" PRId64 " (0x%" PRIx64 ")\n", got,
            (uint64_t)got, want, (uint64_t)want);
    return false;
}

static inline void check_print_octets(const char *title, const void *octets, size_t len)
{
    const unsigned char *at = octets;
    fprintf(stderr, "    %s %zu octets:", title, len);
    for (size_t i = 0; i < len && i < 256; i++) {
        bool plain = at[i] >= 0x20 && at[i] < 0x7f;
        fprintf(stderr, plain ? "%c" : "\\x%02x", at[i]);
    }
    fputc('\n', stderr);
}

static inline bool check_octets(const void *got, size_t got_len, const void *want, size_t want_len,
                                const char *file, int line, const char *text)
{
    bool same = got_len == want_len && (got_len == 0 || memcmp(got, want, got_len) == 0);
    if (check_that(same, file, line, text))
        return true;
    check_print_octets("got ", got, got_len);
    check_print_octets("want", want, want_len);
    return false;
}

/* Each is true where it held, so that a test can stop where going on makes no sense. */
#define CHECK(condition) check_that((condition), __FILE__, __LINE__, #condition)
#define CHECK_EQ(got, want)                                                                        \
    check_equal((int64_t)(got), (int64_t)(want), __FILE__, __LINE__, #got " == " #want)
#define CHECK_OCTETS(got, got_len, want, want_len)                                                 \
    check_octets((got), (got_len), (want), (want_len), __FILE__, __LINE__, #got " == " #want)
/* got: octets with a length; want: a C string. */
#define CHECK_TEXT(got, got_len, want)                                                             \
    check_octets((got), (got_len), (want), strlen(want), __FILE__, __LINE__, #got " == " #want)

/* Prints one line; the exit status of the program. */
static inline int check_summary(void)
{
    if (check_num_failed != 0)
        fprintf(stderr, "%lu of %lu checks failed\n", check_num_failed, check_num_done);
    else
        printf("%lu checks passed\n", check_num_done);
    /* A test program that checked nothing proves nothing. */
    return check_num_failed != 0 || check_num_done == 0 ? 1 : 0;
}

#endif
