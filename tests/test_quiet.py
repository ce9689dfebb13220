"""Warnings of other libraries are ignored in any number of threads, and only there."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from uniadrs_scale.errors import Quiet


class Expected(UserWarning):
    pass


def test_threads_that_leave_in_any_order_let_no_warning_through() -> None:
    quiet = Quiet(Expected, "of no use")
    entered, left = threading.Barrier(2), threading.Event()

    def first() -> None:
        with quiet:
            entered.wait(60)
        left.set()

    def second() -> None:
        with quiet:
            entered.wait(60)
            assert left.wait(60)
            warnings.warn("of no use", Expected, stacklevel=1)

    with ThreadPoolExecutor(2) as pool:
        for task in [pool.submit(first), pool.submit(second)]:
            task.result()


def test_the_filters_are_as_before_afterwards() -> None:
    before = list(warnings.filters)
    quiet = Quiet(Expected, "of no use")
    with quiet, quiet:
        warnings.warn("of no use", Expected, stacklevel=1)
        with pytest.warns(Expected):
            warnings.warn("of some use", Expected, stacklevel=1)
    assert list(warnings.filters) == before
    with pytest.warns(Expected):
        warnings.warn("of no use", Expected, stacklevel=1)


def test_a_filter_of_the_user_stays() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "of no use", Expected)
        before = list(warnings.filters)
        with Quiet(Expected, "of no use"):
            pass
        assert list(warnings.filters) == before
