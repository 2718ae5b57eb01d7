"""What the tests of the service share."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from PIL import Image
from support import ROOT, python_environment

Answer = tuple[int, dict]


def encoded(image: Image.Image, format: str, **options) -> bytes:
    """Return an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@dataclass
class Server:
    """A service in a process of its own."""

    address: tuple[str, int]
    process: subprocess.Popen
    log: Path

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)


@contextmanager
def running_server(folder: Path, *flags: str | Path) -> Iterator[Server]:
    """Start `python -m classification.serve --port 0 FLAGS`; kill it at the end."""
    log = folder / "log.jsonl"
    command = [sys.executable, "-m", "classification.serve", "--port", "0", *map(str, flags)]
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=python_environment(), stderr=file)
    try:
        deadline = time.monotonic() + 120
        while '"ready"' not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        line = next(line for line in log.read_text().splitlines() if '"ready"' in line)
        ready = json.loads(line)
        yield Server((ready["host"], ready["port"]), process, log)
    finally:
        process.kill()
        process.wait()


def post(
    server: Server,
    body: bytes,
    kind: str = "application/octet-stream",
    path: str = "/classify",
    **headers,
) -> Answer:
    connection = HTTPConnection(*server.address, timeout=20)
    connection.request("POST", path, body, {"Content-Type": kind, **headers})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer
