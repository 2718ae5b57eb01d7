"""The Lambda function behind the real runtime client; its image's packages; its template."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import boto3
import pytest
from cfnlint.api import lint
from lambda_runtime import FUNCTION, Runtime, event_v1, event_v2, running_function
from moto import mock_aws
from packaging.requirements import Requirement
from support import ROOT, run_python

from classification import export
from classification.deployment.predictor import Prediction, Predictor

EVENTS = {"v1": event_v1, "v2": event_v2}
LIMIT = 4_500_000


@pytest.fixture(scope="module")
def model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lambda")
    export(trained, save_model_to=folder)
    return folder / "model.xml"


@pytest.fixture(scope="module")
def image(data: dict[str, Path]) -> Path:
    return data["val"] / "green" / "0.png"


@pytest.fixture(scope="module")
def expected(model: Path, image: Path) -> Prediction:
    return Predictor(model).predict(image, top_k=3)[0]


@pytest.fixture(scope="module")
def function(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with running_function(model, tmp_path_factory.mktemp("log") / "log.txt") as runtime:
        yield runtime


def multipart(data: bytes) -> tuple[str, bytes]:
    head = '--B\r\nContent-Disposition: form-data; name="x"; filename="a.png"\r\n'
    head += "Content-Type: image/png\r\n\r\n"
    return "multipart/form-data; boundary=B", head.encode() + data + b"\r\n--B--\r\n"


def raw(data: bytes) -> tuple[str, bytes]:
    return "image/png", data


def base64_json(data: bytes) -> tuple[str, str]:
    encoded = base64.b64encode(data).decode()
    return "application/json", json.dumps({"image": encoded, "file": "a.png"})


@pytest.mark.parametrize("version", EVENTS)
@pytest.mark.parametrize(
    ("form", "name"), [(multipart, "a.png"), (raw, None), (base64_json, "a.png")]
)
def test_an_image_in_any_form(
    version: str,
    form: Callable,
    name: str | None,
    function: Runtime,
    image: Path,
    expected: Prediction,
) -> None:
    kind, body = form(image.read_bytes())
    answer = function.invoke(EVENTS[version]("POST", "/classify", {"Content-Type": kind}, body))
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, False)
    assert answer["headers"]["content-type"] == "application/json"
    contents = json.loads(answer["body"])
    classes = ["blue", "green", "red"]
    best = expected.class_names[0]
    assert contents["file"] == name
    assert (contents["predicted"], contents["predicted_name"]) == (classes.index(best), best)
    assert [row["class"] for row in contents["classes"]] == list(expected.class_names)
    assert [row["probability"] for row in contents["classes"]] == pytest.approx(
        expected.probabilities, abs=2e-3
    )


@pytest.mark.parametrize("version", EVENTS)
@pytest.mark.parametrize(
    ("path", "kind", "body", "status", "reason"),
    [
        ("/classify", "image/png", b"0" * (LIMIT + 1), 413, f"longer than {LIMIT} bytes"),
        ("/classify", "text/csv", "a,b", 415, "Content-Type text/csv"),
        ("/classify", "image/png", b"no image", 400, "not an image"),
        ("/classify", "image/png", b"", 400, "it is empty"),
        ("/classify", "application/json", "{", 400, "no JSON"),
        ("/elsewhere", "image/png", b"x", 404, "Not Found"),
    ],
)
def test_what_cannot_be_answered(
    version: str, path: str, kind: str, body: bytes | str, status: int, reason: str,
    function: Runtime,
) -> None:  # fmt: skip
    event = EVENTS[version]("POST", path, {"Content-Type": kind}, body)
    answer = function.invoke(event)
    assert answer["statusCode"] == status
    assert reason in json.loads(answer["body"])["error"]


@pytest.mark.parametrize("version", EVENTS)
def test_the_page_and_the_health(version: str, function: Runtime) -> None:
    page = function.invoke(EVENTS[version]("GET", "/", {}, None))
    assert page["statusCode"] == 200 and page["headers"]["content-type"].startswith("text/html")
    assert "<html" in page["body"]
    health = function.invoke(EVENTS[version]("GET", "/healthz", {}, None))
    assert json.loads(health["body"]) == {"status": "ok"}


def rest(resource: str, path: str, stage: str = "dev", **parameters: str) -> dict:
    """Return the parts of a REST API's event, or of payload format 1.0, that tell the path."""
    return {
        "resource": resource,
        "path": path,
        "pathParameters": parameters or None,
        "requestContext": {"stage": stage, "path": f"/{stage}{path}"},
    }


