"""Who is let in: slow bodies, the bytes of all, connections, Host, HEAD, CORS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from serving_support import Server, post, running_server
from starlette.requests import Request
from support import run_python

from classification.serving.app import create_app
from classification.serving.bodies import receive_body
from classification.serving.budgets import ByteBudget, PixelBudget
from classification.serving.guard import host_name, is_loopback
from classification.serving.problems import Problem
from classification.serving.settings import Settings

HEAD = b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.contextmanager
def connected(server: Server, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open connections and send the same on each."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(stack.enter_context(socket.create_connection(server.address, 20)))
            made[-1].sendall(sent)
        yield made


def everything(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


@pytest.mark.parametrize("count", [64, 200])
def test_slow_bodies_take_no_places(server: Server, image: Path, count: int) -> None:
    body = image.read_bytes()
    with connected(server, count, HEAD + b"Content-Length: 290000\r\n\r\na") as slow:
        for _ in range(3):
            for connection in slow:
                connection.sendall(b"a")
            assert [post(server, body)[0] for _ in range(20)] == [200] * 20


def receive(chunks: list[bytes], settings: Settings, budget: ByteBudget, pause: float = 0) -> bytes:
    """Return what `receive_body` makes of a body that comes in parts."""
    left = list(chunks)

    async def next_message() -> dict:
        await asyncio.sleep(pause)
        chunk = left.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    async def run() -> bytes:
        request = Request({"type": "http", "headers": [], "method": "POST"}, next_message)
        async with receive_body(request, settings, budget) as body:
            assert budget.taken == len(body)
            return body

    return asyncio.run(run())


def test_the_bytes_of_all_bodies_are_counted_as_they_arrive() -> None:
    budget = ByteBudget(10)
    assert receive([b"abc", b"def"], Settings(), budget) == b"abcdef"
    assert budget.taken == 0
    budget.take(5)
    with pytest.raises(Problem, match="bytes of other requests") as raised:
        receive([b"abc", b"def"], Settings(), budget)
    assert (raised.value.status, raised.value.headers) == (503, {"Retry-After": "1"})
    assert budget.taken == 5


def test_a_slow_body_is_refused_by_its_rate_and_not_by_its_length() -> None:
    settings = Settings(min_bytes_per_second=100, grace_seconds=0.05)
    chunks = [bytes(100)] * 4
    with pytest.raises(Problem, match="slower than 100 bytes a second") as raised:
        receive([b"a"] * 20, settings, ByteBudget(999), pause=0.02)
    assert raised.value.status == 408
    assert receive(chunks, settings, ByteBudget(999), pause=0.02) == bytes(400)


def test_an_image_waits_for_its_share_of_the_pixels() -> None:
    budget, order = PixelBudget(10), []
    inside = threading.Event()
    go_on = threading.Event()

    def hold(name: str, pixels: int) -> None:
        with budget.share(pixels):
            order.append(name)
            inside.set()
            go_on.wait(10)
            order.append(f"{name} ends")

    first = threading.Thread(target=hold, args=("first", 6))
    first.start()
    inside.wait(10)
    second = threading.Thread(target=hold, args=("too large", 1000))
    second.start()
    second.join(0.05)
    assert order == ["first"]
    go_on.set()
    first.join()
    second.join()
    assert order == ["first", "first ends", "too large", "too large ends"]


def test_what_is_pipelined_is_answered_in_turn(server: Server) -> None:
    with connected(server, 1, GET * 300) as (connection,):
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n"
        )
        answers = everything(connection)
    assert answers.count(b"HTTP/1.1 200 ") == 300 and answers.count(b'{"status":"ok"}') == 300
    assert answers.count(b"HTTP/1.1 400 ") == 1


def test_a_body_and_the_next_request_in_one_packet(server: Server, image: Path) -> None:
    body = image.read_bytes()
    upload = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    refused = b"POST /nix HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
    refused %= (len(body), body)
    with connected(server, 1, upload + GET + refused + upload + GET) as (connection,):
        connection.shutdown(socket.SHUT_WR)  # a client that has finished still gets its answers
        answers = everything(connection)
    statuses = [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"404", b"200", b"200"]


def test_a_head_in_many_parts(server: Server) -> None:
    with connected(server, 1) as (connection,):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for position in range(len(GET)):
            connection.sendall(GET[position : position + 1])
        assert b"200 OK" in connection.recv(1000)
        chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        connection.sendall(chunked)
        answer = everything(connection)
    assert b"HTTP/1.1 400 " in answer and b"not an image" in answer
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (HEAD + b"Content-Length: 9\r\n\r\nab", "before the body did"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "before the body did"),
        (b"GET /heal", "before the head"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", "one header Host, not 0"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", "Host, not 2"),
        (b"\x16\x03\x01", "no valid HTTP"),
    ],
)
def test_what_ends_too_early_is_told_so(server: Server, sent: bytes, reason: str) -> None:
    with connected(server, 1, sent) as (connection,):
        connection.shutdown(socket.SHUT_WR)
        head, _, body = everything(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and reason in json.loads(body)["error"]


def test_http_1_0_needs_no_host(server: Server) -> None:
    with connected(server, 1, b"GET /healthz HTTP/1.0\r\n\r\n") as (connection,):
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"--allowed-host" in answer


def test_few_descriptors(exported: Path, image: Path, tmp_path: Path) -> None:
    """Silent connections give way to those that ask, and the log says so."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, limit[1]))
    try:
        with running_server(tmp_path, "--load-weights", exported / "model.xml") as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            with connected(server, 150):
                statuses = {post(server, image.read_bytes())[0] for _ in range(20)}
            assert statuses == {200}
            log = server.log.read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert "the limit of descriptors (ulimit -n) is low" in log
    assert log.count("the most that are held") == 1


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/openapi.json", "/v2/models/ir"])
def test_head_is_get_without_the_body(server: Server, path: str) -> None:
    connection = HTTPConnection(*server.address)
    answers = []
    for method in ("GET", "HEAD", "GET"):  # and the connection is good for more
        connection.request(method, path)
        answer = connection.getresponse()
        answers.append((answer.status, answer.headers["Content-Type"], answer.read()))
    assert [status for status, _, _ in answers] == [200] * 3
    assert answers[0][1] == answers[1][1] and answers[1][2] == b"" and answers[2][2]


