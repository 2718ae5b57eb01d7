"""Evil requests get a 4xx with a reason, and the service in its own process stays up."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from serving_support import Answer, encoded, post

from classification.data.preprocessing import Preprocessing, load_image
from classification.serving.app import create_app
from classification.serving.images import MOST_SCANS, check_header, count_scans
from classification.serving.problems import Problem
from classification.serving.settings import Settings


@pytest.fixture(autouse=True)
def stays_up(server, image: Path) -> Iterator[None]:
    """Every test leaves a service that still answers, with the same process."""
    yield
    assert server.process.poll() is None
    status, answer = post(server, image.read_bytes())
    assert status == 200 and answer["predicted_name"]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, data: bytes, *more: bytes) -> bytes:
    """Return a PNG whose header may promise anything."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(data))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def small(format: str, mode: str = "RGB", **options) -> bytes:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (48, 40, 4), dtype=np.uint8)
    return encoded(Image.fromarray(pixels).convert("RGB").convert(mode), format, **options)


def many_scans(number: int) -> bytes:
    """Return a progressive JPEG whose last scan, of some bytes, is repeated."""
    data = encoded(Image.new("L", (1500, 1500)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + number * scan + data[-2:]


JPEG, PNG = small("JPEG"), small("PNG")
BOMB = encoded(Image.new("1", (9000, 9000)), "PNG")  # 81 megapixels in some kilobytes
EVIL = {
    "empty": (b"", 400, "empty"),
    "text": (b"no image at all", 400, "not an image"),
    "zeros": (bytes(1000), 400, "not an image"),
    "a bomb": (BOMB, 413, "9000x9000 pixels"),
    "a bomb in GIF": (encoded(Image.new("P", (3000, 3000)), "GIF"), 413, "megapixels"),
    "a bomb in WebP": (encoded(Image.new("RGB", (3000, 2000)), "WEBP"), 413, "megapixels"),
    "a header that lies": (png(60_000, 60_000, b""), 413, "60000x60000"),
    "a width of 2**31": (png(2**31 - 1, 1, b""), 413, "pixels"),
    "no width": (png(0, 10, b""), 400, ""),
    "too few pixels": (png(500, 500, bytes(100)), 400, "not a usable image"),
    "text that unpacks to 200 MB": (
        png(8, 8, bytes(200), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000)))),
        400,
        "",
    ),
    "a truncated JPEG": (JPEG[: len(JPEG) // 2], 400, "truncated"),
    "a truncated PNG": (PNG[: len(PNG) // 2], 400, ""),
    "only a JPEG's start": (JPEG[:4], 400, ""),
    "a JPEG within its header": (JPEG[:100], 400, ""),
    "EPS, which would start a program": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        400,
        "not an image",
    ),
    "plain PPM, which Python parses": (b"P3 2 2 255 " + b"1 " * 12, 400, "not an image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400, "not an image"),
    "TIFF": (encoded(Image.new("RGB", (9, 9)), "TIFF"), 400, "not an image"),
    "a JPEG that is gone over 5000 times": (many_scans(5000), 400, "scans"),
}


def test_scans_are_counted_up_to_the_end_of_the_image() -> None:
    rng = np.random.default_rng(0)
    film = rng.integers(0, 256, 5_000_000, dtype=np.uint8).tobytes()
    assert film.count(b"\xff\xda") > MOST_SCANS
    exif = Image.Exif()
    exif[0x010E] = "\xff\xda" * 99  # a description: within a segment with a length
    noise = Image.fromarray(rng.integers(0, 256, (200, 300, 3), dtype=np.uint8))
    plain = encoded(noise, "JPEG", exif=exif.tobytes() + 99 * b"\xff\xda")
    progressive = encoded(noise, "JPEG", progressive=True)
    restarts = encoded(noise, "JPEG", restart_marker_rows=1)
    assert [count_scans(data) for data in (plain, progressive, restarts)] == [1, 10, 1]
    assert [count_scans(data + film) for data in (plain, progressive, restarts)] == [1, 10, 1]
    assert count_scans(many_scans(99) + film) == 99 + count_scans(many_scans(0))
    check_header(plain + film, Settings(), 1.0)


def test_scans_behind_an_end_that_is_none_are_counted() -> None:
    """For libjpeg the image begins after the tables, of which there may be none."""
    crafted = b"\xff\xd8\xff\xd9" + many_scans(200)
    load_image(io.BytesIO(crafted), Preprocessing(8, 8, (0.0,) * 3, (1.0,) * 3))
    assert count_scans(crafted) == 200 + count_scans(many_scans(0))
    with pytest.raises(Problem, match="scans"):
        check_header(crafted, Settings(), 100)


@pytest.mark.parametrize("filling", [b"\xff\xd8", b"\xff\xc0\x00\x00"])
def test_counting_scans_ends_soon(filling: bytes) -> None:
    with pytest.raises(Problem, match="segments"):
        count_scans(JPEG[:2] + 1_000_000 * filling)


@pytest.mark.parametrize("name", EVIL)
def test_evil_images(server, name: str) -> None:
    body, status, reason = EVIL[name]
    assert len(body) <= 300_000
    answered, answer = post(server, body)
    assert (answered, list(answer)) == (status, ["error"]) and reason in answer["error"], answer


@pytest.mark.parametrize("name", ["a bomb", "text", "a truncated JPEG"])
def test_evil_images_in_forms_and_json(server, name: str) -> None:
    body, status, reason = EVIL[name]
    answer = post_form(server, [("file", "a.jpg", body)])
    assert answer[0] == status and reason in answer[1]["error"]
    content = json.dumps({"image": base64.b64encode(body).decode()}).encode()
    answer = post(server, content, "application/json")
    assert answer[0] == status and reason in answer[1]["error"]


def test_every_byte_of_an_image_may_be_wrong(server) -> None:
    """Damaged images are answered or refused, never a fault of the service."""
    rng = np.random.default_rng(0)
    originals = [JPEG, PNG, small("WEBP"), small("GIF"), small("BMP")]
    for number in range(120):
        body = bytearray(originals[number % len(originals)])
        for position in rng.integers(0, len(body), 1 + number % 9):
            body[position] = rng.integers(256)
        status, answer = post(server, bytes(body[: rng.integers(1, len(body) + 1)]))
        assert status in (200, 400, 413) and ("error" in answer) == (status != 200)


GOOD = [("JPEG", "L"), ("JPEG", "CMYK"), ("JPEG progressive", "RGB"), ("PNG", "RGBA"),
        ("PNG", "P"), ("PNG", "I;16"), ("PNG", "1"), ("WEBP", "RGBA"), ("GIF", "P"),
        ("BMP", "RGB")]  # fmt: skip


@pytest.mark.parametrize(("format", "mode"), GOOD)
def test_unusual_images_are_answered(server, format: str, mode: str) -> None:
    name, _, progressive = format.partition(" ")
    status, answer = post(server, small(name, mode, **{progressive: True} if progressive else {}))
    assert status == 200 and len(answer["classes"]) == 3


def test_a_decoded_bomb_would_have_been_seen_in_the_memory(server) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    for _ in range(20):
        assert post(server, BOMB)[0] == 413
    assert process.memory_info().rss - before < 40e6  # one bomb, decoded, would be 243 MB


def post_form(server, files: list[tuple[str, str, bytes]], boundary: str = "b0undary") -> Answer:
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'
        .encode() + data + b"\r\n"
        for name, file, data in files
    )  # fmt: skip
    body += f"--{boundary}--\r\n".encode()
    return post(server, body, f"multipart/form-data; boundary={boundary}")


def test_forms(server, image: Path) -> None:
    data = image.read_bytes()
    assert post_form(server, [("file", "../../etc/passwd", data)])[1]["file"] == "../../etc/passwd"
    for files in ([], [("a", "a.png", data), ("b", "b.png", data)]):
        status, answer = post_form(server, files)
        assert status == 400 and f"found {len(files)}" in answer["error"]
    for kind, body in (
        ("multipart/form-data", b"--x\r\n\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", b"no boundary here"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name="),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A" * 20_000 + b": b\r\n\r\n--x--"),
        ("multipart/form-data; boundary=" + "x" * 300, b"--x--"),
        ("multipart/form-data; boundary=x", b""),
    ):
        status, answer = post(server, body, kind)
        assert status == 400 and answer["error"], (kind, body)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"3", b'"x"', b'{"image": 3}', b'{"image": "*"}', b'{"image": "A"}',
     b'{"file": "a"}', b'{"image": "", "x": 1}', b'{"image": "", "file": 3}', b"\xff\xfe",
     b"[" * 100_000, b'{"image": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_json_that_is_none_of_ours(server, body: bytes) -> None:
    status, answer = post(server, body, "application/json")
    assert status == 400 and answer["error"]


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "video/mp4", "x" * 4000, "application/pdf"],
)
def test_other_types_are_415(server, image: Path, kind: str) -> None:
    status, answer = post(server, image.read_bytes(), kind)
    assert status == 415 and "expected an image" in answer["error"]


