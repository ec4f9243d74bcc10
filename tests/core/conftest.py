"""What the tests of the core share."""

from __future__ import annotations

import pytest

from decode_dumping import DecodeDump, build_decode_dump
from sip_dumping import SipDump, build_sip_dump


@pytest.fixture(scope="session")
def sip_dump(tmp_path_factory: pytest.TempPathFactory) -> SipDump:
    """The SIP parser as this machine runs it."""
    return build_sip_dump(tmp_path_factory.mktemp("sip_dump"))


@pytest.fixture(scope="session")
def sip_dump_portable(tmp_path_factory: pytest.TempPathFactory) -> SipDump:
    """The same parser without vector instructions."""
    return build_sip_dump(tmp_path_factory.mktemp("sip_dump_portable"), "-DOTUS_PORTABLE")


@pytest.fixture(scope="session")
def decode_dump(tmp_path_factory: pytest.TempPathFactory) -> DecodeDump:
    """The frame decoder with every tunnel followed."""
    return build_decode_dump(tmp_path_factory.mktemp("decode_dump"))
