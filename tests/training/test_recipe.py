"""What a config asks for and the data cannot give is refused at once, for the auxiliaries too."""

from __future__ import annotations

import pytest

from classification.config import from_dict, nest
from classification.errors import UserError
from classification.training.recipe import check_recipe

AUXILIARY = {"loss": {"name": "bce"}}


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        ({"loss.name": "bce"}, "multi-class", r"loss\.name: 'bce' is not for single-label data"),
        ({"loss.name": "am_softmax"}, "multi-label", r"loss\.name: 'am_softmax' is not"),
        ({"optimizer.name": "none_such"}, "multi-class", r"optimizer\.name"),
        ({"evaluation.thresholds": "best_f1"}, "multi-class", r"evaluation\.thresholds"),
        ({"evaluation.target_accuracy": 0.9}, "multi-label", r"evaluation\.target_accuracy"),
        ({"faces.crop": "face", "faces.negative_class": "d"}, "multi-class", r"negative_class"),
        (
            {"mutual_learning.enable": True, "mutual_learning.auxiliaries": [AUXILIARY]},
            "multi-class",
            r"loss\.name: 'bce' is not",
        ),
    ],
)
def test_what_the_data_cannot_give(settings: dict, task: str, message: str) -> None:
    check_recipe(from_dict({}), task, ("a", "b", "c"))
    with pytest.raises(UserError, match=message):
        check_recipe(from_dict(nest(settings)), task, ("a", "b", "c"))
