"""AugMix: its draws, and the mixture against torchvision's given the same draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import AugMix

from classification.config import default_config, merge, validate
from classification.data.augmix import OPERATIONS, apply, augmix, draw, mix
from classification.errors import UserError

FILL = (124, 116, 104)
KNOBS = default_config().augmentation
SETTINGS = {"severity": 3, "width": 3, "depth": -1, "alpha": 1.0}


def make_image(width: int = 60, height: int = 45) -> Image.Image:
    """Return a smooth image with an edge in it, so that small shifts change little."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9) * np.cos(y / 7), np.cos((x + y) / 12), np.sin((x - 2 * y) / 15)]
    pixels = 120 + 90 * np.stack(waves, axis=-1)
    pixels[height // 3 : height // 2, width // 3 : width // 2] = (230, 40, 15)
    return Image.fromarray(pixels.astype(np.uint8))


def test_mix_is_the_weighted_mean_of_the_chains() -> None:
    image = make_image()
    weights = np.array([0.35, 0.1, 0.25, 0.3])
    chains = [[("Rotate", 2), ("Color", -1)], [("Equalize", 0)], []]
    results = [image, *(apply(image, chain, FILL) for chain in chains)]
    expected = sum(
        w * np.asarray(r, dtype=np.float64) for w, r in zip(weights, results, strict=True)
    )
    difference = np.abs(np.asarray(mix(image, weights, chains, FILL)) - expected)
    assert difference.max() <= 0.5001  # rounding to whole numbers, nothing more


class FixedDraws:
    """Makes torchvision's AugMix use the weights and chains that our `draw` returned."""

    def __init__(self, weights: np.ndarray, chains: list) -> None:
        rest = weights[1:].sum()
        self.dirichlet = iter([[weights[0], rest], list(weights[1:] / rest)])
        self.integers = self._integers(chains)

    @staticmethod
    def _integers(chains: list) -> Iterator[int]:
        names = list(OPERATIONS)
        for chain in chains:
            yield len(chain)
            for name, level in chain:
                yield names.index(name)
                if name not in ("AutoContrast", "Equalize"):  # these have no magnitudes
                    yield abs(level)
                if OPERATIONS[name].signed:
                    yield int(level < 0)

    def randint(self, *args: object, **kwargs: object) -> torch.Tensor:
        return torch.tensor([next(self.integers)])

    def sample_dirichlet(self, _: torch.Tensor) -> torch.Tensor:
        return torch.tensor([next(self.dirichlet)])


@pytest.mark.parametrize("seed", range(30))
def test_whole_equals_torchvision_given_the_same_draws(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image()
    weights, chains = draw(np.random.default_rng(seed), **SETTINGS)
    fixed = FixedDraws(weights, chains)
    monkeypatch.setattr(torch, "randint", fixed.randint)
    reference = AugMix(severity=3, fill=list(FILL))
    monkeypatch.setattr(reference, "_sample_dirichlet", fixed.sample_dirichlet)
    theirs = np.asarray(reference(image), dtype=np.float64)
    assert next(fixed.integers, None) is None
    ours = np.asarray(augmix(image, KNOBS, np.random.default_rng(seed), FILL))
    difference = np.abs(ours - theirs)
    # Theirs truncates where ours rounds, and its kernels for tensors differ a little from Pillow's,
    # most of all at the border of rotated images.
    assert difference.mean() < 3
    assert np.median(difference) <= 1


def test_draws() -> None:
    draws = [draw(np.random.default_rng(i), **SETTINGS) for i in range(2000)]
    weights = np.array([weights for weights, _ in draws])
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.mean(axis=0), [1 / 2, 1 / 6, 1 / 6, 1 / 6], atol=0.02)
    chains = [chain for _, chains in draws for chain in chains]
    assert len(chains) == 3 * 2000
    depths = Counter(map(len, chains))
    assert set(depths) == {1, 2, 3}
    assert max(depths.values()) - min(depths.values()) < 250
    operations = [operation for chain in chains for operation in chain]
    names = Counter(name for name, _ in operations)
    assert set(names) == set(OPERATIONS)
    assert max(names.values()) < 1.2 * min(names.values())
    assert {level for name, level in operations if name == "Rotate"} == {-2, -1, 0, 1, 2}
    assert {level for name, level in operations if name == "Solarize"} == {0, 1, 2}


def test_settings() -> None:
    weights, chains = draw(np.random.default_rng(0), severity=10, width=5, depth=4, alpha=100.0)
    np.testing.assert_allclose(weights, [0.5] + [0.1] * 5, atol=0.1)
    assert [len(chain) for chain in chains] == [4] * 5
    levels = {abs(level) for i in range(50) for chain in
              draw(np.random.default_rng(i), severity=10, width=5, depth=4, alpha=1.0)[1]
              for _, level in chain}  # fmt: skip
    assert levels == set(range(10))


def test_same_draws_same_image() -> None:
    first, again, other = (
        np.asarray(augmix(make_image(), KNOBS, np.random.default_rng(seed), FILL))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_torchvision_gives_equal_distribution() -> None:
    """How much an image changes, over many draws: mean, spread and tails are alike."""
    image, torchvision = make_image(), default_config().augmentation
    torchvision.augmix_engine = "torchvision"
    before = np.asarray(image, dtype=np.float64)
    changes = [
        [
            np.abs(
                np.asarray(augmix(image, knobs, np.random.default_rng(seed), FILL)) - before
            ).mean()
            for seed in range(400)
        ]
        for knobs in (KNOBS, torchvision)
    ]
    ours, theirs = map(np.array, changes)
    # Two-sided 99.9 % of Kolmogorov and Smirnov for 400 against 400: 1.95 sqrt(2 / 400).
    assert ks_2samp(ours, theirs).statistic < 0.138
    again = augmix(image, torchvision, np.random.default_rng(7), FILL)
    assert augmix(image, torchvision, np.random.default_rng(7), FILL).tobytes() == again.tobytes()


def test_torchvision_needs_loader_processes() -> None:
    config = default_config()
    merge(config, {"augmentation": {"augmix_engine": "torchvision"}})
    with pytest.raises(UserError, match=r"set data\.num_workers"):
        validate(config)
    config.data.num_workers = 1
    validate(config)
