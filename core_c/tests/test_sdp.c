/* Session descriptions: what of them says where media flow. */
#include "otus/sdp.h"

#include <stddef.h>

#include "check.h"
#include "guard.h"

static struct otus_sdp sdp;

/* Malformed is said only of what holds nothing that could be read. */
static void parse_octets(const uint8_t *octets, uint32_t len)
{
    if (otus_sdp_parse(&sdp, octets, (struct otus_span){0, len}) != OTUS_OK)
        CHECK(sdp.bad && sdp.num_media == 0);
}

static void parse(const char *text)
{
    parse_octets((const uint8_t *)text, (uint32_t)strlen(text));
}

#define CHECK_SPAN(text, span, want) CHECK_TEXT((text) + (span).off, (span).len, want)

/* An offer as a browser makes it: everything that is read, in one description. */
static void test_webrtc(void)
{
    static const char text[] = "v=0\r\n"
                               "o=- 4611731400430051336 2 IN IP4 127.0.0.1\r\n"
                               "s=-\r\n"
                               "t=0 0\r\n"
                               "a=group:BUNDLE 0 v1\r\n"
                               "a=sendonly\r\n"
                               "m=audio 54400 UDP/TLS/RTP/SAVPF 111 0 8\r\n"
                               "c=IN IP4 203.0.113.5\r\n"
                               "a=rtcp:9 IN IP4 0.0.0.0\r\n"
                               "a=candidate:1 1 UDP 2122 10.0.0.1 54400 typ host\r\n"
                               "a=candidate:2 1 UDP 1686 203.0.113.5 54400 typ srflx\r\n"
                               "a=mid:0\r\n"
                               "a=recvonly\r\n"
                               "a=rtcp-mux\r\n"
                               "a=rtpmap:111 opus/48000/2\r\n"
                               "m=video 54402/2 UDP/TLS/RTP/SAVPF 96\r\n"
                               "c=IN IP6 2001:db8::5\r\n"
                               "a=candidate:3 1 UDP 1 10.0.0.1 1 typ host\r\n"
                               "a=mid:v1\r\n"
                               "a=rtpmap:96 VP8/90000\r\n"
                               "a=rtcp:54500 IN IP6 2001:db8::6\r\n"
                               "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
                               "c=IN IP4 0.0.0.0\r\n"
                               "a=inactive\r\n";
    parse(text);
    CHECK(!sdp.bad);
    CHECK(!sdp.truncated);
    CHECK_SPAN(text, sdp.origin, "- 4611731400430051336 2 IN IP4 127.0.0.1");
    CHECK_SPAN(text, sdp.session_name, "-");
    CHECK_SPAN(text, sdp.bundle, "0 v1");
    CHECK_EQ(sdp.address.len, 0);
    CHECK_EQ(sdp.num_media, 3);
    const struct otus_sdp_media *audio = &sdp.media[0];
    CHECK_SPAN(text, audio->media, "audio");
    CHECK_SPAN(text, audio->protocol, "UDP/TLS/RTP/SAVPF");
    CHECK_SPAN(text, audio->address, "203.0.113.5");
    CHECK_SPAN(text, audio->rtcp_address, "0.0.0.0");
    CHECK_SPAN(text, audio->mid, "0");
    CHECK_EQ(audio->port, 54400);
    CHECK_EQ(audio->num_ports, 1);
    CHECK(audio->rtcp_mux);
    CHECK_EQ(audio->rtcp_port, 54400);
    CHECK_EQ(audio->direction, OTUS_SDP_RECVONLY);
    CHECK_EQ(audio->num_codecs, 3);
    CHECK_EQ(sdp.codecs[audio->first_codec].payload_type, 111);
    CHECK_SPAN(text, sdp.codecs[audio->first_codec].encoding, "opus/48000/2");
    CHECK_EQ(sdp.codecs[audio->first_codec + 1].encoding.len, 0);
    CHECK_EQ(audio->num_candidates, 2);
    CHECK_SPAN(text, sdp.candidates[audio->first_candidate + 1],
               "2 1 UDP 1686 203.0.113.5 54400 typ srflx");
    const struct otus_sdp_media *video = &sdp.media[1];
    CHECK_SPAN(text, video->address, "2001:db8::5");
    CHECK_SPAN(text, video->rtcp_address, "2001:db8::6");
    CHECK_EQ(video->rtcp_port, 54500);
    CHECK_EQ(video->num_ports, 2);
    CHECK_EQ(video->direction, OTUS_SDP_SENDONLY); /* the session's */
    CHECK_EQ(video->num_candidates, 1);
    CHECK_SPAN(text, sdp.codecs[video->first_codec].encoding, "VP8/90000");
    CHECK_EQ(sdp.media[2].num_codecs, 0);
    CHECK_EQ(sdp.media[2].direction, OTUS_SDP_INACTIVE);
}

