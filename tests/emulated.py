"""Tests that run emulated, for a processor that the machine has not."""

from __future__ import annotations

import os

import pytest

starts_python = pytest.mark.skipif(
    "OTUS_EMULATED" in os.environ, reason="the machine can't start the emulated Python by itself"
)
