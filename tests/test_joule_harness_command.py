"""The command `joule-harness` is always ours, and says where another distribution's files lie over ours."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE = "joule_harness_cli.py"
Install = Callable[..., None]


def digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Site-packages with this project's command in it, beside a package that stands for the harness."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    shutil.copyfile(ROOT / MODULE, folder / MODULE)
    return folder


@pytest.fixture
def install(site: Path) -> Install:
    def installed(name: str, files: dict[str, str], folder: Path = site) -> None:
        lines = []
        for path, text in files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            lines.append(f"{path},sha256={digest(text.encode())},{len(text)}")
        packaged = folder / f"{name.replace('-', '_')}-1.5.dist-info"
        packaged.mkdir(parents=True)
        (packaged / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n", encoding="utf-8")
        (packaged / "RECORD").write_text("\n".join([*lines, f"{packaged.name}/RECORD,,"]) + "\n", encoding="utf-8")

    return installed


OURS = {
    "harness/__init__.py": "",
    "harness/__main__.py": "def main():\n    print('ours')\n",
    "harness/cli.py": "# ours\n",
}
THEIRS = {"harness/__init__.py": "# theirs\n", "harness/__main__.py": "def main():\n    print('theirs')\n"}


def started(site: Path, *before: Path) -> subprocess.CompletedProcess[str]:
    """The console script, as pip writes it, with nothing else on the path."""
    path = [str(folder) for folder in (*before, site)]
    code = f"import sys; sys.path[:0] = {path!r}; from joule_harness_cli import main; main()"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True, text=True, check=False, timeout=60, env=environment,
    )  # fmt: skip


def test_alone_it_runs_and_says_nothing(site: Path, install: Install) -> None:
    install("joule-harness", OURS)
    install("unrelated", {"harness_like/__init__.py": "", "other.py": ""})
    done = started(site)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ours\n", "")


def test_files_of_another_beside_ours_are_a_warning(site: Path, install: Install) -> None:
    install("harness", {**THEIRS, "harness/agents/__init__.py": ""})
    install("joule-harness", OURS)  # last: its files are the ones that lie there
    done = started(site)
    assert (done.returncode, done.stdout) == (0, "ours\n")
    assert "warning: harness 1.5 also installs files under harness/" in done.stderr
    assert "pip uninstall harness && pip install --force-reinstall --no-deps joule-harness" in done.stderr


def test_files_of_another_over_ours_are_an_error(site: Path, install: Install) -> None:
    install("joule-harness", OURS)
    install("harness", THEIRS)
    done = started(site)
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.startswith("error: harness/__init__.py and 1 more of joule-harness replaced by harness 1.5: ")
    assert "pip uninstall harness && pip install --force-reinstall --no-deps joule-harness" in done.stderr


def test_what_another_took_away_is_an_error(site: Path, install: Install) -> None:
    install("joule-harness", OURS)
    (site / "harness/cli.py").unlink()
    done = started(site)
    assert done.returncode == 70
    assert "harness/cli.py of joule-harness replaced: " in done.stderr


def test_another_that_is_found_first_is_an_error(site: Path, install: Install, tmp_path: Path) -> None:
    install("joule-harness", OURS)
    install("harness", THEIRS, tmp_path / "user-site")
    done = started(site, tmp_path / "user-site")
    assert (done.returncode, done.stdout) == (70, "")
    assert f"the package 'harness' is imported from {tmp_path / 'user-site' / 'harness'}" in done.stderr
    assert "by harness 1.5" in done.stderr


def test_without_the_package_it_says_so(site: Path) -> None:
    done = started(site)
    assert done.returncode == 70
    assert "the package 'harness' cannot be found" in done.stderr


def test_this_installation_runs_it() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / MODULE), "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("harness ")
