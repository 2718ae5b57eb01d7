"""A stand-in of AWS Lambda around the real runtime client, and the events of API Gateway."""

from __future__ import annotations

import base64
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support import ROOT, python_environment

FUNCTION = ROOT / "external" / "aws_lambda"
PREFIX = "/2018-06-01/runtime"
SECONDS = 240


class Runtime:
    """The Runtime API on loopback, https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html."""

    def __init__(self) -> None:
        self.events: queue.Queue[dict] = queue.Queue()
        self.answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.process: subprocess.Popen | None = None
        runtime = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                assert self.path == f"{PREFIX}/invocation/next"
                body = json.dumps(runtime.events.get()).encode()
                self.send_response(200)
                self.send_header("Lambda-Runtime-Aws-Request-Id", "11111111-2222")
                self.send_header("Lambda-Runtime-Deadline-Ms", "9999999999999")
                arn = "arn:aws:lambda:eu-central-1:1:function:f"
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", arn)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                runtime.answers.put((self.path.removeprefix(PREFIX), json.loads(body)))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def answer(self) -> tuple[str, Any]:
        """Return the next (path, contents) that the client posts."""
        for _ in range(SECONDS):
            try:
                return self.answers.get(timeout=1)
            except queue.Empty:
                assert self.process is not None and self.process.poll() is None, "it has ended"
        raise AssertionError("no answer")

    def invoke(self, event: dict) -> dict:
        """Return the function's answer to an event."""
        self.events.put(event)
        path, response = self.answer()
        assert path == "/invocation/11111111-2222/response", (path, response)
        return response


@contextmanager
def running_function(model: str | Path, log: Path) -> Iterator[Runtime]:
    """Start the function as its image does, without a home and in its own folder."""
    runtime = Runtime()
    threading.Thread(target=runtime.server.serve_forever, daemon=True).start()
    environment = {
        **python_environment(),
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{runtime.server.server_port}",
        "MODEL": str(model),
        "CORS_ORIGINS": "https://a.example,https://c.example",
    }
    environment.pop("HOME", None)
    command = [sys.executable, "-m", "awslambdaric", "handler.handler"]
    try:
        with log.open("w") as file:
            runtime.process = subprocess.Popen(
                command, cwd=FUNCTION, env=environment, stdout=file, stderr=file
            )
        yield runtime
    finally:
        if runtime.process is not None:
            runtime.process.kill()
            runtime.process.wait()
        runtime.server.shutdown()
        runtime.server.server_close()


def event_v1(method: str, path: str, headers: dict[str, str], body: bytes | str | None) -> dict:
    """Return an event of a REST API, or of an HTTP API with payload format 1.0."""
    return {
        "version": "1.0",
        "resource": path,
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "requestContext": {
            "accountId": "1",
            "apiId": "a",
            "httpMethod": method,
            "identity": {"sourceIp": "192.0.2.1", "userAgent": "test"},
            "path": f"/dev{path}",
            "protocol": "HTTP/1.1",
            "requestId": "r",
            "stage": "dev",
        },
        "pathParameters": None,
        "stageVariables": None,
        **_body(body),
    }


def event_v2(method: str, path: str, headers: dict[str, str], body: bytes | str | None) -> dict:
    """Return an event of an HTTP API with payload format 2.0."""
    return {
        "version": "2.0",
        "routeKey": f"{method} {path}",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {
            "accountId": "1",
            "apiId": "a",
            "domainName": "a.execute-api.eu-central-1.amazonaws.com",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "test",
            },
            "requestId": "r",
            "routeKey": f"{method} {path}",
            "stage": "$default",
            "timeEpoch": 0,
        },
        **_body(body),
    }


def _body(body: bytes | str | None) -> dict:
    """API Gateway hands over text as it is, and all else in base64."""
    if body is None:
        return {"body": None, "isBase64Encoded": False}
    if isinstance(body, str):
        return {"body": body, "isBase64Encoded": False}
    return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
