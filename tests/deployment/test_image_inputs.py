"""Whatever holds an image is handed to the model as the file of that image would be."""

from __future__ import annotations

import io
import logging
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from classification.data import threads
from classification.data.decode import decode
from classification.data.preprocessing import Preprocessing, load_image
from classification.deployment import predictor as predictor_module
from classification.deployment.predictor import Predictor
from classification.errors import UserError
from classification.models.model_info import ModelInfo

PREPROCESSING = Preprocessing(6, 8, (0.0,) * 3, (1.0,) * 3)


def noise(height: int, width: int, channels: int = 3, *, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class RecordingBackend:
    """Remembers the pixels that it was shown."""

    info = ModelInfo(("a", "b"), PREPROCESSING)

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def stream(self, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for images in batches:
            self.seen.extend(images)
            yield np.zeros((len(images), 2), np.float32)


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> Predictor:
    monkeypatch.setattr(predictor_module, "load_backend", lambda *_, **__: RecordingBackend())
    return Predictor("model.xml", batch_size=4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "é 1.png"
    Image.fromarray(noise(30, 20)).save(path)
    return path


def shown(predictor: Predictor, images: Any) -> list[np.ndarray]:
    """Return the pixels that the model is shown; each image must be usable."""
    predictor.backend.seen.clear()
    assert [p.error for p in predictor.predict(images)] == [None] * len(predictor.backend.seen)
    return list(predictor.backend.seen)


def at_its_end(path: Path) -> io.BytesIO:
    buffer = io.BytesIO()
    buffer.write(path.read_bytes())
    return buffer


def entry(path: Path) -> os.DirEntry[str]:
    with os.scandir(path.parent) as entries:
        return next(iter(entries))


def piped(path: Path) -> io.BufferedReader:
    """Return a file that has no positions."""
    reader, writer = os.pipe()
    os.write(writer, path.read_bytes())
    os.close(writer)
    return os.fdopen(reader, "rb")


def zipped(path: Path) -> Any:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(path, "in.png")
    return zipfile.ZipFile(buffer).open("in.png")


def loaded(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


KINDS: dict[str, tuple[Callable[[Path], Any], str]] = {  # and the name: the file's or #0
    "str": (str, "file"),
    "Path": (Path, "file"),
    "DirEntry": (entry, "file"),
    "lazy PIL": (Image.open, "file"),
    "loaded PIL": (loaded, "file"),
    "PIL without a file": (lambda path: Image.open(path).copy(), "#0"),
    "array": (lambda path: np.asarray(Image.open(path)), "#0"),
    "array from OpenCV": (lambda path: np.asarray(Image.open(path))[..., ::-1][..., ::-1], "#0"),
    "bytes": (Path.read_bytes, "#0"),
    "bytearray": (lambda path: bytearray(path.read_bytes()), "#0"),
    "memoryview": (lambda path: memoryview(path.read_bytes()), "#0"),
    "open file": (lambda path: path.open("rb"), "file"),
    "unbuffered file": (lambda path: path.open("rb", buffering=0), "file"),
    "BytesIO": (lambda path: io.BytesIO(path.read_bytes()), "#0"),
    "BytesIO just written": (at_its_end, "#0"),
    "pipe": (piped, "#0"),  # its name is a number
    "in a zip": (zipped, "in.png"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [lambda image: image, lambda image: [image], lambda i: iter([i])])
def test_every_kind_is_the_file(
    predictor: Predictor, file: Path, kind: str, batch: Callable[[Any], Any]
) -> None:
    make, name = KINDS[kind]
    image = make(file)
    (prediction,) = predictor.predict(batch(image))
    assert prediction.error is None
    assert prediction.path == (str(file) if name == "file" else name)
    np.testing.assert_array_equal(predictor.backend.seen, [load_image(file, PREPROCESSING)])


def test_kinds_mixed_keep_their_order_and_bad_ones_their_place(
    predictor: Predictor, file: Path, tmp_path: Path
) -> None:
    Image.fromarray(noise(9, 9, seed=1)).save(tmp_path / "2.png")
    other = np.asarray(Image.open(tmp_path / "2.png"))
    images = [other, None, file, b"text", other / 255, str(tmp_path), Image.open(file), [file], 3]
    errors = [p.error or "" for p in predictor.predict(images)]
    assert [p.path for p in predictor.predict(images)] == [
        "#0", "#1", str(file), "#3", "#4", str(tmp_path), str(file), "#7", "#8"
    ]  # fmt: skip
    expected = ["", "NoneType", "", "not an image", "float64", "directory", "", "list", "int"]
    assert all(word in error for word, error in zip(expected, errors, strict=True))
    assert [not error for error in errors] == [not word for word in expected]
    first, second = (load_image(p, PREPROCESSING) for p in (tmp_path / "2.png", file))
    np.testing.assert_array_equal(predictor.backend.seen[:3], [first, second, second])


def test_arrays_of_every_shape_are_as_files_that_hold_them(
    predictor: Predictor, tmp_path: Path
) -> None:
    rgba = noise(10, 12, 4)
    grey, wide = rgba[..., 0], np.linspace(0, 65535, 120).reshape(10, 12).astype(np.uint16)
    for pixels in (rgba[..., :3], rgba, grey, wide):
        path = tmp_path / "saved.png"
        Image.fromarray(pixels).save(path)
        want = load_image(path, PREPROCESSING)
        np.testing.assert_array_equal(shown(predictor, pixels), [want])
        np.testing.assert_array_equal(
            shown(predictor, pixels[::2][:, ::-1][:, ::-1].repeat(1, 0)),
            shown(predictor, Image.fromarray(pixels[::2].copy())),
        )
        if pixels.ndim == 2:
            np.testing.assert_array_equal(shown(predictor, pixels[..., None]), [want])
    np.testing.assert_array_equal(
        shown(predictor, wide.astype(">u2")), [load_image(path, PREPROCESSING)]
    )


def test_arrays_of_arrays(predictor: Predictor, file: Path) -> None:
    for shape in [(5, 7, 9, 3), (5, 7, 9, 4), (5, 7, 9, 1)]:
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        np.testing.assert_array_equal(
            shown(predictor, images), [shown(predictor, image)[0] for image in images]
        )
    assert shown(predictor, np.zeros((0, 7, 9, 3), np.uint8)) == []
    for paths in (np.array([str(file)] * 2), np.array([file] * 2, dtype=object)):
        np.testing.assert_array_equal(
            shown(predictor, paths), [load_image(file, PREPROCESSING)] * 2
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "expected a path, a PIL image, .*, got NoneType"),
        (lambda: 7, "got int"),
        (lambda: {"a.png": 1}, "got dict"),
        (lambda: object(), "got object"),
        (lambda: io.StringIO("text"), r"opened as text; open it so: open\(path, 'rb'\)"),
        (lambda: open(os.devnull), "opened as text"),  # noqa: PTH123, SIM115
        (
            lambda: np.zeros((4, 4, 3), np.float32),
            r"expected uint8 0..255, got float32; multiply by 255 and convert: "
            r"\(x \* 255\).round\(\).astype\('uint8'\)",
        ),
        (lambda: np.zeros((2, 4, 4, 3)), "got float64; multiply by 255"),
        (lambda: np.zeros((4, 4, 3), np.int64), "expected uint8 .*got int64"),
        (lambda: np.zeros((4, 4, 3), np.uint16), "uint16 0..65535 of grey images, got uint16"),
        (lambda: np.zeros((4, 4), bool), "got bool"),
        (lambda: np.zeros((3, 4, 5), np.uint8), r"got \[3, 4, 5\]; put the channels last"),
        (lambda: np.zeros((2, 3, 4, 5), np.uint8), r"got \[3, 4, 5\]; put the channels last"),
        (lambda: np.zeros((4, 4, 2), np.uint8), r"got \[4, 4, 2\]$"),
        (lambda: np.zeros((0, 4, 3), np.uint8), r"got \[0, 4, 3\]$"),
        (lambda: np.zeros(9, np.uint8), r"got \[9\]; of an encoded file give .*tobytes"),
        (lambda: np.zeros((), np.uint8), r"got \[\]$"),
        (lambda: np.zeros((1, 2, 4, 4, 3), np.uint8), r"got \[1, 2, 4, 4, 3\]$"),
        (lambda: "iVBOR" * 2000, "^(iVBOR){20}.*: File name too long"),
        (lambda: "http://host/a.png", "no such file"),
    ],
)  # fmt: skip
def test_what_can_never_be_an_image_is_refused_at_once(
    predictor: Predictor, make: Callable[[], Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        predictor.stream(make())
    assert "\n" not in str(refused.value)


def test_tensors_are_refused_at_once(predictor: Predictor) -> None:
    import torch

    for shape in [(3, 4, 4), (2, 3, 4, 4)]:
        with pytest.raises(UserError, match=r"got Tensor; convert it: .numpy\(\)"):
            predictor.stream(torch.zeros(shape, dtype=torch.uint8))


def broken() -> Any:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, _: object) -> int:
            raise OSError(5, "Input/output error")

    return Broken()


def closed() -> Any:
    file = io.BytesIO(b"something")
    file.close()
    return file


def closed_image() -> Image.Image:
    image = Image.new("RGB", (4, 4))
    image.close()
    return image


def cut() -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(noise(40, 40)).save(buffer, "JPEG")
    return Image.open(io.BytesIO(buffer.getvalue()[:1000]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", "not an image"),
        (broken, "cannot read the file: Input/output error"),
        (closed, "cannot read the file: ValueError: I/O operation on closed file"),
        (closed_image, "closed"),
        (cut, "truncated"),
        (lambda: Image.new("RGB", (0, 4)), "0x4 pixels"),
        (lambda: Image.new("F", (4, 4)), "no known range"),
    ],
)
def test_damaged_ones_are_rows(
    predictor: Predictor, file: Path, make: Callable[[], Any], message: str
) -> None:
    assert message in str(predictor.predict(make())[0].error)
    errors = [p.error for p in predictor.predict([file, make(), file])]
    assert errors[::2] == [None, None] and message in str(errors[1])


def test_text_from_a_stream_is_refused(predictor: Predictor) -> None:
    class Reader:
        def read(self) -> str:
            return "text"

    with pytest.raises(UserError, match=r"got Reader, whose read\(\) gives str"):
        predictor.stream(Reader())


def test_neither_image_nor_file_is_changed_or_closed(predictor: Predictor, tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(9, 12, seed=seed)).quantize() for seed in range(3)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with Image.open(path) as image:
        image.seek(1)
        middle = shown(predictor, image)[0]
        np.testing.assert_array_equal(middle, shown(predictor, image.convert("RGB"))[0])
        assert (image.tell(), image.mode, image.size) == (1, image.mode, (12, 9))
        image.seek(2)  # still open
        assert not np.array_equal(shown(predictor, image)[0], middle)
    with path.open("rb") as file:
        file.seek(5)
        first = shown(predictor, [file, file])
        assert file.tell() == 5 and not file.closed
    np.testing.assert_array_equal(first, [load_image(path, PREPROCESSING)] * 2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_lazy_and_loaded_images_are_turned_upright_as_files_are(
    predictor: Predictor, kind: str
) -> None:
    for value in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = value
        buffer = io.BytesIO()
        Image.fromarray(noise(6, 8)).save(buffer, kind, exif=exif)
        image = Image.open(buffer)
        want = np.asarray(decode(io.BytesIO(buffer.getvalue())).resize((8, 6), 2))
        for _ in ("lazy", "loaded"):
            np.testing.assert_array_equal(shown(predictor, image), [want])
        np.testing.assert_array_equal(shown(predictor, image.copy()), [want])


def test_every_mode_of_pil(predictor: Predictor) -> None:
    rgb = Image.fromarray(noise(9, 12))
    for mode in ("1", "L", "LA", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"):
        for step in ("LA", "RGBA"):  # not every mode comes from RGB
            try:
                image = rgb.convert(step).convert(mode)
                break
            except ValueError:
                continue
        saved = image.convert("RGBA") if mode == "RGBa" else image
        np.testing.assert_allclose(
            shown(predictor, image), shown(predictor, saved.convert("RGB")), atol=1, err_msg=mode
        )
    wide = Image.fromarray(np.arange(108, dtype=np.int32).reshape(9, 12) * 600)
    want = shown(predictor, np.asarray(wide).astype(np.uint16))
    np.testing.assert_array_equal(shown(predictor, wide), want)
    see_through = Image.new("RGBA", (5, 5), (255, 0, 0, 0))
    assert np.unique(shown(predictor, see_through)).tolist() == [255]


def test_a_buffer_may_be_filled_anew_for_the_next_image(predictor: Predictor) -> None:
    """As OpenCV's camera does it; images are decoded later, in other threads."""
    for shape in [(9, 12, 3), (9, 12), (9, 12, 4)]:
        buffer = np.zeros(shape, np.uint8)

        def frames(buffer: np.ndarray = buffer) -> Iterator[Any]:
            for value in range(0, 200, 10):
                buffer[:] = value
                buffer[..., 3:] = 255
                yield buffer

        assert [image[0, 0, 0] for image in shown(predictor, frames())] == list(range(0, 200, 10))

    canvas = Image.new("RGB", (12, 9))

    def drawn() -> Iterator[Any]:
        for value in range(0, 200, 10):
            canvas.paste((value,) * 3, (0, 0, 12, 9))
            yield canvas

    assert [image[0, 0, 0] for image in shown(predictor, drawn())] == list(range(0, 200, 10))

    encoded = bytearray()

    def received() -> Iterator[Any]:
        for value in range(0, 200, 10):
            file = io.BytesIO()
            Image.new("L", (12, 9), value).save(file, "PNG")
            encoded[:] = file.getvalue()
            yield encoded

    assert [image[0, 0, 0] for image in shown(predictor, received())] == list(range(0, 200, 10))


def test_one_lazy_image_many_times(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(noise(300, 400)).save(path)
    want = shown(predictor, np.asarray(Image.open(path)))[0]
    with Image.open(path) as image:
        np.testing.assert_array_equal(shown(predictor, [image] * 40), [want] * 40)


def test_images_in_memory_are_read_ahead_by_their_size(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.setattr(predictor_module, "READ_AHEAD", 100_000)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    taken = []

    def endless(image: Any) -> Iterator[Any]:
        while True:
            taken.append(1)
            yield image

    for image in (np.zeros((100, 100, 3), np.uint8), b"no image" * 5000):  # 40,000 bytes each
        taken.clear()
        predictions = predictor.stream(endless(image))
        next(predictions)
        assert len(taken) <= 8 * predictor.batch_size + 2 * 2 + 1
        predictions.close()
    taken.clear()
    predictions = predictor.stream(endless(file))
    next(predictions)
    assert len(taken) > 500  # of what lies on the disk only what was decoded is held
    predictions.close()


def test_too_many_pixels(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(PREPROCESSING, max_megapixels=1e-4)
    info = replace(predictor.backend.info, preprocessing=few)
    monkeypatch.setattr(predictor.backend, "info", info)
    pixels = noise(11, 10)
    for image in (pixels, Image.fromarray(pixels)):
        assert predictor.predict(image)[0].error == (
            "10x11 is 0.00011 megapixels, more than the 0.0001 of data.max_megapixels"
        )
    assert predictor.predict(pixels[1:])[0].error is None


def test_what_decoding_shows_is_told(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a file and of an array alike, once, at the end."""
    dark = np.arange(1600, dtype=np.uint16).reshape(40, 40)
    Image.fromarray(dark).save(tmp_path / "12 bits.png")
    one, other, _ = Predictor(trained).predict([tmp_path / "12 bits.png", dark, noise(20, 30)])
    assert one.probabilities == other.probabilities
    ((_, level, line),) = caplog.record_tuples
    assert level == logging.WARNING
    assert line.startswith("2 of 3 images have more than 8 bits, but their grey values reach 1,599")
    assert line.endswith(f"{tmp_path / '12 bits.png'}, #1")
