"""What asks a process to end: at once, or kept back until work has come to a point where it can go on."""

import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from fairdx.core.signals import ENDING, Terminated, heed, kept_back


@pytest.fixture(autouse=True)
def _handlers_as_before():
    """Tests before these may have left others: each begins with Python's own of SIGINT."""
    before = {number: signal.getsignal(number) for number in ENDING}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ended(code):
    """Status and output of a process that runs these lines."""
    first = "import signal\nfrom fairdx.core.signals import heed, kept_back\n"
    done = subprocess.run(
        [sys.executable, "-c", first + textwrap.dedent(code)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_is_kept_back_comes_at_the_end_of_the_block_as_what_it_was(number):
    heed()
    done = []

    def work():
        with kept_back() as signals:
            signal.raise_signal(number)
            done.append(signals.asked)

    with pytest.raises(KeyboardInterrupt) as found:
        work()
    assert done == [number]
    assert type(found.value) is (Terminated if number == signal.SIGTERM else KeyboardInterrupt)
    assert signal.getsignal(number) == signal.SIG_DFL  # the next one would end the process


def test_it_can_be_delivered_earlier_and_comes_once():
    with kept_back() as signals:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signals.deliver(signals.asked)
        assert signals.asked == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_signal_nothing_changes():
    before = [signal.getsignal(number) for number in ENDING]
    with kept_back():
        pass
    assert [signal.getsignal(number) for number in ENDING] == before


def test_signals_that_somebody_else_handles_or_ignores_are_left_to_them():
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append("theirs"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heed_before = signal.getsignal(signal.SIGINT)
    with kept_back() as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert signals.asked == 0
    assert heard == ["theirs"]
    heed()
    assert signal.getsignal(signal.SIGINT) == heed_before


def test_another_thread_keeps_nothing_back():
    found = []

    def work():
        with kept_back() as signals:
            found.append((signals.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(0, signal.default_int_handler)]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_second_signal_ends_the_process_at_once(name):
    status, said = ended(
        f"""
        with kept_back():
            signal.raise_signal(signal.{name})
            print("goes on", flush=True)
            signal.raise_signal(signal.SIGTERM)
            print("never")
        """
    )
    assert (status, said) == (-signal.SIGTERM, "goes on\n")


def test_a_program_of_its_own_ends_by_the_signal_itself():
    status, said = ended(
        """
        with kept_back():
            signal.raise_signal(signal.SIGTERM)
            print("done with the step", flush=True)
        print("never")
        """
    )
    assert (status, said) == (-signal.SIGTERM, "done with the step\n")
