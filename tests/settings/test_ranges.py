"""Every number of every settings class: what means nothing is refused by name, in one sentence."""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated, Any

import pytest
import yaml

from rs_models.commands.resample import ResampleConfig
from rs_models.data.collect.run import CollectConfig
from rs_models.errors import UserError
from rs_models.evaluation.probe import ProbeConfig
from rs_models.settings import Length, Range, build, check_ranges, parse, run_script
from rs_models.study.config import StudyConfig
from rs_models.tasks.finetuning.config import FinetuneConfig
from rs_models.trainer.config import RunConfig

CLASSES = (RunConfig, FinetuneConfig, ProbeConfig, CollectConfig, StudyConfig, ResampleConfig)
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))


def settings_of(cls: type, prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted name and declaration of every setting, groups opened."""
    found: list[tuple[str, Any]] = []
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        groups = [
            option
            for option in (hint, *typing.get_args(hint))
            if isinstance(option, type) and dataclasses.is_dataclass(option)
        ]
        if groups:
            found += settings_of(groups[0], f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", hint))
    return found


def numbers(hint: Any, limits: tuple[Any, ...] = (), depth: int = 0) -> list[tuple[Any, ...]]:
    """(type, ranges, how deep in lists) of each number that a declaration allows."""
    if typing.get_origin(hint) is Annotated:
        inner, *own = typing.get_args(hint)
        return numbers(inner, (*limits, *own), depth)
    if typing.get_origin(hint) is list:
        return numbers(typing.get_args(hint)[0], (), depth + 1)
    if hint in (int, float):
        return [(hint, limits, depth)]
    return [
        n
        for option in typing.get_args(hint)
        if not isinstance(option, str)
        for n in numbers(option, (), depth)
    ]


def bad_values(kind: type, limits: tuple[Any, ...]) -> list[Any]:
    """Values beyond each end of the ranges, and those that are no finite number."""
    bad = list(NOT_FINITE)
    step = 1 if kind is int else 0.5
    for limit in limits:
        if isinstance(limit, Range):
            bad += [limit.least - step] if limit.least is not None else []
            bad += [limit.most + step] if limit.most is not None else []
            bad += [b for b in (limit.above, limit.below) if b is not None]
    return bad


TABLE = [
    (cls, key, [value] if depth else value)
    for cls in CLASSES
    for key, hint in settings_of(cls)
    for kind, limits, depth in numbers(hint)
    for value in bad_values(kind, limits)
]


def nested(key: str, value: Any) -> dict[str, Any]:
    *groups, last = key.split(".")
    values: dict[str, Any] = {last: value}
    for group in reversed(groups):
        values = {group: values}
    return values


@pytest.mark.parametrize(
    ("cls", "key", "value"), TABLE, ids=[f"{c.__name__}-{k}-{v}" for c, k, v in TABLE]
)
def test_a_value_that_means_nothing_is_refused_by_name(cls, key, value, tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(nested(key, value)))
    assert run_script(lambda argv: parse(cls, argv) and 0, ["--config", str(file)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {key}") and told.count("\n") == 1, told


def test_the_table_reaches_the_settings_that_were_accepted_without_a_word():
    keys = {(cls, key) for cls, key, _ in TABLE}
    for cls, key in (
        (RunConfig, "data.limit"),
        (RunConfig, "evaluation.limit"),
        (RunConfig, "optimizer.warmup_epochs"),
        (RunConfig, "optimizer.momentum"),
        (RunConfig, "optimizer.final_lr_ratio"),
        (CollectConfig, "rate"),
        (ProbeConfig, "batch_size"),
        (StudyConfig, "seeds"),
        (FinetuneConfig, "learning_rate"),
    ):
        assert (cls, key) in keys
    assert len(TABLE) > 250


@pytest.mark.parametrize("cls", CLASSES, ids=[c.__name__ for c in CLASSES])
def test_every_number_says_what_it_may_be(cls):
    bare = [k for k, hint in settings_of(cls) for _, limits, _ in numbers(hint) if not limits]
    assert bare == []


@pytest.mark.parametrize(
    ("cls", "values", "words"),
    [
        (ProbeConfig, {"protocols": []}, r"protocols=\[\] should hold 1 or more values"),
        (StudyConfig, {"seeds": [1, 1]}, r"seeds=\[1, 1\] should hold different values"),
        (RunConfig, {"optimizer": {"betas": [0.9]}}, r"betas=\[0.9\] should hold 2 values"),
        (RunConfig, {"trackers": ["wandbb"]}, "did you mean wandb"),
        (RunConfig, {"method": {"temperature": float("nan")}}, "method.temperature=nan"),
    ],
)
def test_lists_and_free_groups_are_checked_too(cls, values, words):
    with pytest.raises(UserError, match=words):
        build(cls, values)


def test_what_is_made_in_python_is_checked_by_the_same_ranges():
    config = RunConfig(batch_size=0)
    with pytest.raises(UserError, match="batch_size=0 should be 1 or more"):
        config.check()
    config = FinetuneConfig()
    config.data.ignored_classes = [256]
    with pytest.raises(UserError, match=r"data.ignored_classes\[0\]=256 should be 255 or less"):
        check_ranges(config)
    for cls in CLASSES:
        check_ranges(cls())


def test_a_length_may_have_both_ends():
    Length(2, 2).check("pair", [1, 2])
    with pytest.raises(UserError, match="should hold 2 values"):
        Length(2, 2).check("pair", [1, 2, 3])
