/* What every capture source has in common; private to capture*.c. */
#ifndef OTUS_CAPTURE_SOURCE_H
#define OTUS_CAPTURE_SOURCE_H

#include <stdarg.h>
#include <stdio.h>

#include "otus/capture.h"

struct otus_capture_ops {
    enum otus_status (*next)(struct otus_capture *capture, struct otus_raw_packet *out_packets,
                             uint32_t *out_num, uint32_t max, int timeout_ms);
    void (*stop)(struct otus_capture *capture);
    void (*get_stats)(const struct otus_capture *capture, struct otus_capture_stats *out_stats);
    uint64_t (*position)(const struct otus_capture *capture);
    uint16_t (*fanout_id)(const struct otus_capture *capture);
    void (*close)(struct otus_capture *capture);
};

/* First member of each source. */
struct otus_capture {
    const struct otus_capture_ops *ops;
    int wake_fd;  /* eventfd: readable when somebody wants next() to return */
    int stopping; /* atomic: no more frames are to come in */
    char error[256];
};

OTUS_MUST_CHECK enum otus_status otus_capture_init(struct otus_capture *capture,
                                                   const struct otus_capture_ops *ops,
                                                   char *message, size_t message_len);
void otus_capture_deinit(struct otus_capture *capture);

static inline bool otus_capture_stopping(const struct otus_capture *capture)
{
    return __atomic_load_n(&capture->stopping, __ATOMIC_ACQUIRE) != 0;
}

/* Waits for fd (or nothing: -1), an interrupt, or the time; forgets the interrupt.
 * Returns poll()'s revents of fd. */
short otus_capture_wait(struct otus_capture *capture, int fd, int timeout_ms);

__attribute__((format(printf, 2, 3))) void otus_capture_fail(struct otus_capture *capture,
                                                             const char *format, ...);

#endif
