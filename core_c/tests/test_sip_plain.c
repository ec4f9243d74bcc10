/* The short ways through the values that nearly all messages have, against the code that reads
 * any value: the same spans, the same defects, the same end. */
#include <stdlib.h>

#include "check.h"
#include "guard.h"
#include "sip_internal.h"

enum { NUM_ROUNDS = 50000, MAX_PIECES = 12, MAX_LEN = 400 };

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* What values are made of, in the order in which they have it: most rounds take most of them. */
static const char *const address_pieces[MAX_PIECES][6] = {
    {"\"Alice\" ", "\"Alice A. B\" ", "\"+4930\"", "", "\"a\\\" ", "\"\" x"},
    {"<", "<", "<", "<", " <", "\t<"},
    {"sip:", "sip:", "sips:", "tel:", "SIP:", "nothing"},
    {"+4930", "alice:pw", "a;b=c", "a,b", "", "<"},
    {"@example.com", "@[2001:db8::1]", "@192.0.2.1:5060", "", " ", "@"},
    {";user=phone", ";lr", "", "?a=b", ";", "\""},
    {">", ">", ">", ">", " >", ""},
    {";tag=1", ";TAG=abc", "", ";tag", ";tag=", " ;tag=1"},
    {"", ";expires=60", ";expires=x", ";q=0.5", ";=", ";a="},
    {"", "", ";tag=2", ";+sip.instance=\"<urn:x>\"", ";lr", ";tag =3"},
    {"", "", "", ",", ", <sip:b@c>", " x"},
    {"", "", "", "", "\\", "\"\\\"\""},
};

static const char *const via_pieces[MAX_PIECES][6] = {
    {"SIP/2.0/", "SIP/2.0/", "SIP/2.0/", "sip/2.0/", "SIP / 2.0 / ", "SIP/2.0"},
    {"UDP ", "TCP ", "TLS ", "WSS ", "UDP  ", "UDP"},
    {"192.0.2.1", "[2001:db8::1]", "example.com", "h", "", " "},
    {":5060", "", ":5060 ", " : 5060", ":", ";"},
    {";branch=z9hG4bK1", ";branch=z9hG4bK2", ";BRANCH=x", ";branch=", ";branch", "; branch=a"},
    {";rport", ";rport=5060", "", ";rport=", ";Rport", ";rport =1"},
    {"", ";received=192.0.2.2", ";received=", ";received", ";RECEIVED=a", ";receivedx=a"},
    {"", "", ";branch=b", ";ttl=1", ";maddr=\"x\"", ";x="},
    {"", "", ";alias", ";;", ";=a", ";b=c"},
    {"", "", "", ",", ", SIP/2.0/UDP b", " ,"},
    {"", "", "", "", ";rport=1", ";rportx"},
    {"", "", "", "", "\t", "\""},
};

static uint32_t build(uint8_t *out, const char *const pieces[MAX_PIECES][6], uint32_t *state)
{
    uint32_t len = 0;
    uint32_t plain = next_random(state) % 8; /* how far from the usual this value is */
    for (uint32_t i = 0; i < MAX_PIECES; i++) {
        const char *piece = pieces[i][next_random(state) % (plain < 6 ? plain + 1 : 6)];
        size_t piece_len = strlen(piece);
        memcpy(out + len, piece, piece_len);
        len += (uint32_t)piece_len;
    }
    if (plain == 7 && len != 0)
        out[next_random(state) % len] = (uint8_t)next_random(state);
    for (uint32_t i = 0; i < len; i++) /* a value that is one line */
        out[i] = out[i] == '\n' ? 'n' : out[i];
    return len;
}

/* The value as it stands in a message: white space around it, then the line's end or, where
 * nothing follows, the buffer's. */
static struct guard_buffer message_of(const uint8_t *value, uint32_t len, uint32_t before,
                                      const char *behind)
{
    struct guard_buffer buffer = guard_new(before + len + strlen(behind));
    memset(buffer.octets, 'a', before);
    memcpy(buffer.octets + before, value, len);
    memcpy(buffer.octets + before + len, behind, strlen(behind));
    return buffer;
}

