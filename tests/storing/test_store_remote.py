"""Runs in a store behind a URL: nothing lost, nothing mixed, nothing half seen, whatever fails on the way."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec", reason="stores behind URLs need fsspec")

from harness.comparing.history import history
from harness.errors import MeasurementError, UsageError
from harness.planning.point import Choice, Plan, Point
from harness.records.files import records_of, trial_folders, write_json
from harness.records.metric import Metric
from harness.records.paths import BASELINES, DOCUMENTS, RUN
from harness.running.run_folder import create, reopen
from harness.storing.check import check, push
from harness.storing.places import to_resume
from harness.storing.remote import upload
from harness.storing.remote.files import RemoteFiles, UnreachableError
from harness.storing.remote.store import RemoteStore
from harness.storing.remote.upload import RefusedError

MakeRun = Callable[..., Path]
Open = Callable[..., RemoteStore]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=["memory", "file", "s3"])
def open_mirror(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens one store from another machine: every name has a mirror of its own."""
    if request.param == "s3":
        place = f"{request.getfixturevalue('s3_bucket')}/{tmp_path.name}"
    else:
        place = f"{request.param}://{tmp_path}/far"
    return lambda machine="a", **options: RemoteStore(place, home=tmp_path / f"mirror-{machine}", **options)


@pytest.fixture
def open_memory(tmp_path: Path) -> Open:
    place = f"memory://{tmp_path}/far"
    return lambda machine="a", **options: RemoteStore(place, home=tmp_path / f"mirror-{machine}", **options)


class Faults:
    """Makes the files of a store fail: all of them, or the n-th write and all after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.down = False
        self.writes_left: int | None = None
        self.writes: list[str] = []
        for name in ("put", "create"):
            monkeypatch.setattr(RemoteFiles, name, self._write(getattr(RemoteFiles, name)))
        for name in ("tree", "level", "read", "download", "remove"):
            monkeypatch.setattr(RemoteFiles, name, self._other(getattr(RemoteFiles, name)))

    def _write(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def write(files: RemoteFiles, path: str, *rest: Any) -> Any:
            self._fail()
            if self.writes_left is not None:
                if self.writes_left == 0:
                    raise UnreachableError("the line was cut")
                self.writes_left -= 1
            self.writes.append(path)
            return real(files, path, *rest)

        return write

    def _other(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def other(*arguments: Any) -> Any:
            self._fail()
            return real(*arguments)

        return other

    def _fail(self) -> None:
        if self.down:
            raise UnreachableError("no route to host")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def measured(store: RemoteStore, make_run: MakeRun, name: str, **shape: Any) -> Path:
    """A run with records and side-cars in the store's mirror, not sent yet."""
    made = make_run(name, **shape)
    shutil.copytree(made, store.folder / name)
    return store.folder / name


def test_a_run_arrives_whole_on_another_machine(open_mirror: Open, make_run: MakeRun) -> None:
    here, there = open_mirror("a"), open_mirror("b")
    run = measured(here, make_run, "one", points=2, trials=2)
    (run / "grid").mkdir()
    (run / "grid" / "large.bin").write_bytes(b"x" * (9 << 20))
    here.send(run)
    assert there.runs() == ["one"]
    assert content(there.find("one")) == content(run)
    assert not here.pending("one")
    assert not there.pending("one")


def test_sending_again_writes_nothing(open_mirror: Open, make_run: MakeRun, faults: Faults) -> None:
    here = open_mirror("a")
    run = measured(here, make_run, "one")
    here.upload("one")
    before = Counter(faults.writes)
    assert sum(before.values()) > 6 * 5
    here.upload("one")
    shutil.rmtree(here.home / "journal")  # lost: everything is compared with the store, and found there
    here.upload("one")
    again = Counter(faults.writes) - before
    assert {path.rpartition("/")[2] for path in again} <= {"plan.json"} | {upload.MEASUREMENT}
    assert content(open_mirror("b").find("one")) == content(run)


