"""Heat-maps against Grad-CAM written out by hand, on networks of several kinds."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from classification.data.preprocessing import Preprocessing, normalize
from classification.evaluation.heat_maps import heat_maps, last_map

PREPROCESSING = Preprocessing(64, 64, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5).eval()


@pytest.mark.parametrize("name", ["test_efficientnet", "mobilenetv3_small_050", "resnet10t"])
def test_maps_are_the_weighted_sums_of_the_last_activations(name, images):
    model, classes = network(name), np.array([0, 3, 4])
    got = heat_maps(model, images, PREPROCESSING, classes)
    kept = {}

    def keep(module, _, output):
        output.retain_grad()
        kept["map"] = output

    layer = last_map(model, torch.zeros(1, 3, 64, 64))
    handle = layer.register_forward_hook(keep)
    pixels = normalize(torch.from_numpy(images).permute(0, 3, 1, 2), PREPROCESSING)
    logits = model(pixels)
    handle.remove()
    logits[torch.arange(3), torch.from_numpy(classes)].sum().backward()
    weights = kept["map"].grad.mean(dim=(2, 3), keepdim=True)
    expected = (weights * kept["map"]).sum(dim=1).relu().detach().numpy()
    assert expected.shape[1:] == got.shape[1:] and min(got.shape[1:]) > 1
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other / max(other.max(), 1e-30), atol=1e-4)
    assert got.max() == 1


def test_the_map_is_where_the_class_is(images):
    """A network that sums what is red finds it."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False),
    ).eval()  # fmt: skip
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([[1.0, -1, -1], [-1, 1, -1]])[:, :, None, None]
        model[4].weight[:] = torch.eye(2)
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, 8:16, 40:56, 0] = 255
    preprocessing = Preprocessing(64, 64, (0.0,) * 3, (1.0,) * 3)
    heat = heat_maps(model, image, preprocessing, np.array([0]))[0]
    assert (heat[8:16, 40:56] == 1).all() and heat.sum() == 8 * 16
    assert not heat_maps(model, image, preprocessing, np.array([1])).any()


def test_a_network_without_maps_is_told(images):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 2))
    with pytest.raises(ValueError, match="no layer"):
        heat_maps(model, images, PREPROCESSING, np.zeros(3, np.int64))
