from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from classification.deployment import export as export_module
from classification.deployment.parity import (
    Parity,
    _near_ties,
    compare,
    comparison_images,
    named_images,
    photographs,
    resize,
)
from classification.errors import UserError
from classification.models.checkpoint import load_classifier


@pytest.fixture
def figures(exported, classifier, images):
    """Return a function that compares a file of the session with the model as it is by then."""

    def figures(name: str = "model.xml") -> Parity:
        described = export_module._metadata(classifier, [name], "fp32", "BGR")
        return compare(exported / name, described[name], classifier, images)

    return figures


def test_figures(figures, expected_logits):
    result = figures()
    assert result.passed
    assert (result.images, result.same_top1) == (13, 13)
    assert result.deviation == pytest.approx(expected_logits.std(), rel=1e-4)
    assert result.rms_difference <= result.max_difference < 1e-4


def test_a_small_change_of_the_weights_is_noticed(figures, classifier):
    classifier.model.get_classifier().bias.data[1] += 0.01 * classifier.info.temperature
    result = figures()
    assert not result.passed
    assert result.max_difference == pytest.approx(0.01, abs=1e-4)
    assert result.rms_difference == pytest.approx(0.01 / np.sqrt(4), abs=1e-4)


@pytest.mark.parametrize("name", ["model.xml", "model_with_preprocessing.xml"])
def test_swapped_colours_are_noticed(figures, classifier, name):
    weight = classifier.model.conv_stem.weight
    weight.data = weight.data.flip(1)
    assert not figures(name).passed


@pytest.mark.parametrize("name", ["model.xml", "model_with_preprocessing.xml"])
def test_not_a_number_does_not_pass(figures, classifier, name):
    classifier.model.get_classifier().bias.data[0] = float("nan")
    assert not figures(name).passed


@pytest.mark.parametrize(
    ("precision", "max_difference", "rms_difference", "passed"),
    [
        ("FP32", 0.0019, 0.0019, True),
        ("FP32", 0.0021, 0.0001, False),
        ("FP16", 0.039, 0.019, True),
        ("FP16", 0.041, 0.001, False),
        ("INT8", 1.5, 0.19, True),
        ("INT8", 1.5, 0.21, False),
    ],
)
def test_tolerance(tmp_path, precision, max_difference, rms_difference, passed):
    result = Parity(tmp_path, precision, 20, 20, max_difference, rms_difference, deviation=2.0)
    assert result.passed is passed


@pytest.mark.parametrize("precision", ["FP32", "FP16"])
def test_no_float_file_may_change_an_answer(tmp_path, precision):
    result = Parity(tmp_path, precision, 20, 20, 1e-6, 1e-6, deviation=2.0)
    assert result.passed and not replace(result, same_top1=19).passed


@pytest.mark.parametrize(("same", "passed"), [(20, True), (18, True), (17, False), (15, False)])
def test_few_answers_of_an_int8_file_may_change(tmp_path, same, passed):
    result = Parity(
        tmp_path, "INT8", 20, same, 1e-3, 1e-3, deviation=2.0, same_predictions=same / 20
    )
    assert result.passed is passed


def test_what_rounding_decides_is_no_other_answer():
    expected = np.array([[0.0, 0.01], [0.0, 3.0], [-3.0, 0.0], [0.0, -0.2]])
    small, large = np.full((4, 2), 0.01), np.full((4, 2), 5.0)
    assert _near_ties(expected, small).tolist() == [True, False, False, False]
    assert _near_ties(expected, large).tolist() == [True, False, False, False]  # no excuse


def test_photographs_and_noise(classifier):
    images, what = comparison_images(classifier)
    assert what == "cuts of two photographs and of noise"
    for image, other in zip(images, photographs(classifier.info.preprocessing), strict=True):
        np.testing.assert_array_equal(image, other)
    assert len({image.shape for image in images}) == 3
    images = resize(images, classifier.info.preprocessing)
    assert images.shape == (20, 40, 32, 3) and images.dtype == np.uint8
    assert len(np.unique(images.reshape(20, -1), axis=0)) == 20
    # Neighbours in photographs resemble each other, in noise they do not.
    steps = np.abs(np.diff(images.astype(float), axis=2)).mean(axis=(1, 2, 3))
    assert steps[:16].max() < 40 < steps[16:].min()


def test_given_images(classifier, tmp_path):
    Image.new("RGB", (90, 70), (10, 200, 30)).save(tmp_path / "green.png")
    images, what = comparison_images(classifier, [tmp_path / "green.png"])
    assert what == "given images"
    np.testing.assert_array_equal(images, np.broadcast_to([10, 200, 30], (1, 70, 90, 3)))


def test_unreadable_given_image(classifier, tmp_path):
    (tmp_path / "bad.png").write_text("text")
    with pytest.raises(UserError, match=r"bad\.png: cannot compare"):
        comparison_images(classifier, [tmp_path / "bad.png"])


def test_an_int8_file_is_compared_on_images_of_its_task(int8_checkpoint, tmp_path):
    classifier = load_classifier(int8_checkpoint)
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        Image.new("RGB", (50, 40 + i), (10 * i, 20, 30)).save(path)
    named = named_images(paths)
    assert all(set(map(type, item)) == {str} for item in named)  # nothing of their contents
    classifier.contents["compression"]["images"] = named
    images, what = comparison_images(classifier)
    assert [image.shape for image in images] == [(40 + i, 50, 3) for i in range(4)]
    assert what == "validation images (4 are named in the checkpoint)"
    paths[0].unlink()
    paths[1].write_bytes(paths[2].read_bytes())  # another image in its place
    images, _ = comparison_images(classifier)
    assert [image.shape for image in images] == [(42, 50, 3), (43, 50, 3)]
    for path in paths[1:]:
        path.unlink()
    images, what = comparison_images(classifier)
    assert len(images) == 20 and "no validation image" in what
