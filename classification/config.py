"""Every knob of the framework, its unit and its default, in one place.

A template's `config:` section overrides these defaults, `--set section.key value` overrides the
template, and a command line flag overrides both. Unknown keys are errors. The merged `Config` is
frozen; it travels inside every checkpoint as a plain dict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml
from yacs.config import CfgNode

from classification.errors import UserError, nearest

if TYPE_CHECKING:
    Config: TypeAlias = Any  # yacs has no types
else:
    Config = CfgNode


def default_config() -> Config:
    """Return a fresh, mutable copy of all defaults."""
    c = CfgNode()

    c.model = CfgNode()
    c.model.backbone = "tf_efficientnet_lite0"  # a name of timm.list_models()
    c.model.pad_type = ""  # "same" for weights that came from TensorFlow; "" leaves timm's choice
    c.model.dropout = 0.2  # before the last layer, 0 to 1
    c.model.reset_classifier = False  # take only the backbone from --load-weights

    c.input = CfgNode()
    c.input.height = 224  # pixels
    c.input.width = 224  # pixels
    c.input.mean = [0.485, 0.456, 0.406]  # RGB, of pixels scaled to 0..1
    c.input.std = [0.229, 0.224, 0.225]

    c.data = CfgNode()
    c.data.on_bad_image = "error"  # error | skip
    c.data.cache_fraction = 0.25  # of the memory free at the start, for decoded images; 0 = none
    c.data.num_workers = 0  # loader processes; 0 = threads in the training process, best on CPUs
    c.data.max_megapixels = 200.0  # larger images are bad images

    c.sampling = CfgNode()
    c.sampling.name = "shuffle"  # shuffle | balanced: all pictures once, or all classes alike often

    c.augmentation = CfgNode()
    c.augmentation.crop_scale = 1.0  # smallest share of the area that a crop keeps; 1 = no crops
    c.augmentation.horizontal_flip = 0.5  # probability
    c.augmentation.rotation = 0.35  # probability
    c.augmentation.rotation_degrees = 10.0  # uniform in +- this
    c.augmentation.augmix = 1.0  # probability
    c.augmentation.augmix_severity = 3  # 1 to 10
    c.augmentation.augmix_width = 3  # number of chains
    c.augmentation.augmix_depth = -1  # operations a chain; -1 = 1 to 3 at random
    c.augmentation.augmix_alpha = 1.0  # of the Dirichlet and Beta draws
    c.augmentation.mixup = 0.0  # alpha of the Beta draw; 0 = off
    c.augmentation.cutmix = 0.0  # the same; with both on, each batch is mixed by either of them

    c.loss = CfgNode()
    c.loss.name = "cross_entropy"
    c.loss.label_smoothing = 0.0  # 0 to 1
    c.loss.class_weights = "none"  # none | balanced: by the inverse of the class's size

    c.optimizer = CfgNode()
    c.optimizer.name = "sgd"  # a name of timm.optim.list_optimizers()
    c.optimizer.base_learning_rate = 0.01  # a step of one batch
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 5e-4
    c.optimizer.no_bias_decay = True  # no weight decay for biases and normalisation layers
    c.optimizer.bias_rate_factor = 1.0  # learning rate of biases, as a multiple

    c.schedule = CfgNode()
    c.schedule.name = "plateau"
    c.schedule.watch = "train_loss"  # train_loss | val_top1: what must improve
    c.schedule.warmup_epochs = 1.0  # linear, from a tenth of the rate
    c.schedule.patience = 5  # epochs without improvement before the rate falls
    c.schedule.factor = 0.1  # by which it falls
    c.schedule.min_rate_ratio = 0.005  # lowest rate as a share of the base rate
    c.schedule.anneal_from = 0.3  # share of the budget from which it falls evenly; 1 = never

    c.early_stop = CfgNode()
    c.early_stop.enable = True
    c.early_stop.patience = 5  # epochs without a better validation top-1, after the rate fell
    c.early_stop.after_drops = 1  # falls of the rate before stopping is allowed

    c.ema = CfgNode()
    c.ema.enable = True
    c.ema.decay = 0.999  # a step
    c.ema.warmup = True  # a shorter memory in the first steps, so that short runs are not hurt

    c.training = CfgNode()
    c.training.batch_size = 32  # images an optimizer step, over all processes together
    c.training.epochs = 200  # at most; early stop usually ends sooner
    c.training.accumulation = 1  # parts that a batch is computed in, one after the other
    c.training.seed = 5
    c.training.keep_checkpoints = 2  # latest ones kept, besides the best
    c.training.precision = "auto"  # auto | fp32 | bf16; auto = bf16 on GPUs that have it
    c.training.clip_gradient_norm = 0.0  # 0 = no clipping

    c.evaluation = CfgNode()
    c.evaluation.batch_size = 64  # images

    c.compression = CfgNode()
    c.compression.calibration_images = 300  # of the training set
    c.compression.preset = "mixed"  # mixed | performance: asymmetric or symmetric activations
    c.compression.epochs = 2  # of fine-tuning after quantization; 0 = none
    c.compression.rate_factor = 0.035  # its learning rate as a multiple of the training's
    c.compression.ignored_layers = []  # regular expressions of layer names to leave in FP32
    return c


def merge(config: Config, overrides: Mapping[str, Any], where: str = "config") -> None:
    """Merge a nested mapping into a mutable config, in place.

    Raises:
        UserError: for unknown keys or values of another type; all of them are listed at once.
    """
    problems = list(_merge(config, overrides, where))
    if problems:
        raise UserError("\n".join(problems))


def _merge(node: Config, overrides: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, value in overrides.items():
        path = f"{where}.{key}"
        if key not in node:
            yield f"{path}: unknown key.{nearest(str(key), node)} Valid: {', '.join(node)}."
        elif isinstance(node[key], CfgNode):
            if isinstance(value, Mapping):
                yield from _merge(node[key], value, path)
            else:
                yield f"{path}: expected a section with the keys {', '.join(node[key])}."
        else:
            try:
                node[key] = _coerce(value, node[key])
            except ValueError as error:
                yield f"{path}: {error}."


def _coerce(value: Any, default: Any) -> Any:
    """Return the value in the default's type; integers pass for floats, nothing else changes."""
    if isinstance(default, bool) or isinstance(value, bool):
        expected = isinstance(default, bool) and isinstance(value, bool)
    elif isinstance(default, float):
        # YAML 1.1 reads "1e-3" as a string.
        if isinstance(value, (int, float)) or (isinstance(value, str) and _is_number(value)):
            return float(value)
        expected = False
    elif isinstance(default, list):
        expected = isinstance(value, (list, tuple))
        if expected and default and len(value) != len(default):
            raise ValueError(f"expected {len(default)} values, received {value!r}")
        if expected:
            return [_coerce(item, default[0]) for item in value] if default else list(value)
    else:
        expected = isinstance(value, type(default))
    if not expected:
        raise ValueError(f"expected {type(default).__name__} (such as {default!r}), got {value!r}")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def merge_settings(config: Config, settings: Sequence[Sequence[str]]) -> None:
    """Merge `--set section.key value` pairs; each value is read as YAML."""
    for dotted, text in settings:
        keys = dotted.split(".")
        value: Any = _read_value(dotted, text)
        for key in reversed(keys):
            value = {key: value}
        merge(config, value, where="--set")


