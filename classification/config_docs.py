"""The knobs in words: docs/config.md and `--list-settings`.

python -m classification.config_docs > docs/config.md
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from classification.config import RENAMED
from classification.config_node import Knob
from classification.knobs import Config

_INTRODUCTION = """\
# Configuration

<!-- Made by: python -m classification.config_docs > docs/config.md -->

A template's `config:` section overrides these defaults; `--set section.key value` overrides the
template, and a command line flag overrides both. `train.py --list-settings` prints the same.

Marks: **R** cannot change when a run is resumed, **M** belongs to the trained model and cannot
change in `compress.py`, **E** may be given to `eval.py`.
"""


def config_page() -> str:
    """Return docs/config.md: a table for each section."""
    lines = [_INTRODUCTION]
    for prefix, section in Config.sections():
        words = section.words()
        lines += [f"## {prefix[:-1]}", "", section.__doc__ or "", ""]
        if not section.declarations:
            continue
        lines += ["| key | default | values | meaning |", "|---|---|---|---|"]
        lines += [_row(knob, words.get(knob.key.removeprefix(prefix), ""))
                  for knob in section.knobs(prefix)]  # fmt: skip
        lines.append("")
    lines += ["## Former names", "", "They still work, with a line that says so.", ""]
    lines += ["| former | now |", "|---|---|"]
    lines += [f"| `{former}` | `{now}` |" for former, now in RENAMED.items()]
    return "\n".join(lines) + "\n"


def _row(knob: Knob, words: str) -> str:
    declared = knob.declared
    has = {"R": not declared.resume, "M": declared.model, "E": declared.evaluation}
    marks = "".join(mark for mark, is_set in has.items() if is_set)
    meaning = f"{words} **{marks}**".strip() if marks else words
    return f"| `{knob.key}` | `{_text(declared.default)}` | {values_of(knob)} | {meaning} |"


def values_of(knob: Knob) -> str:
    """Return type and range, or the choices, in words."""
    if knob.choices:
        return ", ".join(f"`{_text(choice)}`" for choice in knob.choices)
    name = getattr(knob.type, "__name__", str(knob.type))
    kind = str(knob.type) if name == "list" else name
    low, high = knob.declared.low, knob.declared.high
    bounds = "" if low is None or high is None else f" {low:.15g} to {high:.15g}"
    unit = f" {knob.declared.unit}" if knob.declared.unit else ""
    return f"{kind.replace('typing.', '')}{bounds}{unit}"


def _text(value: object) -> str:
    return "''" if value == "" else str(value)


def list_settings() -> str:
    """Return a line or more for each knob, for a terminal."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for prefix, section in Config.sections():
        yield f"\n{section.__doc__}"
        words = section.words()
        for knob in section.knobs(prefix):
            values = values_of(knob).replace("`", "")
            yield f"  {knob.key} = {_text(knob.declared.default)}  ({values})"
            text = words.get(knob.key.removeprefix(prefix), "")
            yield from textwrap.wrap(text, 96, initial_indent="      ", subsequent_indent="      ")


if __name__ == "__main__":
    print(config_page(), end="")
