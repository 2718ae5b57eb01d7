"""NNCF's log, which it writes to standard output, where nothing but results belongs."""

from __future__ import annotations

import contextlib
import sys


def load_nncf() -> None:
    """Import NNCF for the first time so that its log goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        import nncf.torch  # noqa: F401 - its log takes the standard output that it finds
