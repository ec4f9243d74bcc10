/* Capture files: every format the same through a descriptor and from memory. */
#include <stdlib.h>
#include <unistd.h>

#include "capture_bytes.h"
#include "check.h"
#include "guard.h"
#include "otus/capture.h"

enum { MAX_FRAMES = 64 };

struct outcome {
    enum otus_status opened;
    enum otus_status ended;
    uint32_t num;
    struct otus_raw_packet frames[MAX_FRAMES]; /* data is not valid any more */
    uint8_t first_octets[MAX_FRAMES];
    bool octets_right; /* each frame held 0, 1, 2, ... */
    char error[256];
    struct otus_capture_stats stats;
    uint64_t position;
};

static void drain(struct outcome *out, struct otus_capture *capture, uint32_t max)
{
    struct otus_raw_packet frames[MAX_FRAMES];
    uint32_t num = 0;
    out->octets_right = true;
    while ((out->ended = otus_capture_next(capture, frames, &num, max, 1000)) == OTUS_OK) {
        for (uint32_t i = 0; i < num; i++) {
            for (uint32_t j = 0; j < frames[i].caplen; j++)
                if (frames[i].data[j] != (uint8_t)j)
                    out->octets_right = false;
            if (out->num < MAX_FRAMES)
                out->frames[out->num] = frames[i];
            out->num++;
        }
    }
    snprintf(out->error, sizeof out->error, "%s", otus_capture_error(capture));
    otus_capture_get_stats(capture, &out->stats);
    out->position = otus_capture_position(capture);
    otus_capture_close(capture);
}

static struct outcome read_memory(const uint8_t *octets, size_t len, uint64_t loops, uint32_t max)
{
    struct outcome out = {.octets_right = true};
    struct otus_capture *capture = NULL;
    struct otus_memory_config config = {octets, len, loops};
    out.opened = otus_capture_open_memory(&capture, out.error, sizeof out.error, &config);
    if (out.opened == OTUS_OK)
        drain(&out, capture, max);
    return out;
}

static int file_with(const uint8_t *octets, size_t len)
{
    char path[] = "/tmp/otus-test-capture-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || unlink(path) != 0 || write(fd, octets, len) != (ssize_t)len ||
        lseek(fd, 0, SEEK_SET) != 0)
        abort();
    return fd;
}

static struct outcome read_fd(struct otus_file_config config, uint32_t max)
{
    struct outcome out = {.octets_right = true};
    struct otus_capture *capture = NULL;
    out.opened = otus_capture_open_file(&capture, out.error, sizeof out.error, &config);
    if (out.opened == OTUS_OK)
        drain(&out, capture, max);
    return out;
}

static int pipe_with(const uint8_t *octets, size_t len)
{
    int ends[2];
    if (pipe(ends) != 0 || write(ends[1], octets, len) != (ssize_t)len)
        abort();
    close(ends[1]);
    return ends[0];
}

/* Reads three ways, checks that they agree, and returns one. */
static struct outcome read_all(const struct file_bytes *file)
{
    struct guard_buffer guarded = guard_copy(file->octets, file->len);
    struct outcome memory = read_memory(guarded.octets, guarded.len, 1, 3);
    guard_free(&guarded);
    struct outcome by_file =
        read_fd((struct otus_file_config){.fd = file_with(file->octets, file->len)}, MAX_FRAMES);
    struct outcome by_pipe =
        read_fd((struct otus_file_config){.fd = pipe_with(file->octets, file->len)}, 1);
    CHECK_EQ(by_file.num, memory.num);
    CHECK_EQ(by_pipe.num, memory.num);
    CHECK_EQ(by_pipe.ended, memory.ended);
    CHECK_TEXT(by_pipe.error, strlen(by_pipe.error), memory.error);
    if (by_file.opened == OTUS_OK) {
        CHECK_EQ(by_file.ended, memory.ended);
        CHECK_EQ(by_file.position, memory.position);
    } else {
        CHECK_EQ(by_file.opened, memory.ended);
    }
    CHECK_TEXT(by_file.error, strlen(by_file.error), memory.error);
    CHECK_EQ(memory.stats.received, memory.num);
    for (uint32_t i = 0; i < memory.num && i < MAX_FRAMES; i++) {
        CHECK_EQ(by_file.frames[i].ts_ns, memory.frames[i].ts_ns);
        CHECK_EQ(by_pipe.frames[i].caplen, memory.frames[i].caplen);
    }
    CHECK(by_file.octets_right && by_pipe.octets_right && memory.octets_right);
    return memory;
}

