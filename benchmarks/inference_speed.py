"""Inference on this CPU: PyTorch eager against FP32, FP16 and int8 IR, bare and by our backend.

The base is PyTorch eager in FP32, NCHW, in inference mode, the better of batch 1 and 32. All sides
have all cores, run in turn in one process, several rounds, and see images that are in memory.
"bare" is what OpenVINO does with the exported file alone: latency hint, one image; throughput
hint, batches of 1 and 8. "backend" is what `Predictor` and `eval.py` run, from uint8 pixels: its
`logits` of one image, its `stream` of batches of 32. Of each side the better way counts.

A model is a template and a size in pixels, whose network gets random weights and is calibrated on
made images (enough for speed and size), or two checkpoints of `train.py` and `compress.py`, of
any height and width. Of a checkpoint the size is told with and without the state of its training.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import openvino as ov
import torch
from common import describe_run, make_images, print_table, write_json, write_markdown

from classification import compress, evaluate, export
from classification.config import Config, get, updated
from classification.data.preprocessing import Preprocessing, load_image, normalize
from classification.data.threads import usable_cores
from classification.deployment.openvino_backend import OpenVINOBackend
from classification.deployment.openvino_cpu import DEVICE, default_precision, openvino_core
from classification.evaluation.score import SCORES
from classification.models.checkpoint import (
    checkpoint_head,
    load_classifier,
    read_checkpoint,
    without_training,
    write_checkpoint,
)
from classification.models.classifier import create_classifier
from classification.models.model_info import ModelInfo
from classification.template import load_template

TEMPLATES = Path(__file__).resolve().parent.parent / "model_templates" / "custom-classification"
MODELS = ["mobilenet_v2@120", "mobilenet_v2@224", "mobilenet_v3_large_1@224",
          "efficientnet_lite0@224", "efficientnet_b0@224"]  # fmt: skip
DATA_SETTINGS = ("data.labels", "data.split")  # which exported files do not know
LATENCY_CALLS = 120  # in all rounds together, after a warm-up
Run = Callable[[], int]  # returns how many images it classified


@dataclass(frozen=True)
class Variant:
    """An exported file and the precision that OpenVINO is asked for."""

    name: str
    path: Path
    precision_hint: str


def main() -> None:
    """Measure all models and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models", nargs="*", default=MODELS, help="TEMPLATE@PIXELS or FP32.pth,INT8.pth"
    )
    parser.add_argument(
        "--data-root",
        metavar="ROOTS",
        help="as of --test-data-roots, for top-1 or label accuracy of checkpoints",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.6, help="of a side in a round, at least")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(usable_cores())
    figures: dict[str, Any] = {}
    rows: list[tuple[str, ...]] = []
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as scratch:
            # In a process of its own, since `compress` sets the allocator so that PyTorch gets
            # faster: the base is PyTorch as it comes.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                name, fp32, variants = process.submit(prepare, model, Path(scratch)).result()
            seconds, latencies = measure(fp32, variants, arguments.rounds, arguments.seconds)
            data = arguments.data_root if "," in model else None
            rows += report(name, fp32, variants, seconds, latencies, data, figures)
    run = describe_run(["torch", "timm", "openvino", "nncf"])
    title = (
        f"Inference on {run['machine']['cpu']}, {usable_cores()} threads, OpenVINO "
        f"{run['versions']['openvino']}, torch {run['versions']['torch']}; medians of "
        f"{arguments.rounds} rounds"
    )
    header = ("model", "side", "MB", "ms median", "ms p95", "images/s bare", "images/s backend",
              "x eager", "x eager channels_last", "x FP32 IR at f32", "accuracy %")  # fmt: skip
    print_table(title, header, rows)
    write_markdown(arguments.markdown, title, header, rows)
    write_json(arguments.json, figures | run)


def prepare(model: str, folder: Path) -> tuple[str, Path, list[Variant]]:
    """Return the model's name, its FP32 checkpoint, and the files exported from it."""
    name, fp32, int8 = find_model(model, folder)
    return name, fp32, export_variants(fp32, int8, folder)


def find_model(model: str, folder: Path) -> tuple[str, Path, Path]:
    """Return a name, the FP32 and the int8 checkpoint."""
    if "," in model:
        fp32, int8 = map(Path, model.split(","))
        classifier = load_classifier(fp32)
        height, width = classifier.info.preprocessing.height, classifier.info.preprocessing.width
        pixels = str(width) if height == width else f"{height}x{width}"
        return f"{classifier.contents['template_name']}@{pixels}", fp32, int8
    template, size = model.split("@")
    config = load_template(TEMPLATES / template / "template.yaml").config()
    config = updated(config, {"input.height": int(size), "input.width": int(size)})
    data = make_images(folder / "data", 10, per_class=10, size=(int(size), int(size)))
    fp32 = write_fresh_checkpoint(config, template, data, folder / "fp32.pth")
    outputs = folder / "int8"
    compress(
        fp32,
        train_data_roots=data,
        val_data_roots=data,
        save_checkpoints_to=outputs,
        settings=[("compression.max_accuracy_drop", "100")],  # random weights have no accuracy
    )
    return model, fp32, outputs / "best.pth"


