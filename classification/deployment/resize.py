"""Pillow's antialiased bilinear resize, as a part of an OpenVINO graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino as ov
from openvino import opset13 as opset
from openvino.utils.decorators import custom_preprocess_function

HEIGHT_AXIS, WIDTH_AXIS = 1, 2  # of NHWC


def pillow_resize(height: int, width: int) -> Callable:
    """Return a step for PrePostProcessor: [N, H, W, C] uint8 to [N, height, width, C] uint8.

    Pillow resizes one axis after the other and rounds in between. Since version 13 it begins with
    the height if that shrinks by more than twice the pixels by which the width does, else with the
    width. OpenVINO's operation always begins with the width, so it is used twice, one axis each;
    on axes that keep their size it does nothing. On uint8 it rounds as Pillow does, except for
    some of the halves, and in whatever precision the CPU computes.
    """

    def resize(image: ov.Output) -> ov.Node:
        shape = opset.shape_of(image)
        given = opset.gather(shape, _integers(HEIGHT_AXIS, WIDTH_AXIS), _integer(0))
        wanted = _integers(height, width)
        shrinks = opset.subtract(given, wanted)
        by_height, by_width = (opset.gather(shrinks, _integer(i), _integer(0)) for i in (0, 1))
        height_first = opset.logical_and(
            opset.greater(by_height, _integer(0)),
            opset.greater(by_height, opset.multiply(by_width, _integer(2))),
        )
        is_height = opset.constant(np.array([True, False]))
        first_axis = opset.equal(is_height, height_first)
        between = opset.select(first_axis, wanted, given)
        return _interpolate(_interpolate(image, between).output(0), wanted)

    step: Callable = custom_preprocess_function(resize)
    return step


def _interpolate(image: ov.Output, size: ov.Node) -> ov.Node:
    axes = _integers(HEIGHT_AXIS, WIDTH_AXIS)
    return opset.interpolate(image, size, "bilinear_pillow", "sizes", axes=axes)


def _integer(value: int) -> ov.Node:
    return opset.constant(np.int64(value))


def _integers(*values: int) -> ov.Node:
    return opset.constant(np.array(values, dtype=np.int64))
