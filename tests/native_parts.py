"""The core's encoders and filters as a small library of their own, for differential tests.

They are compiled from the sources as they are.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import cffi

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "core_c"
# Patterns, so that a file which an encoder is split into comes along by itself.
SOURCES = ("text.c", "labels.c", "json_string.c", "encode*.c", "filter*.c")

CDEF = """
struct otus_span { uint32_t off; uint32_t len; };
struct otus_slice { const uint8_t *at; uint32_t len; };
struct otus_arena { uint8_t *base; uint32_t used; uint32_t size; };
struct otus_packet_meta {
    uint64_t ts_ns; uint32_t caplen; uint32_t wirelen; uint32_t if_index; uint32_t flags;
    uint32_t ip_total_len; uint32_t tcp_seq; uint32_t tcp_ack;
    uint16_t ethertype; uint16_t src_port; uint16_t dst_port; uint16_t vlans[8];
    uint8_t num_vlans; uint8_t num_tunnels; uint8_t ip_version; uint8_t protocol; uint8_t ttl;
    uint8_t tcp_flags; uint8_t src_mac[6]; uint8_t dst_mac[6]; uint8_t src_ip[16];
    uint8_t dst_ip[16]; uint8_t reserved[4];
};
struct otus_tunnel {
    uint8_t kind; uint8_t ip_version; uint16_t flags; uint32_t key; uint16_t src_port;
    uint16_t dst_port; uint8_t version; uint8_t reserved[3]; uint8_t src_ip[16];
    uint8_t dst_ip[16];
};
struct otus_label { uint32_t id; uint32_t off; uint32_t len; };
struct otus_label_set {
    const uint8_t *octets; uint64_t present[2]; uint32_t num; bool incomplete;
    struct otus_label label[128];
};
void otus_label_put(struct otus_label_set *set, uint32_t id, struct otus_slice value);
struct otus_filter_input {
    const struct otus_packet_meta *meta; const struct otus_tunnel *tunnels;
    const struct otus_label_set *labels; struct otus_slice payload_type;
};
struct otus_filter;
int otus_filter_load(struct otus_filter **out_filter, char *message, size_t message_len,
                     const uint8_t *program, size_t len);
void otus_filter_free(struct otus_filter *filter);
bool otus_filter_run(const struct otus_filter *filter, const struct otus_filter_input *input);
"""


@functools.cache
def library(*flags: str) -> tuple[Any, Any]:
    """Builds and opens it: `(ffi, lib)`. Once a session for each set of flags."""
    folder = Path(tempfile.mkdtemp(prefix="otus-native-parts-"))
    target = folder / "parts.so"
    sources = [path for pattern in SOURCES for path in sorted((CORE / "src").glob(pattern))]
    subprocess.run(
        [
            *shlex.split(os.environ.get("CC") or "cc"), "-std=c11", "-O1", "-fPIC", "-shared",
            "-Wl,-z,defs", "-D_GNU_SOURCE", *flags, f"-I{CORE / 'include'}", f"-I{CORE / 'src'}",
            "-o", target, *sources,
        ],
        check=True,
        timeout=300,
    )  # fmt: skip
    ffi = cffi.FFI()
    ffi.cdef(CDEF)
    return ffi, ffi.dlopen(str(target))
