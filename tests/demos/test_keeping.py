"""Files of a page: only its own can be named, and none stays longer than it is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rs_models.demos import keeping
from rs_models.demos.keeping import Cleaner, check_uploaded
from rs_models.errors import UserError
from tests.conftest import ROOT

LATER = 3600.0


def page(*payloads, examples=()):
    """A page as the cleaner sees it: requests in its queue, examples, gradio's sets of names."""
    events = {
        str(number): SimpleNamespace(data=SimpleNamespace(data=payload))
        for number, payload in enumerate(payloads)
    }
    return SimpleNamespace(
        _queue=SimpleNamespace(event_ids_to_events=events),
        blocks={0: SimpleNamespace(keep_in_cache=set(map(str, examples)))},
        temp_file_sets=[set()],
    )


def upload(folder, name="a.png"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"pixels")
    return folder / name


@pytest.fixture
def cleaner(tmp_path):
    return Cleaner(tmp_path, keep=60)


def test_files_go_after_their_time_and_not_before(cleaner, tmp_path):
    file = upload(tmp_path / "a" / "b")
    assert cleaner.sweep() == [] and file.exists()
    assert cleaner.sweep(time.time() + 59) == []
    assert cleaner.sweep(time.time() + 61) == [str(file)]
    cleaner.sweep(time.time() + LATER)
    assert list(tmp_path.iterdir()) == []


def test_waiting_requests_examples_and_work_in_progress_keep_their_files(cleaner, tmp_path):
    waiting, example, at_work, old = (upload(tmp_path / name) for name in "abcd")
    watched = page([{"path": str(waiting)}, 3, None], examples=[example])
    cleaner.watch(watched)
    watched.temp_file_sets[0].update(map(str, (waiting, old)))
    cleaner.held.add(str(at_work.parent))
    assert cleaner.sweep(time.time() + LATER) == [str(old)]
    assert watched.temp_file_sets == [{str(waiting)}]
    watched._queue.event_ids_to_events.clear()
    cleaner.held.clear()
    assert set(cleaner.sweep(time.time() + LATER)) == {str(waiting), str(at_work)}
    assert example.exists()


@pytest.mark.parametrize("component", ["File", "Image"])
def test_the_examples_of_a_page_stay_for_good(component, tmp_path, monkeypatch):
    """Gradio counts those of an image as its own, and those of a file as anybody's."""
    import gradio

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "kept"))
    picture = ROOT / "spaces" / "learning-signals" / "examples" / "residential.jpg"
    with gradio.Blocks() as page:
        gradio.Examples([str(picture)], getattr(gradio, component)())
    cleaner = Cleaner(tmp_path / "kept", keep=60)
    cleaner.watch(page)
    assert cleaner.sweep(time.time() + LATER) == []
    assert [file.name for file in (tmp_path / "kept").rglob("*.jpg")] == [picture.name]


def test_nothing_stays_while_many_write_at_once(tmp_path):
    cleaner, watched = Cleaner(tmp_path, keep=0), page()
    cleaner.watch(watched)
    failed, ended = [], threading.Event()

    def use(user):
        try:
            for number in range(150):
                file = upload(tmp_path / f"{user}-{number}")
                watched.temp_file_sets[0].add(str(file))
                key, event = str(file), SimpleNamespace(data=SimpleNamespace(data=[]))
                watched._queue.event_ids_to_events[key] = event
                watched.blocks[key] = SimpleNamespace(keep_in_cache=set())
                del watched._queue.event_ids_to_events[key], watched.blocks[key]
        except Exception as error:
            failed.append(error)

    def clean():
        try:
            while not ended.is_set():
                cleaner.sweep(time.time() - 0.5)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=use, args=(user,)) for user in range(16)]
    cleaning = threading.Thread(target=clean)
    for thread in (cleaning, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    cleaning.join()
    assert not failed, failed[0]
    cleaner.sweep(time.time() + LATER)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert watched.temp_file_sets == [set()]


def test_the_thread_outlives_a_round_that_fails(tmp_path, monkeypatch):
    cleaner, rounds = Cleaner(tmp_path, keep=1), []
    file = upload(tmp_path / "a")
    real = Cleaner.sweep

    def sweep(self, now=None):
        rounds.append(1)
        if len(rounds) == 1:
            raise RuntimeError("Set changed size during iteration")
        return real(self, time.time() + LATER)

    monkeypatch.setattr(Cleaner, "sweep", sweep)
    cleaner.start()
    deadline = time.monotonic() + 90
    while file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not file.exists()


def test_results_grow_old_from_the_end_of_their_request_on():
    with keeping.request():
        folder = Path(keeping.kept(np.zeros((8, 8, 3), np.uint8))).parent
        before = (folder / "picture.webp").stat().st_ctime_ns
        assert str(folder) in keeping.cleaner().held
        time.sleep(0.05)
    assert str(folder) not in keeping.cleaner().held
    assert (folder / "picture.webp").stat().st_ctime_ns > before


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/etc/no-such-file", "../../etc/passwd", "", "a\0b", "x" * 5000, "https://a/b"],
)
@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_a_file_of_the_server_is_no_upload_whether_it_is_there_or_not(path, meta):
    for payload in ([{"path": path, **meta}], [[{"image": {"path": path, **meta}}]]):
        with pytest.raises(UserError, match=r"is not, or no longer, among the uploads") as error:
            check_uploaded(payload)
        assert "/" not in str(error.value)


def test_uploads_may_be_named_and_links_out_of_them_not():
    file = upload(keeping.workspace() / "upload")
    check_uploaded([{"path": str(file)}, "a text", 3, None, {"value": [1]}])
    link = file.with_name("link.png")
    link.symlink_to("/etc/passwd")
    up = f"{file.parent}/../../../etc/passwd"
    for path in (link, up, file.with_name("gone.png"), file.parent):
        with pytest.raises(UserError, match="among the uploads"):
            check_uploaded([{"path": str(path)}])
    link.unlink()


@pytest.mark.parametrize("value", ["soon", "0", "-5", "1.5"])
def test_the_time_is_whole_seconds(value, monkeypatch):
    monkeypatch.setenv(keeping.KEEP_VARIABLE, value)
    with pytest.raises(UserError, match="whole seconds"):
        keeping.keep_seconds()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_the_workspace_along(tmp_path, number):
    program = """
        import time
        from rs_models.demos import keeping
        (keeping.workspace() / "upload.png").write_bytes(b"x")
        print(keeping.workspace(), flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    folder = Path(process.stdout.readline().strip())
    assert (folder / "upload.png").exists()
    process.send_signal(number)
    assert process.wait(20) == -number
    assert list(tmp_path.iterdir()) == []
