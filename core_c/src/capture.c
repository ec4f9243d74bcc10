/* The one interface over all capture sources. */
#include "otus/capture.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "capture_source.h"

enum otus_status otus_capture_init(struct otus_capture *capture, const struct otus_capture_ops *ops,
                                   char *message, size_t message_len)
{
    capture->ops = ops;
    capture->stopping = 0;
    capture->error[0] = '\0';
    capture->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (capture->wake_fd < 0) {
        snprintf(message, message_len, "can't make an eventfd: %s", strerror(errno));
        return OTUS_E_SYSTEM;
    }
    return OTUS_OK;
}

void otus_capture_deinit(struct otus_capture *capture)
{
    if (capture->wake_fd >= 0)
        close(capture->wake_fd);
    capture->wake_fd = -1;
}

short otus_capture_wait(struct otus_capture *capture, int fd, int timeout_ms)
{
    /* A negative descriptor is skipped by poll(). */
    struct pollfd polled[2] = {{.fd = fd, .events = POLLIN},
                               {.fd = capture->wake_fd, .events = POLLIN}};
    if (poll(polled, 2, timeout_ms) <= 0)
        return 0;
    if (polled[1].revents != 0) {
        uint64_t num_wakes;
        ssize_t got = read(capture->wake_fd, &num_wakes, sizeof num_wakes);
        (void)got; /* another wait may have taken it: then there is nothing to forget */
    }
    return polled[0].revents;
}

void otus_capture_fail(struct otus_capture *capture, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(capture->error, sizeof capture->error, format, args);
    va_end(args);
}

enum otus_status otus_capture_next(struct otus_capture *capture,
                                   struct otus_raw_packet *out_packets, uint32_t *out_num,
                                   uint32_t max, int timeout_ms)
{
    *out_num = 0;
    if (max == 0)
        return OTUS_E_INVALID;
    return capture->ops->next(capture, out_packets, out_num, max, timeout_ms);
}

void otus_capture_interrupt(struct otus_capture *capture)
{
    const uint64_t one = 1;
    ssize_t put = write(capture->wake_fd, &one, sizeof one);
    (void)put; /* EAGAIN: 2^64-2 interrupts are pending, one more changes nothing */
}

void otus_capture_stop(struct otus_capture *capture)
{
    __atomic_store_n(&capture->stopping, 1, __ATOMIC_RELEASE);
    if (capture->ops->stop != NULL)
        capture->ops->stop(capture);
    otus_capture_interrupt(capture);
}

void otus_capture_get_stats(const struct otus_capture *capture,
                            struct otus_capture_stats *out_stats)
{
    *out_stats = (struct otus_capture_stats){0};
    capture->ops->get_stats(capture, out_stats);
}

const char *otus_capture_error(const struct otus_capture *capture)
{
    return capture->error;
}

uint16_t otus_capture_fanout_id(const struct otus_capture *capture)
{
    return capture->ops->fanout_id != NULL ? capture->ops->fanout_id(capture) : 0;
}

uint64_t otus_capture_position(const struct otus_capture *capture)
{
    return capture->ops->position != NULL ? capture->ops->position(capture) : 0;
}

void otus_capture_close(struct otus_capture *capture)
{
    if (capture != NULL)
        capture->ops->close(capture);
}