/* pcap of both octet orders and each magic gives times, lengths and link type. */
static void test_pcap_variants(void)
{
    static const struct {
        const char *name;
        uint32_t magic;
        uint64_t ns;
    } variants[] = {{"microseconds", 0xa1b2c3d4, 7000}, {"nanoseconds", 0xa1b23c4d, 7}};
    for (unsigned big = 0; big < 2; big++)
        for (unsigned i = 0; i < 2; i++) {
            struct file_bytes file = {.big = big != 0};
            check_about = variants[i].name;
            put_pcap_header(&file, variants[i].magic, 0x10000000 | 113);
            put_pcap_record(&file, 1000, 7, 60, 1500);
            put_pcap_record(&file, 0xffffffff, 999, 0, 0);
            struct outcome out = read_all(&file);
            CHECK_EQ(out.ended, OTUS_E_END);
            CHECK_TEXT(out.error, strlen(out.error), "");
            CHECK_EQ(out.num, 2);
            CHECK_EQ(out.frames[0].ts_ns, 1000000000000U + variants[i].ns);
            CHECK_EQ(out.frames[0].caplen, 60);
            CHECK_EQ(out.frames[0].wirelen, 1500);
            CHECK_EQ(out.frames[0].link_type, 113);
            CHECK_EQ(out.frames[0].flags, 0);
            CHECK_EQ(out.frames[1].ts_ns / 1000000000U, 0xffffffff);
            CHECK_EQ(out.position, file.len);
        }
    check_about = "";
}

/* Kuznetsov's format has the interface index and the packet type in each record. */
static void test_pcap_modified(void)
{
    for (unsigned big = 0; big < 2; big++) {
        struct file_bytes file = {.big = big != 0};
        put_pcap_header(&file, 0xa1b2cd34, 1);
        put32(&file, 5);
        put32(&file, 6);
        put32(&file, 2);
        put32(&file, 2);
        put32(&file, 42); /* interface */
        put16(&file, 0x0008);
        put8(&file, 4); /* outgoing */
        put8(&file, 0);
        put8(&file, 0);
        put8(&file, 1);
        struct outcome out = read_all(&file);
        CHECK_EQ(out.num, 1);
        CHECK_EQ(out.frames[0].if_index, 42);
        CHECK_EQ(out.frames[0].flags, OTUS_RAW_OUTGOING);
        CHECK_EQ(out.frames[0].caplen, 2);
    }
}

/* Regression: a file before version 2.4 with its lengths in the other order ended at once. */
static void test_pcap_before_2_4(void)
{
    for (unsigned big = 0; big < 2; big++) {
        struct file_bytes file = {.big = big != 0};
        put_pcap_header(&file, 0xa1b2c3d4, 1);
        file.octets[big ? 7 : 6] = 3;
        put32(&file, 5);
        put32(&file, 6);
        put32(&file, 90); /* on the wire */
        put32(&file, 2);
        put8(&file, 0);
        put8(&file, 1);
        put_pcap_record(&file, 7, 0, 3, 80);
        struct outcome out = read_all(&file);
        CHECK_EQ(out.num, 2);
        CHECK_EQ(out.frames[0].caplen, 2);
        CHECK_EQ(out.frames[0].wirelen, 90);
        CHECK_EQ(out.frames[1].caplen, 3);
        CHECK_EQ(out.frames[1].wirelen, 80);
    }
}

