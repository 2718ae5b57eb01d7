"""Every knob of the framework, in one table: type, default, range or choices, unit and meaning.

Checks, `--set`, `--list-settings`, the rules of resuming and compressing and docs/config.md are
made from it. Precedence: command line flag, `--set section.key value`, template, these defaults.
"""

from __future__ import annotations

from typing import Any, Literal

from classification.checks import FACE_MARGIN, MEGAPIXELS, PIXELS_A_SIDE, VALUE_RANGE
from classification.config_node import Section, knob

_UP = 1_000_000  # high enough for any count


class SlimNet(Section):
    """The backbone `slimnet`, which is trained from random weights."""

    stem_filters: int = knob(96, 1, 4096, resume=False, model=True)
    """Filters of the stem."""
    stem_size: int = knob(7, 1, 31, unit="pixels", resume=False, model=True)
    """Kernel size of the stem."""
    stem_stride: int = knob(2, 1, 31, unit="pixels", resume=False, model=True)
    """Stride of the stem."""
    filter_counts: list[int] = knob([16, 32, 48, 64], 1, 4096, resume=False, model=True)
    """Filters of the four blocks."""
    depth_multiplier: int = knob(1, 1, 64, resume=False, model=True)
    """Maps that a depthwise convolution makes of each channel."""


class Model(Section):
    """The network."""

    backbone: str = knob("tf_efficientnet_lite0", resume=False, model=True)
    """A name of `timm.list_models()`, of a few torchvision models, or `slimnet`."""
    pad_type: Literal["", "same"] = knob("", resume=False, model=True)
    """Padding of the convolutions: `same` for weights from TensorFlow, '' for timm's choice."""
    dropout: float = knob(0.2, 0, 0.95, model=True)
    """Before the last layer."""
    head_init: Literal["zero", "linear_probe"] = knob("zero", resume=False, model=True)
    """First weights of the head: zero, or fitted to the frozen backbone's features (LP-FT)."""
    reset_classifier: bool = knob(False, model=True)
    """Take only the backbone from `--load-weights`."""
    slimnet: SlimNet


class Input(Section):
    """The network's input."""

    height: int = knob(224, *PIXELS_A_SIDE, unit="pixels", model=True)
    width: int = knob(224, *PIXELS_A_SIDE, unit="pixels", model=True)
    mean: list[float] = knob([0.485, 0.456, 0.406], model=True)
    """Subtracted from RGB scaled to 0..1."""
    std: list[float] = knob([0.229, 0.224, 0.225], model=True)
    """By which it is then divided."""


class Data(Section):
    """Reading images and labels."""

    on_bad_image: Literal["error", "skip"] = knob("error", evaluation=True)
    """Whether an unreadable image ends the run or is left out."""
    cache_fraction: float = knob(0.25, 0, 0.9, evaluation=True)
    """Share of the free memory for decoded images; 0 = no cache."""
    num_workers: int = knob(0, 0, 256)
    """Loader processes; 0 = threads in the training process, which is best on CPUs."""
    max_megapixels: float = knob(200.0, *MEGAPIXELS, unit="megapixels", model=True)
    """Larger images are refused as bad images."""
    value_range: int = knob(0, *VALUE_RANGE, model=True)
    """The grey value that is white in images of more than 8 bits, as 4095 of a 12-bit camera; 0 =
    the smallest of 255, 1023, 4095, 16383 and 65535 that holds the training images."""
    labels: list[str] = knob([], evaluation=True)
    """Attributes: [] = the data's classes; one = two classes; several or [all] = multi-label."""
    class_names: list[str] = knob([])
    """Of one attribute's two classes, negative and positive; [] = not_NAME and NAME."""
    split: str = knob("", evaluation=True)
    """'' = each role has its own data roots; `official` (the data's own partition) or a file of
    tools/split_data.py divides roots that are given for all roles."""


class Faces(Section):
    """Cropping to faces."""

    crop: Literal["none", "face", "eyes"] = knob("none", model=True)
    """What of an image the network sees, in training as in prediction; the largest face counts, and
    eyes come from landmarks where the data have them."""
    margin: float = knob(0.2, *FACE_MARGIN, model=True)
    """On each side of the crop, as a share of its width or height."""
    no_face: Literal["negative", "whole", "error"] = knob("negative", model=True)
    """An image without a face is predicted as `negative_class`, seen whole, or a bad image."""
    negative_class: str = knob("", model=True)
    """A class name; '' = no label at all, of multi-label models."""


class Sampling(Section):
    """Which training images an epoch draws."""

    name: Literal["shuffle", "balanced", "weighted"] = knob("shuffle")
    """`shuffle`: each image once; `balanced`: all classes equally often, their images evenly;
    `weighted`: the same by independent draws. An epoch has as many draws as images."""
    downsample: float = knob(1.0, 0, 1)
    """Share of each class that an epoch takes, drawn anew, but not fewer than the smallest class
    has; 1 = all, 0 = all classes as many as the smallest."""


