"""Processes that train together, one a device: started before any window, and waiting for what to do.

Rank 0 is the trial's own process. The others are its children, so that meters of its process tree read them; they join
one process group of torch.distributed (NCCL on CUDA, Gloo on a CPU), which Lightning's DDP then finds ready. Starting
Python and importing frameworks thus happens outside of what is measured.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from harness import MeasurementError, UsageError

HOST: Final = "127.0.0.1"
END_S: Final = 10.0
"""A process that was told to end is killed after this."""


def member_devices(devices: Sequence[torch.device], processes: int | None) -> tuple[torch.device, ...]:
    """The device of each process.

    Args:
        devices: of the backend.
        processes: as asked for; None for one a device. A CPU is shared by any number.

    Raises:
        UsageError: there are not as many devices.
    """
    if processes is None:
        return tuple(devices)
    if devices[0].type == "cpu":
        return (devices[0],) * processes
    if processes != len(devices):
        raise UsageError(
            f"{processes} processes on {len(devices)} devices", accepted="one process a device of the backend"
        )
    return tuple(devices)


class Member:
    """One process of several.

    Args:
        rank: its number, from 0.
        devices: of all processes, by rank.
    """

    def __init__(self, rank: int, devices: Sequence[torch.device]) -> None:
        self.rank = rank
        self.devices = tuple(devices)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return len(self.devices)

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return self.devices[self.rank]

    def trainer_settings(self) -> dict[str, Any]:
        """What Lightning's Trainer is told: the devices, DDP, and that the processes are there already."""
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from pytorch_lightning.strategies import DDPStrategy

        rank = self.rank

        class Ready(LightningEnvironment):
            """All processes run, and their group is made."""

            @property
            def creates_processes_externally(self) -> bool:
                return True

            def local_rank(self) -> int:
                return rank

            def node_rank(self) -> int:
                return 0

        cuda = self.device.type == "cuda"
        return {
            "accelerator": "gpu" if cuda else self.device.type,
            "devices": [each.index or 0 for each in self.devices] if cuda else self.size,
            "strategy": DDPStrategy(),
            "plugins": Ready(),
            "use_distributed_sampler": False,
        }

    def wait_for_device(self) -> None:
        """Waits for the queue of this process's device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def gathered(self, part: torch.Tensor) -> list[torch.Tensor]:
        """The parts of all processes, by rank, on the host."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, part.cpu())
        return found

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Element by element, the sum over all processes, on the host."""
        total = values.to(self.device, torch.float32 if self.device.type == "mps" else torch.float64)
        dist.all_reduce(total)
        return total.cpu()


class Together(Member):
    """Rank 0 with the others, each of which has made an object that it calls when it is told to.

    Args:
        devices: of all processes, by rank; two or more.
        builder: `module:function`, called in each other process with its `Member` and the arguments.
        arguments: can be pickled.

    Raises:
        MeasurementError: a process did not start.
    """

    def __init__(self, devices: Sequence[torch.device], builder: str, *arguments: object) -> None:
        super().__init__(0, devices)
        if dist.is_initialized():
            raise MeasurementError("this process trains with others already")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        try:
            store = TCPStore(HOST, 0, self.size, is_master=True, wait_for_workers=False)
            for rank in range(1, self.size):
                self._start(rank, store.port, builder, arguments)
            _join(self, store)
            self.wait()
        except BaseException:
            self.close()
            raise

    def _start(self, rank: int, port: int, builder: str, arguments: Sequence[object]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "harness_backend_torch.together", str(theirs.fileno())]
            self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),)))
        connection = Connection(ours.detach())
        self._connections.append(connection)
        settings = {"rank": rank, "devices": [str(each) for each in self.devices], "port": port}
        settings |= {"threads": torch.get_num_threads(), "builder": builder, "arguments": list(arguments)}
        connection.send(settings)

    @property
    def processes(self) -> dict[str, int]:
        """Name and process id of every process but this one."""
        return {f"rank{rank}": each.pid for rank, each in enumerate(self._processes, start=1)}

    def tell(self, method: str, *arguments: object) -> None:
        """Has every other process call a method of its object; this process does its own part meanwhile."""
        for rank, connection in enumerate(self._connections, start=1):
            try:
                connection.send((method, arguments))
            except OSError as error:
                raise MeasurementError(f"process {rank} of the training is gone: {error}") from error

    def wait(self) -> None:
        """Waits until every other process has done what it was told.

        Raises:
            MeasurementError: one of them failed, or is gone.
        """
        for rank, connection in enumerate(self._connections, start=1):
            try:
                fault = connection.recv()
            except (EOFError, OSError):
                code = self._processes[rank - 1].wait()
                raise MeasurementError(f"process {rank} of the training ended with exit code {code}") from None
            if fault:
                raise MeasurementError(f"process {rank} of the training: {fault}")

    def close(self) -> None:
        """Ends the other processes and leaves the group. May be called twice."""
        for connection in self._connections:
            connection.close()  # which ends whoever waits for what to do
        if dist.is_initialized():
            dist.destroy_process_group()
        for process in self._processes:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._connections.clear()
        self._processes.clear()


def _join(member: Member, store: TCPStore) -> None:
    """Enters the process group; all processes do so together."""
    if member.device.type == "cuda":
        torch.cuda.set_device(member.device)
    backend = "nccl" if member.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=member.rank, world_size=member.size)


def serve(connection: Connection) -> None:
    """What a process that is not rank 0 does, until its connection ends."""
    settings = connection.recv()
    torch.set_num_threads(settings["threads"])
    member = Member(settings["rank"], tuple(torch.device(each) for each in settings["devices"]))
    module, _, function = settings["builder"].partition(":")
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            _join(member, TCPStore(HOST, settings["port"], member.size, is_master=False, wait_for_workers=False))
            target = getattr(importlib.import_module(module), function)(member, *settings["arguments"])
            connection.send("")
            while True:
                method, arguments = connection.recv()
                getattr(target, method)(*arguments)
                member.wait_for_device()
                connection.send("")
        except EOFError:
            return
        except Exception as error:  # noqa: BLE001 - rank 0 tells it, and ends the trial
            traceback.print_exc()
            connection.send(f"{type(error).__name__}: {error}")
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 decides what Ctrl-C ends
    serve(Connection(int(sys.argv[1])))
    sys.stdout.flush()
    os._exit(0)  # the group's threads need no more of this process