/* pcapng: sections of either order, interfaces with link type and clock of their own. */
static void test_pcapng(void)
{
    struct file_bytes file = {0};
    struct file_bytes unknown = {.big = false};
    put_octets(&unknown, "anything", 8);
    put_section(&file);
    put_interface(&file, 1, 0, 0xff, 0);
    put_interface(&file, 113, 0, 9, -1);
    put_interface(&file, 101, 0, 0x80 | 10, 100);
    put_interface(&file, 276, 0, 12, 0);
    put_block(&file, 0x0BAD, &unknown);
    put_enhanced(&file, 0, 1700000000000001, 5, 9, false);
    put_enhanced(&file, 1, 1700000000000000002, 4, 4, true);
    put_enhanced(&file, 2, 3 * 1024 + 512, 1, 1, false);
    put_enhanced(&file, 3, 7000, 1, 1, false);
    file.big = true;
    put_section(&file);
    put_interface(&file, 12, 3, 0xff, 1);
    put_enhanced(&file, 0, 2, 2, 2, true);
    struct file_bytes simple = {.big = true};
    put32(&simple, 100);
    put_octets(&simple, "\0\1\2", 3);
    put_block(&file, 3, &simple);
    struct file_bytes obsolete = {.big = true};
    put16(&obsolete, 0);
    put16(&obsolete, 777); /* drops */
    put32(&obsolete, 0);
    put32(&obsolete, 5);
    put32(&obsolete, 1);
    put32(&obsolete, 1);
    put8(&obsolete, 0);
    put_block(&file, 2, &obsolete);
    struct outcome out = read_all(&file);
    CHECK_EQ(out.ended, OTUS_E_END);
    CHECK_TEXT(out.error, strlen(out.error), "");
    if (!CHECK_EQ(out.num, 7))
        return;
    CHECK_EQ(out.frames[0].ts_ns, 1700000000000001000);
    CHECK_EQ(out.frames[0].caplen, 5);
    CHECK_EQ(out.frames[0].wirelen, 9);
    CHECK_EQ(out.frames[0].link_type, 1);
    CHECK_EQ(out.frames[1].ts_ns, 1699999999000000002);
    CHECK_EQ(out.frames[1].link_type, 113);
    CHECK_EQ(out.frames[1].flags, OTUS_RAW_OUTGOING);
    CHECK_EQ(out.frames[2].ts_ns, 103500000000);
    CHECK_EQ(out.frames[2].if_index, 2);
    CHECK_EQ(out.frames[3].ts_ns, 7);
    CHECK_EQ(out.frames[4].link_type, 12);
    CHECK_EQ(out.frames[4].ts_ns, 1000002000);
    CHECK_EQ(out.frames[5].caplen, 3);
    CHECK_EQ(out.frames[5].wirelen, 100);
    CHECK_EQ(out.frames[5].ts_ns, 0);
    CHECK_EQ(out.frames[6].ts_ns, 1000005000);
    CHECK_EQ(out.frames[6].caplen, 1);
}

