"""A kill before every file operation of a command, the command again, and what differs.

    kills = campaign(["finetune", "output_dir={out}/run", ...], tmp_path)
    assert not kills.faults, kills.faults

`campaigns` does so for several commands.

The command runs unbroken once; its file operations below the watched folder are counted. Then, once
for each of them, it is killed (SIGKILL) before that operation, or in the middle of the write that
the operation opens, and started again. What then lies there must equal what the unbroken run left,
to the byte (but for dates), and nothing else may lie beside it.

Runs are forks of one process that has imported everything and computed nothing, so a trial costs
what the command computes and no more.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What opens files behind Python's back: module, attribute; the path is named by its position.
NATIVE = (
    ("safetensors.torch", "serialize_file", 1),
    ("safetensors.numpy", "serialize_file", 1),
    ("torch._C", "PyTorchFileWriter", 0),
    ("pyarrow.parquet.core", "ParquetWriter", 0),
)
TRACEBACK = 98  # exit code of an exception that reached the top
_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_DATES = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")


def undated(path: str, content: bytes) -> bytes:
    """A file's content without instants, which no two runs share."""
    return _DATES.sub(b"DATE", content)


@dataclass(frozen=True)
class Trial:
    """One kill and what the same command made of it.

    Attributes:
        number: Of the operation, from 0.
        how: "before" it, or "half": in the middle of the write that it opens.
        operation: The operation, e.g. "open run/finetune.yaml".
        exit_code: Of the command started again.
        said: Last lines of the command started again.
        missing: Files that the unbroken run has.
        extra: Files that it has not.
        differing: Files with another content.
    """

    number: int
    how: str
    operation: str
    exit_code: int
    said: str
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    @property
    def fault(self) -> str | None:
        """One line; None where the kill did no harm."""
        wrong = [
            f"{word} {', '.join(files)}"
            for word, files in (
                ("missing", self.missing),
                ("extra", self.extra),
                ("differing", self.differing),
            )
            if files
        ]
        if self.exit_code:
            wrong.append(f"exit {self.exit_code}: {self.said[-400:]}")
        if not wrong:
            return None
        return f"killed {self.how} operation {self.number} ({self.operation}): {'; '.join(wrong)}"


@dataclass(frozen=True)
class Campaign:
    """What came of all kills.

    Attributes:
        operations: Of the unbroken run, in order.
        trials: A kill each.
    """

    operations: tuple[str, ...]
    trials: tuple[Trial, ...] = field(default=())

    @property
    def faults(self) -> list[str]:
        """A line for each kill that did harm."""
        return [trial.fault for trial in self.trials if trial.fault]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of `rs-models` and where it is killed.

    Attributes:
        argv: The command and its arguments; `{out}` is the watched folder. What the command reads
            lies elsewhere.
        again: The command that goes on, where it is another (`pretrain ... --resume`).
        prepare: Function of a module, as "module:name", that each run calls before it begins.
        start: Folder whose files lie in the watched folder before each run.
        every: 1 kills at each operation, 5 at each fifth.
        how: "before" an operation, "half" way through the write that it opens, or both.
        only: Regular expression of the operations to kill at.
        normalise: Content to be compared, of a path below the watched folder and a content.
    """

    argv: Sequence[str]
    again: Sequence[str] | None = None
    prepare: str = ""
    start: Path | None = None
    every: int = 1
    how: Sequence[str] = ("before", "half")
    only: str = ""
    normalise: Callable[[str, bytes], bytes] = undated


def campaign(
    argv: Sequence[str],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float = 3000,
    **how: Any,
) -> Campaign:
    """Kills one command at its file operations, see `campaigns`.

    Args:
        argv: The command and its arguments.
        folder: Scratch folder of the test.
        environment: Further variables.
        timeout: Seconds for all of it.
        **how: Further attributes of `Command`.

    Returns:
        The operations and the trials.
    """
    command = Command(argv=argv, **how)
    return campaigns({"it": command}, folder, environment=environment, timeout=timeout)["it"]


def campaigns(
    commands: Mapping[str, Command],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float = 3000,
) -> dict[str, Campaign]:
    """Kills commands at their file operations, all in forks of one process.

    Args:
        commands: Name -> command.
        folder: Scratch folder of the test.
        environment: Further variables.
        timeout: Seconds for all of it.

    Returns:
        Name -> the operations and the trials. Temporary files of the commands (TMPDIR) are watched
        too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    specs = [
        {
            "argv": list(command.argv),
            "again": list(command.again or command.argv),
            "prepare": command.prepare,
            "start": str(command.start) if command.start else None,
            "every": command.every,
            "how": list(command.how),
            "only": command.only,
            "folder": str((folder / name).resolve()),
        }
        for name, command in commands.items()
    ]
    (folder / "specs.json").write_text(json.dumps(specs))
    quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.kills", str(folder / "specs.json")],
        cwd=ROOT,
        env={**os.environ, **quiet, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: _read(folder / name, command) for name, command in commands.items()}


