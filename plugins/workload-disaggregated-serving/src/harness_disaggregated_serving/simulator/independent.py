"""No batching: prefills in order of arrival, every request decodes at its own pace. What a hand calculation gives.

One pass over the requests: a prefill starts when the device's last one ended, a message when its prefill ended and the
link is free, decoding when its last byte arrived.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness_disaggregated_serving.carbon.power import ANY
from harness_disaggregated_serving.load.arrivals import Request
from harness_disaggregated_serving.simulator.setup import FirstToken, Setup
from harness_disaggregated_serving.simulator.tally import Flight, Tally, Union


def serve(setup: Setup, incoming: Iterable[Request], tally: Tally) -> None:
    """`standalone` and `dpd`; results go to `tally`."""
    prefill = setup.new.target_costs().prefill
    pair = setup.configuration.needs_old and setup.old is not None
    decoder = setup.old if pair and setup.old is not None else setup.new
    decode = decoder.target_costs().decode
    by_prefill = setup.first_token is FirstToken.PREFILL
    device_free = link_free = float("-inf")
    on_new, on_old = Union(), Union()
    for request in incoming:
        flight = tally.arrive(request)
        reason = setup.rejection(flight.prompt + flight.output)
        if reason is not None:
            tally.reject(reason)
            continue
        flight.started_s = max(flight.arrival_s, device_free)
        device_free = flight.started_s + prefill.seconds(flight.prompt, flight.prompt * flight.prompt)
        left = flight.output - 1 if by_prefill else flight.output
        if by_prefill:
            flight.first_s = device_free
        flight.ready_s = device_free
        if pair and left:
            link_free = send(setup, flight, device_free, link_free, tally)
        context = flight.prompt + (1 if by_prefill else 0)
        if not by_prefill:
            flight.first_s = flight.ready_s + decode.seconds(1, 1, context)
        flight.end_s = flight.ready_s + decode.seconds(left, 1, context) if left else device_free
        if pair:
            on_new.add(flight.started_s, device_free)
            if left:
                on_old.add(flight.ready_s, flight.end_s)
        else:
            on_new.add(flight.started_s, flight.end_s)
        tally.finish(flight)
    tally.busy["new"].add(ANY, on_new.length_s)
    tally.busy["old"].add(ANY, on_old.length_s)


def send(setup: Setup, flight: Flight, now_s: float, link_free_s: float, tally: Tally) -> float:
    """Sends a prompt's cache in order of arrival at the link; returns when the link is free again.

    A request whose only token came from the prefill has nothing left to decode, and nothing is sent for it.
    """
    assert setup.link is not None
    size = flight.prompt * setup.kv_bytes_per_token
    duration_s = size / setup.link.bandwidth
    freed_s = max(now_s, link_free_s) + duration_s
    flight.ready_s = freed_s + setup.link.rtt_s / 2
    flight.transfer_s = flight.ready_s - now_s
    flight.bytes_sent += size
    tally.link_busy_s += duration_s
    return freed_s
