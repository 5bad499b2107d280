"""Documents of tasks with their requests, and what answered them; lm-eval's own objects inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a task.

    Attributes:
        task: name of the task.
        number: of the document in the task, lm-eval's `doc_id`.
        kind: of its requests: `loglikelihood`, `loglikelihood_rolling` or `generate_until`.
        instances: lm-eval's requests, in their order; never answered themselves.
    """

    task: str
    number: int
    kind: str
    instances: tuple[Any, ...]

    def copies(self) -> list[Any]:
        """The requests anew, without answers: what is asked in one window is unknown in the next."""
        return [dataclasses.replace(each, resps=[], filtered_resps={}) for each in self.instances]


@dataclass(slots=True)
class Answered:
    """A document that was asked once.

    Attributes:
        document: the one.
        instances: copies of its requests; without a fault with as many answers as they have repeats.
        start_s: since the window opened, start of its batch.
        end_s: its answers.
        input_tokens: of all its requests; None where they are not known.
        output_tokens: generated ones; None where none were asked for, or they are not known.
        fault: why it has no answers; empty where it has.
    """

    document: Document
    instances: list[Any]
    start_s: float
    end_s: float
    input_tokens: int | None
    output_tokens: int | None
    fault: str = ""


Answers = Generator[list[Answered], None, None]
"""Documents as they are answered, a batch at a time."""


class Answerer(Protocol):
    """What answers: a local model or a server."""

    @property
    def lm(self) -> Any:
        """lm-eval's model object, whose chat template the requests are built with."""

    def prepare(self, documents: Sequence[Document]) -> list[Document]:
        """Does what can be done ahead of a window, such as tokenising; returns the order to be asked in."""

    def answers(self, documents: Sequence[Document], clock: Callable[[], float]) -> Answers:
        """Asks every document once, and yields them as they are answered."""

    def facts(self) -> dict[str, object]:
        """Of the model, for the record."""

    def flags(self) -> list[str]:
        """What a reader must know."""

    def close(self) -> None:
        """Lets go of the model or of connections."""


def repeated(instances: Sequence[Any]) -> list[Any]:
    """Each request as often as its task repeats it, as lm-eval's evaluator clones them."""
    return [each for each in instances for _ in range(each.repeats or 1)]
