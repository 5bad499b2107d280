"""`harness.measure` and `@harness.measured`: a block or a function of anybody's code, measured where it runs."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from harness.errors import UsageError
from harness.session.block import Block
from harness.session.meters import listed
from harness.session.naming import Unit, place
from harness.session.session import Session

_LOCK: Final = threading.Lock()
_SHARED: Final[dict[str, tuple[Session, int]]] = {}
"""Settings -> the session that blocks with these settings share while one of them is open, and how many those are."""


class _OwnBlock(Block):
    """A block that opens the meters itself, and closes them when no other block of the same settings is open."""

    def __init__(self, settings: Mapping[str, Any], *, unit: Unit, label: str) -> None:
        super().__init__(None, unit=unit, label=label)
        self._settings = settings
        self._key = repr(sorted(settings.items(), key=lambda item: item[0]))

    def __enter__(self) -> Self:
        return self.open(self.label or place(inspect.currentframe()))

    def open(self, label: str) -> Self:
        with _LOCK:
            session, users = _SHARED.get(self._key) or (Session(**self._settings), 0)
            _SHARED[self._key] = session, users + 1
        self._session = session
        try:
            return super().open(label)
        except BaseException:
            self._release(session)
            raise

    def close(self, error: BaseException | None = None) -> None:
        try:
            super().close(error)
        finally:
            self._release(self.session)

    def _release(self, session: Session) -> None:
        with _LOCK:
            _, users = _SHARED[self._key]
            if users > 1:
                _SHARED[self._key] = session, users - 1
                return
            del _SHARED[self._key]
        session.close()


def measure(
    unit: Unit = None,
    *,
    label: str = "",
    meters: Iterable[str | Mapping[str, Any]] | str | Mapping[str, Any] = (),
    grid: str | None = None,
    site: str | None = None,
    place: str | Mapping[str, Any] | None = None,
    backend: str | Mapping[str, Any] = "host",
    idle: float | str = 0.0,
    store: str | Path | None = None,
) -> Block:
    """Measures a block of code: `with harness.measure(grid="FRA") as m:`, then `m.energy`, `m.duration`, `m.table()`.

    The meters are opened with the block and closed after it; for many short blocks keep them open with a
    `harness.Session`, whose `measure` is the same. Where no meter reads, time is measured all the same, and
    `m.energy` is Unavailable with the reason.

    Args:
        unit: what the block does: `"images=1000"`, or `"images"` with `m.count(n)` inside.
        label: what the block is called; the place of the code if empty.
        meters: each as in a suite: `"auto"`, `"tdp: {watts: 65}"`, or a mapping; one may stand by
            itself; `auto` if none is named.
        grid: of meter `fuel`, for carbon.
        site: of meter `scarf`, for water.
        place: of every impact meter that takes one, for carbon and water: `"us-east-1"`, or own
            values as under `place:` of a suite.
        backend: whose devices are read, and synchronised at the edges: a name, or a mapping of `name` and options.
        idle: how long idle power is read first, for energy above it: seconds, or `"5s"`.
        store: folder that the block is kept in as a run; it is not kept if None.

    Raises:
        UsageError: when the block opens: a meter, backend or option is unknown.

    Examples:
        >>> with measure("images=4", meters=["cpu_time: {watts_per_core: 5}"]) as m:
        ...     with m.mark("first"):
        ...         _ = sum(range(1000))
        >>> sorted(m.marks), m.energy.unit if m.energy.kind == "amount" else "J"
        (['first'], 'J')
    """
    settings = {
        "meters": tuple(listed(meters)),
        "grid": grid,
        "site": site,
        "place": place,
        "backend": backend,
        "idle": idle,
        "store": store,
    }
    return _OwnBlock(settings, unit=unit, label=label)


def measured(function: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
    """Measures every call of a function: `@harness.measured`, or with the arguments of `harness.measure`.

    What the last call cost is `function.last`, all of them are `function.blocks`; `function.blocks.clear()` forgets
    them. A coroutine function is measured until it returns, with whatever else runs meanwhile.

    Raises:
        UsageError: the function is a generator function, whose call does nothing yet.

    Examples:
        >>> @measured(meters=["cpu_time: {watts_per_core: 5}"])
        ... def work(n):
        ...     return sum(range(n))
        >>> work(10), work.last.label, len(work.blocks)
        (45, 'work', 1)
    """
    if function is None:
        return functools.partial(measured, **settings)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(
            f"{function.__qualname__} is a generator function, whose call does nothing yet",
            accepted="a function that returns when its work is done",
        )
    blocks: list[Block] = []
    named = {"label": function.__qualname__, **settings}

    def begin() -> Block:
        block = measure(**named)
        blocks.append(block)
        return block

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with begin():
                return await function(*args, **kwargs)

    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with begin():
                return function(*args, **kwargs)

    return _Measured(wrapper, blocks)


class _Measured:
    """A function with what its calls cost. Also as a method: bound to its object when it is looked up there."""

    def __init__(self, wrapper: Callable[..., Any], blocks: list[Block]) -> None:
        functools.update_wrapper(self, wrapper)
        self._wrapper = wrapper
        self.blocks = blocks

    @property
    def last(self) -> Block:
        """What the last call cost."""
        if not self.blocks:
            raise UsageError("the function was not called yet")
        return self.blocks[-1]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapper(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self._wrapper, instance)
