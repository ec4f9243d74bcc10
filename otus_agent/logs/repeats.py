"""Libraries that say the same thing over and over: said once a minute, and counted.

Behind a broker that is gone, aiokafka tells of each of its attempts: a hundred lines a
second, that would turn every other line out of the files within hours.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

INTERVAL_S = 60.0
_MAX_TEXTS = 256


class Repeats:
    """Which lines are news. For any thread.

    Attributes:
        total: Lines that were not.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self._clock = clock
        self._lock = threading.Lock()
        # When each line was told last, and how often it came since; the oldest goes.
        self._told: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def since_told(self, logger: str, text: str) -> int | None:
        """How often the line came since it was told last, if it is to be told now; else None."""
        now, key = self._clock(), (logger, text)
        with self._lock:
            told_at, count = self._told.get(key, (now - INTERVAL_S, 0))
            if now - told_at < INTERVAL_S:
                self._told[key] = told_at, count + 1
                self.total += 1
                return None
            self._told[key] = now, 0
            self._told.move_to_end(key)
            if len(self._told) > _MAX_TEXTS:
                self._told.popitem(last=False)
            return count
