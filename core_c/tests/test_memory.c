/* The whole core with an allocator that can be told to fail: linked with --wrap
 * (see the Makefile), so that every allocation of the core comes through here. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "otus/pipeline.h"
#include "sip_sample.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t num, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t num, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void __wrap_free(void *memory);
void *__real_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t len);
void *__wrap_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t len);

static long allocations_left = -1; /* before one fails; negative: none does */
static long num_allocations;
static long num_live;

static void *counted(void *memory)
{
    num_live += memory != NULL;
    return memory;
}

static bool may_allocate(void)
{
    num_allocations++;
    return allocations_left < 0 || allocations_left-- > 0;
}

void *__wrap_malloc(size_t size)
{
    return may_allocate() ? counted(__real_malloc(size)) : NULL;
}

void *__wrap_calloc(size_t num, size_t size)
{
    return may_allocate() ? counted(__real_calloc(num, size)) : NULL;
}

void *__wrap_realloc(void *memory, size_t size)
{
    num_live -= memory != NULL;
    return may_allocate() ? counted(__real_realloc(memory, size)) : NULL;
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return may_allocate() ? counted(__real_aligned_alloc(alignment, size)) : NULL;
}

void __wrap_free(void *memory)
{
    num_live -= memory != NULL;
    __real_free(memory);
}

void *__wrap_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    void *memory = MAP_FAILED;
    if (may_allocate())
        memory = __real_mmap(at, len, protection, flags, fd, offset);
    num_live += memory != MAP_FAILED;
    return memory;
}

int __wrap_munmap(void *at, size_t len)
{
    num_live--;
    return __real_munmap(at, len);
}

enum { MAX_FILE = 1 << 20 };

static uint8_t file[MAX_FILE];
static size_t file_len;
static uint32_t num_frames;

static void put(const void *octets, size_t len)
{
    if (len != 0)
        memcpy(file + file_len, octets, len);
    file_len += len;
}

static void put_be16(uint32_t value)
{
    put((const uint8_t[]){(uint8_t)(value >> 8), (uint8_t)value}, 2);
}

/* One frame of Ethernet and IPv4 around a transport header and what it carries. */
static void put_frame(uint16_t id, uint16_t place, uint8_t protocol, const void *header,
                      uint32_t header_len, const void *payload, uint32_t payload_len)
{
    uint32_t len = 34 + header_len + payload_len;
    const uint32_t record[4] = {1700000000, num_frames++, len, len};
    put(record, sizeof record); /* the magic number is in this machine's order, too */
    put("\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0\x45\0", 16);
    put_be16(len - 14);
    put_be16(id);
    put_be16(place);
    put((const uint8_t[]){64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}, 12);
    put(header, header_len);
    put(payload, payload_len);
}

static void put_udp(const void *payload, uint32_t len)
{
    uint32_t udp_len = len + 8;
    put_frame(
        0, 0, 17,
        (const uint8_t[]){0x13, 0xc4, 0x13, 0xc4, (uint8_t)(udp_len >> 8), (uint8_t)udp_len, 0, 0},
        8, payload, len);
}

static void put_tcp(uint32_t seq, const void *payload, uint32_t len)
{
    uint8_t tcp[20] = {0x13, 0xc4, 0x13, 0xc4, [12] = 0x50, [13] = 0x10};
    for (int i = 0; i < 4; i++)
        tcp[4 + i] = (uint8_t)(seq >> (24 - 8 * i));
    put_frame(0, 0, 6, tcp, sizeof tcp, payload, len);
}

/* SIP with SDP whole, in fragments, and in TCP segments out of order; fragments
 * without an end; noise. */
static void make_file(void)
{
    static const char invite[] = SAMPLE_INVITE;
    const uint32_t header[6] = {0xa1b2c3d4, 0x00040002, 0, 0, 65535, 1};
    uint8_t datagram[2048] = {0x13, 0xc4, 0x13, 0xc4};
    uint32_t len = (uint32_t)strlen(invite);
    put(header, sizeof header);
    datagram[4] = (uint8_t)((len + 8) >> 8);
    datagram[5] = (uint8_t)(len + 8);
    memcpy(datagram + 8, invite, len);
    for (uint32_t i = 0; i < 100; i++) {
        put_udp(invite, len);
        put_udp("noise", 5);
        put_frame((uint16_t)i, 0x2000, 17, datagram, 400, NULL, 0);
        put_frame((uint16_t)i, 50, 17, datagram + 400, len + 8 - 400, NULL, 0);
        put_frame((uint16_t)(i + 1000), 0x2000, 17, datagram, 400, NULL, 0);
        put_tcp(1 + len * i, invite, 100);
        put_tcp(1 + len * i + 200, invite + 200, len - 200);
        put_tcp(1 + len * i + 100, invite + 100, 100);
    }
}

