"""What each verb keeps of its speed beside busy processes, as a share of what is fair (Linux).

Fair is the quiet speed x cores / (cores + busy processes). Every verb does its steady work in a
process of its own: training steps, evaluation, prediction of files, compression, requests of two
clients to the service. All runs take turns, so that a machine that drifts does so for all of them.

--against CHECKOUT measures the quiet speed of another checkout beside this one's, in turns, with
the ratio's 95 % interval. Set OMP_WAIT_POLICY or GOMP_SPINCOUNT to see how others bound the spin.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "model_templates/custom-classification/efficientnet_lite0/template.yaml"
SIDE = 160  # px
IMAGES = 128
CLIENTS = 2
BUSY = "while True: pass"


def main() -> None:
    """Measure and report; with --measure be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verbs", default=",".join(VERBS))
    parser.add_argument("--busy", default="1,2,4", help="numbers of busy processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of steady work, at least")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("VERB", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        verb, folder = arguments.measure
        if verb == "prepare":
            prepare(Path(folder))
            return
        print(json.dumps(speed_of(VERBS[verb](Path(folder)), arguments.seconds)))
        return
    verbs = arguments.verbs.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # By the other checkout, if there is one: the newer reads what the older wrote.
        measured_process("prepare", folder, 0, arguments.against or ROOT)

        def measure(verb: str, busy: int, checkout: Path = ROOT) -> float:
            with busy_processes(busy):
                return run(verb, folder, arguments.seconds, checkout)

        header: tuple[str, ...]
        if arguments.against:
            figures, rows = compare_checkouts(measure, verbs, arguments)
            header = ("verb", "this, images/s", "the other", "ratio", "95 % interval")
        else:
            figures, rows = compare_with_fair(measure, verbs, arguments)
            header = ("verb", "busy", "images/s (range)", "share of what is fair")
    from common import describe_run, print_table, write_json

    print_table(f"{usable_cores()} cores", header, rows)
    write_json(arguments.json, figures | describe_run(["torch", "openvino"]))


def compare_with_fair(
    measure: Callable[..., float], verbs: list[str], arguments: argparse.Namespace
) -> tuple[dict[str, float], list[tuple[str, ...]]]:
    """Return figures and table rows of every verb, alone and beside busy processes."""
    loads = [0, *map(int, arguments.busy.split(","))]
    speeds: dict[tuple[str, int], list[float]] = {}
    for number in range(arguments.rounds):
        for verb in verbs:
            for busy in loads:
                speeds.setdefault((verb, busy), []).append(measure(verb, busy))
                print(number, verb, busy, speeds[verb, busy][-1], file=sys.stderr)
    figures: dict[str, float] = {}
    rows: list[tuple[str, ...]] = []
    cores = usable_cores()
    for (verb, busy), values in speeds.items():
        quiet = median(speeds[verb, 0])
        share = median(values) / (quiet * cores / (cores + busy))
        figures[f"{verb}.busy_{busy}.images_per_second"] = median(values)
        figures[f"{verb}.busy_{busy}.share_of_fair"] = share
        spread = f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        rows.append((verb, str(busy), spread, f"{share:.2f}"))
    return figures, rows


def compare_checkouts(
    measure: Callable[..., float], verbs: list[str], arguments: argparse.Namespace
) -> tuple[dict[str, float], list[tuple[str, ...]]]:
    """Return figures and table rows of the quiet speed against another checkout's."""
    speeds: dict[str, list[tuple[float, float]]] = {verb: [] for verb in verbs}
    for number in range(arguments.rounds):
        for verb in verbs:
            order = (ROOT, arguments.against) if number % 2 else (arguments.against, ROOT)
            found = {checkout: measure(verb, 0, checkout) for checkout in order}
            speeds[verb].append((found[ROOT], found[arguments.against]))
            print(number, verb, *speeds[verb][-1], file=sys.stderr)
    figures: dict[str, float] = {}
    rows: list[tuple[str, ...]] = []
    for verb, pairs in speeds.items():
        logs = np.log([ours / theirs for ours, theirs in pairs])
        error = logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else np.inf
        low, ratio, high = np.exp(logs.mean() + np.array([-1.96, 0, 1.96]) * error)
        figures[f"{verb}.quiet_ratio"] = float(ratio)
        figures[f"{verb}.quiet_ratio_low"], figures[f"{verb}.quiet_ratio_high"] = low, high
        ours, theirs = (f"{median(side):.1f}" for side in zip(*pairs, strict=True))
        rows.append((verb, ours, theirs, f"{ratio:.3f}", f"{low:.3f} to {high:.3f}"))
    return figures, rows


def run(verb: str, folder: Path, seconds: float, checkout: Path) -> float:
    """Return the images/s of a verb's steady work in a process of its own."""
    return float(measured_process(verb, folder, seconds, checkout).splitlines()[-1])


def measured_process(verb: str, folder: Path, seconds: float, checkout: Path) -> str:
    """Run this program with a checkout's library; return what it prints."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", verb, str(folder), "--seconds", str(seconds)],
        env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep so many cores busy."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def speed_of(work: Callable[[], int], seconds: float) -> float:
    """Return images/s of repeated work, after a first time that does not count."""
    work()
    started, images = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds:
        images += work()
    return images / spent


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))


def prepare(folder: Path) -> None:
    """Put a data set, a checkpoint of one epoch and its IR into a folder."""
    from common import make_images

    from classification import export, instantiate, train

    make_images(folder / "data", 2, per_class=IMAGES // 2, size=(240, 180))
    work_dir = instantiate(ROOT / TEMPLATE, folder / "work", load_snapshot=False)
    trained = train(
        work_dir,
        train_data_roots=folder / "data",
        val_data_roots=folder / "data",
        epochs=1,
        save_checkpoints_to=folder / "outputs",
        settings=[
            ("input.height", str(SIDE)),
            ("input.width", str(SIDE)),
            ("lr_finder.enable", "false"),
        ],
    )
    assert trained.best is not None
    export(trained.best, save_model_to=folder / "export")


def training(folder: Path) -> Callable[[], int]:
    """Return a training step of the template's recipe on images in memory, as `train` takes it."""
    from classification.training.allocator import keep_freed_memory

    keep_freed_memory()
    import torch
    from accelerate import Accelerator

    from classification.data.loader import TrainLoader
    from classification.data.readers import read_samples
    from classification.data.store import open_store
    from classification.models.checkpoint import load_classifier
    from classification.training.build import build_task, create_models
    from classification.training.learner import Learner
    from classification.training.step import TrainStep

    torch.manual_seed(0)
    loaded = load_classifier(folder / "outputs" / "best.pth")
    config = loaded.config
    samples = read_samples(folder / "data", "", role="train", data=config.data)
    store = open_store(samples, loaded.info.preprocessing, cache_bytes=1 << 30)
    task = build_task(create_models([config], 2), [config], np.ones(2, np.int64))
    task = task.to(memory_format=torch.channels_last)
    learner = Learner(task.main, config, 1)
    step = TrainStep(
        task, [learner], config, loaded.info.preprocessing, samples, Accelerator(cpu=True)
    )
    step.wrapped.train()
    loader = TrainLoader(store, config)
    steps = enumerate(batches for epoch in count() for batches in loader.epoch(epoch))

    def work() -> int:
        number, batches = next(steps)
        learner.set_rate(0)
        step(batches, number, 0.0)
        return sum(len(batch.targets) for batch in batches)

    return work


def evaluation(folder: Path) -> Callable[[], int]:
    """Return an evaluation of the checkpoint, with PyTorch."""
    from classification import evaluate

    def work() -> int:
        evaluate(folder / "outputs" / "best.pth", test_data_roots=folder / "data")
        return IMAGES

    return work


def prediction(folder: Path) -> Callable[[], int]:
    """Return a prediction of a folder by the IR."""
    from classification import Predictor

    predictor = Predictor(folder / "export" / "model.xml")
    return lambda: len(predictor.predict(folder / "data"))


def compression(folder: Path) -> Callable[[], int]:
    """Return a calibration and its judging, without a fine-tuning."""
    from classification import compress

    def work() -> int:
        with tempfile.TemporaryDirectory() as place:
            compress(
                folder / "outputs" / "best.pth",
                train_data_roots=folder / "data",
                val_data_roots=folder / "data",
                save_checkpoints_to=place,
                accept_accuracy_drop=True,
                settings=[("compression.epochs", "0"), ("compression.calibration_images", "32")],
            )
        return IMAGES

    return work


def serving(folder: Path) -> Callable[[], int]:
    """Return a hundred requests to the service by two clients."""
    from serving import service

    running = service(folder / "export" / "model.xml")
    (host, port), _ = running.__enter__()
    import atexit

    atexit.register(running.__exit__, None, None, None)
    body = next((folder / "data").rglob("*.jpg")).read_bytes()

    def client() -> None:
        connection = HTTPConnection(host, port)
        for _ in range(50):
            connection.request("POST", "/classify", body, {"Content-Type": "image/jpeg"})
            assert json.loads(connection.getresponse().read())["classes"]

    def work() -> int:
        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 50 * CLIENTS

    return work


VERBS: Mapping[str, Callable[[Path], Callable[[], int]]] = {
    "train": training,
    "eval": evaluation,
    "predict": prediction,
    "compress": compression,
    "serve": serving,
}


if __name__ == "__main__":
    main()
