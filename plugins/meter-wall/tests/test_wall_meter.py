"""The meter `wall` against answers in the layout of the makers' own documentation; numbers are made up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness_meter_wall import WallOptions, harness_meters
from harness_meter_wall.devices import SHEETS, found_at
from harness_meter_wall.meter import WallMeter
from pydantic import ValidationError

from harness import MeasurementError, MeterContext, Method, Scope, Unavailable
from harness.quantity import Amount
from harness.sample import Cumulative
from harness.testing import FakeClock, check_meter, check_offers
from harness.units import nanoseconds

MADE: list[WallMeter] = []


@pytest.fixture(autouse=True)
def hung_up() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


def meter_of(threaded: bool = False, clock: Any = None, **options: Any) -> WallMeter:
    given = {} if clock is None else {"clock": clock}
    MADE.append(WallMeter(WallOptions.model_validate(options), threaded=threaded, **given))
    return MADE[-1]


def opened(meter: WallMeter) -> Scope:
    found = meter.open(MeterContext())
    assert isinstance(found, Mapping), found
    (scope,) = found.values()
    assert isinstance(scope, Scope), scope
    return scope


def refused(meter: WallMeter) -> str:
    found = meter.open(MeterContext())
    lost = next(iter(found.values())) if isinstance(found, Mapping) else found
    assert isinstance(lost, Unavailable), lost
    return lost.reason


def shown_w(meter: WallMeter) -> float:
    opened(meter)
    (watts,) = meter.read().watts.values()
    assert watts is not None
    return watts


def counted_j(meter: WallMeter, change: Any) -> float:
    """Joules that a counter adds when the device's answer is changed."""
    opened(meter)
    change()
    meter.poll()
    (state,) = meter.read().joules.values()
    assert isinstance(state, Cumulative)
    return state.joules


def test_the_offer_imports_nothing_heavy() -> None:
    (spec,) = harness_meters()
    assert not spec.auto
    check_offers("harness_meter_wall")


# https://shelly-api-docs.shelly.cloud/gen2/ComponentsAndServices/Switch, "Status"; about: /Shelly, "GetDeviceInfo".
SECOND = {"id": "shellyplusplugs-1", "gen": 2, "model": "SNPL-00112EU", "auth_en": False}
SWITCH = {
    "id": 0, "source": "WS_in", "output": True, "apower": 83.4, "voltage": 230.1, "current": 0.38,
    "aenergy": {"total": 11.679, "by_minute": [0.0, 0.0, 0.0], "minute_ts": 1654511972},
    "temperature": {"tC": 53.3, "tF": 127.9},
}  # fmt: skip
# https://shelly-api-docs.shelly.cloud/gen1/#shelly-plug-plugs-meter-0 and #shelly-plug-plugs-status.
FIRST = {"type": "SHPLG-S", "mac": "AABBCC", "auth": False, "fw": "20230913", "num_meters": 1}
METER = {"power": 8.45, "is_valid": True, "timestamp": 1623070125, "counters": [2.6, 0.0, 0.0], "total": 28}
# https://tasmota.github.io/docs/Commands/#management (Status 8), JSON as of energy plugs.
TASMOTA = {
    "StatusSNS": {
        "Time": "2024-05-01T12:00:00",
        "ENERGY": {
            "TotalStartTime": "2023-01-01T00:00:00", "Total": 3.185, "Yesterday": 3.058, "Today": 0.127, "Power": 42,
            "ApparentPower": 50, "ReactivePower": 10, "Factor": 0.84, "Voltage": 230, "Current": 0.217,
        },
    }
}  # fmt: skip


def test_a_shelly_of_the_second_generation(device: Any) -> None:
    device.answers = {"/shelly": SECOND, "/rpc/Switch.GetStatus?id=0": SWITCH}
    meter = meter_of(kind="shelly", url=device.url)
    scope = opened(meter)
    assert (scope.method, scope.gain, scope.offset_w) == (Method.WALL, 0.01, 0.05)
    assert meter.read().watts == {"n0/host": 83.4}


def test_its_counter_of_watt_hours_and_their_step(device: Any) -> None:
    device.answers = {"/shelly": SECOND, "/rpc/Switch.GetStatus?id=0": SWITCH}
    more = {**SWITCH, "aenergy": {"total": 12.679}}
    meter = meter_of(kind="shelly", url=device.url, source="energy")
    assert counted_j(meter, lambda: device.answers.update({"/rpc/Switch.GetStatus?id=0": more})) == pytest.approx(3600)


