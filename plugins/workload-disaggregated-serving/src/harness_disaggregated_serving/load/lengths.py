"""How long prompts and outputs are: joint distributions of an application, seeded and without state.

The shipped applications are synthetic and ours: chat short to medium, code short to short, summarisation long to short.
Whoever has a trace gives its table instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness import csv_table
from harness.errors import UsageError, did_you_mean
from harness_disaggregated_serving.load.fields import number, whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Lengths(ABC):
    """A joint distribution of prompt and output tokens. Every length is at least 1."""

    @abstractmethod
    def draw(
        self, count: int, prompts: np.random.Generator, outputs: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The next `count` pairs, two arrays of shape (count,).

        The generators are two so that what is drawn does not depend on how many pairs are asked for at a time.
        """

    @property
    @abstractmethod
    def longest_prompt(self) -> int:
        """Tokens that no prompt exceeds."""


@dataclass(frozen=True, slots=True)
class Fixed(Lengths):
    """Every request has the same lengths."""

    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise UsageError(f"a length is {min(self.prompt_tokens, self.output_tokens)}", accepted="at least 1 token")

    @property
    def longest_prompt(self) -> int:
        """The one length."""
        return self.prompt_tokens

    def draw(
        self,
        count: int,
        prompts: np.random.Generator,  # noqa: ARG002 - nothing is drawn
        outputs: np.random.Generator,  # noqa: ARG002 - nothing is drawn
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Two constant arrays; the generators stay untouched."""
        import numpy as np

        return np.full(count, self.prompt_tokens, np.int64), np.full(count, self.output_tokens, np.int64)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A log-normal length, rounded and clipped: median e^mu, spread sigma of its logarithm."""

    median: float
    sigma: float
    least: int
    most: int

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """The next `count` lengths."""
        import numpy as np

        drawn = self.median * np.exp(self.sigma * generator.standard_normal(count))
        return np.clip(np.rint(drawn), self.least, self.most).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Application(Lengths):
    """Prompt and output lengths drawn independently of each other."""

    prompt: LogNormal
    output: LogNormal

    @property
    def longest_prompt(self) -> int:
        """Where prompts are clipped."""
        return self.prompt.most

    def draw(
        self, count: int, prompts: np.random.Generator, outputs: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The next `count` pairs."""
        return self.prompt.draw(count, prompts), self.output.draw(count, outputs)


@dataclass(frozen=True, slots=True)
class Table(Lengths):
    """Pairs drawn with replacement from a list of observed ones, so that their dependence is kept."""

    pairs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if not self.pairs:
            raise UsageError(
                "a table of lengths holds no pair", accepted="at least one pair of prompt and output tokens"
            )
        if any(prompt < 1 or output < 1 for prompt, output in self.pairs):
            raise UsageError("a table of lengths holds a length below 1", accepted="at least 1 token each")

    def draw(
        self,
        count: int,
        prompts: np.random.Generator,
        outputs: np.random.Generator,  # noqa: ARG002 - a row brings its output
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The next `count` pairs; the rows are chosen by `prompts` alone."""
        import numpy as np

        table = np.asarray(self.pairs, np.int64)
        chosen = table[(prompts.random(count) * len(table)).astype(np.int64)]
        return chosen[:, 0], chosen[:, 1]

    @property
    def longest_prompt(self) -> int:
        """The longest observed one."""
        return max(prompt for prompt, _ in self.pairs)

    @classmethod
    def read(cls, path: Path) -> Table:
        """A CSV file with columns `prompt_tokens` and `output_tokens`; raises UsageError with file and line."""
        return cls(tuple((prompt, output) for _, prompt, output in read_rows(path, timed=False)))


APPLICATIONS: Final = {
    "chat": Application(LogNormal(120, 0.9, 4, 2048), LogNormal(200, 0.7, 2, 1024)),
    "code": Application(LogNormal(160, 0.5, 16, 1024), LogNormal(70, 0.6, 2, 512)),
    "summarisation": Application(LogNormal(1400, 0.35, 256, 3584), LogNormal(90, 0.4, 2, 512)),
}
"""Synthetic applications, ours; no output is a single token, whose TPOT would not be defined."""


def application(name: str) -> Lengths:
    """A shipped application by name; raises UsageError for another."""
    found = APPLICATIONS.get(name)
    if found is None:
        raise UsageError(
            f"no application {name!r}", accepted=", ".join(APPLICATIONS), hint=did_you_mean(name, APPLICATIONS)
        )
    return found


def read_rows(path: Path, *, timed: bool) -> list[tuple[float, int, int]]:
    """Rows of a CSV file as (arrival in s, prompt tokens, output tokens); arrival 0 where `timed` is False.

    Raises:
        UsageError: a missing column, a number that is none, a length below 1, an arrival before that of the row above;
            with file and line.
    """
    found: list[tuple[float, int, int]] = []
    with csv_table.opened(path) as table:
        table.require((("arrival_s",) if timed else ()) + ("prompt_tokens", "output_tokens"))
        for row in table:
            arrival_s = number(row, "arrival_s") if timed else 0.0
            if found and arrival_s < found[-1][0]:
                raise UsageError(
                    f"arrival {arrival_s} s comes before {found[-1][0]} s",
                    where=row.where,
                    accepted="rows in order of time",
                )
            found.append((arrival_s, whole(row, "prompt_tokens"), whole(row, "output_tokens")))
    return found
