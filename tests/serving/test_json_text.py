"""JSON and base64 of strangers, against Python's own readers of them."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from serving_support import encoded

from classification.data.preprocessing import Preprocessing
from classification.serving.bodies import decode_base64, find_image
from classification.serving.budgets import PixelBudget
from classification.serving.images import check_header, decode_image
from classification.serving.json_text import cut_numbers, parse_json, parse_numbers
from classification.serving.problems import Problem
from classification.serving.settings import Settings
from classification.serving.tensors import parse_request

FP32, UINT8 = np.dtype("<f4"), np.dtype("u1")


def test_numbers_in_every_nesting() -> None:
    """More of them than are read at once."""
    values = np.random.default_rng(0).normal(size=(3, 50, 700)).astype(FP32)
    for nested in (values, values.ravel(), values.reshape(3, -1)):
        for separators in ((",", ":"), (" ,\n ", ":")):
            text = json.dumps(nested.tolist(), separators=separators).encode()
            assert np.array_equal(parse_numbers(text, [3, 50, 700], FP32), values)
    pixels = np.arange(256).reshape(1, 16, 16)
    text = json.dumps(pixels.tolist()).encode()
    assert np.array_equal(parse_numbers(text, [1, 16, 16], UINT8), pixels)
    assert parse_numbers(b"[[1.0, 2e0]]", [1, 2], UINT8).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "text",
    ["[1,2,3]", "[1,2,3,4,5]", "[[1,2],[3]]", "[[1],[2,3,4]]", "[[1,2]3,[4]]", "[[1,2],[3,4]",
     "[1,2],[3,4]", "[[[1,2],[3,4]]]", "[[1,2,3,4]]", "[1,2,3,]", "[,1,2,3]", "[1,,2,3]",
     "[1 2,3,4,5]", "[1,2,3,4e999]", "[1,2,3,1e39]", "[1,2,3,-1e39]", "[1,2,3,NaN]",
     "[1,2,3,Infinity]", "[1,2,3,true]", "[1,2,3,null]", '[1,2,3,"4"]', "[1,2,3,+4]", "[1,2,3,.4]",
     "[1,2,3,4.]", "[1,2,3,04]", "[1,2,3,0x4]", "[1,2,3,--4]", "[1,2,3,1e]", "[1,2,3,{}]",
     "[1,2,3,[]]", "[]", "[[],[]]", "[[1,2]],[3,4]", f"[1,2,3,{'9' * 5000}]",
     f"[1,2,3,{'9' * 400}]", f"[1,2,3,{' ' * 200_000}4]"],
)  # fmt: skip
def test_what_is_no_list_of_four_numbers(text: str) -> None:
    with pytest.raises(ValueError):
        parse_numbers(text.encode(), [2, 2], FP32)


def test_a_missing_number_where_a_piece_ends() -> None:
    pieces = [b"1," * 40_000, b"1"]
    assert parse_numbers(b"[" + b"".join(pieces) + b"]", [40_001], FP32).sum() == 40_001
    for position in (65_536, 65_537, 65_538, 0, 80_000):
        text = bytearray(b"[" + b"".join(pieces) + b"]")
        at = text.find(b"1", position)
        text[at : at + 1] = b" "
        with pytest.raises(ValueError):
            parse_numbers(bytes(text), [40_001], FP32)


names = st.sampled_from(["data", "x", 'a"data'])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(names, inner),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(json_values, st.booleans())
@example({"x": '"data":[1]', "data": [1, 2]}, True)
@example({'a"data': [1], "data": [2]}, False)
def test_cutting_the_numbers_out_leaves_the_rest(value: object, escaped: bool) -> None:
    """Put back in its place, the list gives what was sent."""
    text = json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    rest, numbers = cut_numbers(text, "data", "PLACE")
    if numbers is not None:
        rest = rest.replace(b'"PLACE"', numbers, 1)
    assert rest == text


@pytest.mark.parametrize(
    "text",
    [b"NaN", b'{"a":Infinity}', b"1e400", b"9" * 5000, b"1." + b"1" * 5000, b'{"a":1,"a":2}', b"[",
     b"[" * 500, b"", b"[1,]", b"\xff\xfe", b"[" + b"1," * 1000 + b"1]", b'"' * 2000],
)  # fmt: skip
def test_json_that_is_refused(text: bytes) -> None:
    with pytest.raises(Problem) as raised:
        parse_json(text, 1000)
    assert raised.value.status == 400


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(json_values)
def test_other_json_is_read_as_ever(value: object) -> None:
    assert parse_json(json.dumps(value).encode("utf-8"), 10_000) == value


DATA = bytes(range(256)) * 3 + b"\xfb\xff"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 57, 58, 770])
def test_base64_in_every_form(size: int) -> None:
    data = DATA[-size:] if size else b""
    plain = base64.b64encode(data).decode()
    forms = [
        plain,
        plain.rstrip("="),
        base64.urlsafe_b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
        base64.encodebytes(data).decode(),
        base64.encodebytes(data).decode().replace("\n", "\r\n"),
        f"  {plain}\n",
        f"data:image/jpeg;base64,{plain}",
        f"data:image/svg+xml;charset=utf-8;base64,{plain}",
        f"data:;base64,{plain}",
        f"DATA:image/PNG;Base64, {plain}\n",
        "data:image/png;base64,"
        + plain.replace("+", "%2B").replace("=", "%3d").replace("/", "%2f"),
    ]
    assert [decode_base64(form) for form in forms] == [data] * len(forms)


@pytest.mark.parametrize(
    "text",
    ["*", "A", "AAAAA", "QQ===", "Q=Q=", "QQ==QQ==", "QUJD=", "ü", "data:image/png,abc", "data:",
     "data:image/png;base64", "data:image/png;base65,QUJD", "QUJD,QUJD", "=", "====", "\0QUJD"],
)  # fmt: skip
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(ValueError):
        decode_base64(text)
    with pytest.raises(Problem, match="'image' is no base64"):
        find_image(json.dumps({"image": text}).encode(), "application/json", Settings())


def test_json_escapes_within_base64() -> None:
    """As PHP and .NET write it."""
    body = b'{"image":"+\\/\\u002b\\u003D"}'.replace(b"+\\/", b"AA\\/")
    with pytest.raises(Problem):
        find_image(body, "application/json", Settings())
    body = b'{"file":"a","image":"\\u002B\\/8\\u003d"}'
    assert find_image(body, "application/json", Settings()).data == b"\xfb\xff"


def infer(**changes: object) -> bytes:
    tensor = {"name": "image", "shape": [1, 2], "datatype": "FP32", "data": [1, 2], **changes}
    return json.dumps({"id": "a", "inputs": [tensor]}).encode()


def parse(body: bytes, head_length: str | None = None):
    return parse_request(body, head_length, "image", "FP32", [-1, 2], ["logits"], Settings())


def test_tensors_and_what_stands_around_them() -> None:
    assert parse(infer()).items.tolist() == [[1, 2]]
    before = infer().replace(b'{"id"', b'{"parameters":{"data":[7]},"id"')
    assert parse(before).items.tolist() == [[1, 2]]
    assert parse(infer(), "0" * 5000 + str(len(infer()))).items.tolist() == [[1, 2]]
    binary = infer(data=None, parameters={"binary_data_size": 8})
    request = parse(binary + struct.pack("<ff", 3, 4), str(len(binary)))
    assert request.items.tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("body", "head_length", "status", "reason"),
    [
        (infer(data=["a" * 50_000] + [""] * 5000), None, 400, "more than 1000 values|longer than"),
        (infer(shape=[9] * 9), None, 400, "1 to 8 numbers"),
        (infer(shape=[2**31, 2]), None, 400, "below 2"),
        (infer(shape=[65, 2]), None, 413, "65 images"),
        (infer(), "9" * 5000, 400, "no length within"),
        (infer(), "٣", 400, "no length within"),
        (infer(data="text"), None, 400, "it is text"),
        (infer(id="a" * 70_000), None, 400, "longer than 65536 bytes"),
        (infer(datatype="BYTES"), None, 400, "only come as binary"),
        (infer().replace(b'"shape"', b'"name":"image","shape"'), None, 400, "given twice"),
    ],
)
def test_tensors_that_are_refused(
    body: bytes, head_length: str | None, status: int, reason: str
) -> None:
    with pytest.raises(Problem, match=reason) as raised:
        parse(body, head_length)
    assert raised.value.status == status


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_binary_numbers_are_finite(value: float) -> None:
    head = infer(data=None, parameters={"binary_data_size": 8})
    with pytest.raises(Problem, match="finite"):
        parse(head + struct.pack("<ff", 1, value), str(len(head)))


def test_empty_images_beyond_what_the_shape_says_are_not_read() -> None:
    size = {"binary_data_size": 400_000}
    head = infer(datatype="BYTES", shape=[3], data=None, parameters=size)
    with pytest.raises(Problem, match="another number of images"):
        parse(head + bytes(400_000), str(len(head)))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_parts_of_an_image_are_counted() -> None:
    png, gif = (encoded(Image.new("P", (8, 8)), format) for format in ("PNG", "GIF"))
    table = 13 + (3 << ((gif[10] & 7) + 1) if gif[10] & 0x80 else 0)
    some = Settings(max_image_chunks=20)
    for count in (5, 30):
        images = [
            png[:33] + chunk(b"tEXt", b"a\0b") * count + png[33:],
            png[:-12] + chunk(b"tEXt", b"a\0b") * count + png[-12:],
            gif[:table] + b"!\xfe" + b"\x01a" * count + b"\0" + gif[table:],
            gif[:table] + b"!\xfe\x01a\0" * (count // 2) + gif[table:],
            gif[:table] + b"x" * count + gif[table:],
        ]
        for data in images:
            if count == 5:
                assert check_header(data, some, 1) == 64
            else:
                with pytest.raises(Problem, match="more than 20 chunks or blocks"):
                    check_header(data, some, 1)


def test_a_bmp_of_run_lengths_is_refused() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 8, 1, 8, 0, 0, 256, 0) + bytes(1024)
    data = b"BM" + struct.pack("<IHHI", 1086, 0, 0, 1078) + header + b"\x02\0\0\0\x02\0\0\x01"
    with Image.open(io.BytesIO(data)) as image:
        image.load()
    with pytest.raises(Problem, match="run lengths"):
        check_header(data, Settings(), 1)


def test_pixels_that_decoding_holds() -> None:
    image = Image.new("RGB", (800, 640))
    assert check_header(encoded(image, "PNG"), Settings(), 1, (80, 80)) == 800 * 640
    assert check_header(encoded(image, "JPEG"), Settings(), 1, (80, 80)) == 100 * 80
    progressive = encoded(image, "JPEG", progressive=True)
    assert check_header(progressive, Settings(), 1, (80, 80)) == 800 * 640
    how = Preprocessing(8, 8, (0.0,) * 3, (1.0,) * 3)
    pixels = decode_image(encoded(image, "PNG"), how, Settings(), PixelBudget(10))
    assert pixels.shape == (8, 8, 3)


def test_parts_of_a_form_are_counted() -> None:
    kind = "multipart/form-data; boundary=b"
    part = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\nx\r\n'
    for count, status in ((99, None), (101, 400)):
        body = part % b"other" * (count - 1) + part % b"file" + b"--b--\r\n"
        if status is None:
            assert find_image(body, kind, Settings()).data == b"x"
        else:
            with pytest.raises(Problem, match="more than 100 parts"):
                find_image(body, kind, Settings())