# https://shelly-api-docs.shelly.cloud/gen2/ComponentsAndServices/PM1 and /EM, "Status".
@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/rpc/PM1.GetStatus?id=0", {"id": 0, "voltage": 230.0, "current": 0.1, "apower": 23.5, "freq": 50.0}),
        ("/rpc/EM.GetStatus?id=0", {"id": 0, "a_act_power": 7.5, "total_current": 0.2, "total_act_power": 23.5}),
    ],
)
def test_meters_of_the_second_generation_that_switch_nothing(device: Any, path: str, answer: Any) -> None:
    device.answers = {"/shelly": SECOND, path: answer}
    assert shown_w(meter_of(kind="shelly", url=device.url)) == 23.5


def test_a_shelly_of_the_first_generation_counts_watt_minutes(device: Any) -> None:
    device.answers = {"/shelly": FIRST, "/meter/0": METER}
    assert shown_w(meter_of(kind="shelly", url=device.url)) == 8.45
    meter = meter_of(kind="shelly", url=device.url, source="energy")
    assert counted_j(meter, lambda: device.answers.update({"/meter/0": {**METER, "total": 30}})) == pytest.approx(120)


def test_a_first_generation_that_shows_its_status_only(device: Any) -> None:
    device.answers = {"/shelly": FIRST, "/status": {"relays": [{"ison": True}], "meters": [METER], "uptime": 1}}
    assert shown_w(meter_of(kind="shelly", url=device.url)) == 8.45


def test_a_reading_that_the_device_calls_invalid(device: Any) -> None:
    device.answers = {"/shelly": FIRST, "/meter/0": {**METER, "is_valid": False}}
    assert "not valid" in refused(meter_of(kind="shelly", url=device.url))


def test_a_plug_with_tasmota(device: Any) -> None:
    device.answers = {"/cm?cmnd=Status%208": TASMOTA}
    assert shown_w(meter_of(kind="tasmota", url=device.url)) == 42.0
    meter = meter_of(kind="tasmota", url=device.url, source="energy")
    more = {"StatusSNS": {"ENERGY": {"Total": 3.187}}}
    assert counted_j(meter, lambda: device.answers.update({"/cm?cmnd=Status%208": more})) == pytest.approx(7200)


def test_an_outlet_of_several_with_tasmota(device: Any) -> None:
    device.answers = {"/cm?cmnd=Status%208": {"StatusSNS": {"ENERGY": {"Power": [5, 17], "Total": 1.0}}}}
    assert shown_w(meter_of(kind="tasmota", url=device.url, channel=1)) == 17.0


def test_any_json(device: Any) -> None:
    device.answers = {"/api/state": {"meters": [{"kw": "0.125"}, {"kw": None}]}}
    given = {"kind": "json", "url": device.url, "path": "/api/state", "unit": "kW"}
    assert shown_w(meter_of(**given, field="meters[0].kw")) == 125.0
    assert "not a number" in refused(meter_of(**given, field="meters[1].kw"))
    assert "no 'meters[7].kw'" in refused(meter_of(**given, field="meters[7].kw"))
    assert opened(meter_of(**given, field="meters[0].kw")).gain is None


def test_a_field_in_json() -> None:
    assert found_at([{"a": {"b-c": [1, 2.5]}}], "[0].a.b-c[1]") == 2.5
    with pytest.raises(MeasurementError):
        found_at({"a": True}, "a")


# DMTF DSP2043 mockups, public-rackmount1: Chassis/1U/Power; DSP8010 EnvironmentMetrics.v1_3.
CHASSIS = {"Members@odata.count": 1, "Members": [{"@odata.id": "/redfish/v1/Chassis/1U"}]}
POWER = {
    "@odata.type": "#Power.v1_7_1.Power",
    "PowerControl": [
        {
            "MemberId": "0", "Name": "Server Power Control", "PowerConsumedWatts": 344, "PowerCapacityWatts": 800,
            "PowerMetrics": {"IntervalInMin": 30, "MinConsumedWatts": 271, "AverageConsumedWatts": 319},
        }
    ],
}  # fmt: skip
METRICS = {
    "@odata.type": "#EnvironmentMetrics.v1_3_0.EnvironmentMetrics",
    "PowerWatts": {"DataSourceUri": "/redfish/v1/Chassis/1U/Sensors/TotalPower", "Reading": 374},
    "EnergykWh": {"Reading": 325.675},
}


