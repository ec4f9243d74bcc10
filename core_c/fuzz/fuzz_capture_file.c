/* A capture file of any octets: read from memory and through a pipe in small
 * pieces, both give the same frames, and each octet of a frame can be read. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "otus/capture.h"

enum { BURST = 16, PIPE_OCTETS = 32768 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct digest {
    uint64_t frames;
    uint64_t octets;
    uint64_t sum;
    enum otus_status ended;
};

static void digest_frame(struct digest *digest, const struct otus_raw_packet *frame)
{
    digest->frames++;
    digest->octets += frame->caplen;
    digest->sum = digest->sum * 31 + frame->ts_ns + frame->wirelen + frame->link_type;
    for (uint32_t i = 0; i < frame->caplen; i++)
        digest->sum = digest->sum * 31 + frame->data[i];
}

static struct digest drain(struct otus_capture *capture)
{
    struct otus_raw_packet frames[BURST];
    struct digest digest = {0};
    uint32_t num = 0;
    while ((digest.ended = otus_capture_next(capture, frames, &num, BURST, 0)) == OTUS_OK)
        for (uint32_t i = 0; i < num; i++)
            digest_frame(&digest, &frames[i]);
    otus_capture_close(capture);
    return digest;
}

static bool read_pipe(struct digest *out_digest, const uint8_t *data, size_t size)
{
    char message[256];
    int ends[2];
    struct otus_capture *capture = NULL;
    if (size > PIPE_OCTETS || pipe(ends) != 0)
        return false;
    ssize_t put = size != 0 ? write(ends[1], data, size) : 0;
    close(ends[1]);
    struct otus_file_config config = {.fd = ends[0]};
    if (put != (ssize_t)size ||
        otus_capture_open_file(&capture, message, sizeof message, &config) != OTUS_OK)
        abort();
    *out_digest = drain(capture);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char message[256];
    struct otus_capture *capture = NULL;
    const struct otus_memory_config config = {data, size, 1};
    if (otus_capture_open_memory(&capture, message, sizeof message, &config) != OTUS_OK)
        abort();
    struct digest memory = drain(capture);
    struct digest piped;
    if (read_pipe(&piped, data, size) &&
        (piped.frames != memory.frames || piped.sum != memory.sum || piped.ended != memory.ended))
        abort();
    return 0;
}
