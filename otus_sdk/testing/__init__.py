"""A kit that checks a plugin against the contracts, for the plugin's own tests.

    from otus_sdk.testing import PluginConformance
    from my_package.stun import FACTORY

    class TestStun(PluginConformance):
        factory = FACTORY

Installed with `otus-sdk`, pytest also gets the fixtures `sample_packets` and
`sample_records` (entry point `pytest11`).
"""

from otus_sdk.host import PacketList, RecordList
from otus_sdk.testing.conformance import PluginConformance
from otus_sdk.testing.samples import (
    make_packet,
    make_record,
    sample_packets,
    sample_records,
)

__all__ = [
    "PacketList",
    "PluginConformance",
    "RecordList",
    "make_packet",
    "make_record",
    "sample_packets",
    "sample_records",
]
