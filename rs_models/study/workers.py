"""Jobs side by side: one process a device, each a fresh accelerate environment.

A worker that dies (no memory, a crash in a library) costs its job and nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import UserError
from .config import Job

# Outcome of a job: "done", "stopped", or what went wrong.
Report = Callable[[Job, str, float], None]


def devices(workers: int | None) -> list[dict[str, Any]]:
    """What each worker gets: a GPU, or a share of the cores.

    Args:
        workers: How many; None is one a GPU, or one.

    Raises:
        UserError: Fewer than one.
    """
    import torch

    if workers is not None and workers < 1:
        raise UserError(f"The setting workers is {workers}: it must be 1 or more.")
    gpus = torch.cuda.device_count()
    count = workers or max(1, gpus)
    if gpus:
        return [{"gpu": number % gpus} for number in range(count)]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not cores:
        return [{} for _ in range(count)]
    return [
        {"cores": cores[number::count] or [cores[number % len(cores)]]} for number in range(count)
    ]


def run_all(jobs: Sequence[Job], places: Sequence[dict[str, Any]], report: Report) -> bool:
    """Runs jobs, one at a time on each place; calls `report` after each, from any thread.

    Args:
        jobs: In the order in which they start.
        places: From `devices`.
        report: Told the job, its outcome and its seconds.

    Returns:
        Whether all were tried; False after SIGTERM or Ctrl-C, when running jobs save and stop.
    """
    waiting: SimpleQueue[Job] = SimpleQueue()
    for job in jobs:
        waiting.put(job)
    stopping = threading.Event()
    context = multiprocessing.get_context("spawn")
    with _signals(stopping):
        threads = [
            threading.Thread(target=_serve, args=(context, place, waiting, stopping, report))
            for place in places[: max(1, len(jobs))]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return not stopping.is_set()


def _serve(
    context: Any,
    place: dict[str, Any],
    waiting: SimpleQueue[Job],
    stopping: threading.Event,
    report: Report,
) -> None:
    """Feeds one worker until nothing waits; starts another where one has died."""
    worker: Any = None
    pipe: Any = None
    while not stopping.is_set():
        try:
            job = waiting.get_nowait()
        except Empty:
            break
        if worker is None or not worker.is_alive():
            pipe, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(theirs, place), daemon=True)
            worker.start()
            theirs.close()
        started = time.perf_counter()
        pipe.send(job)
        told = False
        while not pipe.poll(0.5):
            if stopping.is_set() and not told:
                os.kill(worker.pid, signal.SIGTERM)  # the run saves and stops
                told = True
            if not worker.is_alive():
                break
        try:
            outcome = pipe.recv()
        except EOFError:
            worker.join()
            # A measurement does not save: SIGTERM ends it, and the same command repeats it.
            asked = told and worker.exitcode == -signal.SIGTERM
            outcome = "stopped" if asked else f"the process died (exit code {worker.exitcode})"
        report(job, outcome, time.perf_counter() - started)
    if worker is not None and worker.is_alive():
        pipe.close()
        worker.join(10)
        if worker.is_alive():
            worker.terminate()


def _work(pipe: Any, place: dict[str, Any]) -> None:
    """A worker: jobs in, outcomes out, until the pipe closes."""
    if "gpu" in place:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(place["gpu"])
    if "cores" in place:
        os.sched_setaffinity(0, place["cores"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        # What a run prints goes to its own log.
        log = Path(job.folder) / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            outcome = outcome_of(job)
        try:
            pipe.send(outcome)
        except OSError:  # nobody listens any more
            return


def outcome_of(job: Job) -> str:
    """Does a job: "done", "stopped", or what went wrong, in a sentence where it is no defect."""
    from ..settings.script import sentence_of

    try:
        from ..trainer.loop import set_threads
        from .measure import run_job

        set_threads()
        return run_job(job)
    except UserError as error:
        return str(error)
    except Exception as error:  # any failure is the job's alone
        traceback.print_exc()
        told = sentence_of(error)
        return told[0] if told else f"{type(error).__name__}: {error}".splitlines()[0]


def _end_with_the_study() -> None:
    """Stops this worker's run, which saves, once the study's process has died.

    It would go on for hours, and hold the cell's folder against the study that is started again.
    """
    study = multiprocessing.parent_process()
    if study is not None:
        study.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _signals(stopping: threading.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C ask for a stop instead of ending the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: stopping.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
