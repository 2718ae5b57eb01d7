"""SlimNet: its size is the described one, its options act, small inputs are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from classification.compression.layers import weighted_layers
from classification.compression.quantization import quantize
from classification.config import default_config, from_dict, merge, to_dict, validate
from classification.errors import UserError
from classification.models.classifier import create_classifier, measure_complexity
from classification.models.quantized import weight_quantizers
from classification.models.slimnet import SlimNet


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def by_formula(
    stem: int = 96, filters: tuple[int, ...] = (16, 32, 48, 64), m: int = 1, labels: int = 40
) -> int:
    """Add the parameters up from the description of the layers."""

    def conv(c: int, o: int, k: int = 1, groups: int = 1, bias: bool = True) -> int:
        return c * o * k * k // groups + o * bias + 2 * o  # and a batch norm

    def separable(c: int, o: int) -> int:
        return conv(c, c * m, 3, groups=c, bias=False) + conv(c * m, o, bias=False)

    def expand(c: int, f: int) -> int:
        return conv(c, f) + conv(f, 4 * f) + separable(f, 4 * f)

    total, channels = conv(3, stem, 7), stem
    for f in filters:
        total += conv(channels, 8 * f, bias=False) + expand(channels, f) + expand(8 * f, f)
        total += separable(8 * f, 3 * f)
        channels = 3 * f
    return total + channels * labels + labels


def test_the_described_network() -> None:
    net = SlimNet().eval()
    assert count(net) == by_formula() == 571_304
    assert count(net.stem) == 14_400
    assert [count(block) for block in net.blocks] == [28_960, 68_672, 160_608, 290_944]
    assert count(net.fc) == 7_720
    assert sum(buffer.numel() for buffer in net.buffers()) == 12_717
    parameters, gflops = measure_complexity(net, 218, 178)
    assert parameters == pytest.approx(0.571304)
    assert gflops / 2 * 1000 == pytest.approx(244.35, abs=0.005)  # millions of multiply-adds
    assert len([m for m in net.modules() if isinstance(m, nn.Conv2d)]) == 1 + 4 * (1 + 2 * 4 + 2)


def test_the_sizes_of_the_maps() -> None:
    net, seen = SlimNet().eval(), []
    for pool in (m for m in net.modules() if isinstance(m, nn.MaxPool2d)):
        pool.register_forward_hook(lambda _, given, out: seen.append((given[0].shape, out.shape)))
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 218, 178)).shape == (1, 40)
    assert [tuple(given[1:]) for given, _ in seen] == [
        (96, 106, 86), (48, 52, 42), (96, 25, 20), (144, 12, 9), (192, 5, 4)
    ]  # fmt: skip
    assert tuple(seen[-1][1]) == (1, 192, 2, 1)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    net = SlimNet()
    assert (net.fc.bias == 0.01).all()
    weight = net.stem[0].weight
    bound = (6 / (3 * 49 + 96 * 49)) ** 0.5  # Xavier, uniform
    assert bound * 0.98 < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stem_filters": 20}, by_formula(stem=20)),
        ({"depth_multiplier": 2}, by_formula(m=2)),
        ({"filter_counts": [4, 8, 12, 16]}, by_formula(filters=(4, 8, 12, 16))),
    ],
)
def test_options_of_the_config_act(options: dict[str, object], expected: int) -> None:
    config = default_config()
    config.input.height, config.input.width = 140, 131
    merge(config, {"model": {"backbone": "slimnet", "slimnet": options}})
    net = create_classifier(from_dict(to_dict(config)), 40).eval()
    assert count(net) == expected != by_formula()
    with torch.inference_mode():
        assert net(torch.randn(2, 3, 140, 131)).shape == (2, 40)
    assert by_formula(stem=20) == 548_960


@pytest.mark.parametrize(("size", "stride", "smallest"), [(7, 2, 131), (3, 1, 65), (5, 2, 129)])
def test_the_smallest_input(size: int, stride: int, smallest: int) -> None:
    net = SlimNet(stem_size=size, stem_stride=stride).eval()
    assert net.smallest_side == smallest
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, smallest, smallest)).shape == (1, 40)
        with pytest.raises(RuntimeError, match="too small"):
            net(torch.zeros(1, 3, smallest, smallest - 1))
    with pytest.raises(UserError, match=f"need {smallest} at least"):
        net.check_size(200, smallest - 1)


def test_a_config_below_the_smallest_input_is_refused() -> None:
    config = default_config()
    config.model.backbone = "slimnet"
    config.input.height, config.input.width = 128, 160
    with pytest.raises(UserError, match=r"config\.input: 128x160 pixels are too few.*131"):
        create_classifier(config, 3)
    config.input.height, config.model.pad_type = 160, "same"
    with pytest.raises(UserError, match=r"model\.pad_type"):
        create_classifier(config, 3)
    config.model.slimnet.filter_counts = [16, 0, 48, 64]
    with pytest.raises(UserError, match=r"model\.slimnet\.filter_counts: 0 is outside"):
        validate(config)


def test_takes_a_cosine_head() -> None:
    config = default_config()
    config.model.backbone, config.loss.name = "slimnet", "am_softmax"
    config.input.height = config.input.width = 131
    net = create_classifier(config, 3)
    net(torch.randn(2, 3, 131, 131)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_every_weight_becomes_eight_bit() -> None:
    """NNCF knows a layer by the modules that are called on the way to it."""
    config = default_config()
    config.model.backbone = "slimnet"
    config.input.height = config.input.width = 139
    net = create_classifier(config, 5).eval()
    int8 = quantize(net, [torch.randn(2, 3, 139, 139)], config)
    assert weight_quantizers(int8).keys() == {name for name, _ in weighted_layers(net)}
