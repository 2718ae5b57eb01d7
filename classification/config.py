"""Every knob of the framework, its unit and its default, in one place.

A template's `config:` section overrides these defaults, `--set section.key value` overrides the
template, and a command line flag overrides both. Unknown keys are errors. The merged `Config` is
frozen; it travels inside every checkpoint as a plain dict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from yacs.config import CfgNode

from classification.config_limits import find_problems
from classification.errors import UserError, nearest, shorten
from classification.yaml_text import read_setting

if TYPE_CHECKING:
    Config: TypeAlias = Any  # yacs has no types
else:
    Config = CfgNode


def default_config() -> Config:
    """Return a fresh, mutable copy of all defaults."""
    c = CfgNode()

    c.model = CfgNode()
    c.model.backbone = "tf_efficientnet_lite0"  # a name of timm.list_models(), or slimnet
    c.model.pad_type = ""  # "same" for weights that came from TensorFlow; "" leaves timm's choice
    c.model.dropout = 0.2  # before the last layer, 0 to 1
    c.model.head_start = "zero"  # zero | probe: fitted to the frozen backbone's features first
    c.model.reset_classifier = False  # take only the backbone from --load-weights

    c.model.slimnet = CfgNode()
    c.model.slimnet.stem_filters = 96
    c.model.slimnet.stem_size = 7  # pixels
    c.model.slimnet.stem_stride = 2  # pixels
    c.model.slimnet.filter_counts = [16, 32, 48, 64]  # of the four blocks
    c.model.slimnet.depth_multiplier = 1  # maps that a depthwise convolution makes of each channel

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
    # The grey value that is white in images of more than 8 bits, as 4095 of a camera of 12 bits;
    # 0 = the smallest of 255, 1023, 4095, 16383 and 65535 that holds the training images.
    c.data.value_range = 0
    # Of data with attributes: [] = the classes of the data; one attribute = a task of two classes;
    # several, or [all] = a task of several labels.
    c.data.labels = []
    c.data.class_names = []  # of one attribute's two classes; [] = not_NAME and NAME
    # "" = each role has data roots of its own. Else the roots are given for all roles alike, and
    # "official", the data's own partition, or a file of tools/split_data.py divides them.
    c.data.split = ""

    c.faces = CfgNode()
    # none | face | eyes: what of an image the network sees, in training as in prediction. The
    # largest face counts; the eyes come from landmarks where the data have them.
    c.faces.crop = "none"
    c.faces.margin = 0.2  # on each side of the crop, as a share of its width or height
    # negative | whole | error, without a face: of `negative_class` by rule, seen as a whole, or a
    # bad image.
    c.faces.no_face = "negative"
    c.faces.negative_class = ""  # a class name; "" = no label at all, of several labels

    c.sampling = CfgNode()
    # Of the training images: shuffle: all once | balanced: all classes alike often, rare images
    # evenly | weighted: the same by independent draws. As many draws as there are images.
    c.sampling.name = "shuffle"
    # Share of each class that an epoch takes, anew by chance, but no class falls below the smallest
    # one's number; 1 = all, 0 = all classes as many as the smallest.
    c.sampling.downsample = 1.0

    c.augmentation = CfgNode()
    c.augmentation.crop_scale = 1.0  # smallest share of the area that a crop keeps; 1 = no crops
    c.augmentation.horizontal_flip = 0.5  # probability
    c.augmentation.vertical_flip = 0.0  # probability
    c.augmentation.rotation = 0.35  # probability
    c.augmentation.rotation_degrees = 10.0  # uniform in +- this
    # Probability of a shift, a zoom, and a rotation or a shear, one of the two where both are on.
    c.augmentation.affine = 0.0
    c.augmentation.affine_shift = 0.05  # at most, as a share of width and height
    c.augmentation.affine_zoom = 0.1  # the factor is uniform in 1 +- this
    c.augmentation.affine_degrees = 20.0  # uniform in +- this; 0 = no rotation
    c.augmentation.affine_shear = 5.0  # degrees, along the width; 0 = no shear
    # Probability of other light (brightness and contrast) or other colours (saturation and hue),
    # one of the two where both are on.
    c.augmentation.jitter = 0.0
    c.augmentation.jitter_brightness = 0.2  # the factor is uniform in 1 +- this; 0 = none
    c.augmentation.jitter_contrast = 0.2  # the same
    c.augmentation.jitter_saturation = 0.3  # the same
    c.augmentation.jitter_hue = 0.03  # uniform in +- this share of the colour circle
    c.augmentation.blur = 0.0  # probability
    c.augmentation.blur_size = 7  # pixels; the side of the mean is 3, 5, ... up to this
    c.augmentation.jpeg = 0.0  # probability
    c.augmentation.jpeg_quality = 60  # 1 to 100; uniform from this to 100
    c.augmentation.augmix = 1.0  # probability
    c.augmentation.augmix_severity = 3  # 1 to 10
    c.augmentation.augmix_width = 3  # number of chains
    c.augmentation.augmix_depth = -1  # operations a chain; -1 = 1 to 3 at random
    c.augmentation.augmix_alpha = 1.0  # of the Dirichlet and Beta draws
    c.augmentation.mixup = 0.0  # alpha of the Beta draw; 0 = off
    c.augmentation.cutmix = 0.0  # the same; with both on, each batch is mixed by either of them

    c.loss = CfgNode()
    # Of classes: cross_entropy | am_softmax: a cosine head and a margin. Of several labels: bce:
    # binary cross-entropy | asymmetric: it cares less for what is surely false; both the mean over
    # the labels. auto = cross_entropy or bce, by the data.
    c.loss.name = "auto"
    c.loss.label_smoothing = 0.0  # 0 to 1
    c.loss.margin = 0.35  # of am_softmax, subtracted from the true class's cosine
    c.loss.scale = 0.0  # of am_softmax: logits = scale x cosine; 0 = max(sqrt(2) ln(C - 1), 3)
    c.loss.gamma_positive = 0.0  # of asymmetric: how much less true labels count that are sure
    c.loss.gamma_negative = 4.0  # of asymmetric: the same for false ones
    c.loss.clip = 0.05  # of asymmetric: probabilities of false labels below this cost nothing
    # none | balanced: by the inverse of the class's size as drawn; true and false of a label alike
    c.loss.class_weights = "none"

    c.optimizer = CfgNode()
    c.optimizer.name = "sgd"  # a name of timm.optim.list_optimizers()
    c.optimizer.base_learning_rate = 0.01  # a step of one batch
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 5e-4
    c.optimizer.no_bias_decay = True  # no weight decay for biases and normalisation layers
    c.optimizer.bias_rate_factor = 1.0  # learning rate of biases, as a multiple

    c.sam = CfgNode()
    c.sam.enable = False  # sharpness-aware minimization: a second pass at the worst point nearby
    c.sam.rho = 0.05  # distance to that point, in L2 norm; without reuse times interval, up to 10
    c.sam.adaptive = False  # ASAM: distances in proportion to each weight; rho is then about 0.5
    c.sam.interval = 1  # steps from one second pass to the next
    # LookSAM's alpha: how much of the last second pass acts in between; 0 = none, else the interval
    # must be above 1.
    c.sam.reuse = 0.0

    c.mutual_learning = CfgNode()
    c.mutual_learning.enable = False  # train the auxiliaries beside the model, each from the others
    c.mutual_learning.weight = 1.0  # of the divergences between the models' predictions
    # A list of sections, each of keys of model, loss, optimizer, schedule and input.mean and std
    # that differ from the main model's, and initial_weights as in the template.
    c.mutual_learning.auxiliaries = []

    c.schedule = CfgNode()
    # plateau | cosine | one_cycle | exponential: falls after each epoch | multi_step: after some
    c.schedule.name = "plateau"
    # What must improve: train_loss | val_loss | val_score: validation top-1, of several labels
    # their accuracy; its former name was val_top1.
    c.schedule.watch = "train_loss"
    c.schedule.warmup_epochs = 1.0  # linear, a third of the epochs at most; one_cycle has its own
    c.schedule.patience = 5  # epochs without improvement before the rate falls
    c.schedule.patience_steps = 0  # steps that must have passed too: more epochs on small sets
    c.schedule.on_plateau = "drop"  # drop: by the factor, again and again | anneal: once, evenly
    c.schedule.factor = 0.1  # of a drop, of plateau, exponential and multi_step
    c.schedule.milestones = []  # of multi_step: the numbers of epochs after which the rate drops
    c.schedule.anneal_share = 0.5  # steps of the even fall, as a share of those before it
    c.schedule.min_rate_ratio = 0.005  # lowest rate as a share of the base rate
    c.schedule.anneal_from = 0.3  # share of the budget from which it falls anyway; 1 = never

    c.early_stop = CfgNode()
    # For drops and all schedules but plateau; an even fall at a plateau has an end of its own.
    c.early_stop.enable = True
    c.early_stop.patience = 5  # epochs without a better validation score, after the rate fell
    c.early_stop.patience_steps = 0  # steps that must have passed too: more epochs on small sets
    c.early_stop.after_drops = 1  # falls of the rate before stopping is allowed, of plateau

    c.lr_finder = CfgNode()
    c.lr_finder.enable = False  # search the base rate before the training
    c.lr_finder.mode = (
        "fast_ai"  # fast_ai: range test | grid_search, tpe: short trainings by Optuna
    )
    c.lr_finder.min_lr = 0.001
    c.lr_finder.max_lr = 0.03
    # Of grid_search and tpe; 0: a grid of n_trials rates, each the same multiple of the one before,
    # or any rate at all.
    c.lr_finder.step = 0.001
    c.lr_finder.num_epochs = 3  # of each short training, at most half the budget; of the range test
    c.lr_finder.num_steps = 0  # that each short training has at least: for small sets
    c.lr_finder.n_trials = 15  # short trainings at most
    c.lr_finder.epochs_warmup = (
        1  # of each short training, not judged for pruning; of the range test
    )
    c.lr_finder.smooth_f = 0.05  # of the range test: weight of the newest loss in its mean
    c.lr_finder.max_images = 3000  # of the training and of the validation part, drawn at random
    c.lr_finder.stop_after = False  # end after the search
    c.lr_finder.path_to_savefig = "lr_finder.png"  # in the folder of the checkpoints; "" = none

    c.ema = CfgNode()
    c.ema.enable = True
    c.ema.decay = 0.999  # a step
    c.ema.warmup = True  # a shorter memory in the first steps, so that short runs are not hurt

    c.training = CfgNode()
    c.training.batch_size = 32  # images an optimizer step, over all processes together
    c.training.epochs = 200  # at most; early stop usually ends sooner
    c.training.accumulation = 1  # parts that a batch is computed in, one after the other
    c.training.seed = 5
    c.training.save_every = 1  # epochs from one model/model.pth.tar-N to the next
    c.training.keep_checkpoints = 2  # latest ones of these kept, besides latest.pth and best.pth
    # Whose weights best.pth has: last_within_error: of the epochs within one standard error of the
    # best validation score the last one | highest: the best, of equal ones that of the lower loss.
    c.training.best_epoch = "last_within_error"
    # Normalise by the statistics of the pretrained weights, which stay as they are; models that
    # start from random weights do not.
    c.training.freeze_batch_norm = False
    c.training.precision = "auto"  # auto | fp32 | bf16; auto = bf16 on GPUs that have it
    c.training.clip_gradient_norm = 0.0  # 0 = no clipping

    c.evaluation = CfgNode()
    c.evaluation.batch_size = 64  # images
    # From which probability on a class is named: each of several labels, or the second of two
    # classes. half: 0.5 | best_f1: where its F1 is best | precision, recall: where it reaches the
    # target, with the most recall or precision | auto: best_f1 of several labels, else half. All on
    # the validation images; the best epoch is chosen with 0.5 anyway.
    c.evaluation.thresholds = "auto"
    c.evaluation.target = 0.95  # 0 to 1, of precision or recall
    # Of classes, 0 to 1: images whose answer is so unsure that the others reach this accuracy on
    # the validation images without them get none (reject option); 0 = all get one.
    c.evaluation.target_accuracy = 0.0

    c.compression = CfgNode()
    c.compression.calibration_images = 300  # of the training set
    c.compression.preset = "mixed"  # mixed | performance: asymmetric or symmetric activations
    # half | full: of int8 weights. The full range needs a CPU with VNNI, AMX or Arm's dot product;
    # others add products of 8 bits in 16 bits, which overflow, and answer wrongly without a word.
    c.compression.weight_range = "half"
    c.compression.max_accuracy_drop = 0.5  # points of the validation score that may be lost
    # Of fine-tuning, at most; it ends before, when the drop is small enough and no better epoch
    # comes. -1 = as many as 300 steps take, 3 to 30; 0 = none.
    c.compression.epochs = -1
    c.compression.rate_factor = 0.035  # its learning rate as a multiple of the training's
    # Regular expressions of whole layer names, as "blocks.0.0.conv_dw", to leave in FP32.
    c.compression.ignored_layers = []
    c.compression.pruned_share = 0.3  # of the weights that --nncf-pruning sets to zero
    return c


# What an auxiliary model may have of its own, beside `initial_weights`; the rest is the main's.
AUXILIARY_SECTIONS = ("model", "loss", "optimizer", "schedule", "input")


def merge(config: Config, overrides: Mapping[str, Any], where: str = "config") -> None:
    """Merge a nested mapping into a mutable config, in place.

    Raises:
        UserError: for unknown keys or values of another type; all of them are listed at once.
    """
    problems = list(_merge(config, overrides, default_config(), where))
    if problems:
        raise UserError("\n".join(problems))


def _merge(
    node: Config, overrides: Mapping[str, Any], defaults: Config, where: str
) -> Iterator[str]:
    for key, value in overrides.items():
        path = f"{where}.{key}"
        if key not in node:
            yield f"{path}: unknown key.{nearest(str(key), node)} Valid: {', '.join(node)}."
        elif isinstance(node[key], CfgNode):
            if isinstance(value, Mapping):
                yield from _merge(node[key], value, defaults[key], path)
            else:
                yield f"{path}: expected a section with the keys {', '.join(node[key])}."
        else:
            try:
                node[key] = _coerce(value, defaults[key])
            except ValueError as error:
                yield f"{path}: {error}."


def _coerce(value: Any, default: Any) -> Any:
    """Return the value in the default's type; integers pass for floats, nothing else changes.

    A list has as many values as the default, or any number where that is empty.
    """
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
            raise ValueError(f"expected {len(default)} values, received {shorten(repr(value))}")
        if expected:
            return [_coerce(item, default[0]) for item in value] if default else list(value)
    else:
        expected = isinstance(value, type(default))
    if not expected:
        raise ValueError(
            f"expected {type(default).__name__} (such as {default!r}), got {shorten(repr(value))}"
        )
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
        value: Any = read_setting(dotted, text)
        for key in reversed(keys):
            value = {key: value}
        merge(config, value, where="--set")


def validate(config: Config, where: str = "config") -> None:
    """Raise a UserError that lists every value outside its range or choices."""
    problems = [f"{where}.{problem}" for problem in find_problems(config)]
    if problems:
        raise UserError("\n".join(problems))
    auxiliary_configs(config, where)


def check_effective(
    settings: Sequence[Sequence[str]], effective: Sequence[str], of_what: str
) -> None:
    """Raise a UserError for a `--set section.key value` that would be read and then ignored."""
    for key, _ in settings:
        if key not in effective:
            raise UserError(
                f"--set {key}: has no effect on {of_what}.{nearest(key, effective)} These have: "
                f"{', '.join(effective)}."
            )


def auxiliary_configs(config: Config, where: str = "config") -> list[Config]:
    """Return the frozen config of each auxiliary model: the main one's with its own sections.

    Raises:
        UserError: mutual learning is on without an auxiliary, or a section is faulty.
    """
    mutual = config.mutual_learning
    if not mutual.enable:
        return []
    where = f"{where}.mutual_learning.auxiliaries"
    if not mutual.auxiliaries:
        raise UserError(f"{where}: mutual learning needs one section at least.")
    return [_auxiliary(config, own, f"{where}[{i}]") for i, own in enumerate(mutual.auxiliaries)]


def _auxiliary(config: Config, own: Any, where: str) -> Config:
    valid = (*AUXILIARY_SECTIONS, "initial_weights")
    unknown = [str(key) for key in own if key not in valid] if isinstance(own, Mapping) else ["?"]
    if unknown:
        raise UserError(
            f"{where}: expected a section with keys of {', '.join(valid)}, got {unknown[0]}."
        )
    auxiliary = config.clone()
    auxiliary.defrost()
    auxiliary.mutual_learning.enable = False
    merge(auxiliary, {k: v for k, v in own.items() if k in AUXILIARY_SECTIONS}, where)
    size = (config.input.height, config.input.width)
    if (auxiliary.input.height, auxiliary.input.width) != size:
        raise UserError(f"{where}.input: all models see the same {size[0]}x{size[1]} pixels.")
    validate(auxiliary, where)
    auxiliary.freeze()
    return auxiliary


def with_value_range(configs: Sequence[Config], value_range: int) -> list[Config]:
    """Return the configs with the value range that was found for 0."""
    changed = [config.clone() for config in configs]
    for config in changed:
        config.defrost()
        config.data.value_range = value_range
        config.freeze()
    return changed


def to_dict(config: Config) -> dict[str, Any]:
    """Return the config as plain nested dicts, lists and scalars."""
    return {k: to_dict(v) if isinstance(v, CfgNode) else v for k, v in config.items()}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one with keys such as "section.key"."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def from_dict(values: Mapping[str, Any]) -> Config:
    """Return a frozen config from a checkpoint's plain dict; missing keys take their defaults."""
    config = default_config()
    merge(config, values)
    validate(config)
    config.freeze()
    return config
