"""Ctrl-C as a request."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from runs import PLAIN, make_trainer

from cifarzoo import ImageSet
from cifarzoo.training.interrupt import stop_on_interrupt


def press(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request(number: signal.Signals) -> None:
    with stop_on_interrupt() as stop:
        assert not stop.requested
        press(number)
        assert stop.requested


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
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