/* LF alone, a session address with TTL, trailing empty lines, port 0. */
static void test_plain(void)
{
    static const char text[] = "v=0\no=a\ns=\nc=IN IP4 224.2.17.12/127/3\nt=0 0\n"
                               "m=audio 0 RTP/AVP 0\nm=audio 65535 RTP/AVP 0\n"
                               "c=IN IP4  192.0.2.1\n\n\n";
    parse(text);
    CHECK(!sdp.bad);
    CHECK_SPAN(text, sdp.address, "224.2.17.12");
    CHECK_SPAN(text, sdp.media[0].address, "224.2.17.12");
    CHECK_SPAN(text, sdp.media[1].address, "192.0.2.1");
    CHECK_EQ(sdp.media[0].rtcp_port, 0);
    CHECK_EQ(sdp.media[1].rtcp_port, 0);
    CHECK_EQ(sdp.media[1].direction, OTUS_SDP_SENDRECV);
}

/* White space at the end of a line is no part of an attribute, a format or an address. */
static void test_trailing_space(void)
{
    static const char text[] = "v=0 \r\ns= \r\nc=IN IP4 192.0.2.1 \r\nm=audio 4000 RTP/AVP 0 8 \r\n"
                               "a=rtpmap:8 PCMA/8000\t\r\na=sendonly \r\na=rtcp-mux\r\r\n";
    parse(text);
    CHECK(!sdp.bad);
    CHECK_SPAN(text, sdp.session_name, " ");
    CHECK_SPAN(text, sdp.address, "192.0.2.1");
    CHECK_EQ(sdp.num_codecs, 2);
    CHECK_SPAN(text, sdp.codecs[1].encoding, "PCMA/8000");
    CHECK_EQ(sdp.media[0].direction, OTUS_SDP_SENDONLY);
    CHECK(sdp.media[0].rtcp_mux);
}

/* Lines that can't be read are told, and those around them are read. */
static void test_bad(void)
{
    static const char *const lines[] = {
        "nonsense\r\n",
        "=\r\n",
        "M=audio 1 RTP/AVP 0\r\n",
        "c=IN IP4\r\n",
        "m=audio\r\n",
        "m=audio 65536 RTP/AVP 0\r\n",
        "m=audio -1 RTP/AVP 0\r\n",
        "m=audio 5000/0 RTP/AVP 0\r\n",
        "m=audio 5000/x RTP/AVP 0\r\n",
        "m=audio 5000 RTP/AVP\r\n",
        "m=audio 5000 RTP/AVP 128\r\n",
        "a=\r\n",
        "a=rtpmap:x y\r\n",
        "a=rtpmap:0\r\n",
        "a=rtcp:65536\r\n",
        "a=rtcp:1 IN\r\n",
        "\r\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "v=0\r\nc=IN IP4 192.0.2.1\r\nm=video 1000 RTP/AVP 31\r\n%sa=mid:x\r\n"
                 "m=audio 4000 RTP/AVP 0\r\n",
                 lines[i]);
        check_about = lines[i];
        parse(text);
        CHECK(sdp.bad);
        CHECK(sdp.num_media >= 2);
        CHECK_EQ(sdp.media[sdp.num_media - 1].port, 4000);
    }
    check_about = "";
    parse("o=a\r\nv=0\r\n");
    CHECK(sdp.bad); /* v= is not the first */
    parse("\n=x\r\n");
    CHECK(sdp.bad); /* nor is it here, and nothing in front of the octets is looked at */
    parse("v=0\r\nm=audio 4000 RTP/AVP 0\r\n");
    CHECK(sdp.bad); /* no address at all */
}