def _read_value(dotted: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {dotted}: '{text}' is not a YAML value.") from error


_CHOICES = {
    "data.on_bad_image": ("error", "skip"),
    "sampling.name": ("shuffle", "balanced"),
    "loss.name": ("cross_entropy",),
    "loss.class_weights": ("none", "balanced"),
    "schedule.name": ("plateau",),
    "schedule.watch": ("train_loss", "val_top1"),
    "training.precision": ("auto", "fp32", "bf16"),
    "compression.preset": ("mixed", "performance"),
}
_RANGES: dict[str, tuple[float, float]] = {
    "model.dropout": (0, 0.95),
    "input.height": (8, 4096),
    "input.width": (8, 4096),
    "data.cache_fraction": (0, 0.9),
    "data.num_workers": (0, 256),
    "data.max_megapixels": (0.001, 100_000),
    "augmentation.crop_scale": (0.01, 1),
    "augmentation.horizontal_flip": (0, 1),
    "augmentation.rotation": (0, 1),
    "augmentation.rotation_degrees": (0, 180),
    "augmentation.augmix": (0, 1),
    "augmentation.augmix_severity": (1, 10),
    "augmentation.augmix_width": (1, 16),
    "augmentation.augmix_depth": (-1, 16),
    "augmentation.augmix_alpha": (1e-3, 1e3),
    "augmentation.mixup": (0, 1e3),
    "augmentation.cutmix": (0, 1e3),
    "loss.label_smoothing": (0, 0.99),
    "optimizer.base_learning_rate": (1e-12, 1e3),
    "optimizer.momentum": (0, 0.9999),
    "optimizer.weight_decay": (0, 10),
    "optimizer.bias_rate_factor": (0, 100),
    "schedule.warmup_epochs": (0, 1e4),
    "schedule.patience": (1, 10_000),
    "schedule.factor": (1e-6, 0.999),
    "schedule.min_rate_ratio": (0, 1),
    "schedule.anneal_from": (0, 1),
    "early_stop.patience": (1, 10_000),
    "early_stop.after_drops": (0, 100),
    "ema.decay": (0, 0.999999),
    "training.batch_size": (1, 1_000_000),
    "training.epochs": (1, 1_000_000),
    "training.accumulation": (1, 10_000),
    "training.seed": (0, 2**63 - 1),
    "training.keep_checkpoints": (1, 10_000),
    "training.clip_gradient_norm": (0, 1e9),
    "evaluation.batch_size": (1, 1_000_000),
    "compression.calibration_images": (1, 1_000_000),
    "compression.epochs": (0, 10_000),
    "compression.rate_factor": (1e-9, 10),
}


def get(config: Config, dotted: str) -> Any:
    """Return the value at 'section.key'."""
    node: Any = config
    for key in dotted.split("."):
        node = node[key]
    return node


def validate(config: Config, where: str = "config") -> None:
    """Raise a UserError that lists every value outside its range or choices."""
    problems = [
        f"{where}.{key}: '{get(config, key)}' is none of {', '.join(choices)}."
        f"{nearest(str(get(config, key)), choices)}"
        for key, choices in _CHOICES.items()
        if get(config, key) not in choices
    ]
    problems += [
        f"{where}.{key}: {get(config, key)} is outside {low:g} to {high:g}."
        for key, (low, high) in _RANGES.items()
        if not low <= get(config, key) <= high
    ]
    problems += [f"{where}.input.std: {s} must be above 0." for s in config.input.std if s <= 0]
    if problems:
        raise UserError("\n".join(problems))


def to_dict(config: Config) -> dict[str, Any]:
    """Return the config as plain nested dicts, lists and scalars."""
    return {k: to_dict(v) if isinstance(v, CfgNode) else v for k, v in config.items()}


def from_dict(values: Mapping[str, Any]) -> Config:
    """Return a frozen config from a checkpoint's plain dict; missing keys take their defaults."""
    config = default_config()
    merge(config, values)
    validate(config)
    config.freeze()
    return config
