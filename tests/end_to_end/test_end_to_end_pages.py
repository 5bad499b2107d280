"""Tutorials and how-to pages are run as they stand, each in an empty folder: files are written, `bash` blocks run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    path.stem: path for folder in ("tutorials", "how-to") for path in sorted((ROOT / "docs" / folder).glob("*.md"))
}
BLOCK = re.compile(
    r"^(?:<!-- exit code (?P<code>\d) -->\n)?```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


def executed(page: Path) -> bool:
    return any(each["language"] == "bash" for each in BLOCK.finditer(page.read_text(encoding="utf-8")))


RUN = [name for name, path in PAGES.items() if executed(path)]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_a_page_can_be_followed(name: str, tmp_path: Path) -> None:
    folder, programs = tmp_path / "work", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    program = programs / "harness"
    program.write_text(f"#!{sys.executable}\nfrom harness.cli import main\nmain()\n", encoding="utf-8")
    program.chmod(0o755)
    (programs / "python3").symlink_to(sys.executable)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": ":".join(sys.path)}
    for block in BLOCK.finditer(PAGES[name].read_text(encoding="utf-8")):
        if block["title"]:
            (folder / block["title"]).write_text(block["text"], encoding="utf-8")
        elif block["language"] == "bash":
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", block["text"]],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=400,
                check=False,
            )
            assert done.returncode == int(block["code"] or 0), f"{block['text']}\n{done.stdout}\n{done.stderr}"
