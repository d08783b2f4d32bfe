"""Signals become a flag."""

import signal

import pytest

from vqm_jax import stopping


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_told(number, caplog):
  before = signal.getsignal(number)
  with stopping.StopRequest('leaving soon.') as stop:
    assert stop.signal is None
    signal.raise_signal(number)
    assert stop.signal == number
  assert signal.getsignal(number) == before
  assert f'{number.name} received: leaving soon.' in caplog.text


def test_the_second_interrupt_interrupts():
  with pytest.raises(KeyboardInterrupt), stopping.StopRequest('x'):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
