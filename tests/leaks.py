"""Finding leaks: what grows with each round of the same work, and not only once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

ROUNDS = 6


def assert_settles(
    figures: Callable[[], Mapping[str, int]], work: Callable[[], None], **allowed: int
) -> None:
    """Does the work until nothing grows by more than is allowed; fails where each round grows.

    A busy machine has a pool take another thread, and that thread its own memory, at any
    time, but only so often; a leak is there in every round.
    """
    grown: list[dict[str, int]] = []
    for _ in range(ROUNDS):
        before = figures()
        work()
        after = figures()
        grown.append({name: after[name] - before[name] for name in allowed})
        if all(grown[-1][name] <= most for name, most in allowed.items()):
            return
    raise AssertionError(f"each round grows by more than {allowed}: {grown}")
