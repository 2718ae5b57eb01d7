"""Starting one process a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from classification.errors import Interrupted, UserError
from classification.signals import ending_signals


def processes_to_start(gpu_num: int) -> int:
    """Return how many processes `--gpu-num` asks for, at most one a GPU; 1 under torchrun."""
    if "WORLD_SIZE" in os.environ or gpu_num <= 1:
        return 1
    import torch

    return max(1, min(gpu_num, torch.cuda.device_count()))


def launch(processes: int, script: Path, argv: Sequence[str] | None) -> None:
    """Run the script under torchrun and wait for it, also when it is to end early.

    Raises:
        UserError: a process failed; its own message stands above.
        Interrupted, KeyboardInterrupt: SIGTERM, SIGHUP or Ctrl-C; by then the processes have saved.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", str(script), *arguments]
    # A session of its own: signals reach it through us alone, and so once; also the terminal's end.
    torchrun = subprocess.Popen(command, start_new_session=True)
    try:
        code = torchrun.wait()
    except (Interrupted, KeyboardInterrupt):
        # Killed, torchrun would leave its processes behind; asked, it passes the signal on.
        for number in (signal.SIGINT, *ending_signals()):
            signal.signal(number, signal.SIG_IGN)
        torchrun.terminate()
        torchrun.wait()
        raise
    if code != 0:
        raise UserError(f"training with {processes} processes failed; see the messages above.")