def test_a_service_processor_by_redfish(device: Any) -> None:
    device.answers = {"/redfish/v1/Chassis": CHASSIS, "/redfish/v1/Chassis/1U/Power": POWER}
    assert shown_w(meter_of(kind="redfish", url=device.url)) == 344.0
    device.answers["/redfish/v1/Chassis/1U/EnvironmentMetrics"] = METRICS
    assert shown_w(meter_of(kind="redfish", url=device.url)) == 374.0
    meter = meter_of(kind="redfish", url=device.url, source="energy", path="/redfish/v1/Chassis/1U")
    more = {**METRICS, "EnergykWh": {"Reading": 325.676}}
    change = lambda: device.answers.update({"/redfish/v1/Chassis/1U/EnvironmentMetrics": more})  # noqa: E731
    assert counted_j(meter, change) == pytest.approx(3600)


def test_a_service_processor_without_power(device: Any) -> None:
    device.answers = {"/redfish/v1/Chassis": CHASSIS}
    assert "no chassis" in refused(meter_of(kind="redfish", url=device.url))


# ipmitool, lib/ipmi_dcmi.c, ipmi_print_power_reading.
DCMI = """
    Instantaneous power reading:                   220 Watts
    Minimum during sampling period:                 18 Watts
    Maximum during sampling period:                444 Watts
    Average power reading over sample period:      203 Watts
    IPMI timestamp:                           Tue Dec  1 09:01:33 2026
    Sampling period:                          00000002 Seconds.
    Power reading state is:                   activated

"""


def test_ipmi_by_dcmi(ipmitool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ipmitool / "answer").write_text(DCMI, encoding="ascii")
    meter = meter_of(kind="ipmi")
    scope = opened(meter)
    assert meter.read().watts == {"n0/host": 220.0}
    assert scope.sensor is not None
    assert scope.sensor.window_s == 2.0
    monkeypatch.setenv("BMC_WORD", "s3cret")
    opened(meter_of(kind="ipmi", host="bmc-7", username="me", password_env="BMC_WORD"))
    called = (ipmitool / "called").read_text(encoding="ascii")
    assert called.strip() == "-I lanplus -H bmc-7 -U me -E dcmi power reading password=s3cret"


@pytest.mark.parametrize(
    ("answer", "code", "why"),
    [
        ("Could not open device at /dev/ipmi0", 1, "modprobe"),
        (DCMI.replace("activated", "deactivated"), 0, "deactivated"),
        ("gibberish", 0, "no power"),
    ],
)
def test_ipmi_that_does_not_answer(ipmitool: Path, answer: str, code: int, why: str) -> None:
    (ipmitool / "answer").write_text(answer, encoding="ascii")
    (ipmitool / "code").write_text(str(code), encoding="ascii")
    assert why in refused(meter_of(kind="ipmi"))


def test_ipmi_without_its_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install ipmitool" in refused(meter_of(kind="ipmi"))


# Each maker's MIB: rPDU2OutletMeteredStatusPower, measurementsOutletSensorValue, outletWatts, outletPower.
@pytest.mark.parametrize(
    ("pdu", "outlet", "objects"),
    [
        ("apc", "3", {"1.3.6.1.4.1.318.1.1.26.9.4.3.1.7.3": 151}),
        (
            "raritan",
            "1.3",
            {"1.3.6.1.4.1.13742.6.5.4.3.1.4.1.3.5": 1510, "1.3.6.1.4.1.13742.6.3.5.4.1.7.1.3.5": 1},
        ),
        ("eaton", "0.3", {"1.3.6.1.4.1.534.6.6.7.6.5.1.3.0.3": 151}),
        ("servertech", "1.1.3", {"1.3.6.1.4.1.1718.3.2.3.1.14.1.1.3": 151}),
    ],
)
def test_an_outlet_of_a_rack(agent: Any, pdu: str, outlet: str, objects: dict[str, int]) -> None:
    agent.numbers = objects
    assert shown_w(meter_of(kind="snmp", host=agent.host, pdu=pdu, outlet=outlet)) == 151.0


