/* Writes JSON: literals, members and numbers; json_string.h writes strings.
 *
 * Every function takes the place to write at and returns the place behind what it
 * wrote, so that the place stays in a register. There is one bound, `end`, with
 * JSON_SLACK octets of the caller's room behind it:
 *
 * - strings and numbers start before `end`, or else return `end` itself: a record
 *   that ends at `end` or behind it did not fit and is given up;
 * - literals ask nothing: between two strings or numbers there are far fewer than
 *   JSON_SLACK octets of them.
 *
 * This file and those that build on it (json_sip.h, json_sdp.h, json_record.h) are
 * compiled once for each vector unit: see json_form.h. */
#ifndef OTUS_JSON_WRITER_H
#define OTUS_JSON_WRITER_H

#include "json_string.h"

/* len octets of a literal that goes on for JSON_PADDING more, so that whole words
 * are stored and `at` alone tells where it ended. */
static inline __attribute__((always_inline)) uint8_t *json_put(uint8_t *at, const char *padded,
                                                               size_t len)
{
    if (len <= 16)
        memcpy(at, padded, len <= 4 ? 4 : len <= 8 ? 8 : 16);
    else
        json_move32(at, padded);
    return at + len;
}

#define JSON_PADDING "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define JSON_LITERAL(at, literal) json_put((at), literal JSON_PADDING, sizeof(literal) - 1)

/* A text of ours: nothing to escape, nothing readable behind it. */
static inline uint8_t *json_text(uint8_t *at, uint8_t *end, const void *text, size_t len)
{
    if (OTUS_UNLIKELY(end - at <= (ptrdiff_t)len))
        return end;
    memcpy(at, text, len);
    return at + len;
}

static inline __attribute__((always_inline)) uint8_t *json_member(uint8_t *at, uint8_t *end,
                                                                  const char *head, size_t head_len,
                                                                  struct otus_slice text)
{
    at = json_put(at, head, head_len);
    at = json_string(at, end, text);
    return JSON_LITERAL(at, "\",");
}

/* A string member, with its comma behind it. */
#define JSON_MEMBER(at, end, name, text)                                                           \
    json_member((at), (end), "\"" name "\":\"" JSON_PADDING, sizeof("\"" name "\":\"") - 1, (text))

/* The same where the text is not empty. */
static inline __attribute__((always_inline)) uint8_t *json_optional(uint8_t *at, uint8_t *end,
                                                                    const char *head,
                                                                    size_t head_len,
                                                                    struct otus_slice text)
{
    return text.len == 0 ? at : json_member(at, end, head, head_len, text);
}

#define JSON_OPTIONAL(at, end, name, text)                                                         \
    json_optional((at), (end), "\"" name "\":\"" JSON_PADDING, sizeof("\"" name "\":\"") - 1,      \
                  (text))

/* A string in a list. */
#define JSON_ITEM(at, end, text) json_member((at), (end), "\"" JSON_PADDING, 1, (text))

/* A member whose text is a name of ours. */
static inline __attribute__((always_inline)) uint8_t *json_name(uint8_t *at, uint8_t *end,
                                                                const char *head, size_t head_len,
                                                                const char *text)
{
    at = json_put(at, head, head_len);
    at = json_text(at, end, text, strlen(text));
    return JSON_LITERAL(at, "\",");
}

#define JSON_NAME(at, end, name, text)                                                             \
    json_name((at), (end), "\"" name "\":\"" JSON_PADDING, sizeof("\"" name "\":\"") - 1, (text))

#define JSON_NAME_ITEM(at, end, text) json_name((at), (end), "\"" JSON_PADDING, 1, (text))

/* Aside: in every member it made the record's code twice as long. */
static __attribute__((noinline)) uint8_t *json_digits(uint8_t *at, uint32_t value)
{
    return at + otus_text_u32(at, value);
}

static inline __attribute__((always_inline)) uint8_t *json_number(uint8_t *at, uint8_t *end,
                                                                  const char *head, size_t head_len,
                                                                  uint32_t value)
{
    at = at < end ? at : end;
    at = json_put(at, head, head_len);
    at = json_digits(at, value);
    *at = ',';
    return at + 1;
}

/* A number member, with its comma behind it. */
#define JSON_NUMBER(at, end, name, value)                                                          \
    json_number((at), (end), "\"" name "\":" JSON_PADDING, sizeof("\"" name "\":") - 1, (value))

/* Closes what has members: the last one's comma becomes the bracket. */
#define JSON_CLOSE(at, brackets) JSON_LITERAL((at)-1, brackets)

/* Closes what may be empty. */
static inline uint8_t *json_close_any(uint8_t *at, char bracket)
{
    at -= at[-1] == ',';
    *at = (uint8_t)bracket;
    return at + 1;
}

#endif
