"""The rest before a trial's warm-up: until the devices are cool, or a pause where nobody can read how warm they are.

It holds the devices' locks: a device that another run heats meanwhile does not cool.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from harness.measuring.meters import Meters
from harness.planning.trial_rules import CoolDown
from harness.records.record import Rest, SeenCondition
from harness.sample import now_ns
from harness.units import seconds

LOOK_S: Final = 1.0
"""How often the temperature is read, and told: a silent worker is taken for a dead one."""
NOT_COOLED: Final = "not_cooled"

Tell = Callable[[str, float], None]
"""Is given a text and the part of the longest wait that has passed."""


def cool_down(rule: CoolDown, meters: Meters, sleep: Callable[[float], None], tell: Tell) -> Rest:
    """Waits as a suite's `cool_down` says.

    Args:
        rule: what the suite says.
        meters: opened meters.
        sleep: waits so many seconds.
        tell: is told how it goes, about once a second.
    """
    began_ns = now_ns()

    def waited_s() -> float:
        return seconds(now_ns() - began_ns)

    celsius = meters.temperatures()
    awaited = rule.to_celsius
    if awaited is None or not celsius:
        why = "" if awaited is None else "no meter reads a temperature; "
        while (left_s := rule.pause_s - waited_s()) > 0:
            tell(f"{why}a pause of {rule.pause_s:g} s, {math.ceil(left_s)} s left", 1 - left_s / rule.pause_s)
            sleep(min(LOOK_S, left_s))
        return Rest(waited_s=waited_s(), to_celsius=awaited, celsius=meters.temperatures())
    while max(celsius.values()) > awaited and (left_s := rule.at_most_s - waited_s()) > 0:
        scope, warmest = max(celsius.items(), key=lambda item: item[1])
        tell(
            f"{scope} at {warmest:.1f} °C, waits for {awaited:g} °C, {left_s:.0f} s at most",
            1 - left_s / rule.at_most_s,
        )
        sleep(min(LOOK_S, left_s))
        celsius = meters.temperatures() or celsius
    return Rest(waited_s=waited_s(), to_celsius=awaited, celsius=celsius, cooled=max(celsius.values()) <= awaited)


def conditions(rest: Rest | None) -> tuple[SeenCondition, ...]:
    """`not_cooled` of each scope that was still warmer than awaited; one of `*` where no temperature was read."""
    if rest is None or rest.to_celsius is None or rest.cooled:
        return ()
    warm = {scope: at for scope, at in rest.celsius.items() if at > rest.to_celsius}
    told = {
        scope: f"{at:.1f} °C after {rest.waited_s:.0f} s, where {rest.to_celsius:g} °C were awaited"
        for scope, at in warm.items()
    }
    if rest.cooled is None:
        told = {
            "*": f"no meter read a temperature; paused for {rest.waited_s:.0f} s in place of {rest.to_celsius:g} °C"
        }
    return tuple(
        SeenCondition(kind=NOT_COOLED, scope=scope, detail=detail, fails=False, count=1, first_ns=now_ns())
        for scope, detail in told.items()
    )