def http(route: str, path: str, stage: str = "dev", **parameters: str) -> dict:
    """Return those of payload format 2.0."""
    context = {"stage": stage, "http": {"path": path}}
    event = {"version": "2.0", "routeKey": route, "rawPath": path, "requestContext": context}
    return {**event, "pathParameters": parameters} if parameters else event


@pytest.mark.parametrize(
    ("event", "path"),
    [
        (rest("/classify", "/classify"), "/classify"),
        (rest("/{proxy+}", "/classify", proxy="classify"), "/classify"),
        (rest("/{proxy+}", "/birds/classify", proxy="classify"), "/classify"),  # a base path
        (rest("/classify", "/birds/classify"), "/classify"),
        (rest("/v2/models/{name}", "/b/v2/models/ir", name="ir"), "/v2/models/ir"),
        (rest("/", "/birds"), "/"),
        (rest("$default", "/dev/classify"), "/classify"),  # an HTTP API with format 1.0
        (rest("$default", "/development"), "/development"),
        (http("POST /classify", "/dev/classify"), "/classify"),
        (http("ANY /{proxy+}", "/dev/v2/models/ir", proxy="v2/models/ir"), "/v2/models/ir"),
        (http("ANY /birds/{proxy+}", "/dev/birds/classify", proxy="classify"), "/classify"),
        (http("GET /", "/dev/"), "/"),
        (http("$default", "/dev/classify"), "/classify"),
        (http("$default", "/dev"), "/"),
        (http("$default", "/developers"), "/developers"),
        (http("$default", "/dev/dev/classify"), "/dev/classify"),
        (http("$default", "/classify", stage="$default"), "/classify"),  # a function URL
        ({"path": "/classify", "requestContext": {"elb": {"targetGroupArn": "a"}}}, "/classify"),
    ],
)
def test_the_path_is_what_the_event_says(
    event: dict, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FUNCTION))
    from event_path import route_path

    assert route_path(event) == path


def test_a_named_stage_and_a_base_path(function: Runtime) -> None:
    """Through Mangum, in the format of each."""
    events = [event_v2("GET", "/healthz", {}, None), event_v1("GET", "/healthz", {}, None)]
    events[0] |= {"rawPath": "/dev/healthz", "routeKey": "$default"}
    events[0]["requestContext"] |= {"stage": "dev"}
    events[0]["requestContext"]["http"] |= {"path": "/dev/healthz"}
    base = {"path": "/birds/healthz", "resource": "/{proxy+}"}
    events[1] |= {**base, "pathParameters": {"proxy": "healthz"}}
    for event in events:
        assert json.loads(function.invoke(event)["body"]) == {"status": "ok"}


def test_pages_of_other_origins_may_call(function: Runtime) -> None:
    """Behind what does not answer for them, as a REST API or a function URL."""
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    preflight = function.invoke(event_v1("OPTIONS", "/classify", headers, None))
    assert preflight["statusCode"] == 200
    assert preflight["headers"]["access-control-allow-origin"] == "https://a.example"
    other = function.invoke(event_v1("GET", "/healthz", {"Origin": "https://b.example"}, None))
    assert "access-control-allow-origin" not in other["headers"]


def test_without_a_model_it_says_so_at_the_start(tmp_path: Path) -> None:
    with running_function("nowhere/model.xml", tmp_path / "log.txt") as runtime:
        path, contents = runtime.answer()
    assert path == "/init/error"
    assert contents["errorType"].endswith("UserError")
    assert "nowhere/model.xml: no such model file" in contents["errorMessage"]


# ---------------------------------------------------------------------------------------- S3


@pytest.fixture
def local_copy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], Path]:
    monkeypatch.syspath_prepend(str(FUNCTION))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    from model_file import local_copy

    return local_copy


