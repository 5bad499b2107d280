from __future__ import annotations

import io

from rich.console import Console

from harness.commands.progress import Progress


def shown(*events: dict[str, object], quiet: bool = False, width: int = 40) -> str:
    stream = io.StringIO()
    progress = Progress(Console(file=stream, width=width, force_terminal=False), expected_s=120.0, quiet=quiet)
    with progress:
        for event in events:
            progress.tell(event)
    return stream.getvalue()


def begun(number: int, label: str = "a point") -> dict[str, object]:
    return {"type": "trial", "number": number, "of": 3, "label": label}


def ended(*, ok: bool, reason: str = "", label: str = "a point") -> dict[str, object]:
    return {
        "type": "finished",
        "ok": ok,
        "reason": reason,
        "label": label,
        "log_tail": ("frame",),
        "log": "x/worker.log",
    }


def test_a_log_says_how_far_the_run_is_and_how_much_time_is_left() -> None:
    lines = shown(begun(0), ended(ok=True), begun(1), ended(ok=False, reason="died"), begun(2)).splitlines()
    assert lines[0] == "trial 1 of 3: a point (0 of 3 done, about 2 min left)"
    assert lines[1].startswith("trial 2 of 3: a point (1 of 3 done, about ")
    assert "(2 of 3 done, 1 failed, about " in lines[-1]


def test_a_fault_is_told_once_with_its_frames_and_its_log() -> None:
    text = shown(begun(0), ended(ok=False, reason="died"), begun(1), ended(ok=False, reason="died", label="other"))
    assert text.count("frame") == 1
    assert text.count("x/worker.log") == 1
    assert "failed: a point: died" in text
    assert "failed: other: as before" in text


def test_what_was_told_is_not_told_again_at_the_end() -> None:
    progress = Progress(Console(file=io.StringIO(), force_terminal=False))
    progress.tell(ended(ok=False, reason="died"))
    assert list(progress.untold(["a point, trial 0: died", "scoring or costing failed"])) == [
        "scoring or costing failed"
    ]


def test_quiet_shows_failures_alone() -> None:
    text = shown(begun(0), {"type": "progress", "phase": "prepare"}, ended(ok=False, reason="died"), quiet=True)
    assert text.splitlines()[0] == "failed: a point: died"


def test_lines_of_a_log_are_not_wrapped_and_hold_no_control_characters() -> None:
    text = shown(begun(0, "a label of more than forty columns, \x1b[31mwith a colour in it"))
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
