"""`predict.py` from files to rows: against its two halves, in memory, and from a cold start.

- Throughput: images/s of `Predictor` on JPEGs, as a share of 1 / (1 / decoding + 1 / inference),
  each of the two measured alone on all cores: what cores that are never idle would reach.
- The same for the whole program, `predict.py --output csv`, start-up included.
- Memory: the peak of that process for a small and for a large folder.
- Cold start: seconds of `predict.py` on one image, from the start of Python to its end, and of
  `Predictor(...).predict(...)` in a Python that has imported nothing.

The JPEGs are made up, or copied as often as needed from a folder that is given.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from common import describe_run, make_images, print_table, summary, write_json

from classification.data.image_files import find_images
from classification.data.preprocessing import load_image
from classification.data.threads import usable_cores
from classification.deployment.predictor import Predictor

# Reports its peak memory in kB; what the parent is told of it (ru_maxrss) begins with the parent's.
PROGRAM = """
import sys
from classification.cli.predict import main
code = main()
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
raise SystemExit(code)
"""
# Reports the seconds from the first line to the answer, which leaves out only Python's own start.
IN_LIBRARY = """
import sys, time
started = time.perf_counter()
from classification import Predictor
Predictor(sys.argv[1]).predict(sys.argv[2])
print(time.perf_counter() - started)
"""
COLD_STARTS = 5
BATCH = 32


def main() -> None:
    """Measure everything and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an IR, an ONNX file or a checkpoint")
    parser.add_argument(
        "--images", "--pictures", type=Path, help="folder of JPEGs to copy; else made ones"
    )
    parser.add_argument("--pixels", type=int, default=500, help="longer side of made JPEGs")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images = make_folders(arguments.images, arguments.pixels, arguments.count, folder)
        seconds = measure_throughput(arguments.model, images, arguments.rounds)
        whole = [run_program(arguments.model, folder / "all")[0] for _ in range(3)]
        cold = [run_program(arguments.model, images[0])[0] for _ in range(COLD_STARTS)]
        library = [run_library(arguments.model, images[0]) for _ in range(COLD_STARTS)]
        small, large = (run_program(arguments.model, folder / part)[1] for part in ("some", "all"))
    rate = {name: [len(images) / value for value in values] for name, values in seconds.items()}
    ideal = [1 / (1 / d + 1 / i) for d, i in zip(rate["decode"], rate["infer"], strict=True)]
    shares = [both / best for both, best in zip(rate["both"], ideal, strict=True)]
    program = [len(images) / value for value in whole]
    rows = [
        ("decoding alone, images/s", summary(rate["decode"], 0)),
        ("inference alone, images/s", summary(rate["infer"], 0)),
        ("ideal of both, images/s", summary(ideal, 0)),
        ("Predictor, images/s", summary(rate["both"], 0)),
        ("Predictor, share of the ideal", summary(shares, 2)),
        (f"predict.py, whole program on {len(images)}, images/s", summary(program, 0)),
        ("predict.py, share of the ideal", f"{median(program) / median(ideal):.2f}"),
        ("cold predict.py on one image, s", summary(cold, 2)),
        ("cold Predictor on one image, s", summary(library, 2)),
        (f"peak memory with {len(images) // 8} images, MB", f"{small:.0f}"),
        (f"peak memory with {len(images)} images, MB", f"{large:.0f}"),
    ]
    print_table(f"{arguments.model}, {usable_cores()} cores", ("figure", "median (range)"), rows)
    figures = {
        "decoding_per_second": median(rate["decode"]),
        "inference_per_second": median(rate["infer"]),
        "predictor_per_second": median(rate["both"]),
        "predictor_share_of_ideal": median(shares),
        "program_per_second": median(program),
        "program_share_of_ideal": median(program) / median(ideal),
        "cold_program_seconds": median(cold),
        "cold_library_seconds": median(library),
        "peak_megabytes_few_images": small,
        "peak_megabytes_all_images": large,
    }
    write_json(arguments.json, figures | describe_run(["openvino", "pillow"]))


def make_folders(source: Path | None, pixels: int, count: int, folder: Path) -> list[Path]:
    """Fill the folders `all` and `some` (an eighth) with JPEGs; return those of `all`."""
    if source is None:
        size = (pixels, pixels * 3 // 4)
        source = make_images(folder / "made", 1, per_class=50, size=size)
    originals = [path for path in find_images(source) if path.suffix.lower() in (".jpg", ".jpeg")]
    for name, number in (("all", count), ("some", count // 8)):
        for i, path in zip(range(number), itertools.cycle(originals), strict=False):
            copy = folder / name / f"{i % 10}" / f"{i:06d}.jpg"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return list(find_images(folder / "all"))


def measure_throughput(model: Path, images: Sequence[Path], rounds: int) -> dict[str, list[float]]:
    """Return the seconds a round of decoding alone, inference alone, and both."""
    predictor = Predictor(model, batch_size=BATCH)
    preprocessing = predictor.backend.info.preprocessing
    shape = (BATCH, preprocessing.height, preprocessing.width, 3)
    batch = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    batches = [batch] * (len(images) // BATCH) + [batch[: len(images) % BATCH]]

    def decode() -> None:
        with ThreadPoolExecutor(usable_cores()) as pool:
            for _ in pool.map(lambda path: load_image(path, preprocessing), images):
                pass

    def infer() -> None:
        for _ in predictor.backend.stream(part for part in batches if len(part)):
            pass

    def both() -> None:
        for prediction in predictor.stream(images):
            assert prediction.error is None

    sides = {"decode": decode, "infer": infer, "both": both}
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def run_program(model: Path, source: Path) -> tuple[float, float]:
    """Run `predict.py` in a process of its own; return its seconds and its peak memory in MB."""
    command = [sys.executable, "-c", PROGRAM, "--load-weights", str(model)]
    command += ["--input", str(source), "--output", "csv"]
    started = time.perf_counter()
    done = subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - started
    return seconds, float(done.stderr.rpartition("VmHWM:")[2].split()[0]) / 1024


def run_library(model: Path, image: Path) -> float:
    """Return the seconds from the import of the library to the first answer."""
    command = [sys.executable, "-c", IN_LIBRARY, str(model), str(image)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    main()
