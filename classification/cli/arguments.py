"""Flags that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from classification.template import Template, load_template


def parser_for(verb: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Return a parser named after the work directory's script."""
    return argparse.ArgumentParser(
        prog=f"{verb}.py",
        description=description,
        epilog=epilog,
        formatter_class=_HelpFormatter,
    )


class _HelpFormatter(argparse.HelpFormatter):
    """Adds "(default: ...)" where there is one to speak of."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.default in (None, "", False, argparse.SUPPRESS) or action.default == []:
            return text
        return f"{text} (default: %(default)s)"


class _ListSettings(argparse.Action):
    """Prints every knob and ends the program, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from classification.config_docs import list_settings

        print(list_settings())
        parser.exit()


def template_default(template: Template | None, key: str) -> str:
    """Return " (default: 32)" from hyper_parameters.basic, for the help of a flag.

    The flag's own default stays None, so that `--set` and the template keep their say.
    """
    return f" (default: {template.basic(key)})" if template is not None else ""


def add_data_flags(
    parser: argparse.ArgumentParser, *roles: str, required: Sequence[str] | None = None
) -> None:
    """Add --ROLE-ann-files and --ROLE-data-roots for each of train, val, test.

    The data roots of the `required` roles must be given: by default those of all.
    """
    for role in roles:
        parser.add_argument(
            f"--{role}-ann-files",
            default="",
            metavar="FILES",
            help="comma-separated annotation files of 'path label' lines; '' = none",
        )
        parser.add_argument(
            f"--{role}-data-roots",
            required=role in (roles if required is None else required),
            metavar="ROOTS",
            help=f"comma-separated folders of {role} images, one sub-folder a class; or another "
            "form: celeba:FOLDER, meglass:FOLDER, sof:FOLDER, specface:FOLDER, shards:FOLDER, "
            "csv:FILE",
        )


def add_run_flags(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add the flags of a run's folder: where it is, going on in it, replacing what it holds."""
    parser.add_argument(
        "--save-checkpoints-to",
        metavar="FOLDER",
        help=f"the folder of this run and no other (default: {folder}; with --resume-from the "
        "run's own)",
    )
    parser.add_argument(
        "--resume-from",
        metavar="RUN",
        help="go on with a run: its folder or a checkpoint; whatever else is not given is as it "
        "was",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run that the folder holds"
    )


def add_whole_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add --data-roots and --ann-files, for tools that take data of all roles together."""
    parser.add_argument(
        "--data-roots",
        required=True,
        metavar="ROOTS",
        help="comma-separated data roots, as train.py takes them, such as celeba:FOLDER",
    )
    parser.add_argument(
        "--ann-files", default="", metavar="FILES", help="annotation files, as of train.py"
    )


def add_classes_flag(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add --classes."""
    parser.add_argument("--classes", default=None, metavar="A,B,C", type=comma_list, help=help_text)


def add_set_flag(parser: argparse.ArgumentParser, of_what: str = "the template's config") -> None:
    """Add --set SECTION.KEY VALUE, which may be repeated."""
    parser.add_argument(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("SECTION.KEY", "VALUE"),
        dest="settings",
        help=f"override one value of {of_what}; may be repeated",
    )


def add_list_settings_flag(parser: argparse.ArgumentParser) -> None:
    """Add --list-settings."""
    parser.add_argument(
        "--list-settings",
        action=_ListSettings,
        nargs=0,
        default=argparse.SUPPRESS,
        help="print what --set can change, with defaults and ranges, and exit",
    )


def comma_list(text: str) -> list[str]:
    """Split 'a,b,c'; blanks around the items are dropped."""
    return [item.strip() for item in text.split(",") if item.strip()]


def optional_template(path: Path | None) -> Template | None:
    """Load the work directory's template when the script lies in one."""
    return load_template(path) if path is not None else None


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse; argparse itself exits with code 2 on a wrong flag."""
    return parser.parse_args(argv)
