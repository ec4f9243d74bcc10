/* The one return convention of the core.
 *
 * Functions that can fail return enum otus_status: 0 is success, errors are
 * negative, and data leaves only through out_ parameters, which are untouched
 * on failure unless the function says otherwise. */
#ifndef OTUS_STATUS_H
#define OTUS_STATUS_H

enum otus_status {
    OTUS_OK = 0,
    OTUS_E_PARTIAL = -1,     /* well-formed so far; more octets are needed */
    OTUS_E_MALFORMED = -2,   /* no further octet could make this valid */
    OTUS_E_UNSUPPORTED = -3, /* valid, but nothing here handles it */
    OTUS_E_LIMIT = -4,       /* a configured bound was reached */
    OTUS_E_NOMEM = -5,       /* the allocator said no (only at open) */
    OTUS_E_SYSTEM = -6,      /* a system call failed; errno tells which way */
    OTUS_E_AGAIN = -7,       /* nothing now; ask again (a held fragment, an empty ring) */
    OTUS_E_END = -8,         /* the source is exhausted and will give no more */
    OTUS_E_INVALID = -9,     /* the caller's argument or configuration is wrong */
};

#define OTUS_MUST_CHECK __attribute__((warn_unused_result))
#define OTUS_LIKELY(x) __builtin_expect(!!(x), 1)
#define OTUS_UNLIKELY(x) __builtin_expect(!!(x), 0)
/* What nearly no packet needs: kept away from the code that every packet runs through. */
#define OTUS_COLD __attribute__((cold, noinline))

/* A short lower-case English phrase; static storage. */
const char *otus_status_name(enum otus_status status);

#endif
