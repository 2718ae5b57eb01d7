"""Sections of a config: yacs nodes whose knobs are declared once, with type, default and range."""

from __future__ import annotations

import ast
import copy
import inspect
import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from yacs.config import CfgNode

from classification.errors import nearest, shorten
from classification.yaml_text import is_number

_UNSET: Any = object()

if TYPE_CHECKING:

    class _Node(dict[str, Any]):
        """What the library uses of yacs, which has no types."""

        def clone(self) -> Self: ...
        def freeze(self) -> None: ...
        def defrost(self) -> None: ...

else:
    _Node = CfgNode


@dataclass(frozen=True)
class Declaration:
    """What `knob` was given."""

    default: Any
    low: float | None
    high: float | None
    unit: str
    resume: bool
    model: bool
    evaluation: bool
    fine_tune: Any


@dataclass(frozen=True)
class Knob:
    """One value of a config."""

    key: str  # "section.name"
    type: Any  # bool, int, float, str, a Literal, or a list of these
    declared: Declaration

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the values that it may have; () = any in its range."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def range(self) -> tuple[float, float]:
        """Return the lowest and the highest value that it may have."""
        low, high = self.declared.low, self.declared.high
        return (-math.inf if low is None else low, math.inf if high is None else high)

    @property
    def is_list(self) -> bool:
        return get_origin(self.type) is list

    @property
    def kind(self) -> Any:
        """Return the type of the value, or of each in a list: bool, int, float, str or dict."""
        if self.is_list:
            item = get_args(self.type)[0]
            return get_origin(item) or item
        return str if self.choices else self.type

    @property
    def in_fine_tuning(self) -> dict[str, Any]:
        """Return {key: value} where the fine-tuning of a compression has a value of its own."""
        value = self.declared.fine_tune
        return {} if value is _UNSET else {self.key: value}

    def read(self, value: Any) -> Any:
        """Return a value in the knob's type; integers pass for floats, nothing else changes.

        A list has as many values as the default, or any number where that is empty.

        Raises:
            ValueError: it is of another type or length.
        """
        default = self.declared.default
        if not self.is_list:
            return self._read_one(value, f" (such as {default!r})")
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"expected list (such as {default!r}), got {shorten(repr(value))}")
        if default and len(value) != len(default):
            raise ValueError(f"expected {len(default)} values, got {shorten(repr(value))}")
        if self.kind in (str, dict):  # checked by `data_problems` and `auxiliary_configs`
            return list(value)
        return [self._read_one(item) for item in value]

    def _read_one(self, value: Any, such_as: str = "") -> Any:
        is_bool = isinstance(value, bool)
        if self.kind is float and not is_bool:
            if isinstance(value, (int, float)) or (isinstance(value, str) and is_number(value)):
                return float(value)
        elif isinstance(value, self.kind) and is_bool == (self.kind is bool):
            return value
        raise ValueError(f"expected {self.kind.__name__}{such_as}, got {shorten(repr(value))}")

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value of the right type, if anything is."""
        if self.choices and value not in self.choices:
            valid = ", ".join(choice or "''" for choice in self.choices)
            return f"{self.key}: '{value}' is not one of {valid}.{nearest(value, self.choices)}"
        low, high = self.range
        for item in value if self.is_list else [value]:
            if low > -math.inf and not low <= item <= high:
                return f"{self.key}: {item} is outside {low:g} to {high:g}."
        return None


def knob(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    unit: str = "",
    resume: bool = True,
    model: bool = False,
    evaluation: bool = False,
    fine_tune: Any = _UNSET,
) -> Any:
    """Declare a knob of a `Section`; a string below it says what it does, in Markdown.

    Args:
        default: its value unless something else is set.
        low, high: the range of a number, or of each in a list, both included; the choices are those
            of a Literal.
        unit: such as pixels; "" for a pure number or a name.
        resume: whether it may change when a run is resumed.
        model: whether it belongs to the trained model, which a compression cannot change.
        evaluation: whether `eval.py --set` may change it.
        fine_tune: its value in the fine-tuning of a compression, where that has one of its own.
    """
    return Declaration(default, low, high, unit, resume, model, evaluation, fine_tune)


class Section(_Node):
    """A node of a config, whose annotations are its knobs and the sections within it.

    Instances are yacs nodes: mutable until `freeze()`; `clone()` gives a copy.
    """

    declarations: ClassVar[dict[str, Declaration]] = {}

    def __init_subclass__(cls) -> None:
        # yacs looks in its dict only for what the class does not have.
        cls.declarations = {
            name: value for name, value in vars(cls).items() if isinstance(value, Declaration)
        }
        for name in cls.declarations:
            delattr(cls, name)

    @classmethod
    def defaults(cls) -> Self:
        """Return a fresh, mutable section with the default of every knob."""
        node = cls()
        for name, kind in _hints(cls).items():
            within = _is_section(kind)
            node[name] = kind.defaults() if within else copy.copy(cls.declarations[name].default)
        return node

    @classmethod
    def sections(cls, prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
        """Yield "section." and its class for each section within, then for those within these."""
        for name, kind in _hints(cls).items():
            if _is_section(kind):
                yield f"{prefix}{name}.", kind
                yield from kind.sections(f"{prefix}{name}.")

    @classmethod
    def knobs(cls, prefix: str = "") -> Iterator[Knob]:
        """Yield the section's own knobs, in the order of declaration."""
        for name, declaration in cls.declarations.items():
            yield Knob(f"{prefix}{name}", _hints(cls)[name], declaration)

    @classmethod
    def words(cls) -> dict[str, str]:
        """Return what stands below each of the section's own knobs, read from the source."""
        found: dict[str, str] = {}
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for statement, below in zip(tree.body, tree.body[1:], strict=False):
            match statement, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = " ".join(text.split())
        return found


@cache
def _hints(cls: type[Section]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {name: hints[name] for name in cls.__annotations__}


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