def test_the_model_comes_from_s3(local_copy: Callable, model: Path, tmp_path: Path) -> None:
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        for suffix in (".xml", ".bin"):
            client.upload_file(str(model.with_suffix(suffix)), "models", f"birds/v1/net{suffix}")
        path = local_copy("s3://models/birds/v1/net.xml", tmp_path / "made")
    assert path.parent == tmp_path / "made"
    for suffix in (".xml", ".bin"):
        assert path.with_suffix(suffix).read_bytes() == model.with_suffix(suffix).read_bytes()
    assert local_copy("/var/task/model.xml", tmp_path) == Path("/var/task/model.xml")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://models/none.xml", "cannot read s3://models/none.xml: .*404"),
        ("s3://nobody/model.onnx", "cannot read s3://nobody/model.onnx"),
        ("s3://models/a.pth", "is not s3://BUCKET/KEY of an .xml or .onnx file"),
        ("s3:///model.xml", "is not s3://BUCKET/KEY"),
    ],
)
def test_what_s3_does_not_have(
    uri: str, message: str, local_copy: Callable, tmp_path: Path
) -> None:
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="models")
        with pytest.raises(Exception, match=message) as raised:
            local_copy(uri, tmp_path)
    assert type(raised.value).__name__ == "UserError"


# ------------------------------------------------------------------------- the images' packages


def closure(requirements: Path) -> set[str]:
    """Return the distributions that a requirements file leads to, in canonical spelling."""
    lines = [line.partition("#")[0].strip() for line in requirements.read_text().splitlines()]
    wanted, found = [Requirement(line) for line in lines if line], set[str]()
    while wanted:
        requirement = wanted.pop()
        name = canonical(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate()):
            found.add(name)
            wanted += map(Requirement, metadata.requires(requirement.name) or [])
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Refuses every package that the image lacks, as if it were not installed.
BLOCKER = """
import sys
from importlib import metadata
allowed = set(sys.argv[1].split(","))
hidden = {top for top, names in metadata.packages_distributions().items()
          if not allowed & {name.lower().replace("_", "-").replace(".", "-") for name in names}}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
assert "torch" in hidden
"""


@pytest.mark.parametrize(
    ("requirements", "code"),
    [
        ("external/aws_lambda/requirements.txt", "import awslambdaric.bootstrap, handler"),
        (
            "docker/serving-requirements.txt",
            "import os\n"
            "from classification.cli import serve\n"
            "from classification.serving import http_server\n"
            "from classification.serving.app import create_app\n"
            "from classification.serving.models import load_models\n"
            "from classification.serving.settings import Settings\n"
            "create_app(load_models({'m': os.environ['MODEL']}, Settings()), Settings())",
        ),
    ],
)
def test_an_image_has_all_that_it_needs(requirements: str, code: str, model: Path) -> None:
    names = closure(ROOT / requirements)
    assert "openvino" in names and not {"torch", "timm", "nncf"} & names
    allowed = ",".join(sorted({*names, "classification"}))
    done = run_python(
        "-c", f"{BLOCKER}\n{code}\nassert 'torch' not in sys.modules\nprint('loaded')", allowed,
        cwd=FUNCTION, env={"MODEL": str(model)},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("loaded\n"), done.stderr


def test_the_images_install_what_the_constraints_pin() -> None:
    pinned = {
        canonical(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for name in ("external/aws_lambda/requirements.txt", "docker/serving-requirements.txt"):
        assert closure(ROOT / name) - {"setuptools"} <= pinned


# ------------------------------------------------------------------------------- the template


def cfn_lint(text: str) -> list[str]:
    matches = lint(text, regions=["eu-central-1"])
    return [f"{match.rule.id} {match.message}" for match in matches]


def test_whatever_the_page_calls_has_a_route() -> None:
    page = (ROOT / "classification" / "serving" / "page.html").read_text()
    calls = set(re.findall(r'call\("(\w+)"', page))
    assert calls == {"classify", "readyz"}
    routes = re.findall(r"Path: /(\w*)$", (FUNCTION / "template.yaml").read_text(), re.MULTILINE)
    assert {"", "healthz", *calls} == set(routes)


def test_the_template_is_valid() -> None:
    text = (FUNCTION / "template.yaml").read_text()
    assert cfn_lint(text) == []
    # And the check finds something when there is something.
    assert cfn_lint(text.replace("Timeout: 30", "Timeout: soon"))
    assert cfn_lint(text.replace("!Ref ModelBucket", "!Ref Bucket"))
    assert cfn_lint(text.replace("Architectures:", "Architecture:"))


def test_python_is_the_images() -> None:
    """What is pinned was seen working on the images' Python."""
    for name in ("external/aws_lambda/Dockerfile", "docker/serving.Dockerfile"):
        bases = re.findall(r"^FROM python:(\S+)-slim", (ROOT / name).read_text(), re.M)
        assert set(bases) == {"3.11"}
