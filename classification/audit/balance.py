"""Findings about the sizes of the classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from classification.audit.findings import Finding

LARGEST_RATIO = 10.0  # of the sizes of the largest and the smallest class of a split


def examine_balance(
    class_names: Sequence[str], counts: Mapping[str, np.ndarray]
) -> Iterator[Finding]:
    """Yield classes that are missing, and splits whose classes differ much in size.

    Args:
        class_names: C names.
        counts: [C] int64 of each split.
    """
    for split, numbers in counts.items():
        missing = [name for name, n in zip(class_names, numbers, strict=True) if n == 0]
        for name in missing:
            yield Finding("missing_class", f"{split}: no image of '{name}'")
        present = numbers[numbers > 0]
        if len(present) and present.max() > LARGEST_RATIO * present.min():
            largest = class_names[int(np.argmax(numbers))]
            smallest = class_names[int(np.argmin(np.where(numbers > 0, numbers, numbers.max())))]
            yield Finding(
                "imbalance",
                f"{split}: {present.max()} of '{largest}', {present.min()} of '{smallest}'",
            )
