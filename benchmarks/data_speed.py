"""Training batches per second: this framework's loader against torchvision's usual pipeline.

Both sides turn the same JPEGs into normalised float32 batches of the same size, with the same flips
and rotations. The torchvision side is ImageFolder, its transforms on Pillow images, and a
DataLoader that shuffles; of the numbers of worker processes given the best one counts, for the
first epoch and for the others on their own. The framework's side is `open_store`, which decodes
each image once, and the batches of `TrainLoader`, normalised as the trainer does it: with the
template's AugMix, which torchvision's side has not got, and without. All run alternately in one
process with all cores; worker processes stay between the epochs. The first epoch of a side is all
it does until the last of its first batches.

Beside the images per second stands the time that all cores together worked on one, worker
processes counted. On a machine that others use too, it says more than the time on the clock.

The first tables are for large JPEGs, one thread: `load_image`, which lets libjpeg shrink an image
while it decodes, against opening it with Pillow, converting and resizing it with the same filter.
Once as Python comes, then, as everything else here, with freed memory kept as train.py keeps it,
which helps whoever fills large buffers: plain Pillow, that is. Then what an embedded colour profile
costs the framework, of JPEGs of the data's size, in memory, and the checksums of a PNG. After them
stands AugMix alone, of one Pillow image, against torchvision's, one thread too.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from common import describe_run, make_images, print_table, summary, write_json
from icc_profiles import ADOBE_GAMMA, ADOBE_RGB, DISPLAY_P3, SRGB, rgb_profile
from PIL import Image

from classification.config import Config
from classification.data.augmix import augmix
from classification.data.completeness import has_png_end
from classification.data.loader import TrainLoader
from classification.data.preprocessing import Preprocessing, load_image, normalize
from classification.data.readers import read_samples
from classification.data.store import open_store
from classification.template import load_template
from classification.training.allocator import keep_freed_memory

TEMPLATES = Path(__file__).resolve().parent.parent / "model_templates" / "custom-classification"
Batches = Iterator[torch.Tensor]  # one epoch of [N, 3, H, W] float32


class Epoch(NamedTuple):
    """What one epoch, or one large image, took."""

    images: int
    seconds: float  # on the clock
    cpu_seconds: float  # of all cores together


def framework(data: Path, config: Config) -> Iterator[Batches]:
    """Yield the framework's epochs."""
    preprocessing = Preprocessing.from_config(config)
    loader: TrainLoader | None = None

    def first() -> Batches:
        nonlocal loader
        store = open_store(read_samples(data), preprocessing, cache_bytes=1 << 40)
        loader = TrainLoader(store, config)
        yield from later(0)

    def later(epoch: int) -> Batches:
        assert loader is not None
        for batches in loader.epoch(epoch):
            for batch in batches:
                yield normalize(batch.images, preprocessing)

    yield first()
    epoch = 0
    while epoch := epoch + 1:
        yield later(epoch)


def torchvision_pipeline(data: Path, config: Config, workers: int) -> Iterator[Batches]:
    """Yield the epochs of ImageFolder and DataLoader."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    a, size = config.augmentation, (config.input.height, config.input.width)
    fill = [round(255 * mean) for mean in config.input.mean]
    bilinear = transforms.InterpolationMode.BILINEAR
    rotation = transforms.RandomRotation(a.rotation_degrees, bilinear, fill=fill)
    pipeline = transforms.Compose(
        [
            transforms.Resize(size, bilinear),
            transforms.RandomHorizontalFlip(a.horizontal_flip),
            transforms.RandomApply([rotation], a.rotation),
            transforms.ToTensor(),
            transforms.Normalize(config.input.mean, config.input.std),
        ]
    )
    loader: Any = None

    def epoch() -> Batches:
        nonlocal loader
        if loader is None:
            loader = DataLoader(
                ImageFolder(str(data), pipeline),
                config.training.batch_size,
                shuffle=True,
                num_workers=workers,
                persistent_workers=workers > 0,
            )
        for images, _ in loader:
            yield images

    while True:
        yield epoch()


def consume(batches: Batches) -> Epoch:
    """Run through an epoch."""
    started, cpu_started = time.perf_counter(), cpu_seconds()
    count = 0
    for batch in batches:
        assert batch.dtype == torch.float32
        count += len(batch)
    return Epoch(count, time.perf_counter() - started, cpu_seconds() - cpu_started)


def cpu_seconds() -> float:
    """Return the seconds that cores have worked for this process and its workers so far."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def measure_epochs(
    sides: dict[str, Callable[[], Iterator[Batches]]], rounds: int, epochs: int
) -> dict[str, dict[str, list[Epoch]]]:
    """Return the first and the later epochs of each side; sides take turns."""
    measured: dict[str, dict[str, list[Epoch]]] = {
        name: {"first": [], "later": []} for name in sides
    }
    for _ in range(rounds):
        for name, side in sides.items():
            running = side()
            for number in range(1 + epochs):
                measured[name]["later" if number else "first"].append(consume(next(running)))
            del running  # ends the workers before the next side begins
    return measured


