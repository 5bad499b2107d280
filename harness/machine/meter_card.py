"""The meter card: what a meter's self-test found, for which device and driver, and until when it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from platformdirs import user_data_path

from harness import __version__
from harness.errors import MeasurementError
from harness.machine.fingerprint import digest
from harness.quantity import Method, Unavailable
from harness.sample import Scope
from harness.sensor import PowerSensor

VALID: Final = timedelta(days=30)
HARDWARE: Final = (Method.COUNTER, Method.INTEGRATED, Method.WALL)
"""Methods that a self-test says something about; a model follows the load by construction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """How the counter followed a square wave.

    Attributes:
        period_s: of the wave.
        deviations: per phase, measured minus true share of busy time, by energy above idle; 0 for a perfect counter.
    """

    period_s: float
    deviations: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardKey:
    """What a card is valid for; any change makes it stale. An empty text or None stands for "not reported"."""

    device: str
    driver: str = ""
    firmware: str = ""
    power_limit_w: float | None = None
    harness_version: str = __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterCard:
    """What the self-test found; None where it could not tell, with the reason in `missing`.

    Attributes:
        key: what it is valid for.
        meter: name of the meter.
        scope: scope tested.
        measured_utc: when, ISO 8601.
        update_period_s: period of the counter; None for one that is renewed at every poll.
        jitter_s: standard deviation of the period, the polling's own included.
        poll_s: median interval of the polling: nothing finer is resolved.
        smallest_increment_j: least increase seen.
        idle_w: power without load, from two reads with nothing between them.
        busy_w: power under load.
        lag_s: mean delay of the energy behind a step of the load; the load's own delay is in it.
        rise_s: time from 10 % to 90 % of a step, resolved to one update.
        averaging_width_s: width of a moving average that would have this lag.
        sampled_fraction: part of the update period that the sensor looks at; 1 if it sees all.
        waves: all square waves.
        read_median_s: time of one read.
        read_p95_s: likewise.
        sampling_share: share of one core that reading takes at the meter's own rate.
        failed_reads: reads that gave nothing.
        gain: measured over true energy, minus one.
        reference: what true energy was taken from; empty where nothing told it.
        scale: by which a reading is multiplied, and
        shift_w: the watts added to it, so that it agrees with the reference.
        sensor: what the readings are by this test, in place of what is published of the class; None where the test
            cannot tell. Its gain and offset are what `scale` and `shift_w` leave open, the reference's own error
            included; without a reference they mean nothing, and the class's stay.
        flags: `aliasing possible`.
        missing: name of a field, or of a part of the test, -> why there is no value.
        written_as: id in the file that it was read from; empty for one that was made here.
    """

    key: CardKey
    meter: str
    scope: str
    measured_utc: str
    update_period_s: float | None
    jitter_s: float | None
    poll_s: float
    smallest_increment_j: float
    idle_w: float | None
    busy_w: float
    lag_s: float | None = None
    rise_s: float | None = None
    averaging_width_s: float | None = None
    sampled_fraction: float | None = None
    waves: tuple[Wave, ...] = ()
    read_median_s: float
    read_p95_s: float
    sampling_share: float
    failed_reads: int = 0
    gain: float | None = None
    reference: str = ""
    scale: float = 1.0
    shift_w: float = 0.0
    sensor: PowerSensor | None = None
    flags: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    written_as: str = field(default="", compare=False, repr=False)

    @property
    def id(self) -> str:
        """Digest of all that the card held when it was written, by whichever version."""
        return self.written_as or digest(self._content(), 16)

    def _content(self) -> dict[str, Any]:
        content = asdict(self)
        del content["written_as"]
        return content

    def to_json(self) -> str:
        """The card as JSON, its id included."""
        content = self._content()
        return json.dumps({"id": digest(content, 16), **content}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> MeterCard:
        """A card from its JSON; raises MeasurementError for what is none, or was changed.

        Fields that this version does not know, as another one wrote them, are passed over.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            identity = raw.pop("id")
            content_id = digest(raw, 16)
            raw["key"] = CardKey(**_known(CardKey, raw["key"]))
            raw["waves"] = tuple(
                Wave(period_s=wave["period_s"], deviations=tuple(wave["deviations"])) for wave in raw["waves"]
            )
            sensor = raw.get("sensor")
            raw["sensor"] = PowerSensor(**_known(PowerSensor, sensor)) if sensor is not None else None
            card = cls(**{**_known(cls, raw), "flags": tuple(raw["flags"]), "written_as": str(identity)})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MeasurementError(f"not a meter card: {error}") from error
        if content_id != identity:
            raise MeasurementError(f"meter card {identity} was changed: its content has the id {content_id}")
        return card


def _known(kind: type[Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """What of a mapping are fields of a dataclass."""
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in raw.items() if name in names}


def stale(card: MeterCard, now: datetime, key: CardKey | None = None) -> str:
    """Why a card is no longer valid, or an empty string: a changed key, or an age of 30 days.

    Args:
        card: the card.
        now: with its time zone.
        key: what the meter is now; None compares the harness's version only.
    """
    current = replace(card.key, harness_version=__version__) if key is None else key
    for name, before in asdict(card.key).items():
        if getattr(current, name) != before:
            return f"{name} was {before!r} and is {getattr(current, name)!r}"
    age = now - datetime.fromisoformat(card.measured_utc)
    return f"it is {age.days} days old" if age >= VALID else ""


def key_of(scope: str, what: Scope, facts: Mapping[str, Any]) -> CardKey:
    """What a card is valid for, from a meter's facts: its `driver`, and per device `firmware` and `power_limit_w`."""
    device = what.device or scope
    own = facts.get("devices", {}).get(device, {})
    limit = own.get("power_limit_w", facts.get("power_limit_w"))
    return CardKey(
        device=device,
        driver=str(facts.get("driver") or ""),
        firmware=str(own.get("firmware") or facts.get("firmware") or ""),
        power_limit_w=float(limit) if isinstance(limit, int | float) else None,
    )


def cards_folder() -> Path:
    """Where this user's cards are kept."""
    return user_data_path("joule-harness") / "meter-cards"


def card_path(meter: str, scope: str, device: str, folder: Path) -> Path:
    """Where the card of a meter, scope and device is kept; a new one takes the place of the old one."""
    return folder / f"{digest([meter, scope, device], 16)}.json"


class FoundCard(NamedTuple):
    """The card of a scope, or why there is none that holds."""

    card: MeterCard | None
    why_not: str = ""


def find(meter: str, scope: str, what: Scope, facts: Mapping[str, Any], folder: Path | None = None) -> FoundCard:
    """The card of a meter's scope on this machine, if it is valid now.

    Args:
        meter: name of the meter.
        scope: name of the scope.
        what: its description.
        facts: what the meter says of itself and its devices: a card is for one driver and one power limit.
        folder: of the cards; by default this user's.
    """
    key = key_of(scope, what, facts)
    path = card_path(meter, scope, key.device, folder or cards_folder())
    try:
        card = MeterCard.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return FoundCard(None)
    except (OSError, UnicodeDecodeError, MeasurementError) as error:
        return FoundCard(None, f"meter card {path} cannot be used: {error}")
    if why := stale(card, datetime.now(UTC), key):
        return FoundCard(None, f"meter card {card.id} is stale: {why}")
    return FoundCard(card)


def card_state(meter: str, scope: str, what: Scope | Unavailable, facts: Mapping[str, Any]) -> str:
    """For a reader: a scope's card and until when it holds, why it does not, or how to make one; empty for a model."""
    if isinstance(what, Unavailable) or what.method not in HARDWARE:
        return ""
    card, why_not = find(meter, scope, what, facts)
    if card is None:
        return why_not or "none: `harness doctor --self-test` makes one"
    until = datetime.fromisoformat(card.measured_utc) + VALID
    return f"{card.id}, valid until {until:%Y-%m-%d}" + ("" if card.sensor else ", sensor not found")
