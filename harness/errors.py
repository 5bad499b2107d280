"""What can go wrong, and the exit code that says so (CONTRIBUTING, "Errors and exit codes")."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

_WORDS: Final = re.compile(r"[^\W_]+")
"""Words of a name: `slo_ttft` and `A100-40GB` have two."""


class ExitCode(IntEnum):
    """Exit codes of the `harness` command."""

    OK = 0
    REGRESSED = 1
    USAGE = 2
    MEASUREMENT = 3
    INCONCLUSIVE = 4
    INTERNAL = 70
    INTERRUPTED = 130


class HarnessError(Exception):
    """An error with a message meant for people.

    Args:
        message: what was found, in one sentence without a final stop.
        where: file, line and column, or plugin, distribution and version.
        accepted: what would have been accepted instead.
        hint: what to do about it.

    Examples:
        >>> print(UsageError("watts is -3", where="suite.yaml:4:10", accepted="a finite number, at least 0"))
        suite.yaml:4:10: watts is -3; accepted: a finite number, at least 0
    """

    exit_code = ExitCode.MEASUREMENT

    def __init__(self, message: str, *, where: str = "", accepted: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.accepted = accepted
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        if self.accepted:
            text += f"; accepted: {self.accepted}"
        if self.hint:
            text += f" ({self.hint})"
        return text


class UsageError(HarnessError):
    """The user's suite, option or name is wrong. Exit code 2."""

    exit_code = ExitCode.USAGE


class MeasurementError(HarnessError):
    """Something could not be measured, or a run failed. Exit code 3."""

    exit_code = ExitCode.MEASUREMENT


class NotPossibleHereError(MeasurementError):
    """What a point asks for cannot be had on this machine, such as a permission: its trial is skipped, and says why."""


class PluginError(HarnessError):
    """A plugin broke its contract; the message names it and its distribution. Exit code 3."""

    exit_code = ExitCode.MEASUREMENT


_WITHOUT_FILE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that name no file and still say something of the machine, not of the harness."""


def of_machine(error: OSError) -> str:
    """What an error of the operating system says of this machine's files, disk or limits; empty where it says nothing.

    Examples:
        >>> of_machine(PermissionError(13, "Permission denied", "/data/run.json"))
        '/data/run.json: Permission denied'
        >>> of_machine(BrokenPipeError(32, "Broken pipe"))
        ''
    """
    if error.filename is None and error.errno not in _WITHOUT_FILE:
        return ""
    said = error.strerror or str(error)
    return f"{error.filename}: {said}" if error.filename is not None else said


def printable(text: str, *, keep: str = "\n\t") -> str:
    r"""A text whose control characters are shown as escapes: a stranger's name may not steer a terminal.

    Examples:
        >>> print(printable("a\x1b[2Jb"))
        a\x1b[2Jb
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known name, whatever its case, or an empty string.

    A slip of the hand goes first; then a longer name that begins with the words typed, one that has them inside, and
    last what is merely alike.

    Examples:
        >>> did_you_mean("energy", ["energy_j", "duration_s"])
        "did you mean 'energy_j'?"
        >>> did_you_mean("colour", ["energy_j", "duration_s"])
        ''
        >>> did_you_mean("wue", ["pue", "wue_onsite"])
        "did you mean 'wue_onsite'?"
        >>> did_you_mean("onsite", ["offsite", "wue_onsite"])
        "did you mean 'wue_onsite'?"
    """
    names = {str(each).casefold(): str(each) for each in reversed([*known])}
    typed = name.casefold()
    words = "_".join(_WORDS.findall(typed))
    parts = {each: "_".join(_WORDS.findall(each)) for each in names}
    begin = [each for each, of in parts.items() if words and of.startswith(f"{words}_")]
    hold = [each for each, of in parts.items() if words and f"_{words}_" in f"_{of}_"]
    ranked = ((names, 0.8), (begin, 0.0), (hold, 0.0), (names, 0.6))
    tried = (difflib.get_close_matches(typed, of, n=1, cutoff=at) for of, at in ranked)
    close = next(filter(None, tried), [])
    return f"did you mean {names[close[0]]!r}?" if close else ""
