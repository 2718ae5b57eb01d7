"""The predictor against a backend that everybody can compute: the colours' means are the logits."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from classification.data.decode import DecodeError
from classification.data.faces import FaceCrop, NoFaceError
from classification.data.preprocessing import Preprocessing
from classification.deployment import predictor as predictor_module
from classification.deployment.backends import load_backend
from classification.deployment.predictor import Predictor
from classification.deployment.torch_backend import torch_logits
from classification.errors import UserError
from classification.models.checkpoint import load_classifier, read_checkpoint
from classification.models.decision import softmax
from classification.models.model_info import ModelInfo

COLOURS = {"red": (250, 10, 30), "green": (20, 240, 10), "blue": (5, 15, 255)}


class ColourBackend:
    """Logits are the mean red, green and blue of an image, in units of 100."""

    info = ModelInfo(("red", "green", "blue"), Preprocessing(8, 8, (0.0,) * 3, (1.0,) * 3))

    def __init__(self):
        self.batch_sizes = []

    def logits(self, images):
        return images.mean(axis=(1, 2), dtype=np.float32) / 100

    def stream(self, batches):
        for images in batches:
            self.batch_sizes.append(len(images))
            yield self.logits(images)


@pytest.fixture
def predictor(monkeypatch) -> Predictor:
    monkeypatch.setattr(predictor_module, "load_backend", lambda *_, **__: ColourBackend())
    return Predictor("model.xml", batch_size=4)


def paint(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), COLOURS[colour]).save(path)
    return path


@pytest.fixture
def mixed(tmp_path):
    """Return 23 paths, every fifth of which is no image, and what each shows."""
    rng = np.random.default_rng(0)
    colours = [list(COLOURS)[i] for i in rng.integers(0, 3, 23)]
    paths = [paint(tmp_path / f"{i:02d} é [x].png", colour) for i, colour in enumerate(colours)]
    for i in range(0, 23, 5):
        paths[i].write_text("no image")
        colours[i] = None
    return paths, colours


def test_order_and_bad_files(predictor, mixed):
    paths, colours = mixed
    predictions = predictor.predict(paths)
    assert [p.path for p in predictions] == [str(path) for path in paths]
    assert [p.class_names[0] if p.class_names else None for p in predictions] == colours
    for prediction, colour in zip(predictions, colours, strict=True):
        assert (prediction.error is None) == (colour is not None)
    assert predictor.backend.batch_sizes == [4, 4, 4, 4, 2]  # full ones, in spite of bad files


def test_probabilities_are_a_softmax_over_all_classes(predictor, tmp_path):
    (answer,) = predictor.predict(paint(tmp_path / "a.png", "red"), top_k=2)
    exponentials = [math.exp(value / 100) for value in COLOURS["red"]]
    assert answer.class_names == ("red", "blue")
    assert answer.probabilities == pytest.approx(
        [exponentials[0] / sum(exponentials), exponentials[2] / sum(exponentials)], rel=1e-5
    )


def test_top_k_is_at_most_the_number_of_classes(predictor, tmp_path):
    (answer,) = predictor.predict(paint(tmp_path / "a.png", "blue"), top_k=9)
    assert answer.class_names == ("blue", "green", "red")
    assert sum(answer.probabilities) == pytest.approx(1)


def test_nothing_but_bad_files(predictor, tmp_path):
    paths = [tmp_path / "missing.png", tmp_path / "text.jpg"]
    paths[1].write_text("text")
    errors = [prediction.error for prediction in predictor.predict(paths)]
    assert len(errors) == 2 and all(errors)
    assert predictor.backend.batch_sizes == []


def test_bad_files_after_the_last_full_batch(predictor, tmp_path):
    good = [paint(tmp_path / f"{i}.png", "green") for i in range(4)]
    answers = predictor.predict([*good, tmp_path / "missing.png"])
    assert [answer.error is None for answer in answers] == [True] * 4 + [False]


def test_no_images_at_all(predictor):
    assert predictor.predict([]) == []


def test_reads_only_a_little_ahead(predictor, tmp_path, monkeypatch):
    path = paint(tmp_path / "a.png", "red")
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield path

    monkeypatch.setattr(predictor_module, "READ_AHEAD", 20 * 8 * 8 * 3)  # 20 images
    predictions = predictor.stream(endless())
    for _ in range(10):
        next(predictions)
    assert 20 < len(taken) <= 10 + 20 + 2 * predictor.batch_size
    predictions.close()


def test_rows_of_bad_files_do_not_wait_for_good_ones(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(predictor_module, "READ_AHEAD", 0)
    taken = []

    def missing():
        while True:
            taken.append(1)
            yield tmp_path / "missing.png"

    predictions = predictor.stream(missing())
    assert all(next(predictions).error for _ in range(100))
    assert len(taken) < 200
    predictions.close()


def test_output_that_is_no_number(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(
        predictor.backend, "logits", lambda images: np.full((len(images), 3), np.nan)
    )
    (answer,) = predictor.predict(paint(tmp_path / "a.png", "red"))
    assert answer.class_names == () and "not a finite number" in answer.error


def test_top_k_below_one(predictor, tmp_path):
    with pytest.raises(UserError, match="--top-k: 0"):
        predictor.stream(paint(tmp_path / "a.png", "red"), top_k=0)


def test_threshold(predictor, tmp_path):
    """Red has 0.85 and 0.09 here: see the test of the softmax."""
    path = paint(tmp_path / "a.png", "red")
    named = {
        threshold: predictor.predict(path, top_k=2, threshold=threshold)[0].class_names
        for threshold in (0, 0.09, 0.5, 0.9, 1)
    }
    assert named == {0: ("red", "blue"), 0.09: ("red", "blue"), 0.5: ("red",), 0.9: (), 1: ()}
    for threshold in (-0.1, 1.1, math.nan):
        with pytest.raises(UserError, match="--threshold"):
            predictor.stream(path, threshold=threshold)


def test_a_given_threshold_replaces_that_of_two_classes(predictor, tmp_path):
    """Raising it leaves classes out; it never turns one into the other."""
    path = paint(tmp_path / "a.png", "red")  # 0.85 against 0.15
    predictor.backend.info = replace(predictor.backend.info, class_names=("red", "green"))
    predictor.backend.logits = lambda images: np.tile(np.log([[0.85, 0.15]]), (len(images), 1))
    predictor.backend.info = replace(predictor.backend.info, thresholds=(0.1,))
    given = (None, 0, 0.1, 0.5, 0.9)
    named = [predictor.predict(path, threshold=threshold)[0].class_names for threshold in given]
    assert named == [("green",), ("red",), ("red",), ("red",), ()]


def test_the_models_own_reject_option(predictor, tmp_path):
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "0 sure.png")
    Image.new("RGB", (8, 8), (200, 190, 0)).save(tmp_path / "1 unsure.png")
    predictor.backend.info = replace(predictor.backend.info, reject_below=0.6)
    sure, unsure = predictor.predict(tmp_path, top_k=3)
    assert len(sure.class_names) == 3 and sure.reason is None  # also those below 0.6
    assert (unsure.class_names, unsure.reason, unsure.error) == ((), "not_certain", None)
    assert predictor.predict(tmp_path, threshold=0)[1].class_names == ("red",)
    assert predictor.predict(tmp_path, threshold=0.4)[1].class_names == ("red",)


def test_a_path_without_images_is_refused_at_once(predictor, tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        predictor.stream(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no images in this folder"):
        predictor.stream(str(tmp_path))


def test_folder_with_a_real_model(exported, tmp_path):
    for i, colour in enumerate(COLOURS):
        paint(tmp_path / f"{i}.png", colour)
    predictor = Predictor(exported / "model.xml", batch_size=2, precision_hint="f32")
    predictions = predictor.predict(tmp_path, top_k=4)
    from classification.data.preprocessing import load_image

    for prediction, path in zip(predictions, sorted(tmp_path.iterdir()), strict=True):
        image = load_image(path, predictor.backend.info.preprocessing)
        logits = predictor.backend.logits(image[None])[0]
        order = np.argsort(-logits)
        assert prediction.path == str(path)
        assert prediction.class_names == tuple(predictor.class_names[i] for i in order)
        assert math.log(prediction.probabilities[0] / prediction.probabilities[1]) == pytest.approx(
            logits[order[0]] - logits[order[1]], abs=1e-4
        )


@pytest.mark.parametrize(
    ("task", "negative", "no_face", "expected"),
    [
        ("multi-class", "green", "negative", (("green", "red"), None, "no_face")),
        ("multi-label", "", "negative", ((), None, "no_face")),
        ("multi-class", "", "error", ((), "no face was found", None)),
    ],
)
def test_without_a_face_a_rule_decides(monkeypatch, tmp_path, task, negative, no_face, expected):
    """The model is not asked, and good images around are answered as ever."""
    backend = ColourBackend()
    backend.info = replace(backend.info, task=task)
    crop = FaceCrop("face", 0.2, no_face, negative)
    backend.info = replace(
        backend.info, preprocessing=replace(ColourBackend.info.preprocessing, faces=crop)
    )

    def load_image(path, preprocessing, **_):
        if "no_face" in str(path):
            raise NoFaceError("no face was found")
        if "bad" in str(path):
            raise DecodeError("damaged")
        return np.full((8, 8, 3), COLOURS["blue"], np.uint8)

    monkeypatch.setattr(predictor_module, "load_backend", lambda *_, **__: backend)
    monkeypatch.setattr(predictor_module, "load_image", load_image)
    names = ["a", "no_face 1", "bad", "b", "no_face 2"]
    got = Predictor("model.xml").predict([tmp_path / name for name in names], top_k=2)
    assert [(p.class_names, p.error, p.reason) for p in (got[1], got[4])] == [expected] * 2
    assert got[2].error == "damaged" and got[2].reason is None
    assert [p.class_names[0] for p in (got[0], got[3])] == ["blue", "blue"]
    if negative:
        assert got[1].probabilities[0] == pytest.approx(1 / (1 + 2 * math.exp(-10)))


def test_the_negative_class_of_a_file_must_be_one_of_its_classes(monkeypatch):
    backend = ColourBackend()
    crop = FaceCrop("face", 0.2, "negative", "purple")
    backend.info = replace(
        backend.info, preprocessing=replace(ColourBackend.info.preprocessing, faces=crop)
    )
    monkeypatch.setattr(predictor_module, "load_backend", lambda *_, **__: backend)
    with pytest.raises(UserError, match="'purple' is no class"):
        Predictor("model.xml")


@pytest.mark.parametrize("name", ["model.xml", "model.onnx"])
def test_files_know_how_sure_an_answer_must_be(name, exported, checkpoint, images):
    backend = load_backend(exported / name, precision_hint="f32")
    contents = read_checkpoint(checkpoint)
    assert backend.info.temperature == contents["temperature"] != 1
    assert backend.info.reject_below == contents["reject"]["threshold"] > 0
    classifier = load_classifier(checkpoint)
    raw = torch_logits(classifier.model, images, classifier.info.preprocessing)
    np.testing.assert_allclose(
        softmax(backend.logits(images)), softmax(raw / contents["temperature"]), atol=1e-5
    )
