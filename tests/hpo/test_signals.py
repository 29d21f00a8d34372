"""Ctrl-C and SIGTERM: a wish first, an interruption second."""

import os
import signal
import threading

import pytest

from hpo.signals import stop_wish, terminate_as_interrupt

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def _handlers_are_put_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


def send(number):
    os.kill(os.getpid(), number)


def test_nobody_wishes_anything_at_first():
    with stop_wish() as wish:
        assert not wish.is_made


@BOTH
def test_the_first_signal_is_a_wish(number):
    with stop_wish() as wish:
        send(number)
        assert wish.is_made


@BOTH
def test_the_second_interrupts_at_once(number):
    other = {signal.SIGINT: signal.SIGTERM, signal.SIGTERM: signal.SIGINT}[number]
    reached = []
    with stop_wish() as wish:
        send(number)
        with pytest.raises(KeyboardInterrupt):
            send(other)
        assert wish.is_made
        with pytest.raises(KeyboardInterrupt):
            send(number)
        reached.append(True)
    assert reached


def test_the_wish_outlives_its_block():
    with stop_wish() as wish:
        send(signal.SIGINT)
    assert wish.is_made


def test_a_later_block_begins_without_one():
    with stop_wish():
        send(signal.SIGINT)
    with stop_wish() as wish:
        assert not wish.is_made
        send(signal.SIGINT)  # the first one again
        assert wish.is_made


def test_handlers_come_back_after_an_error():
    with pytest.raises(KeyError), stop_wish():
        raise KeyError
    with pytest.raises(KeyError), terminate_as_interrupt():
        raise KeyError


def test_handlers_come_back_after_a_second_signal():
    def press_twice():
        with stop_wish():
            send(signal.SIGINT)
            send(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_twice()


def test_sigterm_ends_as_ctrl_c_does():
    with pytest.raises(KeyboardInterrupt), terminate_as_interrupt():
        send(signal.SIGTERM)


def test_a_wish_within_comes_before_it():
    with terminate_as_interrupt():
        with stop_wish() as wish:
            send(signal.SIGTERM)
        assert wish.is_made
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)


@pytest.mark.parametrize("manager", [stop_wish, terminate_as_interrupt])
def test_outside_the_main_thread_nothing_is_changed(manager):
    seen = []

    def run():
        with manager() as wish:
            seen.append((wish, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    [(wish, *handlers)] = seen
    assert tuple(handlers) == before
    assert wish is None or not wish.is_made


def test_a_write_is_not_torn_apart(tmp_path):
    """What the wish is for: the signal comes in the middle, and all of it is done."""
    with stop_wish() as wish, (tmp_path / "file").open("w") as file:
        for index in range(100):
            file.write(f"{index}\n")
            if index == 50:
                send(signal.SIGINT)
    assert wish.is_made
    assert (tmp_path / "file").read_text().split() == [str(index) for index in range(100)]