def test_another_measurement_under_the_same_id_is_refused(open_mirror: Open, make_run: MakeRun) -> None:
    first, second = open_mirror("a"), open_mirror("b")
    run = measured(first, make_run, "one", points=1, trials=2)
    other = second.folder / "one"
    shutil.copytree(run, other)
    changed = min(other.glob("*/measurement.json"))
    changed.write_text(changed.read_text("utf-8").replace("Example CPU", "Another CPU"), "utf-8")
    first.send(run)
    kept = content(first.folder)
    with pytest.raises(RefusedError, match="another measurement"):
        second.upload("one")
    with pytest.raises(MeasurementError, match="another measurement"):
        second.send(other)
    assert content(open_mirror("c").find("one").parent) == kept
    assert changed.read_text("utf-8").count("Another CPU")


def test_a_record_is_replaced_by_score_only(open_memory: Open, make_run: MakeRun) -> None:
    first, second = open_memory("a"), open_memory("b")
    run = measured(first, make_run, "one", points=1, trials=1)
    shutil.copytree(run, second.folder / "one")
    (path,) = (second.folder / "one").glob("*/record.json")
    path.write_text(path.read_text("utf-8").replace("output_tokens", "other"), "utf-8")
    first.send(run)
    with pytest.raises(MeasurementError, match="another record"):
        second.send(path.parents[1])
    second.send(path.parents[1], replace=True)
    first.find("one")
    assert next(run.glob("*/record.json")).read_bytes() == path.read_bytes()


def test_two_writers_of_one_trial_leave_one_of_them_whole(open_mirror: Open, make_run: MakeRun) -> None:
    stores = [open_mirror(str(number)) for number in range(4)]
    run = make_run("one", points=2, trials=2)
    for number, store in enumerate(stores):
        shutil.copytree(run, store.folder / "one")
        for path in (store.folder / "one").glob("*/*"):
            if path.name in {"items.jsonl", "measurement.json", "record.json"}:
                path.write_text(path.read_text("utf-8").replace('"window"', f'"window" {" " * number}'), "utf-8")
    barrier = threading.Barrier(len(stores))

    def send(store: RemoteStore) -> str:
        barrier.wait()
        for _ in range(200):
            try:
                store.upload("one")
            except UnreachableError:
                continue
            except RefusedError as error:
                return str(error)
            return ""
        raise AssertionError("never ended")

    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(send, stores))
    seen = content(open_mirror("reader").find("one"))
    trials = {path.partition("/")[0] for path in seen if "/" in path}
    assert len(trials) == 4
    for trial in trials:
        writers = {
            number
            for number, store in enumerate(stores)
            if all(
                (store.folder / "one" / path).read_bytes() == data
                for path, data in seen.items()
                if path.startswith(f"{trial}/") and not path.endswith("record.json")
            )
        }
        assert len(writers) == 1, trial


