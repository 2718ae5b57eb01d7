import pytest

from classification.cli import export as command
from classification.errors import UserError
from classification.template import load_template


@pytest.fixture
def calls(monkeypatch):
    """Record what `export` is called with instead of exporting."""
    recorded = []
    module = pytest.importorskip("classification.deployment.export")
    monkeypatch.setattr(module, "export", lambda *a, **k: recorded.append(k))
    return recorded


def other_template(tiny_template, output_format: str):
    text = tiny_template.read_text(encoding="utf-8")
    start, rest = text.split("output_format:")
    _, end = rest.split("\n", 1)
    tiny_template.write_text(f"{start}output_format: {output_format}\n{end}", encoding="utf-8")
    return tiny_template


REQUIRED = ["--load-weights", "a é/best.pth", "--save-model-to", "b c"]


def test_defaults_without_a_template(calls):
    assert command.main(REQUIRED) == 0
    assert calls == [
        {
            "load_weights": "a é/best.pth",
            "save_model_to": "b c",
            "openvino": True,
            "embed_preprocessing": False,
            "onnx": False,
            "torchscript": False,
            "pytorch": False,
            "precision": "fp32",
            "openvino_input_format": "BGR",
            "classes": None,
        }
    ]


def test_defaults_of_the_template(calls, tiny_template):
    template = other_template(
        tiny_template, "{openvino: {default: false, input_format: RGB}, onnx: {default: true}}"
    )
    assert command.main(REQUIRED, template_path=template) == 0
    (call,) = calls
    assert (call["openvino"], call["onnx"], call["openvino_input_format"]) == (False, True, "RGB")


def test_flags_win_over_the_template(calls, tiny_template):
    flags = ["--no-openvino", "--onnx", "--openvino-input-format", "RGB", "--classes", "b, a"]
    assert command.main(REQUIRED + flags, template_path=tiny_template) == 0
    (call,) = calls
    assert (call["openvino"], call["onnx"], call["openvino_input_format"]) == (False, True, "RGB")
    assert call["classes"] == ["b", "a"]


def test_help_tells_the_defaults(tiny_template):
    text = " ".join(command.build_parser(load_template(tiny_template)).format_help().split())
    assert "default: True) --embed-preprocessing" in text
    assert "RGB: model.onnx (default: False)" in text
    assert "(default: BGR)" in text


def test_user_errors_have_exit_code_2_and_no_traceback(monkeypatch, capsys):
    module = pytest.importorskip("classification.deployment.export")

    def fail(*arguments, **options):
        raise UserError("best.pth: no such checkpoint.")

    monkeypatch.setattr(module, "export", fail)
    assert command.main(REQUIRED) == 2
    assert capsys.readouterr().err == "error: best.pth: no such checkpoint.\n"
