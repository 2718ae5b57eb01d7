"""int8 files on a CPU without VNNI, whatever this one is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from without_vnni import WithoutVnni, needs_qemu, run_without_vnni

from classification.compression.gate import check_rounding
from classification.deployment.backends import load_backend
from classification.errors import UserError

pytestmark = [pytest.mark.slow, needs_qemu]


@pytest.fixture(scope="module")
def found(
    exported_int8: Path,
    full_range: Path,
    exported: Path,
    images: np.ndarray,
    tmp_path_factory: pytest.TempPathFactory,
) -> WithoutVnni:
    """Return the logits of an int8 file, of a planted one of the full range, and of FP32."""
    models = [exported_int8 / "model.xml", full_range, exported / "model.xml"]
    return run_without_vnni(models, images, tmp_path_factory.mktemp("qemu"))


def test_its_sums_saturate(found: WithoutVnni) -> None:
    assert found.saturates and "avx2" in found.kernel


def test_weights_of_the_half_range_are_right(
    found: WithoutVnni, int8_checkpoint: Path, checkpoint: Path, images: np.ndarray
) -> None:
    expected, in_float = (
        load_backend(path).logits(images) for path in (int8_checkpoint, checkpoint)
    )
    half, _, fp32 = found.logits
    np.testing.assert_allclose(fp32, in_float, atol=1e-3)
    assert check_rounding(half, expected, in_float, saturates=True) < 0.05
    assert np.mean(half.argmax(axis=1) == expected.argmax(axis=1)) > 0.9


def test_a_planted_file_of_the_full_range_fails_the_gate(
    found: WithoutVnni, full_range: Path, checkpoint: Path, images: np.ndarray
) -> None:
    expected, in_float = (
        load_backend(path).logits(images) for path in (full_range.parent / "best.pth", checkpoint)
    )
    _, full, _ = found.logits
    with pytest.raises(UserError, match=r"compression\.weight_range half"):
        check_rounding(full, expected, in_float, saturates=found.saturates)


def test_a_file_of_the_full_range_is_warned_of(found: WithoutVnni, full_range: Path) -> None:
    assert f"{full_range}: " in found.said and "no VNNI" in found.said
    assert found.said.count("no VNNI") == 1
