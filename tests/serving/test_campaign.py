"""Hostile requests, one by one: the answer, the memory, the processor time, and who else is served.

The service runs in its own process. While each request is under way others ask for `/healthz`; what
fails is tried again alone, since another program on the machine may have been the cause.
"""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from serving_support import Server, encoded, running_server

pytestmark = pytest.mark.slow

MEGABYTE = 1_000_000
BODY = 10 * MEGABYTE - 1000  # just within the limit
INFER = "/v2/models/ir/infer"
WHOLE = "/v2/models/whole/infer"
HEALTH_SECONDS = 0.2
TRIES = 3


@dataclass
class Attack:
    """What is sent on some connections at once, and what may come of it."""

    sent: list[bytes]  # to each connection in turn
    statuses: set[int] = field(default_factory=lambda: {400})
    connections: int = 1
    seconds: float = 10.0  # to wait for the answer; then it may stay away where 0 is a status
    cpu: float = 2.0  # processor seconds
    growth: float = 150.0  # MB, while it runs
    pause: float = 0.0  # seconds between the parts


def request(
    path: str, body: bytes = b"", kind: str = "application/json", *more: str, method: str = "POST"
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *more]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def tensor(data: str, shape: str = "[1,3,40,32]", datatype: str = "FP32", rest: str = "") -> bytes:
    return (
        f'{{"inputs":[{{"name":"image","shape":{shape},"datatype":"{datatype}",'
        f'"data":{data}}}]{rest}}}'
    ).encode()


def with_binary(shape: str, datatype: str, blob: bytes, head_length: str | None = None) -> bytes:
    head = (
        f'{{"inputs":[{{"name":"image","shape":{shape},"datatype":"{datatype}",'
        f'"parameters":{{"binary_data_size":{len(blob)}}}}}]}}'
    ).encode()
    length = head_length or str(len(head))
    header = f"Inference-Header-Content-Length: {length}"
    return request(INFER, head + blob, "application/octet-stream", header)