class Augmentation(Section):
    """Random changes of training images; probabilities are an image's."""

    crop_scale: float = knob(1.0, 0.01, 1)
    """Smallest share of the area that a random crop keeps; 1 = no crops."""
    horizontal_flip: float = knob(0.5, 0, 1)
    """Probability."""
    vertical_flip: float = knob(0.0, 0, 1)
    """Probability."""
    rotation: float = knob(0.35, 0, 1)
    """Probability."""
    rotation_degrees: float = knob(10.0, 0, 180, unit="degrees")
    """Uniform in ± this."""
    affine: float = knob(0.0, 0, 1)
    """Probability of a shift, a zoom, and a rotation or a shear (one, if both are on)."""
    affine_shift: float = knob(0.05, 0, 1)
    """At most, as a share of width and height."""
    affine_zoom: float = knob(0.1, 0, 0.9)
    """The factor is uniform in 1 ± this."""
    affine_degrees: float = knob(20.0, 0, 180, unit="degrees")
    """Uniform in ± this; 0 = no rotation."""
    affine_shear: float = knob(5.0, 0, 80, unit="degrees")
    """Along the width; 0 = none."""
    color_jitter: float = knob(0.0, 0, 1)
    """Probability of other brightness and contrast, or of other saturation and hue, not of both."""
    color_jitter_brightness: float = knob(0.2, 0, 1)
    """The factor is uniform in 1 ± this; 0 = none."""
    color_jitter_contrast: float = knob(0.2, 0, 1)
    """The factor is uniform in 1 ± this; 0 = none."""
    color_jitter_saturation: float = knob(0.3, 0, 1)
    """The factor is uniform in 1 ± this; 0 = none."""
    color_jitter_hue: float = knob(0.03, 0, 0.5)
    """Uniform in ± this share of the color circle."""
    blur: float = knob(0.0, 0, 1)
    """Probability."""
    blur_size: int = knob(7, 3, 31, unit="pixels")
    """Side of the mean filter: 3, 5, ... up to this."""
    jpeg: float = knob(0.0, 0, 1)
    """Probability of a JPEG compression."""
    jpeg_quality: int = knob(60, 1, 100)
    """Uniform from this to 100."""
    augmix: float = knob(1.0, 0, 1)
    """Probability of AugMix."""
    augmix_engine: Literal["fast", "torchvision"] = knob("fast")
    """Equal in distribution; torchvision's takes four times as long and needs data.num_workers."""
    augmix_severity: int = knob(3, 1, 10)
    """Strength of its operations."""
    augmix_width: int = knob(3, 1, 16)
    """Number of its chains."""
    augmix_depth: int = knob(-1, -1, 16)
    """Operations in a chain; -1 = 1 to 3 at random."""
    augmix_alpha: float = knob(1.0, 1e-3, 1e3)
    """Of its Dirichlet and Beta draws."""
    mixup: float = knob(0.0, 0, 1e3)
    """Alpha of mixup's Beta draw; 0 = off."""
    cutmix: float = knob(0.0, 0, 1e3)
    """Alpha of CutMix's; with both on, each batch is mixed by either of them."""


class Loss(Section):
    """The loss; `am_softmax` has a cosine head and a margin."""

    name: Literal["auto", "cross_entropy", "am_softmax", "bce", "asymmetric"] = knob(
        "auto", resume=False, model=True
    )
    """Single-label: `cross_entropy` or `am_softmax`; multi-label: `bce` (binary cross-entropy) or
    `asymmetric`, both the mean over the labels; `auto` = cross_entropy or bce, by the data."""
    label_smoothing: float = knob(0.0, 0, 0.99)
    """Of cross_entropy."""
    margin: float = knob(0.35, 0, 1.99)
    """Of am_softmax, subtracted from the true class's cosine."""
    scale: float = knob(0.0, 0, 1000, model=True)
    """Of am_softmax: logits = scale * cosine; 0 = max(sqrt(2) ln(C - 1), 3)."""
    gamma_positive: float = knob(0.0, 0, 20)
    """Of asymmetric: how much less true labels count that are sure."""
    gamma_negative: float = knob(4.0, 0, 20)
    """Of asymmetric: the same for false ones."""
    clip: float = knob(0.05, 0, 0.99)
    """Of asymmetric: probabilities of false labels below this cost nothing."""
    class_weights: Literal["none", "balanced"] = knob("none")
    """`balanced`: by the inverse of the class's size as drawn; a label's true and false alike."""


