"""Running a model over a validation set inside a training, on any number of processes."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from classification.data.loader import eval_batches
from classification.data.preprocessing import Preprocessing, normalize
from classification.data.store import ImageStore
from classification.evaluation.score import Outcome, judge
from classification.knobs import Evaluation
from classification.training.interruption import StopSignal


def compute_logits(
    model: nn.Module,
    store: ImageStore,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    accelerator: Accelerator,
    stop: StopSignal,
) -> np.ndarray | None:
    """Return logits [N, C] float32 of every image in the store's order, the same on each process.

    Those of images that are lost are 0, see `ImageStore.lost`; `judge_present` leaves them out.
    Returns None when a stop was asked for half-way. With several processes the pass is finished
    first, since all of them have to agree.
    """
    was_training = model.training
    model.eval()
    indices, logits = [], []
    rank, world_size = accelerator.process_index, accelerator.num_processes
    with torch.inference_mode(), accelerator.autocast():
        for batch in eval_batches(store, batch_size, rank=rank, world_size=world_size):
            if stop.requested and world_size == 1:
                model.train(was_training)
                return None
            images = batch.images.to(accelerator.device, non_blocking=True)
            logits.append(model(normalize(images, preprocessing)).float().cpu().numpy())
            indices.append(batch.indices.numpy())
    model.train(was_training)
    parts = [(np.concatenate(indices), np.concatenate(logits))] if indices else []
    if world_size > 1:
        parts = gather_object(parts)
        store.lost.update(*gather_object([store.lost]))
    result = np.zeros((len(store), parts[0][1].shape[1]), np.float32)
    for part_indices, part_logits in parts:
        result[part_indices] = part_logits
    return result


def judge_present(logits: np.ndarray, store: ImageStore, evaluation: Evaluation) -> Outcome:
    """Judge logits as of `compute_logits` by the images that are still there."""
    present = np.setdiff1d(np.arange(len(store)), list(store.lost))
    return judge(logits[present], store.samples.targets[present], evaluation)
