"""Small ICC profiles of RGB and grey, made from primaries and a curve (ICC.1:2001-04).

For tests and benchmarks: profiles of others are not committed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

# CIE xy of red, green and blue, all with the white of D65.
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
ADOBE_GAMMA = 563 / 256
_D65, _D50 = (0.3127, 0.3290), (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367],
                      [0.0389, -0.0685, 1.0296]])  # fmt: skip


def to_xyz(primaries: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return what makes XYZ (D65) of linear red, green and blue, [3, 3]."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([_D65[0] / _D65[1], 1, (1 - sum(_D65)) / _D65[1]])
    return columns * np.linalg.solve(columns, white)


def srgb_curve(encoded: np.ndarray) -> np.ndarray:
    """Return light of 0..1 from sRGB values of 0..1 (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def rgb_profile(
    primaries: Sequence[tuple[float, float]], gamma: float | None = None, name: str = "made"
) -> bytes:
    """Return a display profile; without a gamma it has sRGB's curve, as a table."""
    white = to_xyz(primaries) @ np.ones(3)
    gains = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    columns = (np.linalg.inv(_BRADFORD) @ gains @ _BRADFORD @ to_xyz(primaries)).T
    tags = {f"{band}XYZ": _xyz(column) for band, column in zip("rgb", columns, strict=True)}
    tags |= {f"{band}TRC": _curve(gamma) for band in "rgb"}
    return make_profile(b"RGB ", tags, name)


def grey_profile(gamma: float | None = None) -> bytes:
    """Return a display profile of one channel."""
    return make_profile(b"GRAY", {"kTRC": _curve(gamma)}, "made")


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"curv" + struct.pack(">4xIH", 1, round(gamma * 256))
    table = np.round(srgb_curve(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
    return b"curv" + struct.pack(">4xI", len(table)) + table.tobytes()


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + struct.pack(">4x3i", *(round(value * 65536) for value in values))


def make_profile(
    space: bytes,
    tags: dict[str, bytes],
    name: str,
    *,
    kind: bytes = b"mntr",
    connection: bytes = b"XYZ ",
) -> bytes:
    """Return a profile of a kind of device with its colours' and the connecting space."""
    text = name.encode() + b"\0"
    tags = {
        "desc": b"desc" + struct.pack(">4xI", len(text)) + text + bytes(78),
        "cprt": b"text" + bytes(4) + b"public domain\0",
        "wtpt": _xyz(_D50),
        **tags,
    }
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag.encode() + struct.pack(">II", start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(data), b"made", 0x02400000, kind, space,
                       connection)  # fmt: skip
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += struct.pack(">3i", *(round(value * 65536) for value in _D50))
    return head.ljust(128, b"\0") + table + data
