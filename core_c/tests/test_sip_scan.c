/* The vector code against the plainest code that says the same. */
#include <stdlib.h>

#include "check.h"
#include "guard.h"
#include "lines.h"
#include "octet_search.h"

enum { MAX_LEN = 5000, NUM_ROUNDS = 3000 };

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* Octets that matter more often than the others. */
static void fill(uint8_t *octets, uint32_t len, uint32_t *state)
{
    static const uint8_t likely[] = "\r\n\r\n\t ,;:<>\"\\\n";
    uint32_t density = next_random(state) % 60 + 1;
    for (uint32_t i = 0; i < len; i++) {
        uint32_t number = next_random(state);
        octets[i] = number % density == 0 ? likely[(number >> 8) % (sizeof likely - 1)]
                    : number % 97 == 0    ? (uint8_t)(number >> 8)
                                          : 'a';
    }
}

static uint32_t find_plain(const uint8_t *octets, uint32_t from, uint32_t to, const uint8_t *any)
{
    for (uint32_t i = from; i < to; i++)
        if (octets[i] == any[0] || octets[i] == any[1] || octets[i] == any[2] ||
            octets[i] == any[3])
            return i;
    return to;
}

/* Every search gives what an octet-wise loop gives, and reads nothing past the buffer. */
static void test_search(void)
{
    uint32_t state = 1;
    for (int round = 0; round < NUM_ROUNDS; round++) {
        uint32_t len = next_random(&state) % 100;
        struct guard_buffer buffer = guard_new(len);
        fill(buffer.octets, len, &state);
        uint32_t to = len == 0 ? 0 : next_random(&state) % (len + 1);
        uint32_t from = to == 0 ? 0 : next_random(&state) % (to + 1);
        const uint8_t *o = buffer.octets;
        CHECK_EQ(otus_find4(o, len, from, to, ',', ';', '<', '"'),
                 find_plain(o, from, to, (const uint8_t *)",;<\""));
        CHECK_EQ(otus_find3(o, len, from, to, ',', ';', '<'),
                 find_plain(o, from, to, (const uint8_t *)",;<<"));
        CHECK_EQ(otus_find2(o, len, from, to, '\r', '\n'),
                 find_plain(o, from, to, (const uint8_t *)"\r\n\n\n"));
        CHECK_EQ(otus_find(o, len, from, to, ':'),
                 find_plain(o, from, to, (const uint8_t *)"::::"));
        if (len - from >= 16)
            CHECK_EQ(otus_find_in16(o + from, ':'),
                     find_plain(o, from, from + 16, (const uint8_t *)"::::") - from);
        guard_free(&buffer);
    }
}

/* What a line walk over the whole buffer finds, summed up. */
struct walk {
    uint64_t hash;
    uint32_t num;
    uint32_t first_control;
};

typedef void (*lines_init)(struct otus_lines *lines, const uint8_t *octets, uint32_t len,
                           uint32_t start, otus_lines_scan scan);

static struct walk walk_lines(otus_lines_scan scan, const uint8_t *octets, uint32_t len,
                              uint32_t start, lines_init init)
{
    static struct otus_lines lines;
    struct otus_line line;
    struct walk walk = {14695981039346656037u, 0, 0};
    init(&lines, octets, len, start, scan);
    while (otus_lines_next(&lines, &line)) {
        uint64_t words[3] = {line.start, line.end, (uint64_t)line.has_lf << 1 | line.has_cr};
        for (int i = 0; i < 3; i++)
            walk.hash = (walk.hash ^ words[i]) * 1099511628211u;
        walk.num++;
    }
    walk.first_control = lines.first_control;
    return walk;
}

static struct walk walk_plain(const uint8_t *octets, uint32_t len, uint32_t start)
{
    struct walk walk = {14695981039346656037u, 0, UINT32_MAX};
    for (uint32_t at = start; at < len;) {
        uint32_t lf = at;
        while (lf < len && octets[lf] != '\n')
            lf++;
        bool has_lf = lf < len;
        bool has_cr = has_lf && lf > at && octets[lf - 1] == '\r';
        uint64_t words[3] = {at, has_cr ? lf - 1 : lf, (uint64_t)has_lf << 1 | has_cr};
        for (int i = 0; i < 3; i++)
            walk.hash = (walk.hash ^ words[i]) * 1099511628211u;
        walk.num++;
        at = has_lf ? lf + 1 : len;
    }
    for (uint32_t i = start; i < len && walk.first_control == UINT32_MAX; i++) {
        /* Control octets right before an LF are the walker's to see: sip_message.c. */
        bool before_lf = i + 1 < len && octets[i + 1] == '\n';
        bool escaped = i > 0 && octets[i - 1] == '\\' && octets[i] != '\r';
        if (octets[i] < 0x20 && octets[i] != '\t' && octets[i] != '\n' && !before_lf && !escaped)
            walk.first_control = i;
    }
    return walk;
}

static uint32_t mark_plain(const uint8_t *octets, uint32_t from, uint32_t to)
{
    static const char marks[] = "\",;<> ";
    while (from < to && octets[from] >= 0x20 &&
           memchr(marks, octets[from], sizeof marks - 1) == NULL)
        from++;
    return from;
}

/* Every scan marks what an octet-wise loop takes for a mark, from whichever octet on: in a buffer
 * scanned whole, and in one scanned from a line in the middle. */
static void test_marks(otus_lines_scan scan, const uint8_t *octets, uint32_t len, uint32_t start)
{
    static struct otus_lines lines;
    struct otus_line line;
    otus_lines_init_inside(&lines, octets, len, start, scan);
    while (otus_lines_next(&lines, &line))
        continue;
    for (uint32_t from = start; from < len; from++) {
        uint32_t to = from + (from * 7919) % (len - from + 1);
        CHECK_EQ(otus_lines_mark(&lines, from, to), mark_plain(octets, from, to));
        CHECK_EQ(otus_lines_mark(&lines, from, len), mark_plain(octets, from, len));
    }
}

/* Every scan that this machine has finds the same lines and the same control octet. */
static void test_lines(void)
{
    uint32_t state = 2;
    otus_lines_scan scans[OTUS_LINES_MAX_SCANS];
    uint32_t num_scans = otus_lines_scans(scans);
    CHECK(num_scans > 0 && scans[0] == otus_lines_best_scan() &&
          scans[num_scans - 1] == otus_lines_scan_portable);
    for (int round = 0; round < NUM_ROUNDS; round++) {
        uint32_t len = next_random(&state) % MAX_LEN;
        struct guard_buffer buffer = guard_new(len);
        fill(buffer.octets, len, &state);
        uint32_t start = next_random(&state) % (len + 1);
        struct walk want = walk_plain(buffer.octets, len, start);
        for (uint32_t i = 0; i < num_scans; i++) {
            struct walk got = walk_lines(scans[i], buffer.octets, len, start, otus_lines_init);
            struct walk inside =
                walk_lines(scans[i], buffer.octets, len, start, otus_lines_init_inside);
            CHECK_EQ(got.num, want.num);
            CHECK(got.hash == want.hash);
            CHECK_EQ(got.first_control, want.first_control);
            CHECK(inside.num == want.num && inside.hash == want.hash);
            if (round % 16 == 0) {
                test_marks(scans[i], buffer.octets, len, 0);
                test_marks(scans[i], buffer.octets, len, start);
            }
        }
        guard_free(&buffer);
    }
}

int main(void)
{
    test_search();
    test_lines();
    return check_summary();
}
