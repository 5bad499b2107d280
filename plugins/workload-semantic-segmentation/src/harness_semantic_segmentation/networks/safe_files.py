"""Files of `torch.save` read without running what is in them: tensors, plain Python values and numbers of numpy.

A pickle names functions and calls them. torch's restricted reader knows those that make tensors; programs that log a
score beside their weights also write numbers of numpy, which are two names: a number type, and the number itself. Both
are stood in for by this file's own, which know numbers only, so that no function of numpy is called from a file.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from harness_semantic_segmentation.networks.errors import NetworkError

KINDS: Final = "biufc"
"""Number types by numpy's letters: truth values, integers with and without sign, floating and complex numbers."""
ACCEPTED: Final = "a file of torch.save that holds tensors, plain Python values and numbers of numpy, nothing else"


class NumberType:
    """What a file says of `numpy.dtype`: a type of numbers, and nothing but that."""

    def __init__(self, name: str, align: object = False, copy: object = True) -> None:  # noqa: ARG002 - pickled so
        if not re.fullmatch(r"[biufc]\d{1,2}", name):
            raise ValueError(f"numpy.dtype({name!r:.40}) is not a type of numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) > 1 and state[1] in {"<", ">", "|", "="}:
            self.dtype = self.dtype.newbyteorder(state[1])


def number(kind: NumberType, data: object) -> object:
    """What a file says of numpy's `scalar`: a plain Python number from its bytes."""
    if not isinstance(kind, NumberType) or not isinstance(data, bytes) or len(data) != kind.dtype.itemsize:
        raise ValueError("a number of numpy without a type of numbers or without its bytes")
    return np.frombuffer(data, kind.dtype)[0].item()


STANDS_FOR: Final = (
    (NumberType, "numpy.dtype"),
    (number, "numpy.core.multiarray.scalar"),  # numpy 1
    (number, "numpy._core.multiarray.scalar"),  # numpy 2
)


def read_file(path: str | Path) -> Any:
    """The content of a file of `torch.save`, of either of its formats.

    Raises:
        NetworkError: there is no such file, it is not such a file, or it names anything else; that name is told.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(STANDS_FOR)):
            warnings.simplefilter("ignore")  # of torch, about how old files store tensors
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NetworkError(f"{path}: there is no such checkpoint") from None
    except Exception as error:  # noqa: BLE001 - torch raises many kinds; all of them mean that the file is not one
        raise NetworkError(f"{path}: {_reason(error)}; accepted: {ACCEPTED}") from None


def _reason(error: Exception) -> str:
    """In plain text: the name that was refused, or that this is another kind of file."""
    said = str(error)
    refused = re.search(r"GLOBAL (\S+)", said) or re.search(r"(?:function|but got) <(?:\w+ )+'?([\w.]+)", said)
    if refused:
        return f"the file names `{refused[1]}`, which could run code, so that it was not loaded"
    first = said.strip().splitlines()[0] if said.strip() else type(error).__name__
    return f"this is not a checkpoint of tensors: {first}"
