from __future__ import annotations

import pytest

from harness.running.fail_fast import FailFast, Rule

CRASH = "worker 123 ended by SIGSEGV at 0x7f00"


@pytest.mark.parametrize(
    ("ends", "stopped"),
    [
        ((), False),
        ((CRASH,), False),
        ((CRASH, "worker 9 ended by SIGSEGV at 0x7fff"), True),
        ((CRASH, "out of memory"), False),
        (("", CRASH, CRASH), False),
        ((CRASH, "", CRASH), False),
    ],
)
def test_a_point_ends_where_its_first_two_trials_crash_alike(ends: tuple[str, ...], stopped: bool) -> None:
    rule = FailFast()
    for fault in ends:
        rule.ended("p", "a point", fault)
    assert bool(rule.why_not("p")) is stopped
    assert not rule.why_not("another")


def test_a_run_can_end_at_its_first_failure_and_a_point_can_go_on() -> None:
    for rule, stopped in ((Rule.RUN, True), (Rule.NEVER, False)):
        found = FailFast(rule)
        found.ended("p", "a point", CRASH)
        found.ended("p", "a point", CRASH)
        assert bool(found.why_not("another")) is stopped
        assert bool(found.why_not("p")) is stopped
