"""Ctrl-C as a request."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import PLAIN, make_trainer, terminate

from cifarzoo import EpochRecord, ImageSet, Logger
from cifarzoo.training.interrupt import Stopped, stop_on_interrupt

pytestmark = pytest.mark.usefixtures("hangup")
ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def press(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in ALL]


@pytest.mark.parametrize("number", ALL)
def test_the_first_signal_is_a_request(number: signal.Signals) -> None:
    with stop_on_interrupt() as stop:
        assert not stop.requested
        press(number)
        assert stop.requested


@pytest.mark.parametrize("second", ALL)
def test_the_second_signal_stops_at_once(second: signal.Signals) -> None:
    with stop_on_interrupt() as stop:
        press(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt, match="the last saved checkpoint is whole"):
            press(second)


def test_the_handlers_before_are_back_afterwards() -> None:
    before = handlers()
    with stop_on_interrupt():
        assert handlers() != before
    assert handlers() == before
    with pytest.raises(ZeroDivisionError), stop_on_interrupt():
        raise ZeroDivisionError
    assert handlers() == before


def test_after_the_block_ctrl_c_is_an_interruption_again() -> None:
    # a shell starts background jobs with Ctrl-C ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_on_interrupt():
            pass
        with pytest.raises(KeyboardInterrupt):
            press(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_changes(few: ImageSet) -> None:
    before = handlers()
    epochs: list[int] = []

    def train() -> None:
        with stop_on_interrupt() as stop:
            assert handlers() == before
            assert not stop.requested
        epochs.append(len(make_trainer(PLAIN.replace(epochs=1)).fit(few)))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert epochs == [1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_save_as_ctrl_c_does_and_say_which_they_were(
    number: signal.Signals, code: int, few: ImageSet, tmp_path: Path
) -> None:
    class Press(Logger):
        def on_epoch(self, record: EpochRecord) -> None:
            press(number)

    with pytest.raises(Stopped, match="stopped in epoch 2 after step 0; continue") as stopped:
        make_trainer(output=tmp_path, loggers=[Press()]).fit(few)
    assert stopped.value.code == code
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert len(make_trainer(output=tmp_path).fit(few, resume=True)) == 2


def test_ctrl_c_is_a_plain_interruption(few: ImageSet) -> None:
    with stop_on_interrupt() as stop:
        press(signal.SIGINT)
        assert type(stop.exception("stopped")) is KeyboardInterrupt


def test_a_hangup_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_on_interrupt() as stop:
            press(signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


@contextlib.contextmanager
def running(code: str) -> Iterator[subprocess.Popen[str]]:
    """A program of its own."""
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        yield process
        process.kill()


def test_a_program_that_does_not_catch_it_ends_with_the_status_of_the_signal() -> None:
    code = (
        "import os, signal\n"
        "from cifarzoo.training.interrupt import stop_on_interrupt\n"
        "with stop_on_interrupt() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    raise stop.exception('stopped')\n"
    )
    with running(code) as process:
        assert process.wait(60) == 143


WAITING = """
import hashlib
from cifarzoo.training.interrupt import stop_on_interrupt

with stop_on_interrupt(patience=0.2):
    print("waiting", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)  # Python takes no signal meanwhile
"""


@pytest.mark.slow
def test_a_signal_ends_a_process_that_cannot_take_it() -> None:
    with running(WAITING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        errors = terminate(process)
    assert process.returncode == 143
    assert "stopped by signal 15 while waiting for the other processes" in errors


def test_a_process_that_takes_its_signals_goes_on() -> None:
    with stop_on_interrupt(patience=0.05) as stop:
        press(signal.SIGTERM)
        time.sleep(0.2)
        assert stop.requested
