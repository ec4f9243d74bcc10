/* Sources that have to wait: pipes, growing files, original timing; interrupts
 * and stops from another thread. */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "capture_bytes.h"
#include "check.h"
#include "otus/capture.h"

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct otus_capture *open_fd(struct otus_file_config config)
{
    char message[256];
    struct otus_capture *capture = NULL;
    if (!CHECK_EQ(otus_capture_open_file(&capture, message, sizeof message, &config), OTUS_OK)) {
        fprintf(stderr, "    %s\n", message);
        exit(1);
    }
    return capture;
}

static uint32_t next(struct otus_capture *capture, int timeout_ms, enum otus_status want)
{
    struct otus_raw_packet frames[8];
    uint32_t num = 0;
    CHECK_EQ(otus_capture_next(capture, frames, &num, 8, timeout_ms), want);
    return num;
}

static void put(int fd, const struct file_bytes *file, size_t from, size_t to)
{
    if (write(fd, file->octets + from, to - from) != (ssize_t)(to - from))
        abort();
}

static struct file_bytes two_frames(uint32_t gap_us)
{
    struct file_bytes file = {0};
    put_pcap_header(&file, 0xa1b2c3d4, 1);
    put_pcap_record(&file, 10, 0, 20, 20);
    put_pcap_record(&file, 10, gap_us, 20, 20);
    return file;
}

/* A pipe gives a frame when its last octet has come, and its writer's end ends it. */
static void test_pipe(void)
{
    struct file_bytes file = two_frames(1);
    int ends[2];
    if (pipe(ends) != 0)
        abort();
    struct otus_capture *capture = open_fd((struct otus_file_config){.fd = ends[0]});
    CHECK_EQ(next(capture, 0, OTUS_E_AGAIN), 0);
    put(ends[1], &file, 0, 30);
    CHECK_EQ(next(capture, 1, OTUS_E_AGAIN), 0);
    put(ends[1], &file, 30, 59);
    CHECK_EQ(next(capture, 1, OTUS_E_AGAIN), 0);
    put(ends[1], &file, 59, 60);
    CHECK_EQ(next(capture, 1000, OTUS_OK), 1);
    put(ends[1], &file, 60, 70);
    close(ends[1]);
    CHECK_EQ(next(capture, 1000, OTUS_E_END), 0);
    CHECK_TEXT(otus_capture_error(capture), strlen(otus_capture_error(capture)),
               "the file is cut off inside its last record, at octet 60");
    otus_capture_close(capture);
}

/* A followed file gives what is appended to it; truncation is an error. */
static void test_follow(void)
{
    struct file_bytes file = two_frames(1);
    char path[] = "/tmp/otus-test-follow-XXXXXX";
    int fd = mkstemp(path);
    int writer = dup(fd);
    int reader = fd >= 0 ? open(path, O_RDONLY) : -1;
    if (fd < 0 || writer < 0 || reader < 0 || unlink(path) != 0)
        abort();
    struct otus_capture *capture = open_fd((struct otus_file_config){.fd = reader, .follow = true});
    CHECK_EQ(next(capture, 1, OTUS_E_AGAIN), 0);
    put(writer, &file, 0, 70);
    CHECK_EQ(next(capture, 1000, OTUS_OK), 1);
    CHECK_EQ(next(capture, 30, OTUS_E_AGAIN), 0);
    put(writer, &file, 70, file.len);
    CHECK_EQ(next(capture, 1000, OTUS_OK), 1);
    CHECK_EQ(otus_capture_position(capture), file.len);
    if (ftruncate(writer, 24) != 0)
        abort();
    CHECK_EQ(next(capture, 1000, OTUS_E_SYSTEM), 0);
    CHECK(strstr(otus_capture_error(capture), "truncated while it was followed") != NULL);
    otus_capture_close(capture);
    close(writer);
    close(fd);
}

