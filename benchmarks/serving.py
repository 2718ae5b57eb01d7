"""The HTTP service under load, against what the same cores decode and infer without it (Linux).

- Throughput: clients that send one raw JPEG after the other, against a loop that decodes the same
  files in threads and runs the model on batches of eight. The load generator (one thread, epoll)
  shares the cores; its processor time is measured and stated.
- Latency under load: its 99th percentile against the mean, clients / throughput by Little's law.
- Latency of a single client against decoding and inferring the same files one by one.
- Endurance: many requests, their errors, and the service's memory during them.

The JPEGs are made up, or taken from a folder that is given.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TextIO

import numpy as np
import psutil
from common import describe_run, make_images, print_table, summary, write_json

from classification.data.image_files import find_images
from classification.data.preprocessing import load_image
from classification.data.threads import usable_cores
from classification.deployment.backends import Backend, load_backend

CLIENTS = 16
BATCH = 8
SAMPLES = 40  # of the service's memory


def main() -> None:
    """Measure everything and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an IR or an ONNX file")
    parser.add_argument("--images", "--pictures", type=Path, help="folder of JPEGs; else made ones")
    parser.add_argument("--pixels", type=int, default=500, help="longer side of made JPEGs")
    parser.add_argument("--requests", type=int, default=3000, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--endurance", type=int, default=20_000, help="requests; 0 = none")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = image_files(arguments.images, arguments.pixels, Path(scratch))
        backend = load_backend(arguments.model)
        with service(arguments.model) as (address, process):
            figures, rows = measure(backend, files, address, arguments.rounds, arguments.requests)
            if arguments.endurance:
                more_figures, more_rows = endure(address, process, files, arguments.endurance)
                figures, rows = figures | more_figures, rows + more_rows
    print_table(f"{arguments.model}, {usable_cores()} cores", ("figure", "median (range)"), rows)
    write_json(arguments.json, figures | describe_run(["openvino", "pillow", "fastapi", "uvicorn"]))


def image_files(source: Path | None, pixels: int, folder: Path) -> list[Path]:
    """Return JPEGs."""
    if source is None:
        size = (pixels, pixels * 3 // 4)
        source = make_images(folder / "made", 1, per_class=50, size=size)
    return [path for path in find_images(source) if path.suffix.lower() in (".jpg", ".jpeg")]


@contextmanager
def service(model: Path) -> Iterator[tuple[tuple[str, int], psutil.Process]]:
    """Run the service in a process of its own; yield its address and its process."""
    command = [sys.executable, "-m", "classification.serve"]
    command += ["--load-weights", str(model), "--port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stderr=log)
        try:
            yield wait_for_address(log, process), psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def wait_for_address(log: TextIO, process: subprocess.Popen[bytes]) -> tuple[str, int]:
    """Return what the service logs when it is ready."""
    while process.poll() is None:
        log.seek(0)
        for line in log:
            if '"ready"' in line and line.endswith("\n"):
                ready = json.loads(line)
                return ready["host"], ready["port"]
        time.sleep(0.1)
    log.seek(0)
    raise SystemExit(log.read())


@dataclass
class Load:
    """What the load generator saw."""

    seconds: float = 0.0  # of the wall's clock
    own_seconds: float = 0.0  # of processor time
    latencies: list[float] = field(default_factory=list)  # in seconds, one a request
    errors: int = 0


class Client:
    """One connection that sends a request as soon as the last one is answered."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)

    def send(self, request: bytes) -> None:
        self.started = time.perf_counter()
        self.answer = b""
        self.socket.sendall(request)

    def receive(self) -> bool | None:
        """Read on; return None until the answer is complete, then whether it is a good one."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the service closed a connection")
        self.answer += data
        head, separator, body = self.answer.partition(b"\r\n\r\n")
        if not separator:
            return None
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return None
        return head.startswith(b"HTTP/1.1 200 ") and b'"predicted_name":"' in body


def generate_load(
    address: tuple[str, int], files: Sequence[Path], clients: int, count: int
) -> Load:
    """Send `count` requests over `clients` connections, each waiting for its answer."""
    head = "POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    bodies = [path.read_bytes() for path in files]
    requests = [f"{head}Content-Length: {len(b)}\r\n\r\n".encode() + b for b in bodies]
    load = Load()
    left = itertools.islice(itertools.cycle(requests), count)
    with selectors.DefaultSelector() as selector:
        idle = [Client(address) for _ in range(clients)]
        for client in idle:
            selector.register(client.socket, selectors.EVENT_READ, client)
        started, own_started = time.perf_counter(), time.process_time()
        for client in idle:
            client.send(next(left))
        while len(load.latencies) < count:
            for key, _ in selector.select():
                client = key.data
                good = client.receive()
                if good is None:
                    continue
                load.latencies.append(time.perf_counter() - client.started)
                load.errors += not good
                request = next(left, None)
                if request is not None:
                    client.send(request)
        load.seconds = time.perf_counter() - started
        load.own_seconds = time.process_time() - own_started
        for client in idle:
            client.socket.close()
    return load


def bare_loop(backend: Backend, files: Sequence[Path], count: int) -> float:
    """Return the seconds in which the files are decoded in threads and run through the model."""
    bodies = [path.read_bytes() for path in files]

    def load(number: int) -> np.ndarray:
        return load_image(io.BytesIO(bodies[number % len(bodies)]), backend.info.preprocessing)

    def batches() -> Iterator[np.ndarray]:
        ahead = [pool.submit(load, number) for number in range(4 * BATCH)]
        for start in range(0, count, BATCH):
            batch = [future.result() for future in ahead[:BATCH]]
            ahead = ahead[BATCH:]
            more = range(start + 4 * BATCH, min(start + 5 * BATCH, count))
            ahead += [pool.submit(load, number) for number in more]
            yield np.stack(batch)

    started = time.perf_counter()
    with ThreadPoolExecutor(usable_cores()) as pool:
        done = sum(len(logits) for logits in backend.stream(batches()))
    assert done == count
    return time.perf_counter() - started


def one_by_one(
    backend: Backend, files: Sequence[Path], address: tuple[str, int]
) -> tuple[list[float], list[float]]:
    """Return the seconds of decoding and inferring each file here, and of asking the service.

    In turns, file by file, so that whatever else the machine does disturbs both alike.
    """
    here, asked = [], []
    for path in files:
        data = path.read_bytes()
        started = time.perf_counter()
        image = load_image(io.BytesIO(data), backend.info.preprocessing)
        backend.logits(image[None])
        here.append(time.perf_counter() - started)
        asked += generate_load(address, [path], 1, 1).latencies
    return here, asked


def measure(
    backend: Backend, files: Sequence[Path], address: tuple[str, int], rounds: int, count: int
) -> tuple[dict, list]:
    """Measure throughput and latencies, the sides in turns; return figures and rows."""
    count -= count % BATCH
    bare_loop(backend, files, 20 * BATCH)
    one_by_one(backend, files[:10], address)
    generate_load(address, files, CLIENTS, 20 * BATCH)
    loads, bare, single, alone = [], [], [], []
    for _ in range(rounds):
        bare.append(count / bare_loop(backend, files, count))
        loads.append(generate_load(address, files, CLIENTS, count))
        here, asked = one_by_one(backend, list(files) * 4, address)
        alone.append(1000 * median(here))
        single.append(1000 * median(asked))
    rates = [count / load.seconds for load in loads]
    own = [1000 * load.own_seconds / count for load in loads]
    shares = [rate / ideal for rate, ideal in zip(rates, bare, strict=True)]
    cores = usable_cores()
    without = [
        count / (load.seconds - load.own_seconds / cores) / ideal
        for load, ideal in zip(loads, bare, strict=True)
    ]
    means = [1000 * CLIENTS / rate for rate in rates]
    p99 = [1000 * float(np.percentile(load.latencies, 99)) for load in loads]
    tails = [tail / mean for tail, mean in zip(p99, means, strict=True)]
    added = [a - b for a, b in zip(single, alone, strict=True)]
    errors = sum(load.errors for load in loads)
    rows = [
        ("bare loop, images/s", summary(bare, 0)),
        (f"service, {CLIENTS} clients, images/s", summary(rates, 0)),
        ("share of the bare loop", summary(shares, 3)),
        ("the generator's processor time, ms a request", summary(own, 3)),
        ("share, were the generator elsewhere", summary(without, 3)),
        ("mean latency by Little's law, ms", summary(means)),
        ("99th percentile, ms", summary(p99)),
        ("99th percentile / mean", summary(tails, 2)),
        ("decoding and inferring one image, ms", summary(alone, 2)),
        ("single client, ms", summary(single, 2)),
        ("single client, ms more", summary(added, 2)),
        ("errors", str(errors)),
    ]
    figures = {
        "bare_per_second": median(bare),
        "service_per_second": median(rates),
        "share_of_bare": median(shares),
        "generator_milliseconds_per_request": median(own),
        "share_of_bare_without_generator": median(without),
        "mean_milliseconds_by_little": median(means),
        "p99_milliseconds": median(p99),
        "p99_over_mean": median(tails),
        "one_image_milliseconds": median(alone),
        "single_client_milliseconds": median(single),
        "single_client_milliseconds_more": median(added),
        "errors": errors,
    }
    return figures, rows


def endure(
    address: tuple[str, int], process: psutil.Process, files: Sequence[Path], count: int
) -> tuple[dict, list]:
    """Send many requests; return the errors and the service's memory as figures and rows."""
    memory, errors = [], 0
    for _ in range(SAMPLES):
        errors += generate_load(address, files, CLIENTS, count // SAMPLES).errors
        memory.append(process.memory_info().rss / 1e6)
    first, last = median(memory[: SAMPLES // 4]), median(memory[-SAMPLES // 4 :])
    rows = [
        (f"errors of {count} requests", str(errors)),
        ("memory in the first and in the last quarter, MB", f"{first:.1f}, {last:.1f}"),
    ]
    figures = {
        "endurance_requests": count,
        "endurance_errors": errors,
        "megabytes_first_quarter": first,
        "megabytes_last_quarter": last,
    }
    return figures, rows


if __name__ == "__main__":
    main()
