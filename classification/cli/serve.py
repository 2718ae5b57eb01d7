"""`python -m classification.serve`: answer HTTP requests with the classes of images."""

from __future__ import annotations

import argparse
import math
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from classification.cli.precision import add_precision_hint_flag
from classification.cli.run import run_command
from classification.errors import Interrupted, UserError


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="python -m classification.serve",
        description="Name the classes of images over HTTP: a page at /, POST /classify, "
        "KServe v2 below /v2, /metrics.",
    )
    parser.add_argument(
        "--load-weights",
        required=True,
        action="append",
        metavar="[NAME=]FILE",
        help="an IR (.xml) or an ONNX file; may be repeated, each with a name of its own; the "
        "first one answers where no name is asked for",
    )
    add_precision_hint_flag(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="0 = any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="a text file with the key that clients must send in the header X-API-Key",
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which clients may ask for the service (header Host), besides localhost and "
        "127.0.0.1; may be repeated. Checked if it is given, and always without a key on a "
        "loopback address, or else any web page could use the service under a name of its own",
    )
    parser.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="web pages of which origin may call the service from a browser (CORS), such as "
        "https://www.example.org; * = all; may be repeated (default: none but its own page)",
    )
    for flag, metavar, default, text in (
        ("--max-body-mb", "MB", 10.0, "longest body of a request"),
        ("--max-megapixels", "MP", 40.0, "largest image"),
        ("--timeout", "S", 30.0, "seconds until a request without an answer is given up"),
    ):
        parser.add_argument(
            flag, type=float, metavar=metavar, default=default, help=f"{text} (default: {default})"
        )
    for flag, number, text in (
        ("--queue-size", 64, "images taken in at once; the others are told to come back"),
        ("--max-batch", 4, "images that the model sees together at most"),
    ):
        parser.add_argument(
            flag, type=int, metavar="N", default=number, help=f"{text} (default: {number})"
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        serve(build_parser().parse_args(argv))

    return run_command(command)


def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that were accepted are answered.

    Raises:
        UserError: a model cannot be loaded, or a flag or the address cannot be used.
        Interrupted: Ctrl-C or another signal than SIGTERM, after the last answer.
    """
    for name in ("max_body_mb", "max_megapixels", "timeout", "queue_size", "max_batch"):
        value, flag = getattr(arguments, name), f"--{name.replace('_', '-')}"
        if not 0 < value < math.inf:
            raise UserError(f"{flag}: expected a number above 0, not {value:g}.")
    try:
        from classification.serving.app import create_app
        from classification.serving.http_server import run
    except ModuleNotFoundError as error:
        raise UserError(
            f"Serving needs {error.name}: pip install -e '.[serve]' in the framework's folder."
        ) from error
    from classification.serving.logs import log_as_json
    from classification.serving.models import load_models, named_paths
    from classification.serving.settings import Settings

    defaults = Settings()
    max_body_bytes = int(arguments.max_body_mb * 1e6)
    api_key = _read_key(arguments.api_key_file)
    settings = replace(
        defaults,
        max_body_bytes=max_body_bytes,
        max_bytes_in_flight=max(defaults.max_bytes_in_flight, 4 * max_body_bytes),
        max_megapixels=arguments.max_megapixels,
        queue_size=arguments.queue_size,
        max_batch=arguments.max_batch,
        answer_seconds=arguments.timeout,
        precision_hint=arguments.precision_hint,
        max_megapixels_in_flight=max(defaults.max_megapixels_in_flight, arguments.max_megapixels),
        api_key=api_key,
        allowed_hosts=_allowed_hosts(arguments.allowed_host, arguments.host, api_key),
        cors_origins=tuple(map(_checked_origin, arguments.cors_origin)),
    )
    models = load_models(named_paths(arguments.load_weights), settings)
    log_as_json()
    try:
        run(create_app(models, settings), settings, arguments.host, arguments.port)
    except Interrupted as interruption:
        # To be told to end, and to have answered all, is a service's success: supervisors such as
        # systemd take any other code for a failure.
        if interruption.exit_code != 128 + signal.SIGTERM:
            raise


def _allowed_hosts(names: Sequence[str], host: str, key: str | None) -> tuple[str, ...] | None:
    """Return the names besides loopback, or None where any will do."""
    from classification.serving.guard import host_name, is_loopback

    for name in names:
        if not name or host_name(name.encode()) != name.lower():
            raise UserError(f"--allowed-host {name}: expected a name or an address, no port.")
    if names or (key is None and is_loopback(host)):
        return tuple(name.lower() for name in names)
    return None


def _checked_origin(origin: str) -> str:
    scheme, separator, rest = origin.partition("://")
    if origin != "*" and (not separator or not scheme or not rest or "/" in rest):
        raise UserError(
            f"--cors-origin {origin}: expected scheme and host as browsers send them, such as "
            "https://www.example.org without a path, or *."
        )
    return origin


def _read_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--api-key-file {path}: cannot read it: {error}.") from error
    if not key:
        raise UserError(f"--api-key-file {path}: it is empty.")
    return key