def test_head_of_what_takes_no_get(client: TestClient) -> None:
    answer = client.head("/classify")
    assert (answer.status_code, answer.content) == (405, b"")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"localhost:8000", "localhost"), (b"LocalHost", "localhost"), (b"[::1]:80", "::1"),
        (b"127.0.0.1:1", "127.0.0.1"), (b"localhost.:1", "localhost"), (b"a b", "a b"),
        (b"localhost:80:80", "localhost:80:80"), (b"evil@localhost:x", "evil@localhost:x"),
        (b"", ""),
    ],
)  # fmt: skip
def test_the_name_of_a_host(host: bytes, name: str) -> None:
    assert host_name(host) == name


def test_loopback() -> None:
    own = ("localhost", "127.0.0.1", "127.9.9.9", "::1")
    others = ("", "a.localhost", "127.0.0.1.nip.io", "10.0.0.1", "0.0.0.0", "evil.example", "127.1")
    assert [is_loopback(name) for name in (*own, *others)] == [True] * 4 + [False] * 7


def test_other_names_are_refused_without_a_key_on_loopback(server: Server) -> None:
    """Or a web page could read the service under a name that it lets point to 127.0.0.1."""
    names = {"localhost:1": 200, "127.1.2.3": 200, "[::1]": 200, "evil.example": 400, "": 400}
    for name, status in names.items():
        for path in ("/healthz", "/metrics", "/"):
            connection = HTTPConnection(*server.address)
            connection.request("GET", path, headers={"Host": name})
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == status, (name, path)
            assert status == 200 or "--allowed-host" in json.loads(body)["error"]


def test_allowed_hosts(models) -> None:
    client = TestClient(create_app(models, Settings(allowed_hosts=("birds.example",))))
    for name, status in (("Birds.Example:80", 200), ("x.birds.example", 400), ("localhost", 200)):
        assert client.get("/healthz", headers={"Host": name}).status_code == status


ASKS = {
    "Origin": "https://a.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-api-key,content-type",
}


class TestCORS:
    @pytest.fixture
    def open_to(self, models) -> TestClient:
        settings = Settings(cors_origins=("https://a.example",), api_key="secret")
        return TestClient(create_app(models, settings))

    def test_a_preflight_needs_no_key(self, open_to: TestClient) -> None:
        answer = open_to.options("/classify", headers=ASKS)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
        assert "x-api-key" in answer.headers["Access-Control-Allow-Headers"].lower()
        foreign = open_to.options("/classify", headers={**ASKS, "Origin": "https://b.example"})
        assert "Access-Control-Allow-Origin" not in foreign.headers

    def test_the_request_itself_does_and_refusals_can_be_read(self, open_to: TestClient) -> None:
        origin = {"Origin": "https://a.example"}
        for key, status in (("", 401), ("secret", 400)):
            headers = {**origin, "X-API-Key": key}
            answer = open_to.post("/classify", content=b"x", headers=headers)
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"

    def test_it_is_off_by_default(self, client: TestClient) -> None:
        assert client.options("/classify", headers=ASKS).status_code == 405
        answer = client.get("/healthz", headers={"Origin": "https://a.example"})
        assert not any(name.startswith("access-control") for name in answer.headers)

    def test_all(self, models) -> None:
        client = TestClient(create_app(models, Settings(cors_origins=("*",))))
        answer = client.get("/healthz", headers={"Origin": "https://any.example"})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--cors-origin", "a.example"], "--cors-origin a.example: expected scheme and host"),
        (["--cors-origin", "https://a.example/x"], "without a path"),
        (["--allowed-host", "a.example:80"], "--allowed-host a.example:80: expected a name"),
    ],
)
def test_mistakes(exported: Path, flags: list[str], reason: str) -> None:
    done = run_python(
        "-m", "classification.serve", "--load-weights", "model.xml", *flags, cwd=exported
    )
    assert done.returncode == 2 and reason in done.stderr
