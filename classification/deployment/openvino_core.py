"""The one OpenVINO core of this process."""

from __future__ import annotations

from functools import cache

import openvino as ov


@cache
def openvino_core() -> ov.Core:
    """Return the core that everything here reads and compiles models with; it is never destroyed.

    The first model that a core compiles on the CPU gives the calling thread a stack of its own for
    signal handlers. OpenVINO 2026.4 puts the former one back when the core goes. Where two cores
    overlap and the older goes first, that one is freed memory, and the next signal (Ctrl-C, or a
    loader process that ends) kills the program with a segmentation fault.
    """
    return ov.Core()
