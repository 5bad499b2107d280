"""The process of one role: `python -m harness_disaggregated_serving.runtime.role`, its job as JSON on standard input.

Standard input stays open: when it closes, the parent is gone and the process ends at once, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from harness.backend import Device
from harness.sample import clock_id
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.runtime.decoding import Decoder, Prefiller, Standalone
from harness_disaggregated_serving.runtime.desk import Desk, Duty
from harness_disaggregated_serving.runtime.engine import Engine
from harness_disaggregated_serving.runtime.gpus import gpu
from harness_disaggregated_serving.runtime.models import build_draft, build_target
from harness_disaggregated_serving.runtime.options import FolderModel, SeededModel
from harness_disaggregated_serving.runtime.requests import Settings
from harness_disaggregated_serving.runtime.speculating import Drafter, SpecLocal, Verifier
from harness_disaggregated_serving.transport.faults import LinkError
from harness_disaggregated_serving.transport.link import Carrier, Inbox, LinkOptions, Message
from harness_disaggregated_serving.transport.opening import connect, listen

DUTIES: Final[Mapping[tuple[Configuration, str], type[Duty]]] = {
    (Configuration.STANDALONE, "new"): Standalone,
    (Configuration.STANDALONE, "old"): Standalone,  # after the loss of `new` in `dpd`
    (Configuration.SPEC_LOCAL, "new"): SpecLocal,
    (Configuration.DPD, "new"): Prefiller,
    (Configuration.DPD, "old"): Decoder,
    (Configuration.DSD, "new"): Verifier,
    (Configuration.DSD, "old"): Drafter,
}


class Role:
    """One role: its engines, its links, and the duty of the current configuration."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job = job
        self._inbox = Inbox()
        self._secret = bytes.fromhex(job["secret"])
        self._control = LinkOptions(carrier=Carrier.TCP, timeout_s=job["timeout_s"])
        self._data = LinkOptions(
            carrier=Carrier(job["link"]["carrier"]),
            timeout_s=job["timeout_s"],
            bytes_per_s=job["link"]["bytes_per_s"],
            latency_s=job["link"]["latency_s"],
        )
        engines = self._engines()
        client = connect(job["host"], job["port"], self._secret, self._inbox, self._control, name="client")
        self._desk = Desk(role=job["role"], engines=engines, client=client, slow_down=job["slow_down"])
        self._duty: Duty | None = None
        self._ended = False

    def _engines(self) -> dict[str, Engine]:
        job = self._job
        dtype, device = getattr(torch, job["dtype"]), torch.device(job["device"])
        model = (FolderModel if "target" in job["model"] else SeededModel).model_validate(job["model"])
        build = {"target": build_target, "draft": build_draft}
        return {name: Engine(build[name](model, dtype, device), job["rows"]) for name in job["engines"]}

    def run(self) -> None:
        """Serves until the client says end or is gone."""
        self._desk.client.send(
            "hello",
            {
                "role": self._desk.role,
                "pid": os.getpid(),
                "clock": clock_id(),
                "device": dataclasses.asdict(self._device()),
                "engines": self._described(),
            },
        )
        while not self._ended:
            busy = self._duty is not None and self._duty.has_work()
            arrival = self._inbox.get(0 if busy else None)
            if arrival is not None:
                if isinstance(arrival.content, Message):
                    self._handle(arrival.content)
                elif arrival.link is self._desk.client:
                    return
                elif arrival.link is self._desk.peer:
                    self._lose_peer(arrival.content)
            elif self._duty is not None:
                self._guarded(self._duty.iterate)

    def _device(self) -> Device:
        """The device, as its driver reports it."""
        kind = torch.device(self._job["device"]).type
        return gpu(self._job["device"]) if kind == "cuda" else Device(kind=kind, uuid=kind, name="")

    def _described(self) -> dict[str, dict[str, int | None]]:
        return {
            name: {
                "bytes_per_token": engine.bytes_per_token,
                "weight_bytes": engine.weight_bytes,
                "vocabulary": engine.vocabulary,
                "context": engine.model.config.get_text_config(decoder=True).max_position_embeddings,
                "rows": engine.rows,
                "layers": engine.shape.layers,
            }
            for name, engine in self._desk.engines.items()
        }

    def _guarded(self, work: Callable[[], None]) -> None:
        """Does a duty's work; a peer that is gone ends the duty, and the link tells why."""
        try:
            work()
        except LinkError as error:
            self._lose_peer(error)

    def _lose_peer(self, error: LinkError) -> None:
        peer, self._desk.peer, self._duty = self._desk.peer, None, None
        if peer is not None:
            self._desk.tell("peer-lost", reason=f"{type(error).__name__}: {error}")
            peer.close()

    def _handle(self, message: Message) -> None:
        own = {
            "listen": self._listen,
            "join": self._join,
            "configure": self._configure,
            "drop": self._drop,
            "report": self._report,
            "end": self._end,
        }
        if message.kind in own:
            own[message.kind](message)
        elif self._duty is not None and message.fields.get("epoch") == self._desk.epoch:
            handler = self._duty.handlers.get(message.kind)
            if handler is None:
                raise ValueError(f"role {self._desk.role} has no use for a {message.kind!r}")
            self._guarded(lambda: handler(message))

    def _listen(self, message: Message) -> None:
        """Waits for the other role, after telling the client where."""
        self._data = dataclasses.replace(self._data, one_clock=message.fields["one_clock"])
        with contextlib.closing(
            listen(self._secret, self._inbox, self._data, host=message.fields["host"], name="the other role")
        ) as listener:
            self._desk.client.send("listening", {"host": listener.address[0], "port": listener.address[1]})
            self._desk.peer = listener.accept(message.fields["timeout_s"])
        self._desk.client.send("joined", {"carrier": self._desk.peer.carrier.value})

    def _join(self, message: Message) -> None:
        self._data = dataclasses.replace(self._data, one_clock=message.fields["one_clock"])
        host, port = message.fields["host"], message.fields["port"]
        self._desk.peer = connect(host, port, self._secret, self._inbox, self._data, name="the other role")

    def _configure(self, message: Message) -> None:
        desk = self._desk
        desk.settings, desk.epoch = Settings.from_json(message.fields["settings"]), message.fields["epoch"]
        configuration = desk.settings.configuration
        if desk.peer is not None and not message.fields["paired"]:
            # The other role is gone for good; what its link may still say must not end the new duty.
            desk.peer.close()
            desk.peer = None
        idle = configuration is Configuration.STANDALONE and "target" not in desk.engines
        duty = None if idle else DUTIES.get((configuration, desk.role))
        self._duty = duty(desk) if duty is not None else None
        desk.tell("configured")

    def _drop(self, message: Message) -> None:
        if self._duty is not None:
            self._duty.drop(message.fields["name"])

    def _report(self, _message: Message) -> None:
        peer = self._desk.peer
        sent = (0, 0) if peer is None else (peer.sent.body_bytes, peer.sent.overhead_bytes)
        self._desk.client.send(
            "report",
            {
                "role": self._desk.role,
                "busy_s": self._desk.busy_s,
                "cpu_s": time.process_time(),
                "body_bytes": sent[0],
                "overhead_bytes": sent[1],
            },
        )

    def _end(self, _message: Message) -> None:
        self._ended = True

    def close(self) -> None:
        """Ends both links."""
        if self._desk.peer is not None:
            self._desk.peer.close()
        self._desk.client.close()

    def explain(self, error: BaseException) -> None:
        """Tells the client why this process ends."""
        with contextlib.suppress(LinkError):
            self._desk.client.send("broken", {"reason": f"{type(error).__name__}: {error}"})


def _watch_parent() -> None:
    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        os._exit(1)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def _read_job() -> dict[str, Any]:
    """The first line of standard input, byte by byte, so that nothing behind it is swallowed."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in {b"", b"\n"}:
        line += byte
    job: dict[str, Any] = json.loads(line)
    return job


def main() -> int:
    """Runs a role; the exit code says whether it ended as asked."""
    job = _read_job()
    _watch_parent()
    torch.set_num_threads(job["threads"])
    role = Role(job)
    try:
        role.run()
    except Exception as error:
        role.explain(error)
        raise
    finally:
        role.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