/* More media, codecs and candidates than are kept: told, and never past the arrays. */
static void test_limits(void)
{
    static char text[65536];
    size_t len = (size_t)snprintf(text, sizeof text, "v=0\nc=IN IP4 192.0.2.1\n");
    for (int i = 0; i < OTUS_SDP_MAX_MEDIA + 3; i++)
        len += (size_t)snprintf(text + len, sizeof text - len,
                                "m=audio %d RTP/AVP 0 1 2 3 4 5\na=candidate:1\na=candidate:2\n"
                                "a=candidate:3\na=candidate:4\na=candidate:5\nc=IN IP4 192.0.2.9\n"
                                "a=mid:m\na=rtcp:1\na=rtcp-mux\na=inactive\na=rtpmap:0 x\n",
                                1000 + i);
    parse(text);
    CHECK(sdp.truncated);
    CHECK(!sdp.bad);
    CHECK_EQ(sdp.num_media, OTUS_SDP_MAX_MEDIA);
    CHECK_EQ(sdp.num_codecs, OTUS_SDP_MAX_CODECS);
    CHECK_EQ(sdp.num_candidates, OTUS_SDP_MAX_CANDIDATES);
    CHECK_EQ(sdp.media[OTUS_SDP_MAX_MEDIA - 1].port, 1000 + OTUS_SDP_MAX_MEDIA - 1);
    CHECK_SPAN(text, sdp.address, "192.0.2.1"); /* not that of media that found no room */
}

/* The body's own octets alone are read, also where they lie in the middle of others. */
static void test_inside(void)
{
    static const char text[] = "XXv=0\nm=audio 40001 RTP/AVP 0\n";
    CHECK(otus_sdp_parse(&sdp, (const uint8_t *)text, (struct otus_span){2, 16}) == OTUS_OK);
    CHECK_EQ(sdp.media[0].port, 4000);
    CHECK(otus_sdp_parse(&sdp, (const uint8_t *)text, (struct otus_span){0, 0}) == OTUS_OK);
    CHECK_EQ(sdp.num_media, 0);
    CHECK(otus_sdp_parse(&sdp, (const uint8_t *)"hello", (struct otus_span){0, 5}) ==
          OTUS_E_MALFORMED);
}

/* RFC 3551 section 6, its reserved and unassigned numbers left out. */
static void test_static_encodings(void)
{
    CHECK(strcmp(otus_sdp_static_encoding(0), "PCMU/8000") == 0);
    CHECK(strcmp(otus_sdp_static_encoding(10), "L16/44100/2") == 0);
    CHECK(strcmp(otus_sdp_static_encoding(34), "H263/90000") == 0);
    CHECK(otus_sdp_static_encoding(2) == NULL);
    CHECK(otus_sdp_static_encoding(35) == NULL);
    CHECK(otus_sdp_static_encoding(255) == NULL);
}

/* The same lines with CRLF, which are mostly read by a shorter way, and with a space and LF, which
 * never are, say the same of the same octets. */
