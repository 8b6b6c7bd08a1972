"""Rates and other values over a training, against what the authors' code printed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rs_models import schedules


def test_warm_restart_is_that_of_false(golden):
    points = json.loads((golden / "false_lr_schedule.json").read_text())
    ours = [schedules.warm_restart(4.8, 0.0048, where) for where in points["where"]]
    assert ours == pytest.approx(points["lr"], abs=1e-9)


def test_warm_restart_rises_once_more_and_ends_low():
    rates = [schedules.warm_restart(1.0, 0.01, step / 1000) for step in range(1001)]
    assert max(rates) < 1.0 and rates[99] > 0.98 and rates[0] == 0.125
    assert rates[100] < 0.76  # it jumps down where the warm-up ends
    turns = np.diff(np.sign(np.diff(rates[100:]))).nonzero()[0] + 101
    assert [round(t / 1000, 1) for t in turns] == [0.4, 0.7]  # a valley and a crest
    assert rates[turns[0]] == pytest.approx(0.01, abs=1e-4)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize("warmup", [0.0, 0.25, 1.0])
def test_warm_restart_takes_any_warm_up(warmup):
    rates = [schedules.warm_restart(1.0, 0.0, step / 8, warmup=warmup) for step in range(9)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[0] == (0.125 if warmup else pytest.approx(0.75, abs=0.01))
    if warmup == 0.25:
        assert rates[1] == pytest.approx((0.125 + 1) / 2)
    if warmup == 1.0:
        assert rates == pytest.approx([0.125 + 0.875 * step / 8 for step in range(9)])


def test_dinos_schedules(golden):
    stored = np.load(golden / "dino.npz")
    rates = [schedules.dino(1e-3, 1e-6, step, total=20, warmup=8) for step in range(20)]
    assert rates == pytest.approx(stored["lr_schedule_base1e-3_end1e-6_ep5_it4_warm2"], abs=1e-12)
    momentum = [schedules.cosine(0.996, 1.0, step, 20) for step in range(20)]
    assert momentum == pytest.approx(stored["mom_schedule_0.996_1_ep5_it4"], abs=1e-12)
    decay = [schedules.cosine(0.04, 0.4, step, 20) for step in range(20)]
    assert decay == pytest.approx(stored["wd_schedule_0.04_0.4_ep5_it4"], abs=1e-12)
    temperature = [schedules.linear(0.04, 0.07, epoch, 3) for epoch in range(6)]
    assert temperature == pytest.approx(stored["teacher_temp_schedule"], abs=1e-12)


def test_lines_and_cosines_meet_their_ends():
    assert [schedules.linear(1.0, 3.0, step, 5) for step in (0, 2, 4, 9)] == [1.0, 2.0, 3.0, 3.0]
    assert [schedules.linear(1.0, 3.0, step, length) for step, length in ((0, 1), (0, 0))] == [3, 3]
    assert schedules.cosine(1.0, 0.2, 0, 10) == 1.0
    assert schedules.cosine(1.0, 0.2, 5, 10) == pytest.approx(0.6)
    assert schedules.cosine(1.0, 0.2, 10, 10) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("total", "warmup", "rates"),
    [
        (4, 0, [1.0, 0.868198, 0.55, 0.231802, 0.1]),  # straight into the cosine
        (4, 1, [1.0, 1.0, 0.775, 0.325, 0.1]),  # one step of warm-up is at the peak already
        (4, 4, [0.0, 1 / 3, 2 / 3, 1.0, 1.0]),  # nothing but warm-up
        (0, 0, [1.0]),
    ],
)
def test_dino_with_little_or_nothing_but_warm_up(total, warmup, rates):
    ours = [schedules.dino(1.0, 0.1, step, total, warmup) for step in range(total + 1)]
    assert ours == pytest.approx(rates, abs=1e-6)
