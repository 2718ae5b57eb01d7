import copy
import json
from collections import Counter

import numpy as np
import openvino as ov
import pytest
import torch
from PIL import Image

from classification.deployment.backends import load_backend
from classification.deployment.ir import with_reversed_input
from classification.deployment.openvino_cpu import openvino_core
from classification.errors import UserError
from classification.models.checkpoint import load_classifier


def numbers(model: ov.Model, key: str) -> np.ndarray:
    return np.array([float(v) for v in model.get_rt_info(["model_info", key]).astype(str).split()])


def foreign_client(folder, image_file, bgr: bool) -> np.ndarray:
    """Answer one image as somebody would who knows OpenVINO, Pillow and the README only."""
    model = openvino_core().read_model(folder / "model.xml")
    _, _, height, width = model.input("image").partial_shape
    image = Image.open(image_file).convert("RGB")
    image = image.resize((width.get_length(), height.get_length()), Image.Resampling.BILINEAR)
    pixels = np.asarray(image).astype(np.float32)
    pixels = pixels[:, :, ::-1] if bgr else pixels
    planar = ((pixels - numbers(model, "mean_values")) / numbers(model, "scale_values")).transpose(
        2, 0, 1
    )
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(planar[None].astype(np.float32))["logits"]


def torch_answer(checkpoint, image_file, config) -> np.ndarray:
    size = (config.input.width, config.input.height)
    image = Image.open(image_file).convert("RGB").resize(size, Image.Resampling.BILINEAR)
    mean, std = torch.tensor(config.input.mean), torch.tensor(config.input.std)
    pixels = (torch.from_numpy(np.array(image)).float() / 255 - mean) / std
    with torch.no_grad():
        return load_classifier(checkpoint).calibrated()(pixels.permute(2, 0, 1)[None]).numpy()


def test_foreign_client_gets_pytorchs_logits(exported, checkpoint, image_file, config):
    expected = torch_answer(checkpoint, image_file, config)
    assert np.std(expected) > 0.1
    actual = foreign_client(exported, image_file, bgr=True)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    # The colour order matters to this model, so the agreement above says something about it.
    assert np.abs(foreign_client(exported, image_file, bgr=False) - expected).max() > 0.01


def test_rgb_input_format(exported_rgb, checkpoint, image_file, config):
    expected = torch_answer(checkpoint, image_file, config)
    actual = foreign_client(exported_rgb, image_file, bgr=False)
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_contract_of_the_file(exported, config):
    model = openvino_core().read_model(exported / "model.xml")
    size = (config.input.height, config.input.width)
    assert model.input(0).names == {"image"} and model.output(0).names == {"logits"}
    assert model.input(0).partial_shape == ov.PartialShape([-1, 3, *size])
    assert model.output(0).partial_shape == ov.PartialShape([-1, 4])
    assert ov.layout_helpers.get_layout(model.input(0)) == ov.Layout("NCHW")
    assert model.get_rt_info(["model_info", "model_type"]).astype(str) == "Classification"
    names = json.loads(model.get_rt_info(["classification", "class_names"]).astype(str))
    assert names == ["zebra crossing", "apple", "Ünïcode 日本", "x<&>\"'"]
    types = {op.get_element_type() for op in model.get_ops() if op.get_type_name() == "Constant"}
    assert ov.Type.f32 in types and ov.Type.f16 not in types


def test_batch_is_dynamic(exported, images):
    compiled = openvino_core().compile_model(exported / "model.xml", "CPU")
    batch = images.transpose(0, 3, 1, 2).astype(np.float32) / 100
    together = compiled(batch)[0]
    apart = np.concatenate([compiled(image[None])[0] for image in batch])
    # In bf16, if that is what the CPU takes.
    np.testing.assert_allclose(together, apart, atol=0.05 * together.std())


def test_bgr_costs_nothing(exported, exported_rgb):
    def operations(folder):
        return Counter(
            op.get_type_name() for op in openvino_core().read_model(folder / "model.xml").get_ops()
        )

    assert operations(exported_rgb) == operations(exported)


def test_reversing_the_input_leaves_the_model_alone(classifier):
    before = copy.deepcopy(classifier.model.state_dict())
    turned = with_reversed_input(classifier.model)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = classifier.model(image)
        torch.testing.assert_close(turned(image.flip(1)), expected)
        assert not torch.allclose(turned(image), expected, atol=1e-3)
    for key, value in classifier.model.state_dict().items():
        assert torch.equal(value, before[key])


def test_model_without_a_known_first_convolution_is_a_user_error():
    with pytest.raises(UserError, match="--openvino-input-format RGB"):
        with_reversed_input(torch.nn.Linear(3, 3))


def test_int8_checkpoint_becomes_an_int8_graph(exported_int8, exported):
    operations = openvino_core().read_model(exported_int8 / "model.xml").get_ops()
    convolutions = [op for op in operations if op.get_type_name().endswith("Convolution")]
    assert len(convolutions) > 10
    int8 = [op for op in operations if op.get_element_type() in (ov.Type.i8, ov.Type.u8)]
    assert len(int8) > 10  # all but the small layers of squeeze and excitation
    assert any(op.get_type_name() == "FakeQuantize" for op in operations)
    fp32_size = (exported / "model.bin").stat().st_size
    assert (exported_int8 / "model.bin").stat().st_size < 0.5 * fp32_size


def test_int8_graph_computes_what_pytorch_does(exported_int8, int8_checkpoint, images):
    expected = load_backend(int8_checkpoint).logits(images)
    actual = load_backend(exported_int8 / "model.xml", precision_hint="f32").logits(images)
    # Roundings go either way, by a whole quantization step each.
    assert np.sqrt(np.mean((actual - expected) ** 2)) < 0.1 * expected.std()
    assert np.mean(actual.argmax(axis=1) == expected.argmax(axis=1)) > 0.9