static void test_ways(void)
{
    static const char *const lines[] = {
        "o=- 1 1 IN IP4 192.0.2.1",
        "t=0 0",
        "T=0 0",
        "c=IN IP4 192.0.2.1",
        "c=IN IP4 224.2.1.1/127 x",
        "c=IN IP4  192.0.2.1",
        "c=IN IP4",
        "c=IN IP6 2001:db8::1",
        "m=audio 4000 RTP/AVP 8 0 101",
        "m=audio 4000 RTP/AVP 0 0 96 8 96",
        "m=audio 65535 RTP/AVP 0",
        "m=audio 65536 RTP/AVP 0",
        "m=audio 0004000 RTP/AVP 0008 127 128 8",
        "m=audio 42949676295 RTP/AVP 4294967304",
        "m=audio 4000/2 RTP/AVP 8",
        "m=audio  4000 RTP/AVP 8",
        "m=audio 4000  RTP/AVP 8",
        "m=audio 4000 RTP/AVP  8",
        "m=audio 4000 RTP/AVP 8  0 x8 8x 0",
        "m=audio 4000 RTP/AVP 8x 0",
        "m=audio 4000 RTP/AVP",
        "m=audio 4000",
        "m=audio",
        "m= 4000 RTP/AVP 8",
        "m=au,dio 4000 RTP;AVP 8",
        "m=au,4000 RTP/AVP 8",
        "m=audio 4000 RTP/AVP\t8",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:008 PCMA/8000",
        "a=rtpmap:0008 PCMA/8000",
        "a=rtpmap:8 x/1 y",
        "a=rtpmap:8  x/2",
        "a=rtpmap:8 x,y/3",
        "a=rtpmap:128 x",
        "a=rtpmap:8",
        "a=rtpmap: 8",
        "a=rtpmap:",
        "a=rtpmap",
        "a=sendonly",
        "a=rtcp-mux",
        "a=mid:0",
        "a=",
        "=",
        "a",
    };
    enum { NUM_LINES = sizeof lines / sizeof lines[0], NUM_ROUNDS = 5000, IN_ONE = 12 };
    static struct otus_sdp usual;
    uint32_t state = 1;
    for (int round = 0; round < NUM_ROUNDS; round++) {
        char text[2048] = "v=0\r\n";
        size_t len = strlen(text);
        for (int i = 0; i < IN_ONE; i++) {
            state = state * 1664525 + 1013904223;
            len += (size_t)snprintf(text + len, sizeof text - len, "%s\r\n",
                                    lines[(state >> 8) % NUM_LINES]);
        }
        check_about = text;
        parse(text);
        usual = sdp;
        for (size_t i = 0; i < len; i++)
            if (text[i] == '\r')
                text[i] = ' ';
        parse(text);
        CHECK(memcmp(&sdp, &usual, offsetof(struct otus_sdp, media)) == 0);
        CHECK(memcmp(sdp.media, usual.media, sdp.num_media * sizeof sdp.media[0]) == 0);
        for (uint32_t i = 0; i < sdp.num_codecs; i++) {
            CHECK_EQ(sdp.codecs[i].payload_type, usual.codecs[i].payload_type);
            CHECK_EQ(sdp.codecs[i].encoding.off, usual.codecs[i].encoding.off);
            CHECK_EQ(sdp.codecs[i].encoding.len, usual.codecs[i].encoding.len);
        }
    }
    check_about = "";
}

static void parse_truncated(void *context, const uint8_t *octets, size_t len)
{
    (void)context;
    parse_octets(octets, (uint32_t)len);
    for (uint32_t i = 0; i < sdp.num_media; i++)
        CHECK(sdp.media[i].address.off + sdp.media[i].address.len <= len);
}

static void test_truncations(void)
{
    static const char text[] =
        "v=0\r\nc=IN IP4 1/2\r\nm=a 1/2 b 0 x\r\na=rtpmap:0 y\r\na=rtcp:1 IN "
        "IP4 x\r\na=rtcp-mux\r\na=mid:q\r\na=candidate:z\r\na=sendonly\r\n";
    guard_every_truncation(parse_truncated, NULL, text, sizeof text - 1);
}

int main(void)
{
    test_webrtc();
    test_plain();
    test_trailing_space();
    test_bad();
    test_limits();
    test_ways();
    test_inside();
    test_static_encodings();
    test_truncations();
    return check_summary();
}