def measure_large(size: int, megapixels: int, rounds: int) -> dict[str, list[Epoch]]:
    """Return what a large JPEG takes either way."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    preprocessing = Preprocessing(size, size, (0.5,) * 3, (0.5,) * 3)

    def plain(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
            return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR))

    sides = {"framework": lambda path: load_image(path, preprocessing), "plain": plain}
    measured: dict[str, list[Epoch]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_images(Path(scratch), 1, per_class=1, size=(width, width * 3 // 4))
        path = next(folder.rglob("*.jpg"))
        for _ in range(rounds):
            for name, side in sides.items():
                started, cpu_started = time.perf_counter(), time.process_time()
                side(path)
                seconds = time.perf_counter() - started
                measured[name].append(Epoch(1, seconds, time.process_time() - cpu_started))
    return measured


def measure_profiles(
    size: int, pixels: int, rounds: int, draws: int = 100
) -> dict[str, list[Epoch]]:
    """Return what images of one size take by their profile, and a PNG by its checksums."""
    preprocessing = Preprocessing(size, size, (0.5,) * 3, (0.5,) * 3)
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_images(Path(scratch), 1, per_class=1, size=(pixels, pixels * 3 // 4))
        image = Image.open(next(folder.rglob("*.jpg"))).convert("RGB")
    profiles = {
        "no profile": None,
        "sRGB": rgb_profile(SRGB),
        "Display P3": rgb_profile(DISPLAY_P3),
        "Adobe RGB": rgb_profile(ADOBE_RGB, ADOBE_GAMMA),
    }
    sides: dict[str, Callable[[], object]] = {}

    def decode(data: bytes) -> np.ndarray:
        return load_image(io.BytesIO(data), preprocessing)

    for name, profile in profiles.items():
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90, icc_profile=profile)
        data = buffer.getvalue()
        sides[name] = partial(decode, data)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    png = buffer.getvalue()
    sides["PNG"] = partial(decode, png)
    sides["checksums of the PNG"] = lambda: has_png_end(io.BytesIO(png))
    measured: dict[str, list[Epoch]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            for _ in range(draws):
                side()
            seconds = time.perf_counter() - started
            measured[name].append(Epoch(draws, seconds, time.process_time() - cpu_started))
    return measured


def measure_augmix(config: Config, rounds: int, draws: int = 100) -> dict[str, list[Epoch]]:
    """Return what AugMix of one image takes either way, with the config's settings."""
    from torchvision.transforms import AugMix

    a, rng = config.augmentation, np.random.default_rng(0)
    red, green, blue = (round(255 * mean) for mean in config.input.mean)
    theirs = AugMix(
        a.augmix_severity, a.augmix_width, a.augmix_depth, a.augmix_alpha, fill=[red, green, blue]
    )
    with tempfile.TemporaryDirectory() as scratch:
        size = (config.input.width, config.input.height)
        folder = make_images(Path(scratch), 1, per_class=1, size=size)
        image = Image.open(next(folder.rglob("*.jpg"))).convert("RGB")

    def ours() -> None:
        augmix(image, a, rng, (red, green, blue))

    sides: dict[str, Callable[[], object]] = {
        "framework": ours,
        "torchvision": lambda: theirs(image),
    }
    measured: dict[str, list[Epoch]] = {name: [] for name in sides}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torchvision's mixing would start all
    for _ in range(rounds):
        for name, side in sides.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            for _ in range(draws):
                side()
            seconds = time.perf_counter() - started
            measured[name].append(Epoch(draws, seconds, time.process_time() - cpu_started))
    torch.set_num_threads(threads)
    return measured