def write_fresh_checkpoint(config: Config, template: str, data: Path, path: Path) -> Path:
    """Write random weights whose batch norms know the images' statistics.

    Without those the activations of a deep network vanish, and denormal numbers are slow.
    """
    torch.manual_seed(0)
    names = tuple(sorted(folder.name for folder in data.iterdir()))
    model = create_classifier(config, len(names)).train()
    preprocessing = Preprocessing.from_config(config)
    images = np.stack([load_image(file, preprocessing) for file in sorted(data.rglob("*.jpg"))])
    batches = normalize(torch.from_numpy(images).permute(0, 3, 1, 2), preprocessing).split(25)
    with torch.no_grad():
        for batch in 3 * batches:
            model(batch)
    contents = checkpoint_head(
        ModelInfo(names, Preprocessing.from_config(config), template_name=template), config
    )
    state = {"selected": "raw", "epoch": 0, "step": 0, "metrics": {}, "training": None}
    write_checkpoint(path, {**contents, **state, "state_dict": model.eval().state_dict()})
    return path


def export_variants(fp32: Path, int8: Path, folder: Path) -> list[Variant]:
    """Export both checkpoints, and the FP32 one also with FP16 weights."""
    export(fp32, save_model_to=folder / "ir_fp32")
    export(fp32, save_model_to=folder / "ir_fp16", precision="fp16")
    export(int8, save_model_to=folder / "ir_int8")
    float_ir, half_ir, int8_ir = (
        folder / f"ir_{p}" / "model.xml" for p in ("fp32", "fp16", "int8")
    )
    default = default_precision()
    variants = [Variant("FP32 IR at f32", float_ir, "f32")]
    if default != "f32":
        variants.append(Variant(f"FP32 IR at {default} (default)", float_ir, default))
    variants += [
        Variant(f"FP16 IR at {default} (default)", half_ir, default),
        Variant("int8 IR", int8_ir, "f32"),
    ]
    return variants