/* Original timing: the second frame is not given before its time, and is then. */
static void test_paced(void)
{
    struct file_bytes file = two_frames(400000);
    struct otus_raw_packet frames[8];
    uint32_t num = 0;
    int ends[2];
    if (pipe(ends) != 0)
        abort();
    put(ends[1], &file, 0, file.len);
    close(ends[1]);
    struct otus_capture *capture = open_fd(
        (struct otus_file_config){.fd = ends[0], .timing = OTUS_TIMING_PACED, .speed = 2.0});
    uint64_t start = now_ms();
    CHECK_EQ(next(capture, 1000, OTUS_OK), 1);
    enum otus_status status = OTUS_E_AGAIN;
    while (status == OTUS_E_AGAIN && now_ms() - start < 120000)
        status = otus_capture_next(capture, frames, &num, 8, 1000);
    CHECK_EQ(status, OTUS_OK);
    CHECK_EQ(num, 1);
    CHECK(now_ms() - start >= 199);
    CHECK_EQ(next(capture, 1000, OTUS_E_END), 0);
    otus_capture_close(capture);
}

struct waker {
    struct otus_capture *capture;
    bool stop;
};

static void *wake(void *context)
{
    struct waker *waker = context;
    if (waker->stop)
        otus_capture_stop(waker->capture);
    else
        otus_capture_interrupt(waker->capture);
    return NULL;
}

/* Whoever waits for ever on a silent pipe is woken, before or after it began. */
static void test_interrupt_and_stop(void)
{
    int ends[2];
    pthread_t thread;
    if (pipe(ends) != 0)
        abort();
    struct otus_capture *capture = open_fd((struct otus_file_config){.fd = ends[0]});
    struct waker waker = {capture, false};
    for (int turn = 0; turn < 20; turn++) {
        if (pthread_create(&thread, NULL, wake, &waker) != 0)
            abort();
        CHECK_EQ(next(capture, -1, OTUS_E_AGAIN), 0);
        pthread_join(thread, NULL);
    }
    waker.stop = true;
    if (pthread_create(&thread, NULL, wake, &waker) != 0)
        abort();
    enum otus_status status = OTUS_E_AGAIN;
    while (status == OTUS_E_AGAIN) {
        struct otus_raw_packet frame;
        uint32_t num = 0;
        status = otus_capture_next(capture, &frame, &num, 1, -1);
    }
    CHECK_EQ(status, OTUS_E_END);
    pthread_join(thread, NULL);
    CHECK_TEXT(otus_capture_error(capture), strlen(otus_capture_error(capture)), "");
    otus_capture_close(capture);
    close(ends[1]);
}

/* A file stops where it is; what it had given stays counted. */
static void test_stop_in_a_file(void)
{
    struct file_bytes file = two_frames(1);
    struct otus_capture *capture = NULL;
    struct otus_capture_stats stats;
    char message[256];
    struct otus_raw_packet frame;
    uint32_t num = 0;
    struct otus_memory_config config = {file.octets, file.len, UINT64_MAX};
    CHECK_EQ(otus_capture_open_memory(&capture, message, sizeof message, &config), OTUS_OK);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(otus_capture_next(capture, &frame, &num, 1, 0), OTUS_OK);
    CHECK_EQ(otus_capture_next(capture, &frame, &num, 0, 0), OTUS_E_INVALID);
    otus_capture_stop(capture);
    otus_capture_stop(capture);
    CHECK_EQ(otus_capture_next(capture, &frame, &num, 1, 0), OTUS_E_END);
    CHECK_EQ(num, 0);
    otus_capture_get_stats(capture, &stats);
    CHECK_EQ(stats.received, 5);
    CHECK_EQ(otus_capture_fanout_id(capture), 0);
    otus_capture_close(capture);
    otus_capture_close(NULL);
}

int main(void)
{
    test_pipe();
    test_follow();
    test_paced();
    test_interrupt_and_stop();
    test_stop_in_a_file();
    return check_summary();
}
