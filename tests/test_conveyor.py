"""Calls overlap on a device that works late, and each gets the scores of its own tiles."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin_device import LateDevice, LateQueue

from uniadrs_scale.detector.gpu import Conveyor

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from torch import Tensor


def tiles_of(call: int, number: int = 2, side: int = 3) -> np.ndarray:
    shape = (number, 2, side, side)
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1000 * call


def difference(tiles: Tensor) -> Tensor:
    return tiles[:, 1] - 3 * tiles[:, 0]


def expected(call: int, number: int = 2, side: int = 3) -> np.ndarray:
    tiles = tiles_of(call, number, side)
    return tiles[:, 1] - 3 * tiles[:, 0]


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 3), max_size=12))
def test_any_order_of_events_gives_each_call_its_scores(
    dice: random.Random, steps: list[int]
) -> None:
    """Calls begin and end in any order, the device does some of its work in between."""
    device = LateDevice(dice)
    conveyor, open_calls = Conveyor(device), []
    for call, some in enumerate(steps):
        tiles = tiles_of(call)
        open_calls.append((call, conveyor.submit(tiles, difference)))
        tiles[:] = -1  # the caller may use its array again at once
        for _ in range(some):
            device.step()
        while open_calls and dice.random() < 0.5:
            done, collect = open_calls.pop(dice.randrange(len(open_calls)))
            np.testing.assert_array_equal(collect(), expected(done))
    for done, collect in open_calls:
        np.testing.assert_array_equal(collect(), expected(done))


def test_two_slots_serve_any_number_of_calls_two_at_a_time() -> None:
    device = LateDevice()
    conveyor = Conveyor(device)
    waiting = conveyor.submit(tiles_of(0), difference)
    for call in range(1, 9):
        following = conveyor.submit(tiles_of(call), difference)
        np.testing.assert_array_equal(waiting(), expected(call - 1))
        waiting = following
    assert device.allocated == 2 * 4


def test_the_next_tiles_travel_while_tiles_are_scored() -> None:
    """Overlap itself: a device that has not computed anything yet can bring all tiles there."""
    device = LateDevice()
    conveyor = Conveyor(device)
    calls = [conveyor.submit(tiles_of(n), difference) for n in range(3)]
    bring, compute, _ = device.queues
    while bring.step():
        pass
    assert not bring.work
    assert len(compute.work) == 3 * 3  # wait, score, mark
    assert [c()[0, 0, 0] for c in calls] == [expected(n)[0, 0, 0] for n in range(3)]


class AtOnce(LateQueue):
    def run(self, work: Callable[[], object]) -> None:
        work()


class PromptDevice(LateDevice):
    def queue(self) -> AtOnce:
        return AtOnce(self)


def test_two_detectors_do_not_append_at_the_same_time() -> None:
    """Else one would end the settings of torch that the other needs: they are the process's."""
    inside, most = [], []

    def work(tiles: Tensor) -> Tensor:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return difference(tiles)

    conveyors = [Conveyor(PromptDevice()) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: conveyors[k % 2].submit(tiles_of(k), work), range(12)))
    assert max(most) == 1


def test_scores_are_the_callers_own() -> None:
    conveyor = Conveyor(LateDevice())
    first = conveyor.submit(tiles_of(0), difference)()
    conveyor.submit(tiles_of(1), difference)()
    np.testing.assert_array_equal(first, expected(0))


def test_another_shape_gets_other_slots() -> None:
    conveyor = Conveyor(LateDevice())
    for number, side in ((2, 3), (1, 3), (2, 5), (2, 3)):
        got = conveyor.submit(tiles_of(7, number, side), difference)()
        np.testing.assert_array_equal(got, expected(7, number, side))
    assert len(conveyor._idle) == 1


def test_a_call_that_fails_leaves_the_others_alone() -> None:
    def broken(tiles: Tensor) -> Tensor:
        raise MemoryError

    conveyor = Conveyor(LateDevice())
    before = conveyor.submit(tiles_of(1), difference)
    failing = conveyor.submit(tiles_of(2), broken)
    np.testing.assert_array_equal(before(), expected(1))
    with pytest.raises(MemoryError):
        failing()
    assert len(conveyor._idle) == 1  # the failed call's memory is given up


def test_threads_share_it() -> None:
    conveyor = Conveyor(Direct())

    def one(call: int) -> np.ndarray:
        return conveyor.submit(tiles_of(call), difference)()

    with ThreadPoolExecutor(4) as pool:
        for call, got in enumerate(pool.map(one, range(200))):
            np.testing.assert_array_equal(got, expected(call))
    assert len(conveyor._idle) <= 4


class Direct(LateDevice):
    """Does everything at once, in the thread that asks: for real threads."""

    def queue(self) -> Direct:  # type: ignore[override]
        return self

    def run(self, work):
        work()

    def mark(self) -> Direct:
        return self

    def after(self, mark: object) -> None:
        pass

    def synchronize(self) -> None:
        pass