def test_any_object_and_a_community_from_the_environment(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACK_COMMUNITY", "rack-7")
    agent.numbers = {"1.3.6.1.4.1.9.9": 2500}
    given = {"kind": "snmp", "host": agent.host, "oid": "1.3.6.1.4.1.9.9", "unit": "mW"}
    assert shown_w(meter_of(**given, community_env="RACK_COMMUNITY")) == 2.5
    assert set(agent.communities) == {"rack-7"}
    agent.numbers = {}
    assert "no number" in refused(meter_of(**given))


def test_the_steps_of_a_rack_s_counter_are_in_its_bound(agent: Any) -> None:
    clock = FakeClock()
    oid = "1.3.6.1.4.1.318.1.1.26.9.4.3.1.11.3"  # rPDU2OutletMeteredStatusEnergy, in tenths of a kWh
    agent.numbers = {oid: 7}
    meter = meter_of(clock=clock, kind="snmp", host=agent.host, pdu="apc", outlet="3", source="energy")
    opened(meter)
    for index in range(120):
        clock.advance(1.0)
        agent.numbers = {oid: 7 + (index > 60)}  # 500 W for these two minutes, as one whole tenth
        meter.poll()
    found = meter.between(nanoseconds(10.0), nanoseconds(110.0))["n0/host"].amount
    assert isinstance(found, Amount)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 500.0 * 100.0 <= found.high


def test_an_object_in_kilowatts_is_known_to_half_of_one(agent: Any) -> None:
    agent.numbers = {"1.3.6.1.4.1.9.9": 2}
    scope = opened(meter_of(kind="snmp", host=agent.host, oid="1.3.6.1.4.1.9.9", unit="kW"))
    assert scope.offset_w == 500.0


def test_a_community_that_is_not_set_is_not_replaced_by_none(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RACK_COMMUNITY", raising=False)
    given = {"kind": "snmp", "host": agent.host, "pdu": "apc", "outlet": "3", "community_env": "RACK_COMMUNITY"}
    assert "RACK_COMMUNITY is not set" in refused(meter_of(**given))
    assert not agent.communities


def test_a_rack_that_is_silent() -> None:
    pytest.importorskip("pysnmp")
    given = {"kind": "snmp", "host": "127.0.0.1:9", "pdu": "apc", "outlet": "1", "timeout": "200ms"}
    assert "127.0.0.1" in refused(meter_of(**given))


def test_a_plug_that_is_unplugged_in_a_window(device: Any) -> None:
    clock = FakeClock()
    device.answers = {"/cm?cmnd=Status%208": TASMOTA}
    meter = meter_of(clock=clock, kind="tasmota", url=device.url)
    opened(meter)
    for index in range(60):
        clock.advance(0.5)
        if index == 20:
            device.answers = {}
        meter.poll()
    found = meter.between(nanoseconds(3.0), nanoseconds(28.0))["n0/host"].amount
    assert isinstance(found, Unavailable)
    assert "404" in found.reason
    (now,) = meter.read().joules.values()
    assert isinstance(now, Unavailable)


def test_a_window_of_a_steady_load_lies_in_its_bound(device: Any) -> None:
    clock = FakeClock()
    device.answers = {"/cm?cmnd=Status%208": TASMOTA}
    meter = meter_of(clock=clock, kind="tasmota", url=device.url)
    opened(meter)
    for _ in range(100):
        clock.advance(0.5)
        meter.poll()
    found = meter.between(nanoseconds(5.0), nanoseconds(45.0))["n0/host"].amount
    assert isinstance(found, Amount)
    assert found.value == pytest.approx(42 * 40)
    assert found.low == pytest.approx(42 * 40 * 0.97 - 20, rel=0.01)


def test_milliwatts_taken_for_watts_are_refused(device: Any) -> None:
    device.answers = {"/p": {"power": 83_400}}
    given = {"kind": "json", "url": device.url, "path": "/p", "field": "power", "max_power_w": 3680}
    assert "unit" in refused(meter_of(**given, unit="W"))
    assert shown_w(meter_of(**given, unit="mW")) == pytest.approx(83.4)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "shelly"},
        {"kind": "ipmi", "url": "http://a"},
        {"kind": "json", "url": "http://a", "field": "x"},
        {"kind": "snmp", "host": "a", "pdu": "apc"},
        {"kind": "snmp", "host": "a", "oid": "1.3"},
        {"kind": "ipmi", "source": "energy"},
        {"kind": "shelly", "url": "http://admin:word@plug"},
        {"kind": "ipmi", "host": "-oProxy; rm"},
    ],
)
def test_options_that_cannot_be_meant(given: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, MeasurementError)):
        WallOptions.model_validate(given)


def test_every_kind_has_a_data_sheet_and_keeps_the_contract(device: Any) -> None:
    device.answers = {"/cm?cmnd=Status%208": TASMOTA}
    assert all(sheet.note for sheet in SHEETS.values())
    check_meter(meter_of(True, kind="tasmota", url=device.url, poll="10ms"), MeterContext())