def filled(start: str, unit: str, end: str, size: int = BODY) -> str:
    return start + unit * ((size - len(start) - len(end) - 200) // len(unit)) + end


def json_attacks() -> Iterator[tuple[str, Attack]]:
    numbers = 3 * 40 * 32
    for width, count in ((10_000, 75_000), (4 * MEGABYTE, 1_900_000), (100, 2_000_000)):
        texts = f'["{"a" * width}"' + ',""' * count + "]"
        yield f"texts of {width} as data", Attack([request(INFER, tensor(texts[:BODY] + "]"))])
    for name, unit in (
        ("ints", "0,"), ("floats", "0.1234567,"), ("texts", '"",'), ("lists", "[],"),
        ("open lists", "["), ("deep floats", "[1.5],"), ("objects", "{},"), ("null", "null,"),
        ("NaN", "NaN,"), ("huge", "1e400,"), ("minus", "-,"), ("commas", ","), ("blanks", " "),
        ("digits", "9"), ("zeros", "0"), ("exponents", "1e"), ("escapes", '"\\u0041",'),
    ):  # fmt: skip
        yield f"data of {name}", Attack([request(INFER, tensor(filled("[", unit, "0]")))])
        yield (
            f"pixels of {name}",
            Attack([request(WHOLE, tensor(filled("[", unit, "0]"), "[1,2000,1000,3]", "UINT8"))]),
        )
        yield (
            f"an id of {name}",
            Attack([request(INFER, tensor("[0]", rest=',"id":' + filled("[", unit, "0]")))]),
        )
        yield (
            f"an image of {name}",
            Attack([request("/classify", filled('{"image":[', unit, "0]}").encode())]),
        )
        yield f"only {name}", Attack([request(INFER, filled("", unit, "").encode())])
    for value in (
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "1e39",
        "9" * 5000,
        "true",
        '"1"',
        "1 1",
    ):
        yield (
            f"{value[:20]} among numbers",
            Attack([request(INFER, tensor(f"[{value}{',0' * (numbers - 1)}]"))]),
        )
    for value in ("nan", "inf", "-inf"):
        blob = np.full(numbers, value, "<f4").tobytes()
        yield f"binary {value}", Attack([with_binary("[1,3,40,32]", "FP32", blob)])
    nines = "9," * 400_000 + "9"
    for shape in (f"[{nines}]", "[" * 100_000, f"[{'9' * 5000}]", "[" + "9," * 8 + "9]", "[1e5]"):
        yield (
            f"a shape of {len(shape)} characters",
            Attack([with_binary(shape, "BYTES", b""), with_binary(shape, "FP32", b"\0" * 4)]),
        )
    for digits in ("9" * 5000, "0" * 5000 + "9" * 20, "-1", "1e3", "٣"):
        header = f"Inference-Header-Content-Length: {digits}"
        yield (
            f"a head length of {digits[:8]} ({len(digits)})",
            Attack([request(INFER, b"{}", "application/octet-stream", header)]),
        )
    yield (
        "two million empty images",
        Attack([with_binary("[2400000]", "BYTES", b"\0" * 9_600_000)], {413}),
    )
    yield "more empty images than said", Attack([with_binary("[60]", "BYTES", b"\0" * 9_600_000)])
    names = ",".join(f'"{number}":0' for number in range(900_000))
    for path in (INFER, "/classify"):
        yield f"900,000 names for {path}", Attack([request(path, f"{{{names}}}".encode())])
    good = tensor(f"[{'0,' * (numbers - 1)}0]")
    yield "data twice", Attack([request(INFER, good.replace(b'"data"', b'"data":[1],"data"'))])
    rng = np.random.default_rng(0)
    for number in range(30):
        broken = bytearray(good[: rng.integers(1, len(good))] if number % 2 else good)
        for position in rng.integers(0, min(len(broken), 90), 1 + number % 4):
            broken[position] = rng.integers(256)
        yield f"broken JSON {number}", Attack([request(INFER, bytes(broken))], {200, 400})


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def image_attacks() -> Iterator[tuple[str, Attack]]:
    png = encoded(Image.new("RGB", (8, 8)), "PNG")
    gif = encoded(Image.new("P", (8, 8)), "GIF")
    start, end = png[:33], png[33:]
    black = Image.new("RGB", (6300, 6300))
    images = {
        "400,000 texts in a PNG": (start + chunk(b"tEXt", b"a\0b") * 600_000 + end, {400}),
        "unknown chunks in a PNG": (start + chunk(b"abCd", b"") * 800_000 + end, {400}),
        "empty IDATs": (start + chunk(b"IDAT", b"") * 800_000 + end, {400}),
        "chunks behind a PNG": (png[:-12] + chunk(b"tEXt", b"a\0b") * 600_000, {400}),
        "texts that unpack": (
            start + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(MEGABYTE), 9)) * 3000 + end,
            {400},
        ),
        "comments in a GIF": (gif[:13] + b"!\xfe\x01a\x00" * 1_900_000 + gif[13:], {400}),
        "a long comment in a GIF": (
            gif[:13] + b"!\xfe" + b"\x01a" * 4_900_000 + b"\0" + gif[13:], {400}
        ),
        "rubbish in a GIF": (gif[:13] + b"x" * 9_900_000 + gif[13:], {400}),
        "BMP with run lengths": (
            b"BM" + struct.pack("<IHHI", 9_000_000, 0, 0, 1078)
            + struct.pack("<IiiHHIIiiII", 40, 6300, 6300, 1, 8, 1, 9_000_000, 0, 0, 256, 0)
            + bytes(1024) + b"\x01\x00" * 4_400_000,
            {400},
        ),
        "WebP lossless": (encoded(black, "WEBP", lossless=True), {200}),
        "WebP with alpha": (encoded(black.convert("RGBA"), "WEBP", lossless=True), {200}),
        "PNG": (encoded(black, "PNG"), {200}),
        "PNG with alpha": (encoded(black.convert("RGBA"), "PNG"), {200}),
        "PNG of one bit": (encoded(black.convert("1"), "PNG"), {200}),
        "PNG of 16 bits": (encoded(Image.new("I;16", black.size), "PNG"), {200}),
        "GIF": (encoded(black.convert("P"), "GIF"), {200}),
        "BMP of one bit": (encoded(black.convert("1"), "BMP"), {200}),
        "progressive JPEG": (encoded(black, "JPEG", progressive=True), {200}),
        "JPEG of 60,000 x 600": (encoded(Image.new("L", (60_000, 600)), "JPEG"), {200}),
    }  # fmt: skip
    for name, (data, statuses) in images.items():
        # Decoding 40 megapixels holds up to 500 MB and is a second's work.
        attack = Attack([request("/classify", data, "image/x")], statuses, cpu=4, growth=800)
        if statuses == {400}:
            attack = Attack(attack.sent, statuses)
        yield name, attack


