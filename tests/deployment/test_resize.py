import numpy as np
import openvino as ov
import pytest
from openvino.preprocess import PrePostProcessor
from PIL import Image
from sklearn.datasets import load_sample_images

from classification.deployment.ir import pillow_resize
from classification.deployment.openvino_cpu import openvino_core


def graph(height: int, width: int) -> ov.CompiledModel:
    pixels = ov.opset13.parameter([-1, height, width, 3], ov.Type.u8)
    model = ov.Model([ov.opset13.convert(pixels, "i32")], [pixels], "resize")
    processor = PrePostProcessor(model)
    processor.input().tensor().set_shape([-1, -1, -1, 3])
    processor.input().preprocess().custom(pillow_resize(height, width))
    return openvino_core().compile_model(processor.build(), "CPU")  # in bf16, if the CPU likes


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((427, 640), (64, 48)),
        ((400, 90), (96, 80)),  # the height first, as it shrinks and the width does not
        ((300, 200), (97, 150)),  # both shrink, the height by more than twice as much
        ((20, 30), (50, 70)),
        ((64, 48), (64, 48)),
    ],
)
def test_pillow_on_photographs(given, wanted):
    photos = np.stack([photo[: given[0], : given[1]] for photo in load_sample_images().images])
    size = wanted[::-1]
    expected = [Image.fromarray(x).resize(size, Image.Resampling.BILINEAR) for x in photos]
    difference = np.abs(graph(*wanted)(photos)[0] - np.stack([np.asarray(x) for x in expected]))
    assert difference.max() <= (0 if given == wanted else 2)
    assert np.mean(difference > 0) < 0.1  # halves; in the wrong order of axes it would be 0.2
