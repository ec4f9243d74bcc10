/* The first of two passes over a message: vectors find its line ends and mark the
 * octets that can have a meaning in a header field, a window at a time. The parsers
 * then walk from line to line and from mark to mark without looking at the octets
 * between. */
#ifndef OTUS_LINES_H
#define OTUS_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "octet_search.h"
#include "otus/cursor.h"

enum {
    OTUS_LINES_WINDOW = 2048, /* octets scanned at a time: most messages in one go */
    OTUS_LINES_BLOCK = 64,
    OTUS_LINES_MAX_SCANS = 4,
    OTUS_LINES_SLACK = 8,      /* entries that the scan may scribble behind the last */
    OTUS_LINES_MARKED = 65536, /* octets that have marks: a datagram; behind, octets are searched */
};

struct otus_lines;

/* Lists the LFs of octets[scanned, scanned + WINDOW), marks the octets that mean
 * something and notes control octets. */
typedef void (*otus_lines_scan)(struct otus_lines *lines);

struct otus_lines {
    const uint8_t *octets; /* borrowed */
    uint32_t len;
    uint32_t scanned;       /* octets seen by the scan so far */
    uint32_t start;         /* of the line that otus_lines_next() gives next */
    uint32_t next;          /* index into lf */
    uint32_t num;           /* entries of lf */
    uint32_t marks_end;     /* see otus_marks_reach() */
    uint32_t first_control; /* offset of a control octet not HT, not in CRLF; UINT32_MAX if none */
    otus_lines_scan scan;
    uint32_t lf[OTUS_LINES_WINDOW + OTUS_LINES_SLACK];
    /* One bit an octet, set for SP " , ; < > and control octets, where the scan started at
     * octet 0. Windows behind OTUS_LINES_MARKED share a last place that nobody asks for. */
    uint64_t marks[(OTUS_LINES_MARKED + OTUS_LINES_WINDOW) / 64];
};

struct otus_line {
    uint32_t start;
    uint32_t end; /* without the line end */
    bool has_lf;  /* false: the buffer ended first */
    bool has_cr;  /* the line end was CRLF */
};

/* The scans that this machine runs, the fastest first; all give the same result. Returns how
 * many there are. */
uint32_t otus_lines_scans(otus_lines_scan out_scans[OTUS_LINES_MAX_SCANS]);
/* To be asked once: where a hypervisor answers for the processor, it takes microseconds. */
otus_lines_scan otus_lines_best_scan(void);
void otus_lines_scan_portable(struct otus_lines *lines);
/* The same, and a CR that no LF follows ends a line as well. */
void otus_lines_scan_lone_cr(struct otus_lines *lines);

static inline void otus_lines_init(struct otus_lines *lines, const uint8_t *octets, uint32_t len,
                                   uint32_t start, otus_lines_scan scan)
{
    lines->octets = octets;
    lines->len = len;
    lines->scanned = start;
    lines->start = start;
    lines->next = 0;
    lines->num = 0;
    uint32_t last = len < 8 ? 0 : len - 8;
    lines->marks_end = last < OTUS_LINES_MARKED ? last : OTUS_LINES_MARKED - 1;
    lines->first_control = UINT32_MAX;
    lines->scan = scan;
}

/* The same from a line on that starts at any octet, with its marks where a scan from octet 0 has
 * them. A control octet that is told may be one shortly before. */
static inline void otus_lines_init_inside(struct otus_lines *lines, const uint8_t *octets,
                                          uint32_t len, uint32_t start, otus_lines_scan scan)
{
    otus_lines_init(lines, octets, len, start - start % OTUS_LINES_BLOCK, scan);
    scan(lines);
    lines->start = start;
    while (lines->next < lines->num && lines->lf[lines->next] < start)
        lines->next++;
}

/* False at the buffer's end. A last line without LF is given once, if it has octets. */
static inline bool otus_lines_next(struct otus_lines *lines, struct otus_line *out_line)
{
    while (OTUS_UNLIKELY(lines->next == lines->num)) {
        if (lines->scanned >= lines->len) {
            if (lines->start >= lines->len)
                return false;
            *out_line = (struct otus_line){lines->start, lines->len, false, false};
            lines->start = lines->len;
            return true;
        }
        lines->scan(lines);
    }
    uint32_t lf = lines->lf[lines->next++];
    bool has_cr = OTUS_LIKELY(lf > lines->start) && lines->octets[lf - 1] == '\r';
    *out_line = (struct otus_line){lines->start, has_cr ? lf - 1 : lf, true, has_cr};
    lines->start = lf + 1;
    return true;
}

/* Whether the line that comes next continues the last one (RFC 3261 7.3.1). */
static inline bool otus_lines_folds(const struct otus_lines *lines)
{
    return lines->start < lines->len &&
           (lines->octets[lines->start] == ' ' || lines->octets[lines->start] == '\t');
}

/* A walk from mark to mark over a header field's value, where one more is known to come: the white
 * space or the line end behind the value is one. */
struct otus_marks {
    const uint8_t *bits;
    uint32_t base;  /* octet of the message that bit 0 of `ahead` stands for; a multiple of eight */
    uint64_t ahead; /* marks from base on that are still to come */
};

/* Whether a value that ends at `end`, whose mark is the walk's last, can be walked over, with eight
 * octets to read behind it. */
static inline bool otus_marks_reach(const struct otus_lines *lines, uint32_t end)
{
    return end <= lines->marks_end;
}

static inline struct otus_marks otus_marks_from(const struct otus_lines *lines, uint32_t from)
{
    const uint8_t *bits = (const uint8_t *)lines->marks;
    uint64_t ahead = otus_load8(bits + from / 8) & UINT64_MAX << from % 8;
    return (struct otus_marks){bits, from & ~7u, ahead};
}

static inline uint32_t otus_marks_next(struct otus_marks *marks)
{
    while (OTUS_UNLIKELY(marks->ahead == 0)) {
        marks->base += 64;
        marks->ahead = otus_load8(marks->bits + marks->base / 8);
    }
    uint32_t at = marks->base + (uint32_t)__builtin_ctzll(marks->ahead);
    marks->ahead &= marks->ahead - 1;
    return at;
}

/* The first marked octet of [from, to), or to. All of it was scanned, and to is not beyond
 * OTUS_LINES_MARKED. */
static inline uint32_t otus_lines_mark(const struct otus_lines *lines, uint32_t from, uint32_t to)
{
    const uint8_t *marks = (const uint8_t *)lines->marks;
    for (size_t at = from; at < to; at += 64 - at % 8) {
        uint64_t ahead = otus_load8(marks + at / 8) >> at % 8;
        if (OTUS_LIKELY(ahead != 0)) {
            at += (size_t)__builtin_ctzll(ahead);
            return at < to ? (uint32_t)at : to;
        }
    }
    return to;
}

#endif
