/* A capture file from a descriptor: regular file, pipe or socket. */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "capture_format.h"
#include "capture_source.h"
#include "otus/bpf.h"

enum {
    READ_OCTETS = 256 * 1024, /* at once: stays in the second-level cache */
    BUFFER_OCTETS = OTUS_FORMAT_MAX_BLOCK + READ_OCTETS,
    FOLLOW_INTERVAL_MS = 20, /* poll() can't wait for a regular file to grow */
};

struct file_source {
    struct otus_capture base; /* first: ops get its address */
    int fd;
    bool regular;
    bool follow;
    bool at_end; /* read() said so */
    enum otus_file_timing timing;
    double speed;
    bool has_start;
    uint64_t start_packet_ns; /* time of the first frame, and when it was given */
    uint64_t start_clock_ns;
    uint64_t received; /* atomic, as position is: read from any thread */
    uint64_t position;
    struct otus_bpf *filter;
    uint8_t *buffer;
    struct otus_cursor window; /* octets of the buffer not consumed yet */
    struct otus_format format;
};

static struct file_source *file_of(struct otus_capture *capture)
{
    return (struct file_source *)(void *)capture;
}

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* Moves what is left to the buffer's start and reads behind it.
 * Returns OTUS_OK, OTUS_E_AGAIN (nothing there now), OTUS_E_END or OTUS_E_SYSTEM. */
static enum otus_status file_fill(struct file_source *source)
{
    size_t left = otus_cursor_left(&source->window);
    if (left != 0)
        memmove(source->buffer, source->window.at, left);
    source->window = otus_cursor_of(source->buffer, left);
    size_t room = BUFFER_OCTETS - left;
    ssize_t got = read(source->fd, source->buffer + left, room < READ_OCTETS ? room : READ_OCTETS);
    if (got > 0) {
        source->window = otus_cursor_of(source->buffer, left + (size_t)got);
        return OTUS_OK;
    }
    if (got == 0)
        return OTUS_E_END;
    if (errno == EAGAIN || errno == EINTR)
        return OTUS_E_AGAIN;
    otus_capture_fail(&source->base, "can't read: %s", strerror(errno));
    return OTUS_E_SYSTEM;
}

/* A followed file that is shorter than what was read of it has been replaced. */
static enum otus_status file_follow(struct file_source *source, int timeout_ms)
{
    struct stat status;
    if (fstat(source->fd, &status) == 0 && status.st_size < lseek(source->fd, 0, SEEK_CUR)) {
        otus_capture_fail(&source->base, "the file was truncated while it was followed");
        return OTUS_E_SYSTEM;
    }
    int wait_ms = FOLLOW_INTERVAL_MS;
    if (timeout_ms >= 0 && timeout_ms < wait_ms)
        wait_ms = timeout_ms;
    otus_capture_wait(&source->base, -1, wait_ms);
    return OTUS_E_AGAIN;
}

/* Gets more octets, waiting at most timeout_ms for them. */
static enum otus_status file_more(struct file_source *source, int timeout_ms)
{
    if (!source->regular && otus_capture_wait(&source->base, source->fd, timeout_ms) == 0)
        return OTUS_E_AGAIN;
    enum otus_status status = file_fill(source);
    if (status != OTUS_E_END)
        return status;
    if (source->follow && source->regular)
        return file_follow(source, timeout_ms);
    source->at_end = true;
    return otus_format_end(&source->format, &source->window);
}

/* Gives the frames whose time has come. *out_wait_ms: until the next one, if
 * that is what ended it. */
static enum otus_status file_paced(struct file_source *source, struct otus_raw_packet *out_packets,
                                   uint32_t *out_num, uint32_t max, int *out_wait_ms)
{
    uint32_t num = 0;
    enum otus_status status = OTUS_OK;
    *out_wait_ms = 0;
    while (num < max) {
        const struct otus_cursor before = source->window;
        const uint64_t offset = source->format.offset;
        status = otus_format_step(&source->format, &out_packets[num], &source->window);
        if (status == OTUS_E_AGAIN)
            continue;
        if (status != OTUS_OK)
            break;
        const uint64_t now = clock_ns();
        const uint64_t ts_ns = out_packets[num].ts_ns;
        if (!source->has_start) {
            source->has_start = true;
            source->start_packet_ns = ts_ns;
            source->start_clock_ns = now;
        }
        /* A frame from before the first one is due at once. */
        double since = ts_ns > source->start_packet_ns
                           ? (double)(ts_ns - source->start_packet_ns) / source->speed
                           : 0;
        double early_ms = (since - (double)(now - source->start_clock_ns)) / 1e6;
        if (early_ms > 0) {
            /* A packet block changes no state but the offset: it can be read again. */
            source->window = before;
            source->format.offset = offset;
            *out_wait_ms = early_ms < 3600e3 ? (int)early_ms + 1 : 3600000;
            status = OTUS_E_AGAIN;
            break;
        }
        num++;
    }
    *out_num = num;
    return num == max ? OTUS_OK : status;
}

static uint32_t file_filter(const struct file_source *source, struct otus_raw_packet *packets,
                            uint32_t num)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < num; i++)
        if (otus_bpf_run(source->filter, &packets[i]) != 0)
            packets[kept++] = packets[i];
    return kept;
}

static int shorter_wait(int timeout_ms, int wait_ms)
{
    return timeout_ms >= 0 && timeout_ms < wait_ms ? timeout_ms : wait_ms;
}

static enum otus_status file_end(struct file_source *source, enum otus_status status)
{
    if (status == OTUS_E_MALFORMED || status == OTUS_E_END)
        otus_capture_fail(&source->base, "%s", source->format.reason);
    return status;
}

