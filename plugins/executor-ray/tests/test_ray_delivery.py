"""Files from a node: whole or not at all, the measurement last, whatever their size."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest
from harness_executor_ray import delivery
from harness_executor_ray.delivery import PIECE_BYTES, receive

from harness import MeasurementError


class Sent:
    """Files as a node lists and reads them."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []

    def listed(self) -> list[tuple[str, int, str]]:
        return [(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in self.files.items()]

    def read(self, name: str, offset: int, length: int) -> bytes:
        assert length <= PIECE_BYTES
        if name not in self.asked:
            self.asked.append(name)
        return self.files[name][offset : offset + length]


def test_files_arrive_and_the_measurement_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delivery, "PIECE_BYTES", 7)
    sent = Sent({"measurement.json": b"{}" * 50, "items.jsonl": b"x" * 100, "deep/er/z.bin": b"", "zz": b"end"})
    receive(tmp_path, sent.listed(), sent.read)
    assert {name: (tmp_path / name).read_bytes() for name in sent.files} == sent.files
    assert sent.asked[-1] == "measurement.json"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "items.jsonl", "measurement.json", "zz"]


def test_what_is_damaged_is_not_kept_and_nothing_says_that_the_trial_is_complete(tmp_path: Path):
    sent = Sent({"measurement.json": b"{}", "items.jsonl": b"rows"})
    listed = sent.listed()
    sent.files["items.jsonl"] = b"r0ws"
    with pytest.raises(MeasurementError, match=r"items\.jsonl arrived damaged"):
        receive(tmp_path, listed, sent.read)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_became_shorter(tmp_path: Path):
    sent = Sent({"items.jsonl": b"rows"})
    listed = sent.listed()
    sent.files["items.jsonl"] = b"ro"
    with pytest.raises(MeasurementError, match="ended after 2 of 4 bytes"):
        receive(tmp_path, listed, sent.read)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", ""])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str):
    with pytest.raises(MeasurementError, match="outside of the trial's folder"):
        receive(tmp_path / "trial", [(name, 0, hashlib.sha256().hexdigest())], Sent({name: b""}).read)


def test_a_lost_node_leaves_no_part_behind(tmp_path: Path):
    def read(name: str, offset: int, length: int) -> bytes:
        if offset:
            raise ConnectionError("the node is gone")
        return b"x"

    with pytest.raises(ConnectionError):
        receive(tmp_path, [("items.jsonl", 10, "")], read)
    assert list(tmp_path.iterdir()) == []


def test_a_large_side_car_needs_no_memory(tmp_path: Path):
    """128 MiB in pieces of 4: the peak stays at a few pieces."""
    size = 128 * 2**20
    whole = hashlib.sha256()
    for _ in range(size // PIECE_BYTES):
        whole.update(bytes(PIECE_BYTES))
    tracemalloc.start()
    try:
        receive(tmp_path, [("big", size, whole.hexdigest())], lambda _name, _offset, length: bytes(length))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "big").stat().st_size == size
    assert peak < 5 * PIECE_BYTES
