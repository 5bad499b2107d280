"""What tests of several files make networks with; torch is imported when one of them runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Lived = Callable[[Any], Any]


@pytest.fixture
def lived() -> Lived:
    """Gives a network statistics and scales that folding has to get right, and returns it."""
    from torch import nn

    def give(model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
                nn.init.uniform_(module.weight, 0.7, 1.3)
                nn.init.uniform_(module.bias, -0.3, 0.3)
        return model

    return give
