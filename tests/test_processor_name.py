"""The processor's name, where the system has one and where it does not answer."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.backend import processor_name

GONE = Path("/nowhere/cpuinfo")


@pytest.mark.parametrize("key", ["model name", "Hardware", "cpu model"])
def test_linux_says_it_in_a_file(tmp_path: Path, key: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel\t\t: 85\n{key}\t: Some CPU @ 2.00GHz\n\nprocessor\t: 1\n", encoding="utf-8")
    assert processor_name(file) == "Some CPU @ 2.00GHz"


def test_macos_is_asked_by_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command == ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.CompletedProcess(command, 0, stdout="Apple M4 Pro\n")

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert processor_name(GONE) == "Apple M4 Pro"


@pytest.mark.parametrize("fault", [FileNotFoundError("sysctl"), subprocess.TimeoutExpired("sysctl", 5), None])
def test_without_an_answer_the_type_is_told(monkeypatch: pytest.MonkeyPatch, fault: Exception | None) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if fault is not None:
            raise fault
        return subprocess.CompletedProcess(command, 1, stdout="")

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert processor_name(GONE)


def test_elsewhere_no_command_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a command was run"))
    assert processor_name(GONE)
