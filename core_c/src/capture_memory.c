/* A capture file that lies in memory: no copy, num_loops times over. */
#include <stdlib.h>

#include "capture_format.h"
#include "capture_source.h"

struct memory_source {
    struct otus_capture base; /* first: ops get its address */
    const uint8_t *octets;
    size_t len;
    uint64_t loops_left; /* after the one in hand */
    bool pass_has_frames;
    uint64_t received; /* atomic, as position is: read from any thread */
    uint64_t position;
    struct otus_cursor window;
    struct otus_format format;
};

static struct memory_source *memory_of(struct otus_capture *capture)
{
    return (struct memory_source *)(void *)capture;
}

static enum otus_status memory_end(struct memory_source *source, enum otus_status status)
{
    if (status != OTUS_E_MALFORMED)
        status = otus_format_end(&source->format, &source->window);
    otus_capture_fail(&source->base, "%s", source->format.reason);
    return status;
}

static enum otus_status memory_next(struct otus_capture *capture,
                                    struct otus_raw_packet *out_packets, uint32_t *out_num,
                                    uint32_t max, int timeout_ms)
{
    struct memory_source *source = memory_of(capture);
    (void)timeout_ms; /* never has to wait */
    uint32_t num = 0;
    if (otus_capture_stopping(capture))
        return OTUS_E_END;
    for (;;) {
        enum otus_status status =
            otus_format_burst(&source->format, out_packets, &num, max, &source->window);
        __atomic_store_n(&source->position, source->format.offset, __ATOMIC_RELAXED);
        if (num != 0)
            break;
        /* A pass without a frame would only be repeated. */
        if (status == OTUS_E_MALFORMED || source->loops_left == 0 || !source->pass_has_frames)
            return memory_end(source, status);
        source->loops_left--;
        source->pass_has_frames = false;
        otus_format_reset(&source->format);
        source->window = otus_cursor_of(source->octets, source->len);
    }
    source->pass_has_frames = true;
    __atomic_store_n(&source->received, source->received + num, __ATOMIC_RELAXED);
    *out_num = num;
    return OTUS_OK;
}

static void memory_get_stats(const struct otus_capture *capture,
                             struct otus_capture_stats *out_stats)
{
    const struct memory_source *source = (const struct memory_source *)(const void *)capture;
    out_stats->received = __atomic_load_n(&source->received, __ATOMIC_RELAXED);
}

static uint64_t memory_position(const struct otus_capture *capture)
{
    const struct memory_source *source = (const struct memory_source *)(const void *)capture;
    return __atomic_load_n(&source->position, __ATOMIC_RELAXED);
}

static void memory_close(struct otus_capture *capture)
{
    otus_capture_deinit(capture);
    free(memory_of(capture));
}

static const struct otus_capture_ops memory_ops = {
    .next = memory_next,
    .get_stats = memory_get_stats,
    .position = memory_position,
    .close = memory_close,
};

enum otus_status otus_capture_open_memory(struct otus_capture **out_capture, char *message,
                                          size_t message_len,
                                          const struct otus_memory_config *config)
{
    struct memory_source *source = calloc(1, sizeof *source);
    if (source == NULL) {
        snprintf(message, message_len, "out of memory");
        return OTUS_E_NOMEM;
    }
    enum otus_status status = otus_capture_init(&source->base, &memory_ops, message, message_len);
    if (status != OTUS_OK) {
        free(source);
        return status;
    }
    source->octets = config->octets;
    source->len = config->len;
    source->loops_left = config->num_loops > 0 ? config->num_loops - 1 : 0;
    source->window = otus_cursor_of(config->octets, config->len);
    otus_format_reset(&source->format);
    *out_capture = &source->base;
    return OTUS_OK;
}
