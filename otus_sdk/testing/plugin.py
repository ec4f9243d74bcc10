"""The pytest plugin of the conformance kit (entry point `pytest11`)."""

from __future__ import annotations

import pytest

from otus_sdk.model import DecodedPacket, OutputPacket

# The checks are plain asserts; pytest explains them like a test module's own.
pytest.register_assert_rewrite("otus_sdk.testing.conformance")


@pytest.fixture(name="sample_packets")
def _sample_packets() -> list[DecodedPacket]:
    """Decoded packets: SIP, RTP, STUN, DNS, and what no parser should fall over."""
    from otus_sdk.testing.samples import sample_packets

    return sample_packets()


@pytest.fixture(name="sample_records")
def _sample_records() -> list[OutputPacket]:
    """Records of every payload type, odd text in some."""
    from otus_sdk.testing.samples import sample_records

    return sample_records()
