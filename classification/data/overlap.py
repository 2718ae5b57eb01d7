"""The same images for training and for validation, found by what the stores read anyway."""

from __future__ import annotations

import logging

from classification.data.listing import listing
from classification.data.store import ImageStore
from classification.errors import UserError

logger = logging.getLogger(__name__)


def check_overlap(train: ImageStore, val: ImageStore) -> None:
    """Warn of validation images whose files are those of training images, byte for byte.

    Raises:
        UserError: all of them are.
    """
    known = {notes.content for notes in train.notes} - {0}  # 0: it was not read
    common = [i for i, notes in enumerate(val.notes) if notes.content in known]
    if not common:
        return
    places = listing([val.samples.place(i) for i in common], most=3)
    if len(common) == len(val):
        raise UserError(
            f"All {len(val)} validation images are training images, too ({places}): a score on "
            "images that were trained on measures memory. Give others for validation."
        )
    logger.warning(
        "%d of %d validation images are training images, too, so that the validation score is too "
        "good: %s. tools/check_data.py lists them.",
        len(common),
        len(val),
        places,
    )
