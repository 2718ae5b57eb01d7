import json
import os
import shutil
import subprocess
import sys

import numpy as np
import openvino as ov
import pytest

from classification.deployment.backends import load_backend
from classification.deployment.openvino_cpu import openvino_core
from classification.errors import UserError


@pytest.fixture(params=["checkpoint", "model.xml", "model_with_preprocessing.xml"])
def backend(request, checkpoint, exported):
    path = checkpoint if request.param == "checkpoint" else exported / request.param
    return load_backend(path, precision_hint="f32")


def test_describes_the_model(backend, config):
    assert backend.info.class_names[0] == "zebra crossing"
    assert backend.info.preprocessing.std == (0.2, 0.25, 0.31)
    assert backend.device == "cpu"
    assert backend.precision.endswith("on cpu, computing in f32")
    assert backend.info.parameters == pytest.approx(0.1, abs=0.05)
    assert backend.info.gflops > 0


@pytest.mark.parametrize("size", [1, 3, 8, 13])
def test_logits(backend, images, expected_logits, size):
    actual = backend.logits(images[:size])
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected_logits[:size], atol=1e-4)


def test_stream_keeps_the_order_over_batches_of_any_size(backend, images, expected_logits):
    sizes = [13, 1, 8, 3, 9, 2] * 3
    rng = np.random.default_rng(0)
    chosen = [rng.integers(0, len(images), size) for size in sizes]
    answers = list(backend.stream(images[indices] for indices in chosen))
    assert len(answers) == len(chosen)
    for answer, indices in zip(answers, chosen, strict=True):
        np.testing.assert_allclose(answer, expected_logits[indices], atol=1e-4)


def test_the_model_as_exported_is_the_one_that_was_loaded(exported, config, tmp_path):
    """Not what lies in its place by the time it is first asked for."""
    for name in ("model.xml", "model.bin"):
        shutil.copy(exported / name, tmp_path)
    backend = load_backend(tmp_path / "model.xml", precision_hint="f32")
    size = (backend.info.preprocessing.height, backend.info.preprocessing.width)
    planes = np.random.default_rng(0).normal(size=(1, 3, *size)).astype(np.float32)
    core = openvino_core()
    read = core.read_model(exported / "model.xml")
    expected = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(planes)[0]
    for name in ("model.xml", "model.bin"):
        (tmp_path / name).unlink()
    actual = backend.compiled_as_exported(1, "LATENCY")(planes)[0]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_stream_reads_only_a_little_ahead(backend, images):
    taken = []

    def batches():
        for number in range(1000):
            taken.append(number)
            yield images[:8]

    answers = backend.stream(batches())
    for _ in range(5):
        next(answers)
    # Up to two requests for each core wait or run.
    assert len(taken) <= 5 + 2 * (os.cpu_count() or 1) + 1


def test_an_error_of_the_source_reaches_the_caller(backend, images):
    def batches():
        yield images
        raise OSError("the disk has gone")

    with pytest.raises(OSError, match="the disk has gone"):
        list(backend.stream(batches()))


@pytest.mark.parametrize("name", ["model.xml", "model.onnx"])
def test_openvino_needs_no_torch(exported, image_file, name):
    """Nor anything else that is slow to import: that is what makes a cold start fast."""
    program = (
        "import sys\n"
        "from classification.cli.predict import main\n"
        "assert main(['--load-weights', *sys.argv[1:], '--output', 'csv']) == 0\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", program, str(exported / name), "--input", str(image_file)]
    *rows, modules = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(rows) == 2 and "openvino" in modules.split()
    heavy = {"torch", "timm", "nncf", "sklearn", "scipy", "pandas", "matplotlib", "accelerate"}
    assert not heavy & set(modules.split())


def test_a_checkpoint_is_computed_in_f32_only(checkpoint):
    with pytest.raises(UserError, match="'bf16' is for IR and ONNX files"):
        load_backend(checkpoint, precision_hint="bf16")


def test_precision_hint_that_does_not_exist(exported):
    with pytest.raises(UserError, match="'fp32' is none of f32, bf16, f16"):
        load_backend(exported / "model.xml", precision_hint="fp32")


def test_precision_that_the_cpu_lacks(exported):
    """OpenVINO would take the hint and compute in another precision."""
    if "FP16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has it")
    with pytest.raises(UserError, match="cannot compute in f16, only in f32"):
        load_backend(exported / "model.xml", precision_hint="f16")


def test_a_small_batch_after_a_large_one_compiles_nothing(exported, images, expected_logits):
    backend = load_backend(exported / "model.xml", precision_hint="f32")
    large, small = backend.stream([images[:8], images[8:11]])
    assert list(backend._compiled) == [(8, "THROUGHPUT")]
    np.testing.assert_allclose(np.concatenate([large, small]), expected_logits[:11], atol=1e-4)


@pytest.fixture
def copied(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def test_missing_file():
    with pytest.raises(UserError, match="no such model file"):
        load_backend("nowhere/model.xml")


def test_unknown_kind(tmp_path):
    path = tmp_path / "model.h5"
    path.touch()
    with pytest.raises(UserError, match=r"\.pth.*\.xml.*\.onnx"):
        load_backend(path)


def test_missing_weights(copied):
    (copied / "model.bin").unlink()
    with pytest.raises(UserError, match=r"no model\.bin next to it"):
        load_backend(copied / "model.xml")


def test_truncated_weights(copied):
    with (copied / "model.bin").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match="OpenVINO cannot read"):
        load_backend(copied / "model.xml")


def test_garbage(copied):
    (copied / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(UserError, match="OpenVINO cannot read"):
        load_backend(copied / "model.onnx")


def test_foreign_ir(copied):
    parameter = ov.opset8.parameter([-1, 3, 8, 8], ov.Type.f32)
    ov.save_model(ov.Model([ov.opset8.relu(parameter)], [parameter], "x"), copied / "foreign.xml")
    with pytest.raises(UserError, match=r"foreign\.xml: does not say which classes"):
        load_backend(copied / "foreign.xml")


def test_description_that_does_not_fit_the_graph(copied):
    model = openvino_core().read_model(copied / "model.xml")
    model.set_rt_info(json.dumps(["only", "three", "names"]), ["classification", "class_names"])
    ov.save_model(model, copied / "other.xml")
    with pytest.raises(UserError, match=r"its metadata promises .*\[\?,3\]"):
        load_backend(copied / "other.xml")
