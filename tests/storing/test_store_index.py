"""The index of a store is a copy of its records: it answers what they say, or it is not read."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("duckdb", reason="a query needs duckdb")

from harness.quantity import Amount, Method
from harness.records.files import adapter, trial_folders, write_atomically, write_json
from harness.records.paths import INDEX, ITEMS, MEASUREMENT, RECORD
from harness.storing import index, query, views
from harness.storing.check import check, listed
from harness.storing.query import ask
from harness.storing.remote.store import RemoteStore
from harness.storing.store import Store
from harness.storing.views import VIEWS

MakeRun = Callable[..., Path]
CALM = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path, make_run: MakeRun) -> Path:
    """Two runs; `make_run` puts runs beside each other into a folder, which is the store."""
    make_run("one", points=2, trials=2)
    make_run("two'~[*]", points=1, trials=1)
    return tmp_path


def everything(store: Path | Store) -> dict[str, list[str]]:
    with closing(query.connect(Store(store) if isinstance(store, Path) else store)) as views:
        return {
            view.name: sorted(map(repr, views.execute(f'SELECT * FROM "{view.name}"').fetchall())) for view in VIEWS
        }


def from_records(store: Path) -> dict[str, list[str]]:
    """The same from the JSON documents alone."""

    class Plain(Store):
        def sources(self, *, rebuild: bool = False) -> index.Sources:
            return index.Sources([], [self.folder / run for run in self.runs()])

    return everything(Plain(store))


def rewrite(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    write_json(path, content)


def test_the_index_answers_what_the_records_say(store: Path) -> None:
    first = everything(store)
    assert all(first.values())
    assert len(list((store / INDEX).glob("*.parquet"))) == 2
    assert first == from_records(store) == everything(store)


@CALM
@given(data=st.data())
def test_after_any_change_of_the_records(store: Path, data: st.DataObject) -> None:
    everything(store)
    records = sorted(store.glob("one/*/record.json"))
    path = data.draw(st.sampled_from(records))
    value = data.draw(
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False).map(
                lambda number: {"kind": "amount", "value": number, "unit": "J", "composition": {"counter": number}}
            ),
            st.text(max_size=20).map(lambda reason: {"kind": "unavailable", "reason": reason}),
        )
    )
    name = data.draw(st.text(min_size=1, max_size=8))
    rewrite(path, lambda content: content["totals"].update(energy_j=value))  # type: ignore[attr-defined]
    rewrite(path, lambda content: content["units"]["token"]["costs"].update({name: value}))  # type: ignore[index]
    rewrite(path, lambda content: content.update(flags=[name]))
    assert everything(store) == from_records(store)


def test_an_index_that_does_not_fit_the_records_is_not_read(store: Path) -> None:
    everything(store)
    path = min(store.glob("one/*/record.json"))
    before = path.stat()
    rewrite(path, lambda content: content["totals"]["energy_j"].update(value=123456.0))  # type: ignore[index]
    (standing,) = (store / INDEX).glob("one~*")
    assert (123456.0,) in ask(store, "SELECT energy_j FROM trials")[1]
    assert before.st_ino != path.stat().st_ino
    shutil.rmtree(store / "one")
    assert ask(store, "SELECT DISTINCT run FROM trials")[1] == [("two'~[*]",)]
    assert standing.exists()


def test_check_names_a_record_of_another_measurement(store: Path) -> None:
    first, second = sorted(store.glob("one/*-t000"))
    rewrite(first / MEASUREMENT, lambda content: content.update(trial=7))
    (second / MEASUREMENT).unlink()
    found = {finding.where: finding.what for finding in check(Store(store)) if finding.fault}
    assert "was made of another measurement" in found[f"one/{first.name}/record.json"]
    assert "there is no such file" in found[f"one/{second.name}/record.json"]
    assert [row.status for row in listed(Store(store)) if row.run == "one"] == ["a record cannot be read"]


def test_a_trial_that_came_later_is_found(store: Path, make_run: MakeRun, tmp_path: Path) -> None:
    everything(store)
    later = make_run("later/run", points=1, trials=3)
    for number, trial in enumerate(trial_folders(later)):
        shutil.copytree(trial, store / "one" / f"late-{number}")
        assert len(ask(store, "SELECT * FROM trials WHERE run = 'one'")[1]) == 4 + number + 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "swapped"])
def test_a_damaged_index_is_made_anew(store: Path, damage: str) -> None:
    whole = everything(store)
    one, two = sorted((store / INDEX).glob("*.parquet"))
    data = bytearray(one.read_bytes())
    if damage == "cut":
        one.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 3] ^= 0xFF
        one.write_bytes(data)
    elif damage == "emptied":
        one.write_bytes(b"")
    else:
        shutil.copy(two, one)
    assert [finding.where for finding in check(Store(store)) if finding.fault] == [f"{INDEX}/{one.name}"]
    assert everything(store) == whole
    assert not [finding for finding in check(Store(store)) if finding.fault]


def test_what_lies_in_the_index_folder_and_is_none(store: Path) -> None:
    whole = everything(store)
    (store / INDEX / "note.txt").write_text("x", encoding="utf-8")
    (store / INDEX / "one~x.parquet").write_text("x", encoding="utf-8")
    (store / INDEX / ".half.parquet").write_text("x", encoding="utf-8")
    assert everything(store) == whole


def test_another_version_of_the_views_makes_another_index(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(store)
    before = {path.name for path in (store / INDEX).iterdir()}
    monkeypatch.setattr(index, "layout", lambda: "another")
    assert all(everything(store).values())
    assert len({path.name for path in (store / INDEX).iterdir()} - before) == 2


def test_a_store_that_may_only_be_read_is_indexed_in_the_cache(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = index.Builder.build

    def build(builder: index.Builder, run: Path, documents: object, folder: Path, *rest: object) -> Path | None:
        if folder == store / INDEX:
            raise PermissionError("read-only")
        return real(builder, run, documents, folder, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(index.Builder, "build", build)
    first = everything(store)
    assert not (store / INDEX).exists()
    monkeypatch.setattr(index.Builder, "build", None)
    assert everything(store) == first == from_records(store)
    assert len(list((tmp_path / "cache").rglob("*.parquet"))) == 2


def test_a_record_that_does_not_read_is_named_and_hides_no_other_run(store: Path) -> None:
    path = min(store.glob("one/*/record.json"))
    path.write_text('{"measurement": {', encoding="utf-8")
    sources = Store(store).sources()
    assert [run.name for run in sources.plain] == ["one"]
    assert len(sources.indexed) == 1
    (row, other) = listed(Store(store))
    assert (row.run, row.trials, other.run, other.trials) == ("one", 4, "two'~[*]", 1)
    assert str(path.relative_to(store)) in {finding.where for finding in check(Store(store))}


def test_columns_of_one_name_have_one_type() -> None:
    kinds: dict[str, set[str]] = {}
    for view in VIEWS:
        if not view.lines:
            for name, (_, kind, _) in view.selects.items():
                kinds.setdefault(name, set()).add(kind)
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}
    assert "indexed" in views.table_of_all()


def test_a_store_is_listed(store: Path) -> None:
    rows = listed(Store(store))
    assert [(row.run, row.status, row.trials, row.bytes) for row in rows] == [
        (run, "ok", trials, sum(path.stat().st_size for path in (store / run).rglob("*") if path.is_file()))
        for run, trials in (("one", 4), ("two'~[*]", 1))
    ]
    assert listed(Store(store)) == rows


def test_a_reader_beside_a_writer_never_fails(store: Path) -> None:
    """Trials come and records are replaced while another thread asks: every answer holds whole trials only."""
    (template,) = (store / "two'~[*]").glob("*/")
    stop = threading.Event()
    faults: list[str] = []

    def write() -> None:
        for number in range(40):
            trial = store / "one" / f"new-{number:03d}"
            trial.mkdir()
            for name in (ITEMS, MEASUREMENT, RECORD):
                write_atomically(trial / name, (template / name).read_bytes())
            if number % 4 == 0:
                rewrite(min(store.glob("one/p*/record.json")), lambda content: content.update(flags=["again"]))
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    counts = []
    while not stop.is_set():
        ((trials, units, items),) = ask(
            store,
            "SELECT (SELECT count(*) FROM trials WHERE run = 'one'), "
            "(SELECT count(DISTINCT trial_id) FROM units WHERE run = 'one'), "
            "(SELECT count(DISTINCT trial_id) FROM items WHERE run = 'one')",
        )[1]
        counts.append(trials)
        if trials != units or items < trials:
            faults.append(f"{trials} trials, {units} with units, {items} with items")
    writer.join()
    assert not faults
    assert counts == sorted(counts)
    assert len(ask(store, "SELECT * FROM trials WHERE run = 'one'")[1]) == 44


# Behind a URL


@pytest.fixture
def remote(tmp_path: Path, store: Path) -> Callable[[str], RemoteStore]:
    def open_mirror(machine: str) -> RemoteStore:
        return RemoteStore(f"memory://{tmp_path}/far", home=tmp_path / "mirrors" / machine)

    first = open_mirror("a")
    for run in ("one", "two'~[*]"):
        shutil.copytree(store / run, first.folder / run)
        first.send(first.folder / run)
    return open_mirror


def test_a_writer_publishes_the_index_and_a_reader_fetches_no_record(
    remote: Callable[[str], RemoteStore], store: Path
) -> None:
    reader = remote("b")
    assert len(reader.published()) == 2
    assert len(listed(reader)) == 2
    assert not list(reader.folder.rglob("record.json"))
    assert everything(reader) == from_records(store)


def test_the_index_is_withdrawn_before_a_record_changes_and_made_after(
    remote: Callable[[str], RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, reader = remote("a"), remote("b")
    everything(reader)
    path = min(first.folder.glob("one/*/record.json"))
    energy = adapter(Amount).dump_python(Amount.of(123456.0, "J", Method.COUNTER), mode="json")
    rewrite(path, lambda content: content["totals"].update(energy_j=energy))  # type: ignore[attr-defined]
    first.upload("one", replace=True)
    assert first.published("one") == []
    assert (123456.0,) in ask(reader, "SELECT energy_j FROM trials")[1]
    first.publish_index("one")
    assert len(first.published("one")) == 1
    assert everything(remote("c")) == everything(reader)
    assert not [finding for finding in check(remote("d")) if finding.fault]


def test_a_published_index_that_is_damaged_or_does_not_fit(remote: Callable[[str], RemoteStore], store: Path) -> None:
    first = remote("a")
    (name,) = first.published("one")
    first.files.put(f"{INDEX}/{name}", b"PAR1 nonsense")
    assert everything(remote("b")) == from_records(store)
    first.sources(rebuild=True)
    (path,) = (path for path in first.files.tree("one") if path.endswith("0000-t000/record.json"))
    text = first.files.read(path)
    assert text is not None
    first.files.put(path, text.replace(b"output_tokens", b"other_tokens"))
    assert [finding.where for finding in check(remote("c")) if finding.where.startswith(INDEX)]
    remote("d").sources(rebuild=True)
    assert not [finding for finding in check(remote("e")) if finding.where.startswith(INDEX)]


def test_an_index_is_not_published_over_another_writers_records(remote: Callable[[str], RemoteStore]) -> None:
    first, second = remote("a"), remote("b")
    (trial,) = (path for path in second.find("two'~[*]").iterdir() if path.is_dir())
    shutil.copytree(trial, second.folder / "one" / "more-t000")
    second.upload("one")
    first.publish_index("one")
    assert first.published("one") == []
    assert len(ask(remote("c"), "SELECT * FROM trials WHERE run = 'one'")[1]) == 5
