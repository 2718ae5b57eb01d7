import json

import numpy as np
import torch


def test_plain_pytorch_gets_the_logits_and_the_description(
    exported, images, expected_logits, config
):
    extra_files = {"classification.json": "", "model_info.json": ""}
    path = str(exported / "model.torchscript.pt")
    model = torch.jit.load(path, _extra_files=extra_files)
    pixels = (images / 255 - config.input.mean) / config.input.std
    batch = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float()
    for size in (1, 13):
        with torch.no_grad():
            logits = model(batch[:size])
        np.testing.assert_allclose(logits, expected_logits[:size], atol=1e-4)
    description = json.loads(extra_files["classification.json"])
    assert json.loads(description["class_names"])[2] == "Ünïcode 日本"
    assert description["input_format"] == "RGB"
    assert json.loads(extra_files["model_info.json"])["reverse_input_channels"] == "True"