def form_attacks() -> Iterator[tuple[str, Attack]]:
    kind = "multipart/form-data; boundary=b"
    head = 'Content-Disposition: form-data; name="file"\r\n'
    bodies = {
        "many parts": filled("", "--b\r\n\r\n\r\n", "--b--\r\n"),
        "many files": filled("", f"--b\r\n{head}\r\n\r\n", "--b--\r\n"),
        "a part of line ends": filled(f"--b\r\n{head}\r\n", "\r\n", "\r\n--b--\r\n"),
        "nearly boundaries": filled(f"--b\r\n{head}\r\n", "\r\n--a", "\r\n--b--\r\n"),
        "many headers": filled("--b\r\n", "A: b\r\n", "\r\n\r\n--b--\r\n"),
        "a long header": filled("--b\r\nA", "a", "\r\n\r\n--b--\r\n"),
        "no boundary at all": filled("", "\r\n", ""),
        "dashes": filled("", "--b", ""),
        "after the end": filled("--b--\r\n", "--b\r\n", ""),
    }
    for name, body in bodies.items():
        yield f"form: {name}", Attack([request("/classify", body.encode(), kind)])
    for name, text in {
        "base64 of one letter": "A" * 9_900_001, "only padding": "=" * 9_900_000,
        "blanks": " A" * 4_900_000, "percents": "data:;base64," + "%41" * 3_000_000,
        "a data URL without end": "data:" + ";base64" * 1_400_000, "rubbish": "*" * 9_900_000,
        "commas": "data:;base64" + "," * 9_900_000,
    }.items():  # fmt: skip
        body = json.dumps({"image": text}).encode()
        yield f"base64: {name}", Attack([request("/classify", body)])


