"""Where a site goes: never half, never over what is not ours."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import MeasurementError, UsageError
from harness.publishing import build as building
from harness.publishing import folder
from harness.publishing.build import build

MakeRun = Callable[..., Path]


@pytest.fixture
def made(make_run: MakeRun, tmp_path: Path) -> tuple[Path, Path]:
    """A run, and a site of it."""
    run = make_run(points=1, trials=1)
    build(tmp_path / "site", [str(run)], tell=lambda _: None)
    return run, tmp_path / "site"


def contents(place: Path) -> dict[str, bytes]:
    return {name: (place / name).read_bytes() for name in folder.files_below(place)}


def again(run: Path, place: Path, **options: Any) -> None:
    build(place, [str(run)], tell=lambda _: None, **options)


def test_the_marker_lists_every_file(made: tuple[Path, Path]) -> None:
    _, place = made
    assert sorted(folder.own_files(place) or ()) == folder.files_below(place)


def test_files_of_other_origin_stay_and_stale_pages_go(made: tuple[Path, Path]) -> None:
    run, place = made
    before = contents(place)
    (place / "CNAME").write_text("results.example\n", encoding="utf-8")
    (place / ".git").mkdir()
    (place / ".git" / "HEAD").write_text("ref", encoding="utf-8")
    (place / ".git" / "refs" / "heads").mkdir(parents=True)
    (place / "runs" / "drafts").mkdir()
    (place / "runs" / "notes.txt").write_text("mine", encoding="utf-8")
    marker = (place / folder.MARKER).read_text(encoding="utf-8")
    (place / "old.html").touch()
    (place / folder.MARKER).write_text(marker.replace('"index.html"', '"index.html", "old.html"'), encoding="utf-8")
    again(run, place)
    kept = {"CNAME": b"results.example\n", ".git/HEAD": b"ref", "runs/notes.txt": b"mine"}
    assert contents(place) == {**before, **kept}
    assert (place / ".git/refs/heads").is_dir(), "git needs its empty folders"
    assert (place / "runs/drafts").is_dir()
    assert sorted(path.name for path in place.parent.iterdir()) == [run.name, "site"]


def test_a_folder_of_something_else_is_left_alone(made: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = made
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="holds something else than a site"):
        again(run, other)
    assert contents(other) == {"chapter.tex": b"mine"}
    (other / folder.MARKER).write_text('{"made_by": "somebody else", "files": ["chapter.tex"]}', encoding="utf-8")
    with pytest.raises(UsageError, match="holds something else than a site"):
        again(run, other)
    again(run, other, force=True)
    assert (other / "chapter.tex").read_text(encoding="utf-8") == "mine"
    assert (other / "index.html").exists()


def test_a_name_that_something_else_has_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = made
    for name, kind in (("runs", Path.touch), ("index.html", Path.mkdir)):
        other = tmp_path / f"with-{name}"
        other.mkdir()
        kind(other / name)
        with pytest.raises(UsageError, match=f"needs the name '{name}'"):
            again(run, other, force=True)
        assert [path.name for path in other.iterdir()] == [name]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("where", ["store/site", ".", "store"], ids=["inside", "around", "itself"])
def test_a_site_and_its_records_never_lie_in_each_other(make_run: MakeRun, tmp_path: Path, where: str) -> None:
    run = make_run("store/run", points=1, trials=1)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="would lie in each other"):
        build(tmp_path / where, [str(run.parent)], force=True)
    assert contents(tmp_path) == before


def test_the_present_folder_is_not_replaced(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, place = made
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UsageError, match="the present folder cannot be replaced"):
        again(run, Path())
    monkeypatch.chdir(place)
    with pytest.raises(UsageError, match="the present folder cannot be replaced"):
        again(run, place)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=["ctrl-c", "disk"]
)
def test_an_interrupted_build_leaves_the_old_site(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    run, place = made
    before = contents(place)

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(building, "_write_lists", broken)
    with pytest.raises(MeasurementError if isinstance(error, OSError) else KeyboardInterrupt):
        again(run, place, title="another")
    assert contents(place) == before
    assert sorted(path.name for path in place.parent.iterdir()) == [run.name, "site"]
    with pytest.raises(MeasurementError if isinstance(error, OSError) else KeyboardInterrupt):
        again(run, place.with_name("new"))
    assert not place.with_name("new").exists()


def test_a_build_that_was_killed_between_the_renames_is_brought_to_its_end(made: tuple[Path, Path]) -> None:
    run, place = made
    before = contents(place)
    (place / "CNAME").write_text("results.example\n", encoding="utf-8")
    place.rename(place.with_name(".site.harness-site-old"))
    folder.recover(place)
    assert contents(place) == {**before, "CNAME": b"results.example\n"}
    place.rename(place.with_name(".site.harness-site-old"))
    (place.with_name(".site.harness-site-old") / "CNAME").rename(place.parent / "kept")
    again(run, place)
    assert contents(place) == before
    place.rename(place.with_name(".site.harness-site-old"))
    (place.parent / "kept").rename(place.with_name(".site.harness-site-old") / "CNAME")
    place.mkdir()
    for name, content in before.items():  # the new site stands, and what was kept has not been moved yet
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    again(run, place)
    assert contents(place) == {**before, "CNAME": b"results.example\n"}
    assert not place.with_name(".site.harness-site-old").exists()


@pytest.mark.parametrize("after", [0, 1], ids=["of the old site", "of the new one"])
def test_ctrl_c_between_the_renames_keeps_a_whole_site(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    run, place = made
    (place / "CNAME").write_text("results.example\n", encoding="utf-8")
    before = contents(place)
    rename, calls = Path.rename, []

    def interrupted(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == after + 2:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        again(run, place, title="another")
    monkeypatch.undo()
    assert (contents(place) == before) is (after == 0)
    assert (place / "CNAME").exists()
    assert sorted(path.name for path in place.parent.iterdir()) == [run.name, "site"]


def test_what_killed_builds_left_is_removed_and_what_others_build_stays(made: tuple[Path, Path]) -> None:
    run, place = made
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = place.with_name(f".site.harness-site-{folder._host()}-{ended.pid}")
    living = place.with_name(f".site.harness-site-{folder._host()}-{os.getppid()}")
    foreign = place.with_name(f".site.harness-site-elsewhere-{ended.pid}")
    for left in (dead, living, foreign):
        left.mkdir()
    again(run, place)
    assert [left.exists() for left in (dead, living, foreign)] == [False, True, True]


def test_a_link_to_a_folder_stays_a_link(made: tuple[Path, Path], tmp_path: Path) -> None:
    run, place = made
    link = tmp_path / "published"
    link.symlink_to(place, target_is_directory=True)
    again(run, link)
    assert link.is_symlink()
    assert (place / "index.html").exists()


def test_a_file_is_no_place_for_a_site(made: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = made
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="a site is a folder"):
        again(run, tmp_path / "file", force=True)
    with pytest.raises(UsageError, match="there is no such folder"):
        again(run, tmp_path / "nowhere" / "site")
