"""Starting one process a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from classification.errors import UserError


def processes_to_start(gpu_num: int) -> int:
    """Return how many processes `--gpu-num` asks for, at most one a GPU; 1 under torchrun."""
    if "WORLD_SIZE" in os.environ or gpu_num <= 1:
        return 1
    import torch

    return max(1, min(gpu_num, torch.cuda.device_count()))


def launch(processes: int, script: Path, argv: Sequence[str] | None) -> None:
    """Run the script under torchrun and wait for it.

    Raises:
        UserError: a process failed; its own message stands above.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", str(script), *arguments]
    if subprocess.run(command).returncode != 0:
        raise UserError(f"training with {processes} processes failed; see the messages above.")