class Optimizer(Section):
    """The optimizer."""

    name: str = knob("sgd", resume=False)
    """A name of `timm.optim.list_optimizers()`."""
    base_learning_rate: float = knob(0.01, 1e-12, 1e3)
    """Of the whole batch, whatever its size."""
    momentum: float = knob(0.9, 0, 0.9999)
    """Or Adam's first beta."""
    weight_decay: float = knob(5e-4, 0, 10)
    no_bias_decay: bool = knob(True, resume=False)
    """No weight decay for biases and normalisation layers."""
    bias_lr_factor: float = knob(1.0, 0, 100)
    """Learning rate of biases, as a multiple."""


class Sam(Section):
    """Sharpness-aware minimization: a second pass at the worst point nearby."""

    enable: bool = knob(False, fine_tune=False)  # twice the cost of steps that hardly move
    rho: float = knob(0.05, 0, 100)
    """Distance to that point, in L2 norm; multiplied by `interval`, up to 10."""
    adaptive: bool = knob(False)
    """ASAM: distances in proportion to each weight; rho is then about 0.5."""
    interval: int = knob(1, 1, 1000)
    """Steps from one second pass to the next."""


class MutualLearning(Section):
    """Deep mutual learning: auxiliaries are trained beside the model, each from the others."""

    enable: bool = knob(False, resume=False, fine_tune=False)  # auxiliaries only teach then
    weight: float = knob(1.0, 0, 100)
    """Of the divergences between the models' predictions."""
    auxiliaries: list[dict[str, Any]] = knob([])
    """A list of sections, each with the keys of model, loss, optimizer, schedule and input.mean and
    std that differ from the main model's, and initial_weights as in the template."""


class Schedule(Section):
    """The learning rate over the training."""

    name: Literal["plateau", "cosine", "one_cycle", "exponential", "multi_step"] = knob(
        "plateau", resume=False, fine_tune="cosine"
    )
    """`exponential` falls after each epoch, `multi_step` after some."""
    monitor: Literal["train_loss", "val_loss", "val_score"] = knob("train_loss")
    """What must improve, of plateau; val_score: validation top-1, or the labels' mean accuracy."""
    warmup_epochs: float = knob(1.0, 0, 1e4, fine_tune=0.0)
    """Linear, at most a third of the epochs; one_cycle has its own."""
    patience: int = knob(5, 1, 10_000)
    """Epochs without improvement before the learning rate falls."""
    patience_steps: int = knob(0, 0, _UP)
    """Steps that must have passed too: more epochs on small sets."""
    on_plateau: Literal["drop", "decay"] = knob("drop")
    """`drop`: by the factor, again and again; `decay`: once, linearly, to the end."""
    factor: float = knob(0.1, 1e-6, 0.999)
    """Of a drop, of plateau, exponential and multi_step."""
    milestones: list[int] = knob([])
    """Of multi_step: epochs after which the learning rate drops."""
    decay_share: float = knob(0.5, 0.01, 10)
    """Steps of the decay, as a share of those before it."""
    min_lr_ratio: float = knob(0.005, 0, 1)
    """Lowest learning rate, as a share of the base one."""
    decay_start: float = knob(0.3, 0, 1)
    """Share of the epochs after which the decay begins anyway; 1 = never."""


class EarlyStop(Section):
    """Early stopping, for drops and all schedules but plateau; a decay has its own end."""

    enable: bool = knob(True, fine_tune=False)  # a fine-tuning ends when its goal is met
    patience: int = knob(5, 1, 10_000)
    """Epochs without a better validation score, after the drops."""
    patience_steps: int = knob(0, 0, _UP)
    """Steps that must have passed too: more epochs on small sets."""
    after_drops: int = knob(1, 0, 100)
    """Drops of the learning rate before stopping is allowed, of plateau."""


class LrFinder(Section):
    """A search of the base learning rate before the training."""

    enable: bool = knob(False, fine_tune=False)
    mode: Literal["fast_ai", "grid_search", "tpe"] = knob("fast_ai")
    """`fast_ai`: range test; `grid_search`, `tpe`: short trainings by Optuna."""
    min_lr: float = knob(0.001, 1e-12, 1e3)
    """Lowest learning rate."""
    max_lr: float = knob(0.03, 1e-12, 1e3)
    """Highest learning rate."""
    step: float = knob(0.001, 0, 1e3)
    """Of grid_search and tpe; 0 = a grid of n_trials learning rates, each the same multiple of the
    one before, or any learning rate at all."""
    num_epochs: int = knob(3, 1, 1000)
    """Of each short training, at most half of the run's; of the range test."""
    num_steps: int = knob(0, 0, _UP)
    """Steps that each short training has at least, for small sets."""
    n_trials: int = knob(15, 1, 10_000)
    """Short trainings at most."""
    epochs_warmup: int = knob(1, 0, 1000)
    """Of each short training, not judged for pruning; of the range test."""
    smooth_f: float = knob(0.05, 1e-3, 1)
    """Of the range test: weight of the newest loss in its mean."""
    max_images: int = knob(3000, 2, 10**9)
    """Of the training and of the validation part, drawn at random."""
    stop_after: bool = knob(False)
    """End after the search."""
    path_to_savefig: str = knob("lr_finder.png")
    """The figure, in the folder of the checkpoints; '' = none."""


