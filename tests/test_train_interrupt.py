"""Ctrl-C during training: answered at once, and what was saved can be gone on from."""

import os
import signal
import threading
import time

import chex
import pytest

from ban_jax import population
from ban_jax.training import stepping
from tests import test_train_population as populations

HANGING = 120.0
"""Seconds that the work in the test would take."""


class Hanging:
    """Long work that tells when it began and whether it was done before the test was."""

    def __init__(self):
        self.began, self.over = threading.Event(), threading.Event()
        self.done = False

    def __call__(self, *_, **__):
        self.began.set()
        self.done = not self.over.wait(HANGING)


@pytest.fixture
def hanging():
    work = Hanging()
    yield work
    work.over.set()


def press_ctrl_c(after):
    """Sends this process the signal of Ctrl-C once the event is set."""

    def press():
        after.wait()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()


def assert_interrupts(run, hanging):
    """Ctrl-C is answered while the work goes on."""
    press_ctrl_c(hanging.began)
    with pytest.raises(KeyboardInterrupt):
        list(run)
    assert not hanging.done


def resumed_equals_whole(tmp_path, **settings):
    rest = populations.Killed()
    plans = [populations.PATCH, populations.NOISE]
    resumed = list(populations.saved(plans, tmp_path, rest, chunk=2, **settings))
    assert rest.epochs == [2, 3], "the save of the first epoch was not gone on from"
    never = populations.Killed()
    whole = populations.saved(plans, tmp_path / "whole", never, chunk=2, **settings)
    for one, other in zip(whole, resumed, strict=True):
        chex.assert_trees_all_close(one.variables, other.variables, atol=1e-6)


def test_on_host_threads_in_the_middle_of_an_epoch(tmp_path, monkeypatch, hanging):
    step, plans = stepping._step, [populations.PATCH, populations.NOISE]

    def slow(state, member, order, index, images, epoch, **static):
        if epoch == 1 and index == 1:
            hanging()
        return step(state, member, order, index, images, epoch, **static)

    with monkeypatch.context() as patched:
        patched.setattr(stepping, "_step", slow)
        run = populations.saved(plans, tmp_path, populations.Killed(), chunk=2)
        assert_interrupts(run, hanging)
    hanging.over.set()
    resumed_equals_whole(tmp_path)


def test_stacked_while_a_program_is_compiled_or_runs(tmp_path, monkeypatch, hanging):
    program, plans = population.program, [populations.PATCH, populations.NOISE]

    def slow(function, placement, member, shared, size, **settings):
        if shared[1] == 1:
            hanging()
        return program(function, placement, member, shared, size, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(population, "program", slow)
        run = populations.saved(
            plans, tmp_path, populations.Killed(), chunk=2, stacked=True
        )
        assert_interrupts(run, hanging)
    hanging.over.set()
    resumed_equals_whole(tmp_path, stacked=True)


@pytest.mark.parametrize("work", ["start", "_measure"])
def test_before_the_first_epoch_and_while_figures_are_taken(
    work, tmp_path, monkeypatch, hanging
):
    """The first compiles the drawing of weights, the second that of predictions."""
    if work == "start":
        monkeypatch.setattr(populations.trainer, "start", hanging)
    else:
        monkeypatch.setattr(populations.success, "measure", hanging)
    run = populations.train([populations.PATCH])
    assert_interrupts(run, hanging)


def test_models_that_were_yielded_are_whole_whatever_happens_to_the_others(
    monkeypatch, hanging
):
    (alone,) = populations.train([populations.PATCH])
    run = populations.train([populations.PATCH, populations.NOISE], chunk=1)
    first = next(run)
    monkeypatch.setattr(stepping, "_step", hanging)
    assert_interrupts(run, hanging)
    populations.assert_same_bits(first, alone)
