/* Where a message ends in a stream: RFC 3261 18.3, Content-Length framing. */
#include "sip_internal.h"

/* How a search for the header's end can come out. */
struct frame_head {
    uint32_t body;           /* offset behind the empty line */
    int64_t content_length;  /* -1: none seen */
    bool bad_content_length; /* not a number, or more than one value */
};

/* "Content-Length" or "l" in either case, white space before the colon. */
static bool is_content_length(const uint8_t *octets, uint32_t from, uint32_t colon)
{
    uint32_t end = otus_trim_space(octets, from, colon);
    return otus_equals_nocase(octets + from, end - from, "content-length", 14) ||
           otus_equals_nocase(octets + from, end - from, "l", 1);
}

static void take_line(struct frame_head *head, struct otus_sip_text text, uint32_t from,
                      uint32_t to)
{
    uint8_t first = otus_lower(from < to ? text.octets[from] : 0);
    if (first != 'c' && first != 'l')
        return;
    uint32_t colon = otus_find(text.octets, text.len, from, to, ':');
    if (colon == to || !is_content_length(text.octets, from, colon))
        return;
    uint32_t value = otus_skip_space(text.octets, colon + 1, to);
    uint32_t end = otus_trim_space(text.octets, value, to);
    uint64_t number;
    if (!otus_sip_parse_number(&number, text.octets, (struct otus_span){value, end - value},
                               INT64_MAX)) {
        /* A number too large to hold is absurd, not unreadable: RFC 4475 3.1.2.3 is. */
        bool digits = end > value;
        for (uint32_t i = value; i < end; i++)
            digits = digits && otus_is_digit(text.octets[i]);
        if (!digits) {
            head->bad_content_length = true;
            return;
        }
        number = INT64_MAX;
    }
    if (head->content_length < 0) /* as otus_sip_parse(): the first one counts */
        head->content_length = (int64_t)number;
}

/* Walks the lines up to the empty one; false until that is there. */
static bool find_head(struct frame_head *out_head, struct otus_sip_text text)
{
    *out_head = (struct frame_head){0, -1, false};
    uint32_t line = 0; /* start of the logical line, folds included */
    uint32_t at = 0;   /* start of the physical line */
    bool is_start = true;
    for (;;) {
        uint32_t lf = otus_find(text.octets, text.len, at, text.len, '\n');
        if (lf == text.len || lf + 1 > text.len)
            return false;
        uint32_t end = lf > at && text.octets[lf - 1] == '\r' ? lf - 1 : lf;
        at = lf + 1;
        if (end == line && !is_start) {
            out_head->body = at;
            return true;
        }
        if (at == text.len)
            return false;
        if (!is_start && (text.octets[at] == ' ' || text.octets[at] == '\t'))
            continue; /* the line goes on */
        if (!is_start)
            take_line(out_head, text, line, end);
        is_start = false;
        line = at;
    }
}

/* Whether what is there can still become a start line. */
static bool may_start(const uint8_t *octets, uint32_t len)
{
    static const char version[] = "SIP/";
    if (len == 0)
        return true;
    uint32_t end = otus_find3(octets, len, 0, len, ' ', '\t', '\n');
    if (end < len && octets[end] == '\n')
        return false;
    bool is_version = true;
    for (uint32_t i = 0; i < end && i < 4; i++)
        is_version = is_version && otus_lower(octets[i]) == otus_lower((uint8_t)version[i]);
    return is_version || otus_sip_is_token(octets, 0, end);
}

enum otus_status otus_sip_frame(uint32_t *out_len, const uint8_t *octets, uint32_t len,
                                uint32_t max_len)
{
    struct otus_sip_text text = {octets, len};
    *out_len = 0;
    uint32_t line_end = otus_find(octets, len, 0, len, '\n');
    if (line_end == len) {
        if (!may_start(octets, len))
            return OTUS_E_MALFORMED;
        return len > max_len ? OTUS_E_LIMIT : OTUS_E_PARTIAL;
    }
    if (octets[0] == '\r' || octets[0] == '\n' || !otus_sip_can_handle(octets, len))
        return OTUS_E_MALFORMED;
    struct frame_head head;
    if (!find_head(&head, text))
        return len > max_len ? OTUS_E_LIMIT : OTUS_E_PARTIAL;
    /* RFC 3261 20.14: mandatory on streams. Where it is missing or unreadable, taking the
     * body for empty loses least: the framer finds the next start line by searching. */
    uint64_t body = head.content_length < 0 ? 0 : (uint64_t)head.content_length;
    if (head.body > max_len || body > max_len - head.body)
        return OTUS_E_LIMIT;
    *out_len = head.body + (uint32_t)body;
    return *out_len <= len ? OTUS_OK : OTUS_E_PARTIAL;
}
