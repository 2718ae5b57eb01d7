"""`train.py`: train the work directory's model."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from classification.cli.arguments import (
    add_classes_flag,
    add_data_flags,
    add_list_settings_flag,
    add_run_flags,
    add_set_flag,
    optional_template,
    parser_for,
    template_default,
)
from classification.cli.run import run_command
from classification.errors import UserError
from classification.template import Template


def build_parser(template: Template | None = None) -> argparse.ArgumentParser:
    """Return the parser; defaults come from the template."""
    parser = parser_for("train", "Train the model of this work directory.")
    add_data_flags(parser, "train", "val", required=())
    add_run_flags(parser, "outputs")
    parser.add_argument(
        "--allow-other-data",
        action="store_true",
        help="go on with other images of the same classes than the run's",
    )
    parser.add_argument(
        "--load-weights", metavar="FILE", help="initial weights instead of snapshot.safetensors"
    )
    parser.add_argument(
        "--load-aux-weights",
        metavar="FILES",
        help="comma-separated initial weights of the auxiliary models, in the template's order",
    )
    default = partial(template_default, template)
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="IMAGES",
        help=f"images an optimizer step{default('batch_size')}",
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N", help=f"epochs at most{default('epochs')}"
    )
    parser.add_argument(
        "--base-learning-rate",
        type=float,
        metavar="RATE",
        help=f"learning rate after the warm-up{default('base_learning_rate')}",
    )
    gpus = f" (default: {template.gpu_num})" if template is not None else ""
    parser.add_argument(
        "--gpu-num",
        type=int,
        metavar="N",
        help=f"GPUs to use, at most those present; 0 = CPU{gpus}",
    )
    add_classes_flag(parser, "train on these class folders only")
    parser.add_argument("--tensorboard-dir", metavar="FOLDER", help="where TensorBoard events go")
    add_set_flag(parser)
    add_list_settings_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None, template_path: Path | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        template = optional_template(template_path)
        arguments = vars(build_parser(template).parse_args(argv))
        if template is None:
            raise UserError("train.py belongs in a work directory, beside its template.yaml.")
        from classification.training.launch import launch, processes_to_start

        # Before torch is loaded. Threads that spin while they wait take the cores from the loader's
        # processes; where there are none, spinning is a fifth faster.
        if template.config(arguments["settings"]).data.num_workers:
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        gpu_num = arguments["gpu_num"]
        if gpu_num is None and arguments["resume_from"]:
            from classification.training.resume import open_run

            gpu_num = open_run(arguments["resume_from"]).arguments.get("gpu_num")
        processes = processes_to_start(template.gpu_num if gpu_num is None else gpu_num)
        if processes > 1:
            launch(processes, template.path.with_name("train.py"), argv)
            return
        from classification.training.train import train

        train(template.path, **arguments)

    return run_command(command)