static int open_file(void)
{
    int fd = memfd_create("capture", MFD_CLOEXEC);
    if (fd < 0 || write(fd, file, file_len) != (ssize_t)file_len || lseek(fd, 0, SEEK_SET) != 0)
        abort();
    return fd;
}

static const struct otus_stage stages[] = {{.kind = OTUS_STAGE_PARSE_SIP},
                                           {.kind = OTUS_STAGE_PARSE_RTP}};

struct core {
    struct otus_flow_registry *flows;
    struct otus_capture *capture;
    struct otus_pipeline *pipeline;
};

static enum otus_status open_core(struct core *core)
{
    static const struct otus_bpf_insn take_all = {0x06, 0, 0, 0xffffffff};
    char message[256] = "";
    struct otus_file_config config = {.fd = open_file(), .filter = &take_all, .filter_len = 1};
    struct otus_pipeline_config pipeline = {
        .envelope = {.task_id = "t", .agent_id = "a", .pipeline_id = "p"},
        .stages = stages,
        .num_stages = 2,
        .outputs = OTUS_OUTPUT_JSON | OTUS_OUTPUT_PROTOBUF | OTUS_OUTPUT_FRAME,
        .exact_filter = &take_all,
        .exact_filter_len = 1,
    };
    *core = (struct core){0};
    otus_decoder_config_init(&pipeline.decoder);
    otus_stream_config_init(&pipeline.streams);
    pipeline.streams.ports[0] = 5060;
    pipeline.streams.num_ports = 1;
    enum otus_status status = otus_flow_registry_new(&core->flows, 1024, 60000);
    if (status != OTUS_OK) {
        close(config.fd);
        return status;
    }
    pipeline.flows = core->flows;
    status = otus_capture_open_file(&core->capture, message, sizeof message, &config);
    if (status != OTUS_OK) {
        CHECK(strstr(message, "memory") != NULL);
        return status;
    }
    return otus_pipeline_open(&core->pipeline, core->capture, &pipeline);
}

static void close_core(struct core *core)
{
    otus_pipeline_close(core->pipeline); /* the capture is the pipeline's, also where it failed */
    otus_flow_registry_free(core->flows);
}

static void test_every_failing_allocation_at_open(void)
{
    check_about = "whichever allocation fails, opening says so and gives back what it had";
    long needed = 0;
    for (;; needed++) {
        struct core core;
        allocations_left = needed;
        enum otus_status status = open_core(&core);
        allocations_left = -1;
        close_core(&core);
        CHECK_EQ(num_live, 0);
        if (status == OTUS_OK)
            break;
        CHECK_EQ(status, OTUS_E_NOMEM);
    }
    CHECK(needed > 20);
}

static void test_no_allocation_while_it_runs(void)
{
    check_about = "from the file's first frame to the last record nothing is allocated";
    struct core core;
    CHECK_EQ(open_core(&core), OTUS_OK);
    const long before = num_allocations;
    enum otus_status status = OTUS_OK;
    uint32_t next;
    while (status == OTUS_OK)
        status = otus_pipeline_poll(core.pipeline, &next, 0);
    CHECK_EQ(num_allocations, before);
    CHECK_EQ(status, OTUS_E_END);
    uint64_t counters[OTUS_NUM_COUNTERS];
    otus_pipeline_get_counters(core.pipeline, counters);
    CHECK_EQ(counters[OTUS_COUNT_PARSED_SIP], 300);
    CHECK_EQ(counters[OTUS_COUNT_EMITTED], 300);
    CHECK_EQ(counters[OTUS_COUNT_REASSEMBLED], 100);
    CHECK_EQ(counters[OTUS_COUNT_FRAGMENT_TIMEOUT], 100);
    CHECK_EQ(counters[OTUS_COUNT_MESSAGE], 100);
    close_core(&core);
    CHECK_EQ(num_live, 0);
}

int main(void)
{
    make_file();
    test_every_failing_allocation_at_open();
    test_no_allocation_while_it_runs();
    return check_summary();
}
