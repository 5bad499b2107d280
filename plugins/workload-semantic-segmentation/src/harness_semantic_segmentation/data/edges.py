"""Edge ground truth: the contours of every class, as OpenCV would find and draw them, in closed form.

The authors find the contours of each class's mask, inner ones included, draw them with thickness 2, and clear a frame
at the image border. Border following (Suzuki and Abe) visits every pixel of the class with a 4-neighbour outside, and
steps diagonally between two of them where a pixel between lies outside. Drawn with thickness 2, a point is a plus of
five pixels; a diagonal step adds the four corners of its rotated rectangle. So no tracing is needed, and all classes
are drawn at once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORE = 255
FRAME = 3
PLUS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
MARGIN = 3
"""Pixels around the image, so that shifted views need no special case."""


def edge_target(labels: Tensor, ignore: int = IGNORE) -> Tensor:
    """Edges between classes, about three pixels wide.

    Ignored pixels are no class and have no contour, but the hole they cut outlines their neighbours.

    Args:
        labels: ... x H x W, integers.
        ignore: label that is no class.

    Returns:
        ... x H x W, bool.
    """
    height, width = labels.shape[-2:]
    # Outside the image lies a label of its own: it is no class, and differs from all.
    padded = functional.pad(labels.to(torch.int16), (MARGIN,) * 4, value=-1)
    inner = (slice(MARGIN - 1, -(MARGIN - 1)),) * 2  # of what is computed: the image and one pixel around

    def at(y: int, x: int, of: Tensor) -> Tensor:
        """View of `of`, moved by (y, x), over the image and one pixel around it."""
        rows, columns = (
            slice(part.start + move, part.stop + move or None) for part, move in zip(inner, (y, x), strict=True)
        )
        return of[..., rows, columns]

    here = at(0, 0, padded)
    valid = (here != ignore) & (here != -1)
    border = torch.zeros_like(here, dtype=torch.bool)
    for y, x in PLUS[1:]:
        border |= valid & (at(y, x, padded) != here)
    drawn = torch.zeros_like(padded, dtype=torch.bool)
    for y, x in PLUS:
        at(y, x, drawn).logical_or_(border)
    for side in (1, -1):
        across = (at(0, side, padded) != here) | (at(1, 0, padded) != here)
        step = valid & (at(1, side, padded) == here) & across
        for y, x in ((-1, side), (0, 2 * side), (1, -side), (2, 0)):
            at(y, x, drawn).logical_or_(step)
    out = drawn[..., MARGIN : MARGIN + height, MARGIN : MARGIN + width].clone()
    inside = torch.zeros_like(out)
    inside[..., FRAME : height - FRAME, FRAME : width - FRAME] = True
    return out & inside