/* What no capture file can be gives one line that says where and what. */
static void test_malformed(void)
{
    static const struct {
        const char *octets;
        size_t len;
        const char *error;
    } cases[] = {
        {"", 0, "the file is empty"},
        {"\xd4\xc3\xb2", 3, "3 octets are too few for a capture file's header"},
        {"\xd4\xc3\xb2\xa1\2\0", 6, "6 octets are too few for a capture file's header"},
        {"\x1f\x8b\x08\0\0\0", 6, "at octet 0: gzip data where a capture file was expected"},
        {"INVITE sip:", 11, "at octet 0: neither pcap nor pcapng (magic 0x49564e49)"},
        {"\x0a\x0d\x0d\x0a\x1c\0\0\0abcd", 12,
         "at octet 0: section header without its byte-order magic"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct file_bytes file = {0};
        check_about = cases[i].error;
        put_octets(&file, cases[i].octets, cases[i].len);
        struct outcome out = read_all(&file);
        CHECK_EQ(out.ended, OTUS_E_MALFORMED);
        CHECK_EQ(out.num, 0);
        CHECK_TEXT(out.error, strlen(out.error), cases[i].error);
    }
    check_about = "";
    struct file_bytes huge = {0};
    put_pcap_header(&huge, 0xa1b2c3d4, 1);
    put_pcap_record(&huge, 1, 1, 4, 4);
    put_pcap_record(&huge, 1, 1, 0, 0);
    huge.octets[24 + 20 + 8 + 3] = 0x7f; /* caplen of the second record */
    struct outcome out = read_all(&huge);
    CHECK_EQ(out.ended, OTUS_E_MALFORMED);
    CHECK_EQ(out.num, 1);
    CHECK(strstr(out.error, "at octet 44: a record claims 2130706432 octets") != NULL);
}

static void test_malformed_blocks(void)
{
    struct file_bytes start = {0};
    put_section(&start);
    put_interface(&start, 1, 0, 0xff, 0);
    static const struct {
        const char *octets;
        size_t len;
        const char *error;
    } cases[] = {
        {"\6\0\0\0\x0d\0\0\0\0\0\0\0\0\0\0\0", 16, "block length 13"},
        {"\6\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0", 16, "block length 8"},
        {"\6\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\0", 16, "a block claims 1073741824 octets"},
        {"\6\0\0\0\x10\0\0\0\0\0\0\0\x10\0\0\0", 16, "packet block too short"},
        {"\6\0\0\0\x10\0\0\0\0\0\0\0\x14\0\0\0", 16, "block lengths differ (16 before, 20 behind)"},
        {"\6\0\0\0\x20\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0", 32,
         "packet of interface 1, which no block describes"},
        {"\6\0\0\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\x20\0\0\0", 32,
         "a packet of 1 octets does not fit its block"},
        {"\1\0\0\0\x10\0\0\0\0\0\0\0\x10\0\0\0", 16, "interface block too short"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct file_bytes file = start;
        check_about = cases[i].error;
        put_octets(&file, cases[i].octets, cases[i].len);
        struct outcome out = read_all(&file);
        CHECK_EQ(out.ended, OTUS_E_MALFORMED);
        CHECK(strstr(out.error, cases[i].error) != NULL);
    }
    check_about = "";
}

/* A block that is larger than any buffer and that nobody needs is passed over. */
static void test_large_unknown_block(void)
{
    const size_t large = 3U << 20;
    struct file_bytes start = {0};
    struct file_bytes end = {0};
    put_section(&start);
    put_interface(&start, 1, 0, 0xff, 0);
    put_enhanced(&end, 0, 9, 3, 3, false);
    size_t len = start.len + large + end.len;
    uint8_t *octets = calloc(1, len);
    if (octets == NULL)
        abort();
    memcpy(octets, start.octets, start.len);
    struct file_bytes header = {0};
    put32(&header, 0x0BAD);
    put32(&header, (uint32_t)large);
    memcpy(octets + start.len, header.octets, header.len);
    memcpy(octets + start.len + large, end.octets, end.len);
    struct outcome out =
        read_fd((struct otus_file_config){.fd = file_with(octets, len)}, MAX_FRAMES);
    CHECK_EQ(out.ended, OTUS_E_END);
    CHECK_EQ(out.num, 1);
    CHECK_EQ(out.frames[0].ts_ns, 9000);
    out = read_memory(octets, len, 1, MAX_FRAMES);
    CHECK_EQ(out.num, 1);
    free(octets);
}

struct truncation {
    uint32_t num_whole; /* frames of the whole file */
    unsigned cut;       /* truncations that were reported as such */
};

static void one_truncation(void *context, const uint8_t *octets, size_t len)
{
    struct truncation *seen = context;
    struct outcome out = read_memory(octets, len, 1, 2);
    CHECK(out.ended == OTUS_E_END || (out.ended == OTUS_E_MALFORMED && out.num == 0));
    CHECK(out.num <= seen->num_whole);
    if (strstr(out.error, "cut off inside its last record") != NULL)
        seen->cut++;
}

/* A file cut at any octet ends cleanly, says so, and reads nothing beyond it. */
static void test_truncated(void)
{
    struct truncation seen = {.num_whole = 2};
    struct file_bytes pcap = {0};
    put_pcap_header(&pcap, 0xa1b2c3d4, 1);
    put_pcap_record(&pcap, 1, 1, 30, 30);
    put_pcap_record(&pcap, 1, 1, 30, 30);
    guard_every_truncation(one_truncation, &seen, pcap.octets, pcap.len);
    CHECK_EQ(seen.cut, 2 * 45);
    struct file_bytes ng = {0};
    put_section(&ng);
    put_interface(&ng, 1, 0, 6, 5);
    put_enhanced(&ng, 0, 1, 9, 9, true);
    put_enhanced(&ng, 0, 1, 9, 9, false);
    seen.cut = 0;
    guard_every_truncation(one_truncation, &seen, ng.octets, ng.len);
    CHECK(seen.cut > 100);
}

/* Memory is given num_loops times; a capture without frames ends at once. */
static void test_loops(void)
{
    struct file_bytes file = {0};
    put_pcap_header(&file, 0xa1b2c3d4, 1);
    put_pcap_record(&file, 1, 1, 30, 30);
    put_pcap_record(&file, 1, 2, 31, 31);
    struct outcome out = read_memory(file.octets, file.len, 1000, 7);
    CHECK_EQ(out.num, 2000);
    CHECK_EQ(out.stats.received, 2000);
    CHECK_EQ(out.ended, OTUS_E_END);
    out = read_memory(file.octets, 24, UINT64_MAX, 7);
    CHECK_EQ(out.num, 0);
    CHECK_EQ(out.ended, OTUS_E_END);
}

/* The filter is run over each frame; what it refuses is not received. */
static void test_filter(void)
{
    struct file_bytes file = {0};
    put_pcap_header(&file, 0xa1b2c3d4, 1);
    for (uint32_t i = 0; i < 40; i++)
        put_pcap_record(&file, i, 0, 20 + i, 20 + i);
    /* ld len; jge #50, accept, refuse */
    static const struct otus_bpf_insn program[] = {
        {0x80, 0, 0, 0}, {0x35, 0, 1, 50}, {0x06, 0, 0, 65535}, {0x06, 0, 0, 0}};
    struct otus_file_config config = {
        .fd = file_with(file.octets, file.len), .filter = program, .filter_len = 4};
    struct outcome out = read_fd(config, 4);
    CHECK_EQ(out.ended, OTUS_E_END);
    CHECK_EQ(out.num, 10);
    CHECK_EQ(out.stats.received, 10);
    CHECK_EQ(out.frames[0].caplen, 50);
    config.fd = file_with(file.octets, file.len);
    config.filter_len = 2;
    out = read_fd(config, 4);
    CHECK_EQ(out.opened, OTUS_E_INVALID);
    CHECK_TEXT(out.error, strlen(out.error), "BPF instruction 1 (code 0x35): jump past the end");
}

/* What can't be opened says why. */
static void test_open_errors(void)
{
    struct otus_file_config config = {.fd = -1};
    struct outcome out = read_fd(config, 1);
    CHECK_EQ(out.opened, OTUS_E_SYSTEM);
    CHECK_TEXT(out.error, strlen(out.error), "can't read the descriptor: Bad file descriptor");
    config.fd = pipe_with((const uint8_t *)"", 0);
    config.timing = OTUS_TIMING_PACED;
    out = read_fd(config, 1);
    CHECK_EQ(out.opened, OTUS_E_INVALID);
    CHECK_TEXT(out.error, strlen(out.error), "speed must be a number above 0");
}

int main(void)
{
    test_pcap_variants();
    test_pcap_modified();
    test_pcap_before_2_4();
    test_pcapng();
    test_malformed();
    test_malformed_blocks();
    test_large_unknown_block();
    test_truncated();
    test_loops();
    test_filter();
    test_open_errors();
    return check_summary();
}