def connection_attacks() -> Iterator[tuple[str, Attack]]:
    head = b"Host: localhost\r\n"
    post = b"POST /classify HTTP/1.1\r\n" + head
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
    for path, number, count in ((b"/openapi.json", 5, 20_000), (b"/healthz", 40, 20_000)):
        sent = (b"GET " + path + b" HTTP/1.1\r\n" + head + b"\r\n") * count
        yield (
            f"{number} that pipeline {path.decode()} and do not read",
            Attack([sent], {0}, number, 4.0, cpu=8.0),
        )
    yield (
        "pipelining and rubbish",
        Attack([b"GET / HTTP/1.1\r\n" + head + b"\r\n" + b"\0" * 99], {200}),
    )
    yield "chunks of one byte", Attack([chunked + b"1\r\na\r\n" * 1_500_000])
    yield "a chunk with a long extension", Attack([chunked + b"1;" + b"a" * 9 * MEGABYTE])
    yield (
        "endless trailers",
        Attack([chunked + b"1\r\na\r\n0\r\n" + b"A: b\r\n" * 1_500_000], {400, 431}),
    )
    yield "a chunk that does not end", Attack([chunked + b"fffff\r\n" + b"a" * 0xFFFFFF])
    yield "a chunk of 2^70 bytes", Attack([chunked + b"f" * 18 + b"\r\n"])
    yield "a head without end", Attack([b"GET / HTTP/1.1\r\nA: " + b"a" * MEGABYTE], {431, 0})
    yield "many headers", Attack([b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 99_999 + b"\r\n"], {431, 0})
    yield "empty lines", Attack([b"\r\n" * 4 * MEGABYTE], {0}, seconds=2.0)
    yield "bare line ends", Attack([b"GET / HTTP/1.1\nHost: localhost\n\n"])
    yield "no Host", Attack([b"GET /healthz HTTP/1.1\r\n\r\n"])
    yield "two Hosts", Attack([b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n"])
    yield "another's Host", Attack([b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n"])
    yield "two lengths", Attack([post + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"])
    yield (
        "length and chunks",
        Attack([post + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]),
    )
    yield (
        "a body that is too long",
        Attack([post + b"Content-Length: 99999999\r\n\r\n" + b"a" * MEGABYTE], {413}),
    )
    yield (
        "a length of 5000 digits",
        Attack([post + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"]),
    )
    yield "TLS", Attack([b"\x16\x03\x01\x02\x00\x01\x00" + bytes(500)])
    yield "HTTP/2", Attack([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], {400, 0})
    yield (
        "200 slow bodies",
        Attack(
            [post + b"Content-Length: 9000000\r\n\r\n", *[b"a"] * 5], {408, 0}, 200, 8.0, pause=1.0
        ),
    )
    yield "200 slow heads", Attack([b"GET / H", *[b"T"] * 3], {408, 400, 0}, 200, 1.0, pause=1.0)
    yield "700 silent ones", Attack([b""], {503, 0}, 700, 1.0)
    query = "?top_k=" + "9" * 5000
    for path in (query, "?threshold=1e400", "?threshold=nan", "?top_k=" + "9" * 400):
        yield (
            f"query {path[:20]}",
            Attack([request("/classify" + path, b"a", "image/x")], {400, 422}),
        )
    yield "a huge path", Attack([request("/" + "%41" * 5000, method="GET")], {404})
    yield "a huge name", Attack([request("/v2/models/" + "a" * 9000, method="GET")], {404})


GROUPS = {
    "JSON and tensors": json_attacks,
    "images": image_attacks,
    "forms and base64": form_attacks,
    "connections": connection_attacks,
}


@pytest.fixture(scope="module")
def running(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ["--load-weights", f"ir={exported / 'model.xml'}"]
    flags += ["--load-weights", f"whole={exported / 'model_with_preprocessing.xml'}"]
    with running_server(tmp_path_factory.mktemp("campaign"), *flags) as server:
        warm = Attack([request("/classify", encoded(Image.new("RGB", (4000, 4000)), "PNG"), "")])
        for _ in range(3):
            send(server, warm)
        yield server


class Watch:
    """Asks for `/healthz` and looks at the memory while something else goes on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._process = psutil.Process(server.process.pid)
        self._stop = threading.Event()
        self.seconds: list[float] = []
        self.peak = 0.0
        self._threads = [threading.Thread(target=one) for one in (self._ask, self._look)]

    def __enter__(self) -> Watch:
        self.before = self._memory()
        self._cpu = sum(self._process.cpu_times()[:2])
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.cpu = sum(self._process.cpu_times()[:2]) - self._cpu
        self.growth = self.peak - self.before

    @property
    def p99(self) -> float:
        return float(np.percentile(self.seconds, 99, method="lower"))

    def _memory(self) -> float:
        return self._process.memory_info().rss / 1e6

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, self._memory())

    def _ask(self) -> None:
        connection = HTTPConnection(*self._server.address, timeout=30)
        while True:
            started = time.perf_counter()
            connection.request("GET", "/healthz")
            status = connection.getresponse()
            assert (status.status, status.read()) == (200, b'{"status":"ok"}')
            self.seconds.append(time.perf_counter() - started)
            if self._stop.wait(0.005):
                return


def send(server: Server, attack: Attack) -> set[int]:
    """Carry an attack out; return the statuses, 0 for connections that got no answer."""
    statuses: list[int] = []

    def one() -> None:
        for number in range(0, len(attack.sent), len(attack.sent) if attack.pause else 1):
            parts = attack.sent if attack.pause else attack.sent[number : number + 1]
            statuses.append(exchange(server, parts, attack.pause, attack.seconds))

    threads = [threading.Thread(target=one) for _ in range(attack.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return set(statuses)


def exchange(server: Server, parts: list[bytes], pause: float, seconds: float) -> int:
    received = bytearray()
    with socket.create_connection(server.address, timeout=seconds) as connection:
        deadline = time.monotonic() + seconds
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except OSError:
            pass  # what was answered meanwhile is read all the same
        while b"\r\n" not in received:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = connection.recv(65536)
            except OSError:
                break
            if not data:
                break
            received += data
    return int(received.split()[1]) if received.startswith(b"HTTP/1.") else 0


def faults(server: Server, attack: Attack) -> list[str]:
    with Watch(server) as watch:
        statuses = send(server, attack)
        time.sleep(0.05)
    limits: list[tuple[str, float, float]] = [
        ("/healthz p99 [s]", watch.p99, HEALTH_SECONDS),
        ("processor [s]", watch.cpu, attack.cpu),
        ("memory [MB]", watch.growth, attack.growth),
    ]
    found = [f"{name} {value:.2f} > {most}" for name, value, most in limits if value > most]
    wrong = statuses - attack.statuses - ({0} if 0 in attack.statuses else set())
    if wrong and not (0 in attack.statuses and wrong <= {200}):
        found.append(f"statuses {statuses}, expected of {attack.statuses}")
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_hostile_requests(running: Server, group: str) -> None:
    failed = {}
    for name, attack in GROUPS[group]():
        for _ in range(TRIES):
            failed[name] = faults(running, attack)
            assert running.process.poll() is None, name
            if not failed[name]:
                break
    assert {name: found for name, found in failed.items() if found} == {}


def mixed(image: bytes) -> list[tuple[bytes, set[int]]]:
    """Return good and hostile requests, with the statuses that they may get."""
    zeros = "[" + "0," * (3 * 40 * 32 - 1) + "0]"
    coded = base64.b64encode(image).decode()
    form = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + image + b"\r\n--b--\r\n"
    kinds: list[tuple[bytes, set[int]]] = [
        (request("/classify", image, "image/png"), {200}),
        (request("/classify", form, "multipart/form-data; boundary=b"), {200}),
        (request("/classify", json.dumps({"image": coded}).encode()), {200}),
        (request(INFER, tensor(zeros)), {200}),
        (with_binary("[1]", "BYTES", struct.pack("<I", len(image)) + image), {200}),
        (request("/healthz", method="GET"), {200}),
        (request("/metrics", method="HEAD"), {200}),
        (request(INFER, tensor(zeros.replace("0,0", "0,NaN", 1))), {400}),
        (request(INFER, tensor('["' + "a" * 10_000 + '"' + ',""' * 25_000 + "]")), {400}),
        (with_binary("[" + "9," * 50_000 + "9]", "BYTES", b""), {400}),
        (request("/classify", b"--b\r\n\r\n\r\n" * 9000, "multipart/form-data; boundary=b"), {400}),
        (request("/classify", b'{"image":"*"}'), {400}),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 30_000, {431, 0}),
        (b"\x16\x03\x01", {400}),
    ]
    rng = np.random.default_rng(0)
    for number in range(60):
        broken = bytearray(image[: rng.integers(1, len(image))] if number % 2 else image)
        broken[rng.integers(len(broken))] ^= 255
        kinds.append((request("/classify", bytes(broken), "image/png"), {200, 400, 413}))
        kinds.append((request(f"/{rng.integers(2**60)}", method="GET"), {404}))
        kinds += kinds[:7]
    bomb = encoded(Image.new("RGB", (3000, 2000)), "WEBP", lossless=True)
    return [*kinds, (request("/classify", bomb, "image/webp"), {200})]


def test_20_000_mixed_requests_in_flat_memory(running: Server, image: Path) -> None:
    kinds = mixed(image.read_bytes())
    process = psutil.Process(running.process.pid)
    wrong: list[tuple[int, bytes]] = []

    def client(seed: int, count: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(count):
            sent, statuses = kinds[rng.integers(len(kinds))]
            status = exchange(running, [sent], 0, 30)
            if status not in statuses:
                wrong.append((status, sent[:200]))

    memory, descriptors = [], []
    for part in range(4):
        threads = [threading.Thread(target=client, args=(8 * part + n, 625)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        memory.append(process.memory_info().rss / 1e6)
        descriptors.append(process.num_fds())
    assert wrong == []
    assert memory[-1] - memory[0] < 60, memory
    assert max(descriptors) - min(descriptors) < 20, descriptors
