"""The IR of a cosine head costs no more than that of a linear one."""

from collections import Counter

import torch

from classification.config import default_config
from classification.data.preprocessing import Preprocessing
from classification.deployment.ir import convert_to_ir
from classification.deployment.metadata import Metadata
from classification.models.classifier import create_classifier
from classification.models.model_info import ModelInfo


def operations(loss: str) -> Counter:
    config = default_config()
    config.model.backbone, config.loss.name = "test_efficientnet", loss
    config.input.height = config.input.width = 32
    model = create_classifier(config, 3).eval()
    torch.nn.init.normal_(model.get_classifier().weight)
    preprocessing = Preprocessing.from_config(config)
    described = Metadata(ModelInfo(("a", "b", "c"), preprocessing), "BGR")
    return Counter(op.get_type_name() for op in convert_to_ir(model, described).get_ops())


def test_only_the_embedding_is_normalised_in_the_graph():
    linear, cosine = operations("cross_entropy"), operations("am_softmax")
    assert linear["MatMul"] == cosine["MatMul"] == 1
    assert "BatchNormInference" not in linear + cosine
    extra = {k: v for k, v in (cosine - linear).items() if k != "Constant"}
    # The norm, its lower bound, the division, and the scale of the cosines.
    assert extra == {"ReduceL2": 1, "Maximum": 1, "Divide": 1, "Multiply": 1}