static void scan(struct otus_lines *lines, const struct guard_buffer *buffer)
{
    struct otus_line line;
    otus_lines_init(lines, buffer->octets, (uint32_t)buffer->len, 0, otus_lines_best_scan());
    while (otus_lines_next(lines, &line))
        continue;
}

static void compare_address(const struct otus_lines *lines, uint32_t from, uint32_t end,
                            bool is_list)
{
    struct otus_sip_address got, want;
    uint32_t got_pos = from, want_pos = otus_skip_space(lines->octets, from, end);
    uint32_t got_flags = otus_sip_parse_address(&got, lines, &got_pos, end, is_list);
    uint32_t want_flags = otus_sip_parse_any_address(&want, lines, &want_pos, end, is_list);
    CHECK(got_flags == want_flags && got_pos == want_pos && memcmp(&got, &want, sizeof got) == 0);
}

static void compare_via(const struct otus_lines *lines, uint32_t from, uint32_t end)
{
    struct otus_sip_via got, want;
    memset(&got, 0, sizeof got); /* padding is compared */
    memset(&want, 0, sizeof want);
    uint32_t got_pos = from, want_pos = otus_skip_space(lines->octets, from, end);
    uint32_t got_flags = otus_sip_parse_via(&got, lines, &got_pos, end);
    uint32_t want_flags = otus_sip_parse_any_via(&want, lines, &want_pos, end);
    CHECK(got_flags == want_flags && got_pos == want_pos && memcmp(&got, &want, sizeof got) == 0);
}

/* Usual and unusual values, wherever they start and however little follows them. */
static void test_values(void)
{
    static const char *const behind[] = {
        "\r\nTo: <sip:a@b>\r\n\r\n", "\r\n\r\n", "\r\n", "\n", "", "  \r\n  x\r\n\r\n", "        ",
        "\rlone: a-long-value"};
    static struct otus_lines lines;
    uint32_t state = 4;
    for (uint32_t round = 0; round < NUM_ROUNDS; round++) {
        uint8_t value[MAX_LEN];
        bool is_via = round % 2 == 0;
        uint32_t len = build(value, is_via ? via_pieces : address_pieces, &state);
        uint32_t before = next_random(&state) % 70;
        const char *after = behind[next_random(&state) % (sizeof behind / sizeof behind[0])];
        struct guard_buffer buffer = message_of(value, len, before, after);
        uint32_t end = otus_trim_space(buffer.octets, before, before + len);
        scan(&lines, &buffer);
        if (is_via) {
            compare_via(&lines, before, end);
        } else {
            compare_address(&lines, before, end, false);
            compare_address(&lines, before, end, true);
        }
        guard_free(&buffer);
    }
}

/* Behind the last octet that has marks, no value is walked over: windows there write over each
 * other's marks, and the walk would find no end. */
static void test_values_where_marks_end(void)
{
    static const char address[] = "<sip:a@b>;tag=1", via[] = "SIP/2.0/UDP h;branch=z9hG4bK1";
    static struct otus_lines lines;
    for (uint32_t end = OTUS_LINES_MARKED - 2; end <= OTUS_LINES_MARKED + 2; end++) {
        struct guard_buffer buffer = guard_new(end + 4 * OTUS_LINES_WINDOW);
        memset(buffer.octets, 'a', buffer.len);
        memcpy(buffer.octets + end, "\r\nX: ", 5);
        memcpy(buffer.octets + end - strlen(address), address, strlen(address));
        scan(&lines, &buffer);
        compare_address(&lines, end - (uint32_t)strlen(address), end, false);
        memcpy(buffer.octets + end - strlen(via), via, strlen(via));
        scan(&lines, &buffer);
        compare_via(&lines, end - (uint32_t)strlen(via), end);
        guard_free(&buffer);
    }
}

int main(void)
{
    test_values();
    test_values_where_marks_end();
    return check_summary();
}