def test_compressed_bodies_are_415(server, image: Path) -> None:
    status, answer = post(server, image.read_bytes(), **{"Content-Encoding": "gzip"})
    assert status == 415 and "Content-Encoding" in answer["error"]


@pytest.mark.parametrize("length", [300_001, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_body_is_413(server, length: int, chunked: bool) -> None:
    connection = HTTPConnection(*server.address, timeout=20)
    body = iter([bytes(100_000)] * (length // 100_000) + [b"x"]) if chunked else bytes(length)
    connection.request("POST", "/classify", body, {"Content-Type": "image/png"})
    response = connection.getresponse()
    assert response.status == 413 and "300000 bytes" in json.loads(response.read())["error"]


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.html", "/static/../page.html",
     "/classify/..", "//etc/passwd", "/v2/models/../../x", "/v2/models/ir/versions/2",
     "/v2/models/%00", "/docs", "/v2/models/ir%2f..%2fir"],
)  # fmt: skip
def test_path_tricks_are_404(server, path: str) -> None:
    status, head, body = raw(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert status == 404 and json.loads(body)["error"]


def raw(server, data: bytes, wait: float = 10) -> tuple[int, bytes, bytes]:
    """Send bytes and return status, head and body of what comes back."""
    with socket.create_connection(server.address, timeout=wait) as connection:
        connection.sendall(data)
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < length(answer):
            received = connection.recv(65536)
            if not received:
                break
            answer += received
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


def length(answer: bytes) -> int:
    return int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)


def test_huge_headers_are_431(server) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 20_000
    status, _, body = raw(server, head + b"\r\nContent-Length: 0\r\n\r\n")
    assert status == 431 and "error" in json.loads(body)
    many = b"".join(b"X-%d: a\r\n" % number for number in range(3000))
    status, _, _ = raw(server, b"GET / HTTP/1.1\r\n" + many + b"\r\n")
    assert status == 431


def test_headers_without_end_are_431(server) -> None:
    """They are not kept in memory until the sender is tired."""
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Endless: ")
        answer = b""
        for _ in range(100):
            try:
                connection.sendall(b"a" * 5000)
                time.sleep(0.005)
            except OSError:
                break
        else:
            pytest.fail("half a megabyte of headers was taken")
        try:
            answer = connection.recv(1000)
        except ConnectionResetError:
            return  # it went on speaking after the answer
        assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
     b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
     b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
     b"POST /classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
)  # fmt: skip
def test_what_is_no_http_is_400(server, sent: bytes) -> None:
    assert raw(server, sent)[0] == 400


def test_a_client_that_goes_away_is_forgotten(server, image: Path) -> None:
    body = image.read_bytes()
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    for part in (body[:10], body):
        for _ in range(30):  # twice the queue
            with socket.create_connection(server.address) as connection:
                connection.sendall(head + part)
    deadline = time.monotonic() + 10
    while post(server, body)[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_other_methods_are_405(server) -> None:
    connection = HTTPConnection(*server.address)
    for method, path in (("GET", "/classify"), ("DELETE", "/healthz"), ("PUT", "/")):
        connection.request(method, path)
        response = connection.getresponse()
        assert response.status == 405 and json.loads(response.read())["error"]


def test_a_slow_body_is_408(models) -> None:
    """Within the process, since the limit is 15 s by default."""
    app = create_app(models, Settings(body_seconds=0.2))

    async def ask() -> list[dict]:
        sent: list[dict] = []

        async def receive() -> dict:
            await asyncio.sleep(60)
            return {}

        async def send(message: dict) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/classify", "raw_path": b"/classify",
            "query_string": b"", "headers": [(b"content-type", b"image/png")],
            "http_version": "1.1", "scheme": "http", "server": ("a", 1), "client": ("b", 2),
            "root_path": "",
        }  # fmt: skip
        await app(scope, receive, send)
        return sent

    started = time.monotonic()
    start, body, *_ = asyncio.run(ask())
    assert start["status"] == 408 and b"within 0.2 s" in body["body"]
    assert time.monotonic() - started < 10


def test_the_image_in_use_is_not_all_that_was_tried() -> None:
    """The corpus is what it says: Pillow without limits opens the bombs."""
    with Image.open(io.BytesIO(BOMB)) as image:
        assert image.size == (9000, 9000)
