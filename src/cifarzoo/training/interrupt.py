"""Signals as requests: the first finishes the step, the second stops at once."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["StopRequest", "Stopped", "stop_on_interrupt"]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Stopped(KeyboardInterrupt, SystemExit):
    """A signal other than Ctrl-C has ended the run; a program that does not catch it ends too.

    Args:
        message: Where the run can go on.
        number: The signal; the program's exit status is 128 more, as that of any other.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.code = 128 + number


@dataclasses.dataclass
class StopRequest:
    """Whether somebody asked the run to stop.

    Args:
        number: The signal that did; None before.
        count: Signals that arrived.
    """

    number: int | None = None
    count: int = 0

    @property
    def requested(self) -> bool:
        """Whether a signal arrived."""
        return self.number is not None

    def exception(self, message: str) -> KeyboardInterrupt:
        """What ends the run; the caller raises it."""
        if self.number in (None, signal.SIGINT):
            return KeyboardInterrupt(message)
        return Stopped(message, self.number or signal.SIGINT)


@contextlib.contextmanager
def stop_on_interrupt(*, patience: float | None = None) -> Iterator[StopRequest]:
    """Turn the first SIGINT, SIGTERM or SIGHUP within the block into a request.

    A SIGHUP that is ignored, as under nohup, stays so. Outside the main thread, where signals
    cannot be caught, nothing changes.

    Args:
        patience: Seconds after which a signal ends the process that Python had no chance to take,
            because it waits for another process; None for never.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        stop.count += 1
        if stop.requested:
            raise stop.exception("stopped at once; the last saved checkpoint is whole")
        stop.number = number

    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    ignored = [n for n in numbers[2:] if signal.getsignal(n) == signal.SIG_IGN]
    before = {n: signal.signal(n, request) for n in numbers if n not in ignored}
    try:
        with _watched(stop, {*before}, patience) if patience else contextlib.nullcontext():
            yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _watched(stop: StopRequest, numbers: set[int], patience: float) -> Iterator[None]:
    """End the process when its main thread does not take a signal in time.

    Python takes a signal between two of its own steps, and a process that waits for another one
    makes none. The system's own handler writes a byte at once, which a thread reads.
    """
    inlet, outlet = socket.socketpair()
    outlet.setblocking(False)
    ended = threading.Event()

    def watch() -> None:
        arrived = 0
        while number := inlet.recv(1):
            if number[0] not in numbers:
                continue
            arrived += 1
            if not ended.wait(patience) and stop.count < arrived:
                logging.getLogger("cifarzoo").error(
                    "stopped by signal %d while waiting for the other processes of the run; the "
                    "last saved checkpoint is whole",
                    number[0],
                )
                os._exit(128 + number[0])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(outlet.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        ended.set()
        outlet.close()
        thread.join()
        inlet.close()
