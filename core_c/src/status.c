#include "otus/status.h"

const char *otus_status_name(enum otus_status status)
{
    switch (status) {
    case OTUS_OK:
        return "ok";
    case OTUS_E_PARTIAL:
        return "more octets needed";
    case OTUS_E_MALFORMED:
        return "malformed";
    case OTUS_E_UNSUPPORTED:
        return "unsupported";
    case OTUS_E_LIMIT:
        return "limit reached";
    case OTUS_E_NOMEM:
        return "out of memory";
    case OTUS_E_SYSTEM:
        return "system call failed";
    case OTUS_E_AGAIN:
        return "nothing now";
    case OTUS_E_END:
        return "end of source";
    case OTUS_E_INVALID:
        return "invalid argument";
    }
    return "unknown status";
}
