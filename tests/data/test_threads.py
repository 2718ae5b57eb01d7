"""Decoding ahead: order, limits, errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from classification.data.threads import decode_ahead


def test_decode_ahead_keeps_the_order_and_its_limits() -> None:
    waiting: set[int] = set()
    most = [0]

    def items() -> Iterator[int]:
        for i in range(50):
            waiting.add(i)
            most[0] = max(most[0], len(waiting))
            yield i

    found = []
    for i in decode_ahead(lambda i: i, items(), 5, num_threads=3):
        waiting.remove(i)
        found.append(i)
    assert found == list(range(50)) and most == [6]
    most[0] = 0
    sizes = decode_ahead(lambda i: i, items(), num_bytes=lambda i: 10, most_bytes=45, num_threads=1)
    for i in sizes:
        waiting.remove(i)
    assert most == [5]  # the fifth is more than 45 bytes
    with pytest.raises(ZeroDivisionError):
        list(decode_ahead(lambda i: 1 // i, [2, 1, 0]))