static enum otus_status file_next(struct otus_capture *capture, struct otus_raw_packet *out_packets,
                                  uint32_t *out_num, uint32_t max, int timeout_ms)
{
    struct file_source *source = file_of(capture);
    bool waited = false;
    for (;;) {
        uint32_t num = 0;
        int wait_ms = 0;
        if (otus_capture_stopping(capture))
            return OTUS_E_END;
        enum otus_status status =
            source->timing == OTUS_TIMING_PACED
                ? file_paced(source, out_packets, &num, max, &wait_ms)
                : otus_format_burst(&source->format, out_packets, &num, max, &source->window);
        __atomic_store_n(&source->position, source->format.offset, __ATOMIC_RELAXED);
        if (num != 0 && source->filter != NULL)
            num = file_filter(source, out_packets, num);
        if (num != 0) {
            __atomic_store_n(&source->received, source->received + num, __ATOMIC_RELAXED);
            *out_num = num;
            return OTUS_OK;
        }
        if (status == OTUS_E_MALFORMED)
            return file_end(source, status);
        if (status == OTUS_OK)
            continue; /* the filter refused all of a full burst */
        if (waited)
            return OTUS_E_AGAIN;
        if (status == OTUS_E_AGAIN) {
            otus_capture_wait(capture, -1, shorter_wait(timeout_ms, wait_ms));
            waited = true;
            continue;
        }
        status = file_more(source, timeout_ms);
        if (status == OTUS_E_AGAIN)
            waited = true; /* look once more, a followed file may have grown */
        else if (status != OTUS_OK)
            return file_end(source, status);
    }
}

static void file_get_stats(const struct otus_capture *capture, struct otus_capture_stats *out_stats)
{
    const struct file_source *source = (const struct file_source *)(const void *)capture;
    out_stats->received = __atomic_load_n(&source->received, __ATOMIC_RELAXED);
}

static uint64_t file_position(const struct otus_capture *capture)
{
    const struct file_source *source = (const struct file_source *)(const void *)capture;
    return __atomic_load_n(&source->position, __ATOMIC_RELAXED);
}

static void file_close(struct otus_capture *capture)
{
    struct file_source *source = file_of(capture);
    otus_capture_deinit(capture);
    otus_bpf_free(source->filter);
    free(source->buffer);
    close(source->fd);
    free(source);
}

static const struct otus_capture_ops file_ops = {
    .next = file_next,
    .get_stats = file_get_stats,
    .position = file_position,
    .close = file_close,
};

/* A regular file shows at once whether it is a capture file; a pipe would block. */
static enum otus_status file_look(struct file_source *source, char *message, size_t message_len)
{
    struct otus_raw_packet unused;
    if (!source->regular || source->follow)
        return OTUS_OK;
    enum otus_status status = file_fill(source);
    if (status == OTUS_E_END)
        status = otus_format_end(&source->format, &source->window);
    else if (status == OTUS_OK)
        status = otus_format_step(&source->format, &unused, &source->window);
    if (status == OTUS_E_AGAIN)
        return OTUS_OK;
    if (status == OTUS_E_PARTIAL)
        status = otus_format_end(&source->format, &source->window);
    snprintf(message, message_len, "%s",
             status == OTUS_E_SYSTEM ? source->base.error : source->format.reason);
    return status == OTUS_E_SYSTEM ? status : OTUS_E_MALFORMED;
}

static enum otus_status file_set_up(struct file_source *source, char *message, size_t message_len,
                                    const struct otus_file_config *config)
{
    struct stat status;
    if (config->timing == OTUS_TIMING_PACED && !(config->speed > 0 && isfinite(config->speed))) {
        snprintf(message, message_len, "speed must be a number above 0");
        return OTUS_E_INVALID;
    }
    if (fstat(config->fd, &status) != 0) {
        snprintf(message, message_len, "can't read the descriptor: %s", strerror(errno));
        return OTUS_E_SYSTEM;
    }
    if (S_ISDIR(status.st_mode)) {
        snprintf(message, message_len, "is a directory");
        return OTUS_E_INVALID;
    }
    source->regular = S_ISREG(status.st_mode);
    source->buffer = malloc(BUFFER_OCTETS);
    if (source->buffer == NULL) {
        snprintf(message, message_len, "out of memory");
        return OTUS_E_NOMEM;
    }
    source->window = otus_cursor_of(source->buffer, 0);
    otus_format_reset(&source->format);
    if (config->filter != NULL) {
        enum otus_status loaded = otus_bpf_load(&source->filter, message, message_len,
                                                config->filter, config->filter_len);
        if (loaded != OTUS_OK)
            return loaded;
    }
    return file_look(source, message, message_len);
}

enum otus_status otus_capture_open_file(struct otus_capture **out_capture, char *message,
                                        size_t message_len, const struct otus_file_config *config)
{
    struct file_source *source = calloc(1, sizeof *source);
    if (source == NULL) {
        snprintf(message, message_len, "out of memory");
        close(config->fd);
        return OTUS_E_NOMEM;
    }
    source->fd = config->fd;
    source->follow = config->follow;
    source->timing = config->timing;
    source->speed = config->speed;
    enum otus_status status = otus_capture_init(&source->base, &file_ops, message, message_len);
    if (status == OTUS_OK)
        status = file_set_up(source, message, message_len, config);
    if (status != OTUS_OK) {
        file_close(&source->base);
        return status;
    }
    *out_capture = &source->base;
    return OTUS_OK;
}
