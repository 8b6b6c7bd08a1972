"""Writing beside and renaming, replacing folders, and folders that belong to one job."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from rs_models.errors import UserError
from rs_models.files import (
    claim,
    complete,
    new_folder,
    read_job,
    replace_folder,
    replaced,
    scratch,
    settle,
    sha256,
    write_json,
    write_text,
    written,
)
from tests.conftest import ROOT

DEAD = 2**22 + 7  # above the largest process number that Linux gives


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_old_or_new_and_never_a_part(tmp_path):
    place = tmp_path / "deep" / "a.tif"
    write_text(place, "old")
    with pytest.raises(RuntimeError), written(place) as partial:
        assert partial.suffix == ".tif"  # writers go by it
        partial.write_text("half")
        raise RuntimeError
    assert place.read_text() == "old"
    assert names(place.parent) == ["a.tif"]
    write_json(place, {"a": [1]})
    assert json.loads(place.read_text()) == {"a": [1]}


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(IsADirectoryError), written(tmp_path / "a.csv"):
        pytest.fail("before anything is computed")
    with pytest.raises(OSError), written(tmp_path / "new" / ("n" * 254)) as partial:
        partial.write_text("a name that is too long beside its place")
    assert names(tmp_path) == ["a.csv"]


def test_what_a_dead_process_left_of_the_same_file_is_removed(tmp_path):
    (tmp_path / f".a[1].{DEAD}.partial.txt").write_text("half")
    (tmp_path / f".b.{DEAD}.partial.txt").write_text("of another file")
    (tmp_path / f".a[1].{os.getppid()}.partial.txt").write_text("of a living process")
    write_text(tmp_path / "a[1].txt", "new")
    assert names(tmp_path) == [
        f".a[1].{os.getppid()}.partial.txt",
        f".b.{DEAD}.partial.txt",
        "a[1].txt",
    ]


def test_a_folder_is_replaced_whole(tmp_path):
    final = tmp_path / "export"
    for text in ("first", "second"):
        with replaced(final) as partial:
            (partial / "weights").write_text(text)
    with pytest.raises(RuntimeError), replaced(final) as partial:
        (partial / "weights").write_text("half")
        raise RuntimeError
    assert (final / "weights").read_text() == "second"
    assert names(tmp_path) == ["export"]
    assert final.stat().st_mode & 0o777 == 0o755


def test_a_replacement_that_was_broken_off_is_settled(tmp_path):
    final, previous = tmp_path / "export", tmp_path / ".export.previous"
    previous.mkdir()
    (previous / "weights").write_text("old")
    settle(final)  # killed between the two renames: the old folder is back
    assert (final / "weights").read_text() == "old" and not previous.exists()
    previous.mkdir()
    settle(final)  # killed before the old one was removed
    assert names(tmp_path) == ["export"]
    new = tmp_path / "new"
    new.mkdir()
    replace_folder(new, final)
    assert names(final) == []


def test_what_is_being_written_is_no_content_of_a_folder(tmp_path):
    """A killed study's half-written result was taken for a result."""
    from rs_models.evaluation.results import read_all

    with written(tmp_path / "results" / "b.json") as partial:
        partial.write_text('{"model"')
        assert complete(tmp_path / "results", "*.json") == []
        assert complete(tmp_path, "**/*.json") == [] and read_all(tmp_path) == []
    assert complete(tmp_path, "**/*.json") == [tmp_path / "results" / "b.json"]
    assert complete(tmp_path / "missing", "*") == []


def test_what_another_machine_writes_is_left_alone_for_a_day(tmp_path):
    ours = f".a.{DEAD}-0@{socket.gethostname().replace('.', '_')}.partial"
    running, abandoned = f".a.{DEAD}-0@node-1.partial", f".a.{DEAD}-0@node-2.partial"
    for name in (ours, running, abandoned):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / abandoned, (time.time() - 2 * 86_400,) * 2)
    with replaced(tmp_path / "a"):
        pass
    assert names(tmp_path) == [running, "a"]


def test_two_writers_of_a_process_do_not_meet(tmp_path):
    place = tmp_path / "a.txt"
    with written(place) as first, written(place) as second:
        first.write_text("first")
        second.write_text("second")
    assert place.read_text() == "first"  # it ended last
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("first_stays", "kept"), [(True, "other"), (False, "own")])
def test_a_folder_that_another_process_finished_first(tmp_path, first_stays, kept):
    with replaced(tmp_path / "a", first_stays=first_stays) as partial:
        (partial / "weights").write_text("own")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "weights").write_text("other")
    assert (tmp_path / "a" / "weights").read_text() == kept
    assert names(tmp_path) == ["a"]


def test_of_several_who_replace_one_folder_each_ends_well(tmp_path):
    """Without a lock about a quarter of these replacements raised."""
    program = (
        "import sys\nfrom rs_models.files import replaced\n"
        "for number in range(100):\n"
        "    with replaced(sys.argv[1]) as partial:\n"
        "        for name in 'ab':\n"
        "            (partial / name).write_text(f'{sys.argv[2]} {number}')\n"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "f"), who], cwd=ROOT)
        for who in "123"
    ]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f" / "a").read_text() == (tmp_path / "f" / "b").read_text()


