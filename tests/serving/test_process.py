"""The command as an operator runs it: no PyTorch, signals, several models, mistakes."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest
from serving_support import running_server
from support import run_python

WITHOUT_TORCH = """
import sys
from fastapi.testclient import TestClient
from classification.cli import serve
from classification.serving.app import create_app
from classification.serving import http_server
from classification.serving.models import load_models
from classification.serving.settings import Settings
models = load_models({"model": sys.argv[1]}, Settings())
client = TestClient(create_app(models, Settings()))
answer = client.post("/classify", content=open(sys.argv[2], "rb").read())
assert answer.status_code == 200, answer.text
heavy = {"torch", "torchvision", "timm", "nncf", "sklearn", "matplotlib", "pandas", "scipy"}
print(sorted(heavy & set(sys.modules)))
"""


def test_torch_is_never_imported(exported: Path, image: Path) -> None:
    done = run_python("-c", WITHOUT_TORCH, exported / "model.xml", image)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


ENDS_AT_ONCE = """
import asyncio, sys
import numpy as np
from classification.serving.batching import Waiting
from classification.serving.models import load_models
from classification.serving.settings import Settings
model = load_models({"model": sys.argv[1]}, Settings())["model"]
model.on_batch = lambda size, seconds: sum(range(300_000))
async def run():
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(12)]
    for future in futures:
        model.batcher.expect()
        model.batcher.put(Waiting(np.zeros((40, 32, 3), np.uint8), loop, future))
    await futures[0]
asyncio.run(run())
"""


def test_python_may_end_while_the_model_runs(exported: Path) -> None:
    """As in a function or script that ends without a shutdown; it aborted in every second run."""
    for _ in range(3):
        done = run_python("-c", ENDS_AT_ONCE, exported / "model.xml")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_accepted_requests_are_answered_after_a_signal(
    sent: signal.Signals, exported: Path, image: Path, tmp_path: Path
) -> None:
    body = image.read_bytes()
    flags = ["--load-weights", exported / "model.xml", "--queue-size", "64"]
    with running_server(tmp_path, *flags) as server:
        connections = [HTTPConnection(*server.address, timeout=30) for _ in range(24)]
        for connection in connections:  # known to the service, and idle
            connection.request("GET", "/healthz")
            connection.getresponse().read()
        half_sent = HTTPConnection(*server.address, timeout=30)
        half_sent.putrequest("POST", "/classify")
        half_sent.putheader("Content-Length", str(len(body)))
        half_sent.endheaders(body[:100])
        time.sleep(0.2)
        for number, connection in enumerate(connections):
            connection.request("POST", "/classify", body)
            if number == 11:  # half of them come after the signal
                server.process.send_signal(sent)
        time.sleep(0.3)
        half_sent.send(body[100:])
        answers = [connection.getresponse() for connection in (*connections, half_sent)]
        assert [answer.status for answer in answers] == [200] * 25
        assert all(json.loads(answer.read())["predicted_name"] for answer in answers)
        assert server.process.wait(20) == (0 if sent == signal.SIGTERM else 128 + sent)
        assert "Traceback" not in server.log.read_text()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.address)


def test_no_place_in_the_queue(exported: Path, image: Path, tmp_path: Path) -> None:
    """Of many at once some are told to come back; those that are taken are answered."""
    flags = ["--load-weights", exported / "model.xml", "--queue-size", "2"]
    with running_server(tmp_path, *flags) as server:
        body = image.read_bytes()
        statuses: list[tuple[int, str | None]] = []

        def ask() -> None:
            connection = HTTPConnection(*server.address, timeout=30)
            for _ in range(10):
                connection.request("POST", "/classify", body)
                answer = connection.getresponse()
                answer.read()
                statuses.append((answer.status, answer.headers["Retry-After"]))

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) == {(200, None), (503, "1")}
        connection = HTTPConnection(*server.address)
        connection.request("POST", "/classify", body)
        assert connection.getresponse().status == 200


def test_the_log_is_json(server, image: Path) -> None:
    connection = HTTPConnection(*server.address)
    connection.request("POST", "/classify?x=%0Aforged", image.read_bytes())
    assert connection.getresponse().status == 200
    time.sleep(0.1)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    last = [line for line in lines if line["message"] == "request"][-1]
    assert last["path"] == "/classify" and last["status"] == 200 and last["ms"] > 0
    assert {"time", "level", "logger"} <= last.keys()


def test_binds_to_this_machine_alone(server) -> None:
    assert server.address[0] == "127.0.0.1"


def test_metrics(server, image: Path) -> None:
    def figures() -> dict[str, float]:
        connection = HTTPConnection(*server.address)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    before = figures()
    connection = HTTPConnection(*server.address)
    for body in (image.read_bytes(), image.read_bytes(), b"no image"):
        connection.request("POST", "/classify?model=whole", body)
        connection.getresponse().read()
    after = figures()

    def more(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert more('http_requests_total{method="POST",route="/classify",status="200"}') == 2
    assert more('http_requests_total{method="POST",route="/classify",status="400"}') == 1
    assert more("decode_seconds_count") == 3
    assert more('batch_size_sum{model="whole"}') == 2
    assert more('http_request_seconds_count{route="/classify"}') == 3


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--load-weights", "nix.xml"], "no such model file"),
        (["--load-weights", "best.pth"], "export.py makes them"),
        (["--load-weights", "a b=model.xml"], "is no name for a model"),
        (["--load-weights", "model.xml", "--load-weights", "model.xml"], "a name of its own"),
        (
            ["--load-weights", "model.xml", "--max-batch", "0"],
            "--max-batch: expected a number above 0",
        ),
        (["--load-weights", "model.xml", "--max-body-mb", "inf"], "above 0, not inf"),
        (["--load-weights", "model.xml", "--timeout", "nan"], "above 0, not nan"),
        (["--load-weights", "model.xml", "--api-key-file", "nix"], "--api-key-file nix"),
        (["--load-weights", "model.xml", "--port", "99999"], "cannot listen there"),
        (["--load-weights", "model.xml", "--host", "192.0.2.1"], "cannot listen there"),
    ],
)
def test_mistakes_give_exit_code_2(exported: Path, flags: list[str], reason: str) -> None:
    done = run_python("-m", "classification.serve", *flags, cwd=exported)
    assert done.returncode == 2, done.stderr
    assert reason in done.stderr and "Traceback" not in done.stderr