def measure(
    fp32: Path, variants: list[Variant], rounds: int, least_seconds: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return images/s a round of every way to run, and seconds of single images, by name."""
    classifier = load_classifier(fp32)
    size = (classifier.info.preprocessing.height, classifier.info.preprocessing.width)
    pixels = np.random.default_rng(0).integers(0, 256, (32, *size, 3), dtype=np.uint8)
    batch = normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2), classifier.info.preprocessing)
    plain = batch.contiguous()
    runs: dict[str, Run] = {}
    for name, memory_format in (
        ("eager", torch.contiguous_format),
        ("eager channels_last", torch.channels_last),
    ):
        model = copy.deepcopy(classifier.model).to(memory_format=memory_format)
        for count in (1, 32):
            images = batch[:count].contiguous(memory_format=memory_format)
            runs[f"{name}, batch {count}"] = eager(model, images)
    for variant in variants:
        hint = variant.precision_hint
        for count, mode in ((1, "LATENCY"), (1, "THROUGHPUT"), (8, "THROUGHPUT")):
            way = f"{variant.name}, bare {mode.lower()} {count}"
            runs[way] = bare(variant.path, plain[:count].numpy(), mode, hint)
        backend = OpenVINOBackend(variant.path, hint)
        runs[f"{variant.name}, backend logits"] = backend_logits(backend, pixels[:1])
        runs[f"{variant.name}, backend stream"] = backend_stream(backend, pixels)
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    latencies: dict[str, list[float]] = {
        name: [] for name in runs if name.endswith((", batch 1", "backend logits"))
    }
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            speeds[name].append(speed(run, least_seconds))
        for name, values in latencies.items():
            runs[name]()
            for _ in range(-(-LATENCY_CALLS // rounds)):
                started = time.perf_counter()
                runs[name]()
                values.append(time.perf_counter() - started)
    return speeds, latencies


def speed(run: Run, least_seconds: float) -> float:
    """Return images/s."""
    started, images = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < least_seconds:
        images += run()
    return images / spent


def eager(model: torch.nn.Module, images: torch.Tensor) -> Run:
    """Return a call of `model(images)`."""

    def run() -> int:
        with torch.inference_mode():
            model(images)
        return len(images)

    return run


def bare(path: Path, images: np.ndarray, mode: str, precision_hint: str) -> Run:
    """Return a call of the exported graph by OpenVINO alone, all its requests at once."""
    core = openvino_core()
    model = core.read_model(path)
    model.reshape(list(images.shape))
    config = {"PERFORMANCE_HINT": mode, "INFERENCE_PRECISION_HINT": precision_hint}
    compiled = core.compile_model(model, DEVICE, config)
    count = (
        1 if mode == "LATENCY" else 2 * compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    )
    requests = [compiled.create_infer_request() for _ in range(count)]
    for request in requests:
        request.set_input_tensor(ov.Tensor(images.copy()))

    def run() -> int:
        rounds = 1 if mode == "LATENCY" else 8
        for request in requests:
            request.start_async()
        for i in range(count * rounds):
            request = requests[i % count]
            request.wait()
            if i < count * (rounds - 1):
                request.start_async()
        return count * rounds * len(images)

    return run


def backend_logits(backend: OpenVINOBackend, pixels: np.ndarray) -> Run:
    """Return a call with one image."""
    return lambda: len(backend.logits(pixels))


def backend_stream(backend: OpenVINOBackend, pixels: np.ndarray) -> Run:
    """Return a call with eight batches."""
    return lambda: sum(map(len, backend.stream(repeat(pixels, 8))))


def report(
    name: str,
    fp32: Path,
    variants: list[Variant],
    speeds: Mapping[str, list[float]],
    latencies: Mapping[str, list[float]],
    data: str | None,
    figures: dict[str, Any],
) -> list[tuple[str, ...]]:
    """Return the rows of one model, and add its figures."""
    typical = {way: median(values) for way, values in speeds.items()}

    def best(prefix: str) -> float:
        return max(value for way, value in typical.items() if way.startswith(prefix))

    base, channels_last = best("eager, "), best("eager channels_last, ")
    reference = {kind: best(f"{variants[0].name}, {kind}") for kind in ("bare", "backend")}
    sizes = {v.path: v.path.with_suffix(".bin").stat().st_size / 1e6 for v in variants}
    classifier = load_classifier(fp32)
    read_as = [(key, json.dumps(get(classifier.config, key))) for key in DATA_SETTINGS]
    whole, weights = checkpoint_megabytes(fp32)
    figures[f"{name}.checkpoint_megabytes"] = whole
    figures[f"{name}.checkpoint_megabytes_without_training"] = weights
    rows = []
    for side in ("eager", "eager channels_last", *(v.name for v in variants)):
        variant = next((v for v in variants if v.name == side), None)
        key = f"{name}.{_key(side)}"
        timed = f"{side}, backend logits" if variant else f"{side}, batch 1"
        milliseconds = [1000 * value for value in latencies[timed]]
        middle, p95 = median(milliseconds), float(np.percentile(milliseconds, 95))
        rate = best(f"{side}, backend") if variant else best(f"{side}, ")
        figures[f"{key}.latency_ms_median"], figures[f"{key}.latency_ms_p95"] = middle, p95
        figures[f"{key}.images_per_second"] = rate
        figures[f"{key}.vs_eager"] = rate / base
        figures[f"{key}.vs_eager_channels_last"] = rate / channels_last
        cells = [name, side, "", f"{middle:.2f}", f"{p95:.2f}", "", f"{rate:.0f}"]
        cells += [f"{rate / base:.2f}", f"{rate / channels_last:.2f}", "", ""]
        if side == "eager":
            cells[2] = f"{weights:.2f} of {whole:.2f}"
        if variant:
            bare_rate = best(f"{side}, bare")
            figures[f"{key}.bare_images_per_second"] = bare_rate
            figures[f"{key}.bare_vs_eager"] = bare_rate / base
            figures[f"{key}.vs_fp32_ir_at_f32"] = rate / reference["backend"]
            figures[f"{key}.bare_vs_fp32_ir_at_f32"] = bare_rate / reference["bare"]
            figures[f"{key}.megabytes"] = sizes[variant.path]
            cells[2], cells[5] = f"{sizes[variant.path]:.2f}", f"{bare_rate:.0f}"
            cells[9] = f"{rate / reference['backend']:.2f}"
        if data:
            path = variant.path if variant else fp32
            score = SCORES[classifier.info.task].key
            figures[f"{key}.{score}"] = evaluate(path, test_data_roots=data, settings=read_as)[
                score
            ]
            cells[10] = f"{figures[f'{key}.{score}']:.2f}"
        rows.append(tuple(cells))
    figures[f"{name}.int8_vs_eager"] = figures[f"{name}.int8_ir.vs_eager"]
    figures[f"{name}.int8_size_ratio"] = sizes[variants[0].path] / sizes[variants[-1].path]
    return rows


def checkpoint_megabytes(path: Path) -> tuple[float, float]:
    """Return the size of a checkpoint as it is, and without its optimizer and averaged weights."""
    bare = io.BytesIO()
    torch.save(without_training(read_checkpoint(path), fp16=False), bare)
    return path.stat().st_size / 1e6, bare.getbuffer().nbytes / 1e6


def _key(side: str) -> str:
    return side.lower().replace(" (default)", "_default").replace(" ", "_")


if __name__ == "__main__":
    main()