def compare(title: str, measured: dict[str, list[Epoch]], plain: Sequence[str]) -> dict[str, float]:
    """Print the table of one phase; return its figures.

    Ratios are to the best of the plain sides: the fastest, and the one that works least.
    """
    speeds = {side: [e.images / e.seconds for e in epochs] for side, epochs in measured.items()}
    work = {
        side: [1e3 * e.cpu_seconds / e.images for e in epochs] for side, epochs in measured.items()
    }
    fastest = speeds[max(plain, key=lambda side: median(speeds[side]))]
    least = work[min(plain, key=lambda side: median(work[side]))]
    rows, figures = [], {}
    for side in measured:
        faster = [a / b for a, b in zip(speeds[side], fastest, strict=True)]
        less = [b / a for a, b in zip(work[side], least, strict=True)]
        rows.append(
            (side, summary(speeds[side]), summary(faster, 2), summary(work[side], 2))
            + (summary(less, 2),)
        )
        key = f"{title}.{side}".replace(",", "").replace(" ", "_")
        figures[f"{key}.per_second"] = median(speeds[side])
        figures[f"{key}.cpu_milliseconds"] = median(work[side])
        if side not in plain:
            figures[f"{key}.times_as_fast"] = median(faster)
            figures[f"{key}.times_less_cpu"] = median(less)
    header = ("images/s", "times as fast", "CPU ms/image", "times less CPU")
    print_table(title, ("side", *header), rows)
    return figures


def main() -> None:
    """Measure everything and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with CLASS/IMAGE; else made JPEGs")
    parser.add_argument("--template", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224, help="side of the batches' images")
    parser.add_argument("--pixels", type=int, default=500, help="longer side of made JPEGs")
    parser.add_argument("--count", type=int, default=512, help="of made JPEGs")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="torchvision's")
    parser.add_argument("--epochs", type=int, default=2, help="a round, after the first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megapixels", type=int, default=12, help="of the large JPEG")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = [[f"input.{side}", str(arguments.size)] for side in ("height", "width")]
    template = load_template(TEMPLATES / arguments.template / "template.yaml")
    large = f"{arguments.megapixels} megapixels"
    measured = measure_large(arguments.size, arguments.megapixels, 5 * arguments.rounds)
    figures = compare(large, measured, ["plain"])
    keep_freed_memory()  # for both sides
    measured = measure_large(arguments.size, arguments.megapixels, 5 * arguments.rounds)
    figures |= compare(f"{large}, memory kept", measured, ["plain"])
    measured = measure_profiles(arguments.size, arguments.pixels, 3 * arguments.rounds)
    figures |= compare("colour profiles", measured, ["no profile"])
    with_augmix = template.config(settings)
    figures |= compare("AugMix", measure_augmix(with_augmix, 3 * arguments.rounds), ["torchvision"])
    without = template.config([*settings, ["augmentation.augmix", "0"]])
    with tempfile.TemporaryDirectory() as scratch:
        made = (arguments.pixels, arguments.pixels * 3 // 4)
        data = arguments.data or make_images(
            Path(scratch), 4, per_class=arguments.count // 4, size=made
        )
        sides: dict[str, Callable[[], Iterator[Batches]]] = {
            "framework without AugMix": lambda: framework(data, without),
            "framework": lambda: framework(data, with_augmix),
        }
        plain = []
        for workers in arguments.workers:
            name = f"torchvision, {workers} workers"
            plain.append(name)
            sides[name] = partial(torchvision_pipeline, data, without, workers)
        epochs = measure_epochs(sides, arguments.rounds, arguments.epochs)
    for phase in ("first", "later"):
        of_phase = {side: phases[phase] for side, phases in epochs.items()}
        figures |= compare(f"{phase} epochs", of_phase, plain)
    write_json(arguments.json, figures | describe_run(["torch", "torchvision", "pillow"]))


if __name__ == "__main__":
    main()
