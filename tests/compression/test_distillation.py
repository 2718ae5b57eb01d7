"""The loss of the fine-tuning, and who teaches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from support import train_into
from torch import nn

from classification.compression.distillation import (
    TEMPERATURE,
    DistillationTask,
    Teacher,
    teachers_of,
)
from classification.data.preprocessing import Preprocessing
from classification.models.checkpoint import load_classifier

OURS = Preprocessing(8, 8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
OTHER = Preprocessing(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))


def test_the_loss_is_that_of_the_paper() -> None:
    student, one, two = (linear(seed) for seed in range(3))
    task = DistillationTask(
        student, nn.CrossEntropyLoss(), [Teacher(one, OURS), Teacher(two, OTHER)]
    )
    pixels = torch.rand(5, 3, 8, 8)
    targets = torch.tensor([0, 1, 2, 3, 0])

    def see(model: nn.Module, preprocessing: Preprocessing) -> np.ndarray:
        mean, std = (
            torch.tensor(v).view(1, 3, 1, 1) for v in (preprocessing.mean, preprocessing.std)
        )
        with torch.no_grad():
            return model((pixels - mean) / std).numpy()

    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (OURS.mean, OURS.std))
    loss, logits = task((pixels - mean) / std, targets)
    mine = see(student, OURS)
    np.testing.assert_allclose(logits.detach().numpy(), mine, atol=1e-5)
    taught = sum(softmax(see(m, p) / TEMPERATURE, 1) for m, p in ((one, OURS), (two, OTHER))) / 2
    learnt = softmax(mine / TEMPERATURE, 1)
    divergence = (taught * np.log(taught / learnt)).sum(1).mean()
    own = -np.log(softmax(mine, 1)[np.arange(5), targets.numpy()]).mean()
    np.testing.assert_allclose(loss.item(), own + TEMPERATURE**2 * divergence, rtol=1e-5)


def test_labels_are_taught_one_by_one() -> None:
    student, teacher = linear(0), linear(1)
    loss = nn.BCEWithLogitsLoss()
    task = DistillationTask(student, loss, [Teacher(teacher, OURS)], multi_label=True)
    images, targets = torch.randn(5, 3, 8, 8), torch.rand(5, 4).round()
    value, logits = task(images, targets)
    q, p = ((z / TEMPERATURE).sigmoid() for z in (teacher(images), logits))
    divergence = (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean()
    expected = loss(logits, targets) + TEMPERATURE**2 * divergence
    torch.testing.assert_close(value, expected)


def test_teachers_neither_learn_nor_travel_in_checkpoints() -> None:
    student, teacher = linear(0), linear(1)
    task = DistillationTask(student, nn.CrossEntropyLoss(), [Teacher(teacher, OURS)]).train()
    task(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))[0].backward()
    assert all(p.grad is None for p in teacher.parameters()) and not teacher.training
    assert all(p.grad is not None for p in student.parameters())
    assert len(task.state_dict()) == len(student.state_dict()) and task.models == [student]


def test_auxiliaries_of_mutual_learning_teach_too(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    auxiliary = "[{model: {backbone: mobilenetv3_small_050}, input: {mean: [0.5, 0.5, 0.5]}}]"
    best = train_into(
        tiny_template,
        data,
        tmp_path,
        epochs=1,
        settings=[
            ["mutual_learning.enable", "true"],
            ["mutual_learning.auxiliaries", auxiliary],
        ],
    ).best
    classifier = load_classifier(best)
    main, teacher = teachers_of(classifier)
    assert main.model is classifier.model
    assert teacher.preprocessing.mean == (0.5, 0.5, 0.5)
    saved = classifier.contents["training"]["task"]
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, saved[f"auxiliaries.0.{name}"])
