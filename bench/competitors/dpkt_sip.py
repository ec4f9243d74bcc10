"""dpkt: Ethernet, IP, UDP and SIP, one Python object a layer."""

from __future__ import annotations

import sys
from pathlib import Path

import dpkt

found = 0
with Path(sys.argv[1]).open("rb") as file:
    for _, frame in dpkt.pcap.Reader(file):
        payload = dpkt.ethernet.Ethernet(frame).data.data.data
        parse = dpkt.sip.Response if payload.startswith(b"SIP/") else dpkt.sip.Request
        found += "call-id" in parse(payload).headers
print(found)