class Ema(Section):
    """Exponential moving average of the weights."""

    enable: bool = knob(True, fine_tune=False)  # an average of quantizer ranges is not a range
    decay: float = knob(0.999, 0, 0.999999)
    """A step."""
    warmup: bool = knob(True)
    """A shorter memory in the first steps, for short runs."""


class Training(Section):
    """The run."""

    batch_size: int = knob(32, 1, _UP)
    """Images an optimizer step, over all processes together."""
    epochs: int = knob(200, 1, _UP)
    """At most; early stop usually ends sooner."""
    accumulation: int = knob(1, 1, 10_000)
    """Parts that a batch is computed in, one after the other."""
    seed: int = knob(5, 0, 2**63 - 1)
    """Of everything random."""
    save_every: int = knob(1, 1, _UP)
    """Epochs from one model/model.pth.tar-N to the next."""
    keep_checkpoints: int = knob(2, 1, 10_000)
    """Latest ones of these kept, besides latest.pth and best.pth."""
    best_epoch: Literal["last_within_error", "highest"] = knob(
        "last_within_error", fine_tune="highest"
    )
    """Whose weights best.pth has. `last_within_error`: the last epoch within one standard error of
    the best validation score; `highest`: the best one, of equal ones that of the lower loss."""
    freeze_batch_norm: bool = knob(False, resume=False)
    """Normalize by the statistics of the pretrained weights; random weights have none."""
    precision: Literal["auto", "fp32", "bf16"] = knob("auto")
    """`auto` = bf16 on GPUs that have it."""
    clip_gradient_norm: float = knob(0.0, 0, 1e9)
    """0 = no clipping."""


class Evaluation(Section):
    """Validation, and what it decides about the model."""

    batch_size: int = knob(64, 1, _UP, unit="images", evaluation=True)
    thresholds: Literal["auto", "half", "best_f1", "precision", "recall"] = knob("auto")
    """Decision threshold of each label, or of the second of two classes, chosen on the validation
    images. `half`: 0.5; `best_f1`: where F1 is best; `precision`, `recall`: where it reaches
    `target`, with the most recall or precision; `auto`: best_f1 for multi-label, else half. The
    best epoch is chosen with 0.5 anyway."""
    target: float = knob(0.95, 0.001, 1)
    """Of precision or recall."""
    target_accuracy: float = knob(0.0, 0, 1)
    """Reject option of single-label models: images whose prediction is so unsure that the others
    reach this accuracy on the validation images get none; 0 = off."""


class Compression(Section):
    """int8, pruning and their fine-tuning."""

    calibration_images: int = knob(300, 1, _UP, resume=False)
    """Of the training set."""
    preset: Literal["mixed", "performance"] = knob("mixed", resume=False)
    """Asymmetric (`mixed`) or symmetric activations."""
    weight_range: Literal["half", "full"] = knob("half")
    """Of int8 weights. The full range needs a CPU with VNNI, AMX or Arm's dot product; others add
    products of 8 bits in 16 bits, which overflow silently."""
    max_accuracy_drop: float = knob(0.5, -100, 100, unit="points")
    """Of the validation score that may be lost."""
    epochs: int = knob(-1, -1, 10_000)
    """Of fine-tuning, at most; it ends sooner, when the drop is small enough and no better epoch
    comes. -1 = as many as 300 steps take, 3 to 30; 0 = none."""
    lr_factor: float = knob(0.035, 1e-9, 10)
    """Its learning rate, as a multiple of the training's."""
    ignored_layers: list[str] = knob([], resume=False)
    """Regular expressions of whole layer names, as `blocks.0.0.conv_dw`, to leave in FP32."""
    pruned_share: float = knob(0.3, 0.001, 0.99, resume=False)
    """Of the weights that `--nncf-pruning` sets to zero."""


class Config(Section):
    """All sections. It travels inside every checkpoint as a plain dict."""

    model: Model
    input: Input
    data: Data
    faces: Faces
    sampling: Sampling
    augmentation: Augmentation
    loss: Loss
    optimizer: Optimizer
    sam: Sam
    mutual_learning: MutualLearning
    schedule: Schedule
    early_stop: EarlyStop
    lr_finder: LrFinder
    ema: Ema
    training: Training
    evaluation: Evaluation
    compression: Compression


KNOBS = {knob.key: knob for prefix, section in Config.sections() for knob in section.knobs(prefix)}