def writers_into(open_store: Open, make_run: MakeRun, number: int) -> None:
    """Half of the writers share a run, with a trial each; the others have runs of their own."""
    shared = make_run("shared", points=1, trials=number // 2)
    own = make_run("own", points=1, trials=1)
    trials = sorted(path for path in shared.iterdir() if path.is_dir())
    barrier = threading.Barrier(number)

    def write(index: int) -> None:
        store = open_store(str(index), wait_s=300.0)
        if index < len(trials):
            (store.folder / "shared").mkdir()
            shutil.copytree(trials[index], store.folder / "shared" / trials[index].name)
            name = "shared"
        else:
            name = f"own-{index:03d}"
            shutil.copytree(own, store.folder / name)
        barrier.wait()
        store.send(store.folder / name)

    with ThreadPoolExecutor(number) as pool:
        list(pool.map(write, range(number)))
    reader = open_store("reader")
    assert len(reader.runs()) == number - len(trials) + 1
    found = reader.find("shared")
    assert {path.name for path in found.iterdir()} == {trial.name for trial in trials}
    for trial in trials:
        assert content(found / trial.name) == content(trial)
    for run in reader.runs():
        if run != "shared":
            assert content(reader.find(run)) == content(own)


def test_two_hundred_writers_lose_nothing(open_memory: Open, make_run: MakeRun) -> None:
    writers_into(open_memory, make_run, 200)


def test_twenty_writers_into_s3_lose_nothing(s3_bucket: str, tmp_path: Path, make_run: MakeRun) -> None:
    writers_into(lambda name, **o: RemoteStore(f"{s3_bucket}/w", home=tmp_path / name, **o), make_run, 20)


@pytest.mark.slow
def test_two_hundred_writers_into_s3_lose_nothing(s3_bucket: str, tmp_path: Path, make_run: MakeRun) -> None:
    writers_into(lambda name, **o: RemoteStore(f"{s3_bucket}/w200", home=tmp_path / name, **o), make_run, 200)


def point() -> Point:
    return Point(
        id="a" * 12, suite="s", label="l", workload="spin", options={}, backend=Choice("host"), functional_units={}
    )


def test_two_hundred_runs_begun_at_once_in_one_folder_are_two_hundred(tmp_path: Path) -> None:
    with ThreadPoolExecutor(200) as pool:
        made = list(pool.map(lambda _: create(tmp_path, Plan([point()], []), [], [], 0), range(200)))
    assert len({folder.name for folder in made}) == len(list(tmp_path.iterdir())) == 200


def test_cut_at_every_write_a_reader_sees_whole_trials_and_nothing_is_lost(
    open_memory: Open, make_run: MakeRun, faults: Faults
) -> None:
    made = make_run("one", points=1, trials=2)
    cut, seen = 0, set()
    while True:
        name = f"run-{cut}"
        writer, reader = open_memory(f"w{cut}"), open_memory(f"r{cut}")
        shutil.copytree(made, writer.folder / name)
        faults.writes_left = cut
        try:
            writer.upload(name)
            ended = True
        except UnreachableError:
            ended = False
        faults.writes_left = None
        if cut and name in reader.runs():
            found = reader.find(name) if reader.files.tree(name) else None
            trials = list(trial_folders(found)) if found and found.is_dir() else []
            for trial in trials:
                full = content(made / trial.name)
                assert content(trial).items() <= full.items()
                assert full.keys() - content(trial).keys() <= {"record.json"}
            seen.add(len(trials))
        writer.upload(name)
        assert content(open_memory(f"z{cut}").find(name)) == content(made)
        if ended:
            break
        cut += 1
    assert seen >= {0, 1, 2}
    assert cut >= 2 * 5


def test_a_claim_whose_writer_died_is_taken_over(
    open_memory: Open, make_run: MakeRun, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, second = open_memory("a"), open_memory("b")
    run = measured(dead, make_run, "one", points=1, trials=1)
    other = second.folder / "one"
    shutil.copytree(run, other)
    for path in other.glob("*/measurement.json"):
        path.write_text(path.read_text("utf-8").replace("Example CPU", "Another CPU"), "utf-8")
    faults.writes_left = 2
    with pytest.raises(UnreachableError):
        dead.upload("one")
    faults.writes_left = None
    with pytest.raises(UnreachableError, match="another writer"):
        second.upload("one")
    monkeypatch.setattr(upload, "_CLAIM_S", 0.0)
    second.upload("one")
    assert content(open_memory("c").find("one")) == content(other)
    with pytest.raises(RefusedError, match="another measurement"):
        dead.upload("one")


def test_a_trial_that_failed_here_and_was_measured_elsewhere(open_memory: Open, make_run: MakeRun) -> None:
    here, there = open_memory("a"), open_memory("b")
    run = measured(here, make_run, "one", points=1, trials=1)
    (trial,) = trial_folders(run)
    whole = content(trial)
    shutil.rmtree(trial)
    trial.mkdir()
    (trial / "failure.json").write_text('{"reason": "killed"}', encoding="utf-8")
    (trial / "leftover.jsonl").write_text("torn", encoding="utf-8")
    here.send(run)
    again = there.find("one") / trial.name
    assert (again / "failure.json").exists()
    shutil.rmtree(again)
    again.mkdir()
    for name, data in whole.items():
        (again / name).write_bytes(data)
    there.send(there.folder / "one")
    here.find("one")
    assert {name: data for name, data in content(trial).items() if name != "leftover.jsonl"} == whole
    assert content(open_memory("c").find("one") / trial.name) == whole


def test_a_damaged_side_car_is_noticed(open_memory: Open, make_run: MakeRun) -> None:
    here = open_memory("a")
    run = measured(here, make_run, "one", points=1, trials=1)
    here.send(run)
    (name,) = (str(path.relative_to(here.folder)) for path in run.glob("*/items.jsonl"))
    here.files.put(name, b'{"item_id": "0", "window": 0, "status": "ok"}\n')
    with pytest.raises(MeasurementError, match="not what its writer sent"):
        open_memory("b").find("one")


def test_what_was_not_sent_is_not_overwritten_by_a_fetch(open_memory: Open, make_run: MakeRun) -> None:
    here, there = open_memory("a"), open_memory("b")
    run = measured(here, make_run, "one", points=1, trials=1)
    here.send(run)
    other = there.find("one")
    write_json(other / RUN, {"run": "one", "status": "theirs"})
    write_json(run / RUN, {"run": "one", "status": "ours"})
    there.send(other)
    assert json.loads((here.find("one") / RUN).read_text("utf-8"))["status"] == "ours"
    assert here.pending("one") == ["one/run.json"]


def test_a_run_of_the_same_name_with_another_plan_is_refused(open_mirror: Open) -> None:
    stores = [open_mirror("a"), open_mirror("b")]
    points = [[point()], []]
    for store, planned in zip(stores, points, strict=True):
        create(store.folder, Plan(planned, []), [], [], 0, name="one")
    stores[0].upload("one")
    with pytest.raises(RefusedError, match="another run of this name"):
        stores[1].upload("one")


def test_a_store_that_is_away_for_a_while_loses_nothing_and_does_not_stop_the_run(
    open_memory: Open, make_run: MakeRun, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.storing.remote.sender.FIRST_PAUSE_S", 0.01)
    store = open_memory("a")
    made = make_run("one", points=2, trials=3)
    run = store.folder / "one"
    with store.sending(quiet=True) as uploads:
        run.mkdir()
        for number, trial in enumerate(sorted(trial_folders(made))):
            faults.down = 1 <= number <= 4
            shutil.copytree(trial, run / trial.name)
            uploads.push(run / trial.name)
        shutil.copy(made / RUN, run / RUN)
        uploads.push(run)
    assert uploads.faults == ()
    assert content(open_memory("b").find("one")) == content(made)


def test_a_store_that_stays_away_is_told_and_the_run_is_sent_later(
    open_memory: Open, make_run: MakeRun, faults: Faults
) -> None:
    store = open_memory("a", wait_s=0.2)
    run = measured(store, make_run, "one", points=1, trials=1)
    faults.down = True
    with store.sending(quiet=True) as uploads:
        uploads.push(run)
    (told,) = uploads.faults
    assert "no route to host" in told
    assert "harness store push" in told
    with pytest.raises(MeasurementError, match="no route"):
        store.send(run)
    faults.down, store.wait_s = False, 60.0
    store.send(run)
    assert content(open_memory("b").find("one")) == content(run)


def test_an_unfinished_trial_is_not_sent(open_memory: Open, make_run: MakeRun) -> None:
    store = open_memory("a")
    run = measured(store, make_run, "one", points=1, trials=1)
    running = run / "p9-t000"
    running.mkdir()
    (running / "job.json").write_text("{}", encoding="utf-8")
    (running / "items.jsonl").write_text('{"half', encoding="utf-8")
    store.send(run)
    assert not (open_memory("b").find("one") / running.name).exists()


def test_keys_that_would_leave_the_mirror_are_passed_by(open_memory: Open, make_run: MakeRun, tmp_path: Path) -> None:
    store = open_memory("a")
    store.send(measured(store, make_run, "one", points=1, trials=1))
    from fsspec.implementations.memory import MemoryFile

    root = store.files._root
    for key in ("one/../../../evil", "one/a\\b", "one//evil", "one/x\ny", "../evil"):
        store.files._files.store[f"{root}/{key}"] = MemoryFile(store.files._files, f"{root}/{key}", b"evil")
    reader = open_memory("b")
    assert not [path for path in content(reader.find("one").parent.parent) if "evil" in path]
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("name", ["..", "../one", "a/b", ".x", "index"])
def test_names_that_leave_the_store_are_refused(name: str, open_memory: Open, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        open_memory("a").find(name)
    with pytest.raises(UsageError):
        create(tmp_path / "store", Plan([point()], []), [], [], 0, name=name)


def test_a_plan_whose_ids_leave_the_run_is_refused(tmp_path: Path) -> None:
    folder = create(tmp_path, Plan([point()], []), [], [], 0)
    plan = json.loads((folder / "plan.json").read_text("utf-8"))
    plan[0]["id"] = "../../x"
    write_json(folder / "plan.json", plan)
    with pytest.raises(UsageError, match="not a valid name"):
        reopen(folder)


def test_a_run_to_resume_is_found_by_name_path_and_url(open_memory: Open, make_run: MakeRun, tmp_path: Path) -> None:
    store = open_memory("a")
    store.send(measured(store, make_run, "one"))
    other = open_memory("b")
    assert to_resume(other, "one")[1] == other.folder / "one"
    assert to_resume(other, str(tmp_path / "one"))[1] == tmp_path / "one"
    assert to_resume(other, f"{store.url.address}/one")[1].name == "one"
    with pytest.raises(UsageError, match="no such run"):
        to_resume(other, "two")


def test_baselines_come_and_go_with_the_store(open_mirror: Open) -> None:
    here, there = open_mirror("a"), open_mirror("b")
    path = here.fetch_kept(BASELINES) / BASELINES / "main.json"
    path.parent.mkdir()
    path.write_text('{"name": "main"}', encoding="utf-8")
    here.send(path)
    copy = there.fetch_kept(BASELINES) / BASELINES / "main.json"
    assert copy.read_bytes() == path.read_bytes()
    copy.unlink()
    there.send(copy)
    assert not (here.fetch_kept(BASELINES) / BASELINES / "main.json").exists()


def test_records_of_before_come_and_go(
    open_memory: Open, make_run: MakeRun, hold_measurement: Callable[[Path], None]
) -> None:
    here, reader = open_memory("a"), open_memory("b")
    run = measured(here, make_run, "one", points=1, trials=2)
    for trial in trial_folders(run):
        hold_measurement(trial)
    here.send(run)
    (folder,) = reader.fetch()
    assert list(records_of(folder)) == list(records_of(run))
    (series,) = history(reader, Metric("energy_j")).series
    assert [entry.run for entry in series.entries] == ["made-up"]


def test_history_and_records_need_no_side_cars(open_memory: Open, make_run: MakeRun) -> None:
    here, reader = open_memory("a"), open_memory("b")
    here.send(measured(here, make_run, "one", points=1, trials=2))
    (folder,) = reader.fetch()
    assert {path.name for path in folder.rglob("*") if path.is_file()} == DOCUMENTS
    assert len(list(records_of(folder))) == 2
    (series,) = history(reader, Metric("energy_j")).series
    assert [entry.run for entry in series.entries] == ["made-up"]
    assert content(reader.find("one")) == content(here.folder / "one")


def test_no_such_store(open_mirror: Open) -> None:
    with pytest.raises(UsageError, match="no such store"):
        open_mirror("a").runs()


def test_what_a_filesystem_says_is_shown_without_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    store = RemoteStore("memory://user:SECRET@x/y?token=TOKENVALUE", home=tmp_path)

    def fail(*arguments: object, **named: object) -> None:
        raise OSError("403 for SECRET with TOKENVALUE at memory://user:SECRET@x/y?token=TOKENVALUE")

    monkeypatch.setattr(MemoryFileSystem, "ls", fail)
    with pytest.raises(UnreachableError) as caught:
        store.runs()
    assert "SECRET" not in str(caught.value)
    assert "TOKENVALUE" not in str(caught.value)
    assert "SECRET" not in "".join(path.read_text() for path in tmp_path.rglob("*.txt"))


@pytest.mark.parametrize("gone", ["measurement.json", "items.jsonl"])
def test_what_is_removed_from_the_store_by_hand_is_found_and_sent_again(
    open_mirror: Open, make_run: MakeRun, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = open_mirror("a")
    run = measured(here, make_run, "one", points=1, trials=2)
    here.send(run)
    assert not [each for each in check(here) if each.fault]
    (name,) = (str(path.relative_to(here.folder)) for path in run.glob(f"*-t000/{gone}"))
    here.files.remove(name)
    assert [each.where for each in check(here) if each.fault] == [name]
    elsewhere = open_mirror("b")
    assert name in [each.where for each in check(elsewhere) if each.fault], "a machine without the mirror sees it too"
    monkeypatch.setattr("harness.storing.check.open_store", lambda _: here)
    assert list(push("a-url", [])) == [f"sent: {here.shown}/one: 1 files"]
    assert not [each for each in check(here) if each.fault]
    assert content(open_mirror("c").find("one")) == content(run)


def test_what_is_changed_in_the_store_is_found(open_mirror: Open, make_run: MakeRun) -> None:
    here = open_mirror("a")
    run = measured(here, make_run, "one", points=1, trials=1)
    here.send(run)
    (path,) = run.glob("*/items.jsonl")
    name = str(path.relative_to(here.folder))
    here.files.put(name, path.read_bytes().replace(b"0", b"1"))
    faults = [f"{each.where}: {each.what}" for each in check(here) if each.fault]
    assert any("not what its writer sent" in each for each in faults), faults


def test_a_store_that_loses_what_it_took_fails_the_run(open_mirror: Open, make_run: MakeRun) -> None:
    here = open_mirror("a")
    run = measured(here, make_run, "one", points=1, trials=1)
    (lost,) = (str(path.relative_to(here.folder)) for path in run.glob("*/measurement.json"))
    with here.sending(quiet=False) as uploads:
        for folder in [*trial_folders(run), run]:
            uploads.push(folder)
        while lost not in here.files.tree("one"):
            time.sleep(0.01)
        here.files.remove(lost)
    (fault,) = uploads.faults
    assert f"took {lost} and does not have it" in fault


@pytest.mark.parametrize("minutes", [-10, 10])
def test_clocks_that_differ_do_not_make_a_living_writer_dead(
    open_mirror: Open, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    living, second = open_mirror("a"), open_mirror("b")
    run = measured(living, make_run, "one", points=1, trials=1)
    (trial,) = trial_folders(run)
    shutil.copytree(run, second.folder / "one")
    for path in (second.folder / "one").glob("*/measurement.json"):
        path.write_text(path.read_text("utf-8").replace("Example CPU", "Another CPU"), "utf-8")
    living.files.claim(f"one/{trial.name}/manifest.json", b'{"measurement.json": "other"}')
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 60 * minutes)
    with pytest.raises(UnreachableError, match="another writer has begun"):
        second.upload("one")
    assert abs(second.files.clock() - real()) < 60
    assert all("clock" not in path for path in second.files.tree(""))
