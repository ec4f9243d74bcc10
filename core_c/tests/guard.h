/* Input that ends where memory ends: the octet behind it lies on a PROT_NONE
 * page, so that a read past the end by one octet is a fault and not luck. */
#ifndef OTUS_TEST_GUARD_H
#define OTUS_TEST_GUARD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct guard_buffer {
    uint8_t *octets; /* len octets, the last one right before the guard page */
    size_t len;
    uint8_t *map;
    size_t map_len;
};

/* Room for len octets in front of a guard page, zeroed. Aborts without memory. */
static inline struct guard_buffer guard_new(size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t usable = (len / page + 1) * page;
    struct guard_buffer buffer = {NULL, len, NULL, usable + page};
    void *map =
        mmap(NULL, buffer.map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        perror("guard_new: mmap");
        abort();
    }
    buffer.map = map;
    if (mprotect(buffer.map + usable, page, PROT_NONE) != 0) {
        perror("guard_new: mprotect");
        abort();
    }
    buffer.octets = buffer.map + usable - len;
    return buffer;
}

/* A copy of octets that ends at a guard page. Free it with guard_free(). */
static inline struct guard_buffer guard_copy(const void *octets, size_t len)
{
    struct guard_buffer buffer = guard_new(len);
    if (len != 0)
        memcpy(buffer.octets, octets, len);
    return buffer;
}

static inline void guard_free(struct guard_buffer *buffer)
{
    if (buffer->map != NULL)
        munmap(buffer->map, buffer->map_len);
    buffer->map = NULL;
    buffer->octets = NULL;
}

/* Calls fn(context, copy, n) for n from 0 to len: every truncation of the input,
 * each ending at a guard page. */
static inline void guard_every_truncation(void (*fn)(void *context, const uint8_t *octets,
                                                     size_t len),
                                          void *context, const void *octets, size_t len)
{
    struct guard_buffer buffer = guard_new(len);
    uint8_t *end = buffer.octets + len;
    for (size_t n = 0; n <= len; n++) {
        if (n != 0)
            memcpy(end - n, octets, n);
        fn(context, end - n, n);
    }
    guard_free(&buffer);
}

#endif