def _read(folder: Path, command: Command) -> Campaign:
    report = json.loads((folder / "report.json").read_text())
    keep = folder / "kept"  # contents by hash, for `normalise`

    def content(path: str, key: str) -> str:
        if key == "folder":
            return key
        return hashlib.sha256(command.normalise(path, (keep / key).read_bytes())).hexdigest()

    whole = {path: content(path, key) for path, key in report["unbroken"]["files"].items()}
    trials = []
    for trial in report["trials"]:
        files = {path: content(path, key) for path, key in trial["files"].items()}
        trials.append(
            Trial(
                number=trial["number"],
                how=trial["how"],
                operation=trial["operation"],
                exit_code=trial["exit_code"],
                said=trial["said"],
                missing=tuple(sorted(whole.keys() - files.keys())),
                extra=tuple(sorted(files.keys() - whole.keys())),
                differing=tuple(
                    sorted(p for p in whole.keys() & files.keys() if whole[p] != files[p])
                ),
            )
        )
    return Campaign(tuple(report["operations"]), tuple(trials))


class _Watch:
    """Counts this process's file operations below a folder, and dies at one of them."""

    def __init__(self, root: str, dies_at: int | None, how: str) -> None:
        self.root, self.dies_at, self.how = root, dies_at, how
        self.operations: list[str] = []
        self._written: tuple[str, int] | None = None  # path and size before, of the last write
        self._busy = False

    def start(self) -> None:
        """From now on."""
        for module, name, position in NATIVE:
            if module in sys.modules and hasattr(sys.modules[module], name):
                self._wrap(sys.modules[module], name, position)
        sys.addaudithook(self._heard)

    def _wrap(self, module: Any, name: str, position: int) -> None:
        plain = getattr(module, name)
        watch = self
        if isinstance(plain, type) and module.__name__.startswith("pyarrow"):

            class Watched(plain):  # type: ignore[valid-type, misc]
                def __init__(self, *args: Any, **keys: Any) -> None:
                    watch._native(args, position)
                    super().__init__(*args, **keys)

            setattr(module, name, Watched)
            return

        def watched(*args: Any, **keys: Any) -> Any:
            watch._native(args, position)
            return plain(*args, **keys)

        setattr(module, name, watched)

    def _native(self, args: Sequence[Any], position: int) -> None:
        if len(args) > position and isinstance(args[position], str | os.PathLike):
            self._operation("open", os.fspath(args[position]), writes=True)

    def _heard(self, event: str, args: tuple) -> None:
        if self._busy or (event != "open" and event not in _CHANGES):
            return
        if event == "open":
            path, mode, flags = args
            if isinstance(path, int) or path is None:
                return
            if not (set(mode or "") & set("wax+") or (isinstance(flags, int) and flags & _WRITES)):
                return
            self._operation("open", path, writes=True)
        elif event in ("os.rename", "os.link"):
            self._operation(event, args[1], args[3] if len(args) > 3 else -1)
        elif event == "os.symlink":
            self._operation(event, args[1])
        else:
            self._operation(event, args[0], args[-1])

    def _operation(self, event: str, path: Any, at: Any = -1, *, writes: bool = False) -> None:
        self._busy = True
        try:
            place = os.fsdecode(path)
            if not os.path.isabs(place) and isinstance(at, int) and at >= 0:
                place = os.path.join(os.readlink(f"/proc/self/fd/{at}"), place)
            place = os.path.abspath(place)
            if not place.startswith(self.root + os.sep):
                return
            number = len(self.operations)
            if number == self.dies_at and self.how == "before":
                _die()
            if self._written is not None and number - 1 == self.dies_at:
                self.cut()
            size = os.path.getsize(place) if os.path.isfile(place) else 0
            self._written = (place, size) if writes else None
            if self.how == "half" and number == self.dies_at and not writes:
                _die()
            self.operations.append(f"{event} {os.path.relpath(place, self.root)}")
        finally:
            self._busy = False

    def cut(self) -> None:
        """Leaves half of what the last write has written, and dies."""
        if self._written is not None:
            path, before = self._written
            with suppress(OSError):
                size = os.path.getsize(path)
                before = before if size > before else 0  # written anew, not added to
                os.truncate(path, before + (size - before) // 2)
        _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _run(
    argv: Sequence[str],
    folder: Path,
    prepare: str,
    dies_at: int | None = None,
    how: str = "before",
) -> tuple[int, str, list[str], list[str]]:
    """Exit code (negative by a signal), output, operations, and modules of a fork's run."""
    out, log, facts = folder / "work" / "out", folder / "log", folder / "facts.json"
    facts.unlink(missing_ok=True)
    sys.stdout.flush(), sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = TRACEBACK
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1), os.dup2(descriptor, 2)
            os.chdir(folder)
            if prepare:
                module, _, name = prepare.partition(":")
                getattr(import_module(module), name)()
            watch = _Watch(str(folder / "work"), dies_at, how)
            watch.start()
            from rs_models.cli import main

            try:
                code = main([part.replace("{out}", str(out)) for part in argv])
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush(), sys.stderr.flush()
            if dies_at is not None and len(watch.operations) - 1 == dies_at:
                watch.cut()  # the last operation of all
            watch._busy = True
            facts.write_text(json.dumps([watch.operations, sorted(sys.modules)]))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    operations, modules = json.loads(facts.read_text()) if facts.is_file() else ([], [])
    said = log.read_text(errors="replace")
    return os.waitstatus_to_exitcode(status), said, operations, modules


