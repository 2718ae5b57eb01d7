"""The flag of what float layers are computed in; apart, since the service has no templates."""

from __future__ import annotations

import argparse

from classification.deployment.backends import PRECISION_HINTS


def add_precision_hint_flag(parser: argparse.ArgumentParser) -> None:
    """Add --precision-hint."""
    parser.add_argument(
        "--precision-hint",
        choices=PRECISION_HINTS,
        default="f32",
        help="what float layers of an IR or ONNX file are computed in, where the CPU can; bf16 and "
        "f16 are faster and answer slightly otherwise (default: f32)",
    )
