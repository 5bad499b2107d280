"""Fakes of what a machine has: a clock and a powercap tree.

The accelerator with a known power curve is `harness.builtin.simulated.SimulatedAccelerator`; NVML is in `nvml`.
"""

from __future__ import annotations

from pathlib import Path

from harness.units import nanoseconds, seconds


class FakeClock:
    """A monotonic clock that goes only when it is told to.

    Args:
        start_ns: its first reading.

    Examples:
        >>> clock = FakeClock()
        >>> clock.sleep(0.5)
        >>> clock.s
        1.5
    """

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        self._now_ns = start_ns

    def __call__(self) -> int:
        """The time in nanoseconds, as `time.monotonic_ns`."""
        return self._now_ns

    monotonic_ns = __call__

    @property
    def s(self) -> float:
        """The time in seconds."""
        return seconds(self._now_ns)

    def advance(self, duration_s: float) -> int:
        """Lets time pass; returns the new reading."""
        self._now_ns += nanoseconds(duration_s)
        return self._now_ns

    def sleep(self, duration_s: float) -> None:
        """Lets time pass, as `time.sleep`."""
        self.advance(duration_s)


class PowercapTree:
    """A powercap tree in a folder, as the kernel shows it, with counters that a test sets.

    Args:
        root: an empty folder; give it to meter `rapl` as option `root`, and `read_text` as its reader.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._faults: dict[Path, OSError] = {}

    def zone(self, folder: str, name: str, energy_uj: int = 0, range_uj: int = 65_712_999_613) -> Path:
        """Makes a zone such as `intel-rapl:0` or, inside it, `intel-rapl:0:1`; returns its folder."""
        parts = folder.split(":")
        path = self.root
        for depth in range(2, len(parts) + 1):
            path /= ":".join(parts[:depth])
        path.mkdir(parents=True, exist_ok=True)
        (path / "name").write_text(name + "\n", encoding="ascii")
        (path / "max_energy_range_uj").write_text(f"{range_uj}\n", encoding="ascii")
        self.set_energy(path, energy_uj)
        return path

    def set_energy(self, zone: Path, energy_uj: int) -> None:
        """Sets a zone's counter, in microjoules."""
        (zone / "energy_uj").write_text(f"{energy_uj}\n", encoding="ascii")

    def make_unreadable(self, zone: Path) -> None:
        """Takes the permission away, also from root: through the file mode and through `read_text`."""
        (zone / "energy_uj").chmod(0)
        self.fail(zone, PermissionError(13, "Permission denied"))

    def fail(self, zone: Path, error: OSError) -> None:
        """Makes every read of a zone's counter through `read_text` fail."""
        self._faults[zone / "energy_uj"] = error

    def heal(self, zone: Path) -> None:
        """Makes a zone readable again."""
        (zone / "energy_uj").chmod(0o644)
        self._faults.pop(zone / "energy_uj", None)

    def read_text(self, path: Path) -> str:
        """Reads a file of the tree, or raises the fault that was set."""
        if path in self._faults:
            raise self._faults[path]
        return path.read_text(encoding="ascii")