def _fresh(folder: Path, start: str | None) -> None:
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "tmp").mkdir(parents=True)
    if start:
        shutil.copytree(start, work / "out")
    else:
        (work / "out").mkdir()


def _files(folder: Path) -> dict[str, str]:
    """Hash of each file below the watched folder; its content is kept under that name."""
    work, keep = folder / "work", folder / "kept"
    keep.mkdir(exist_ok=True)
    found = {}
    for path in work.rglob("*"):
        name = str(path.relative_to(work))
        if path.is_dir():
            if not any(path.iterdir()) and name not in ("out", "tmp"):
                found[name] = "folder"
            continue
        content = path.read_bytes()
        key = hashlib.sha256(content).hexdigest()
        (keep / key).write_bytes(content)
        found[name] = key
    return found


def _main(path: Path) -> None:
    for spec in json.loads(path.read_text()):
        _campaign(spec)


def _campaign(spec: Mapping[str, Any]) -> None:
    folder = Path(spec["folder"])
    folder.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(folder / "work" / "tmp")
    # Once for what it imports, so that forks find it there; once more to be counted.
    _fresh(folder, spec["start"])
    code, said, _, modules = _run(spec["argv"], folder, spec["prepare"])
    if code:
        raise SystemExit(f"{spec['argv']}, unbroken, ends with {code}: {said[-2000:]}")
    for module in modules:
        if module not in sys.modules and module != "__main__":
            with suppress(Exception):
                import_module(module)
    _fresh(folder, spec["start"])
    code, said, operations, _ = _run(spec["argv"], folder, spec["prepare"])
    unbroken = {"files": _files(folder), "exit_code": code}
    trials = []
    chosen = [
        number
        for number, operation in enumerate(operations)
        if number % spec["every"] == 0 and re.search(spec["only"], operation)
    ]
    for number in chosen:
        for how in spec["how"]:
            if how == "half" and not operations[number].startswith("open "):
                continue
            _fresh(folder, spec["start"])
            killed, said, _, _ = _run(spec["argv"], folder, spec["prepare"], number, how)
            if killed != -signal.SIGKILL:
                raise SystemExit(
                    f"operation {number} ({operations[number]}) was not reached: exit {killed}, "
                    f"{said[-1000:]}"
                )
            code, said, _, _ = _run(spec["again"], folder, spec["prepare"])
            trials.append(
                {
                    "number": number,
                    "how": how,
                    "operation": operations[number],
                    "exit_code": code,
                    "said": said[-1000:],
                    "files": _files(folder),
                }
            )
            report = {"operations": operations, "unbroken": unbroken, "trials": trials}
            (folder / "report.json").write_text(json.dumps(report))
    report = {"operations": operations, "unbroken": unbroken, "trials": trials}
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