def test_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_the_same_job_goes_on_and_another_is_refused(tmp_path):
    folder, job = tmp_path / "out", {"n": 1, "bands": ("red",)}
    with claim(folder, job) as known:
        assert not known
        assert read_job(folder)["held_by"]["pid"] == os.getpid()
    assert read_job(folder) == {"job": {"n": 1, "bands": ["red"]}}
    (folder / f".shard.{DEAD}.partial.parquet").write_text("half")
    (folder / "shard.parquet").write_text("whole")
    with claim(folder, dict(reversed(job.items()))) as known:
        assert known
    assert names(folder) == ["job.json", "shard.parquet"]
    with (
        pytest.raises(UserError, match=r"holds another job \(n differ\)"),
        claim(folder, {**job, "n": 2}),
    ):
        pass
    with pytest.raises(UserError, match=r"\(n differ\)"), claim(folder, {"bands": ["red"]}):
        pass


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"), claim(tmp_path, {}):
        pass
    assert names(tmp_path) == ["thesis.txt"]
    with claim(tmp_path, {}, adopts=lambda folder: (folder / "thesis.txt").exists()) as known:
        assert not known
    with pytest.raises(UserError, match="is a file"), claim(tmp_path / "thesis.txt", {}):
        pass


def test_a_damaged_record_is_told(tmp_path):
    for text in ("", "[]", '{"job": 3}'):
        (tmp_path / "job.json").write_text(text)
        with pytest.raises(UserError, match=r"job\.json"), claim(tmp_path, {}):
            pass


def test_a_job_killed_before_its_record_can_start_again(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / f".job.{DEAD}.partial.json").write_text("{")
    with claim(folder, {"n": 1}) as known:
        assert not known
    assert names(folder) == ["job.json"]


def test_a_second_run_is_told_who_holds_the_folder_and_a_kill_frees_it(tmp_path):
    folder = tmp_path / "out"
    code = (
        "import sys, time\nfrom rs_models.files import claim\n"
        "with claim(sys.argv[1], {'n': 1}):\n    print('in', flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with pytest.raises(UserError, match=rf"worked on by process {other.pid} "):
            with claim(folder, {"n": 1}):
                pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    finally:
        other.kill()
    deadline = time.monotonic() + 10
    with claim(folder, {"n": 1}) as known:
        assert known and time.monotonic() < deadline
    assert names(folder) == ["job.json"]


def test_a_folder_of_intermediate_work_is_renewed_for_another_job(tmp_path):
    folder = tmp_path / "rows"
    with pytest.raises(KeyboardInterrupt), claim(folder, {"step": 1}, renews=True):
        (folder / "0.npy").write_text("half")
        raise KeyboardInterrupt
    with claim(folder, {"step": 1}, renews=True) as known:
        assert known and (folder / "0.npy").exists()
    with claim(folder, {"step": 2}, renews=True) as known:
        assert not known and not (folder / "0.npy").exists()
        with pytest.raises(UserError, match="worked on by process"):
            with claim(folder, {"step": 3}, renews=True):
                pass
    (folder / "job.json").write_text("not JSON")
    with claim(folder, {"step": 2}, renews=True) as known:
        assert not known


def test_scratch_leaves_nothing_and_removes_what_a_killed_process_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch("a-job") as folder:
        (folder / "weights").write_text("x")
        assert folder.parent == tmp_path and folder.stat().st_mode & 0o077 == 0
        process = str(os.getpid())
    assert not list(tmp_path.iterdir())
    dead = tmp_path / folder.name.replace(process, str(DEAD))
    dead.mkdir()
    (dead / "weights").write_text("x")
    with pytest.raises(KeyError), scratch("a-job"):
        assert not dead.exists()
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_job_that_raises_before_it_writes_leaves_the_folder_as_it_was(tmp_path):
    for folder in (tmp_path / "new", tmp_path):
        with pytest.raises(UserError, match="no such data"), claim(folder, {"n": 1}):
            raise UserError("no such data")
        assert names(tmp_path) == []
    with claim(tmp_path, {"n": 2}):  # not the job that came to nothing
        (tmp_path / "rows").touch()
    with pytest.raises(UserError, match="no such data"), claim(tmp_path, {"n": 2}):
        raise UserError("no such data")
    assert names(tmp_path) == ["job.json", "rows"]


def test_a_new_folder_is_made_by_one_run_at_a_time(tmp_path):
    target = tmp_path / "set"
    with new_folder(target) as partial:
        (partial / "a").write_text("1")
        with (
            pytest.raises(UserError, match=r"set is being worked on by process"),
            new_folder(target),
        ):
            pass
        assert not target.exists()
    assert (target / "a").read_text() == "1" and os.listdir(tmp_path) == ["set"]
    with pytest.raises(UserError, match="set exists: choose another folder"), new_folder(target):
        pass
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "other") as partial:
        (partial / "b").write_text("2")
        _ = 1 / 0
    assert os.listdir(tmp_path) == ["set"]
    # Another, faster process has put one there meanwhile: it stays.
    with pytest.raises(UserError, match="exists"), new_folder(tmp_path / "late") as partial:
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "theirs").write_text("3")
    assert sorted(os.listdir(tmp_path)) == ["late", "set"]
    assert os.listdir(tmp_path / "late") == ["theirs"]


def test_what_a_killed_maker_left_is_removed_by_the_next(tmp_path):
    work = tmp_path / ".set.making"
    work.mkdir()
    (work / "job.json").write_text('{"job": {"makes": "set"}, "held_by": {"pid": 1}}')
    left = tmp_path / f".set.{DEAD}-0@{socket.gethostname().replace('.', '_')}.partial"
    left.mkdir()
    with new_folder(tmp_path / "set") as partial:
        (partial / "a").write_text("1")
    assert os.listdir(tmp_path) == ["set"]
