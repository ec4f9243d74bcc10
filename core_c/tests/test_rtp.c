/* RTP and RTCP headers. */
#include "otus/rtp.h"

#include "check.h"
#include "guard.h"

#define OCTETS(text) ((const uint8_t *)(text))
#define LEN(text) ((uint32_t)sizeof(text) - 1)

/* Version 2, padding, extension, one CSRC; marker, PCMU. */
static const char full_rtp[] = "\xb1\x80\x12\x34\x00\x00\x00\xa0\xde\xad\xbe\xef"
                               "\x00\x00\x00\x01"                 /* CSRC */
                               "\xbe\xde\x00\x01\x10\xaa\x00\x00" /* extension */
                               "payload\x00\x00\x03";             /* three of padding */
/* SR with no report, SDES, BYE. */
static const char compound_rtcp[] =
    "\x80\xc8\x00\x06\xde\xad\xbe\xef\x00\x00\x00\x00\x00\x00\x00\x00"
    "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    "\x81\xca\x00\x02\xde\xad\xbe\xef\x01\x01\x61\x00"
    "\x81\xcb\x00\x01\xde\xad\xbe\xef";

static void test_rtp(void)
{
    struct otus_rtp_header header;
    CHECK(otus_rtp_parse(&header, OCTETS(full_rtp), LEN(full_rtp)) == OTUS_OK);
    CHECK_EQ(header.sequence, 0x1234);
    CHECK_EQ(header.timestamp, 160);
    CHECK_EQ(header.ssrc, 0xdeadbeef);
    CHECK_EQ(header.payload_type, 0);
    CHECK(header.marker);
    CHECK_EQ(header.num_csrc, 1);
    CHECK(header.has_extension);
    CHECK_TEXT(full_rtp + header.payload.off, header.payload.len, "payload");
}

/* Padding that can't be read, as in SRTP (RFC 3711 3.1): the payload is all that is there. */
static void test_padding_that_can_not_be(void)
{
    static const struct {
        const char *at;
        uint32_t len;
        uint32_t payload_len;
    } cases[] = {
        {"\xa0\x00\x12\x34\x00\x00\x00\xa0\xde\xad\xbe\xef", 12, 0},     /* none there */
        {"\xa0\x00\x12\x34\x00\x00\x00\xa0\xde\xad\xbe\xef\x00", 13, 1}, /* of 0 octets */
        {"\xa0\x00\x12\x34\x00\x00\x00\xa0\xde\xad\xbe\xef\x02", 13, 1}, /* more than is there */
        {"\xa0\x00\x12\x34\x00\x00\x00\xa0\xde\xad\xbe\xef\x01", 13, 0}, /* that can be */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct otus_rtp_header header;
        CHECK(otus_rtp_parse(&header, OCTETS(cases[i].at), cases[i].len) == OTUS_OK);
        CHECK_EQ(header.ssrc, 0xdeadbeef);
        CHECK_EQ(header.payload.len, cases[i].payload_len);
    }
}

/* What RFC 3550 appendix A.1 refuses. */
static void test_bad_rtp(void)
{
    static const struct {
        const char *at;
        uint32_t len;
    } cases[] = {
        {"", 0},
        {"\x80\x00\x12\x34\x00\x00\x00\xa0\xde\xad\xbe", 11},
        {"\x40\x00\x12\x34\x00\x00\x00\xa0\xde\xad\xbe\xef", 12}, /* version 1 */
        {"\x81\x00\x12\x34\x00\x00\x00\xa0\xde\xad\xbe\xef", 12}, /* CSRC missing */
        {"\x90\x00\x12\x34\x00\x00\x00\xa0\xde\xad\xbe\xef\xbe\xde\x00\x01", 16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct otus_rtp_header header = {.ssrc = 1};
        CHECK(otus_rtp_parse(&header, OCTETS(cases[i].at), cases[i].len) == OTUS_E_MALFORMED);
        CHECK_EQ(header.ssrc, 1); /* untouched on failure */
    }
}

static void test_rtcp(void)
{
    struct otus_rtcp_header header;
    CHECK(otus_rtcp_parse(&header, OCTETS(compound_rtcp), LEN(compound_rtcp)) == OTUS_OK);
    CHECK_EQ(header.packet_type, 200);
    CHECK_EQ(header.ssrc, 0xdeadbeef);
    CHECK_EQ(header.count, 0);
    CHECK_EQ(header.num_packets, 3);
    /* An empty BYE names nobody. */
    CHECK(otus_rtcp_parse(&header, OCTETS("\x80\xcb\x00\x00"), 4) == OTUS_OK);
    CHECK_EQ(header.ssrc, 0);
    /* SRTCP: the second packet is not readable. */
    CHECK(otus_rtcp_parse(&header, OCTETS("\x80\xc9\x00\x01\x00\x00\x00\x07\x13\x37\xff\xff"),
                          12) == OTUS_OK);
    CHECK_EQ(header.num_packets, 1);
    CHECK_EQ(header.ssrc, 7);
    CHECK(otus_rtcp_parse(&header, OCTETS("\x80\xc9\x00\x02\x00\x00\x00\x07"), 8) ==
          OTUS_E_MALFORMED);
    CHECK(otus_rtcp_parse(&header, OCTETS("\x80\x00\x00\x00"), 4) == OTUS_E_MALFORMED);
}

/* RFC 5761: which is which on one port. */
static void test_is_rtcp(void)
{
    CHECK(otus_rtp_is_rtcp(OCTETS(compound_rtcp), LEN(compound_rtcp)));
    CHECK(!otus_rtp_is_rtcp(OCTETS(full_rtp), LEN(full_rtp)));
    CHECK(otus_rtp_is_rtcp(OCTETS("\x80\xc0\x00\x00"), 4));
    CHECK(otus_rtp_is_rtcp(OCTETS("\x80\xdf\x00\x00"), 4));
    CHECK(!otus_rtp_is_rtcp(OCTETS("\x80\xe0\x00\x00"), 4)); /* marker and payload type 96 */
    CHECK(!otus_rtp_is_rtcp(OCTETS("\x80\xc8\x00"), 3));
    CHECK(!otus_rtp_is_rtcp(OCTETS("\x40\xc8\x00\x00"), 4));
}

static void parse_truncated(void *context, const uint8_t *octets, size_t len)
{
    struct otus_rtp_header rtp;
    struct otus_rtcp_header rtcp;
    (void)context;
    if (otus_rtp_parse(&rtp, octets, (uint32_t)len) == OTUS_OK)
        CHECK(rtp.payload.off + rtp.payload.len <= len);
    if (otus_rtcp_parse(&rtcp, octets, (uint32_t)len) == OTUS_OK)
        CHECK((size_t)rtcp.num_packets * 4 <= len);
    (void)otus_rtp_is_rtcp(octets, (uint32_t)len);
}

int main(void)
{
    test_rtp();
    test_padding_that_can_not_be();
    test_bad_rtp();
    test_rtcp();
    test_is_rtcp();
    guard_every_truncation(parse_truncated, NULL, full_rtp, LEN(full_rtp));
    guard_every_truncation(parse_truncated, NULL, compound_rtcp, LEN(compound_rtcp));
    return check_summary();
}
