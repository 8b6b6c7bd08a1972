"""What ends a script: one sentence and the right exit code, and defects stay visible."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from rs_models.errors import UserError, http_error
from rs_models.settings import run_script


def raised(error):
    def main(argv):
        raise error

    return main


def disk(number, name="out/a.txt"):
    return OSError(number, "text", name)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (disk(errno.EACCES), 2, "out/a.txt cannot be read or written: Permission denied"),
        (disk(errno.EROFS), 2, "Read-only file system"),
        (disk(errno.EEXIST), 2, "File exists"),
        (disk(errno.ENOTDIR), 2, "Not a directory"),
        (disk(errno.ENAMETOOLONG, "x" * 5000), 2, "File name too long"),
        (disk(errno.ENOSPC), 2, "There is no room left for out/a.txt"),
        (disk(errno.EFBIG), 2, "There is no room left"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 2, "no room left"),
        (SafetensorError("I/O error: Read-only (os error 30)"), 2, "An output cannot be written"),
        (ConnectionResetError("peer"), 1, "the server cannot be reached"),
        (TimeoutError("slow"), 1, "the server cannot be reached"),
        (http_error()("cut"), 1, "the server cannot be reached"),
        (RecursionError("maximum"), 2, "nested too deeply"),
    ],
)
def test_files_disks_and_networks_are_one_sentence(error, code, words, capsys):
    import huggingface_hub  # noqa: F401  # its client's errors are known where it is loaded

    assert run_script(raised(error), []) == code
    told = capsys.readouterr().err
    assert words in told and told.startswith("error: ") and told.count("\n") == 1
    assert len(told) < 500


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 4 TiB for an array"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_no_memory_is_one_sentence(error, capsys):
    assert run_script(raised(error), []) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: No memory was left") and told.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        *(KeyError("x"), TypeError("x"), OSError("no number"), SafetensorError("a header")),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_a_defect_stays_a_traceback(error):
    with pytest.raises(type(error)):
        run_script(raised(error), [])


def test_a_reader_that_leaves_ends_the_script_quietly(tmp_path):
    script = (
        "import sys; from rs_models.settings import run_script\n"
        "def main(argv):\n    for i in range(100000): print('a line', i)\n"
        "sys.exit(run_script(main, []))\n"
    )
    root = Path(__file__).parents[2]
    command = f'{sys.executable} -c "$SCRIPT" | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={"SCRIPT": script, "PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.stdout.split() == ["a", "line", "0", "0"] and done.stderr == ""


@pytest.mark.parametrize("argv", [["--help"], ["list"], ["info", "--help"], ["work"]])
def test_standard_output_that_cannot_be_written_is_told_when_all_is_done(tmp_path, argv):
    """Half of the output was lost with exit 0, or it was some file for which was no room."""
    script = (
        "import resource, sys; from rs_models import cli\n"
        "from rs_models.settings import run_script\n"
        "def work(argv):\n    print('a line ' * 5000)\n    open('done', 'w').write('x')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "sys.exit(run_script(work, []) if sys.argv[1] == 'work' else cli.main(sys.argv[1:]))\n"
    )
    with open(tmp_path / "output", "w") as output:
        done = _script(script, argv, tmp_path, stdout=output)
    assert done.returncode == 2
    assert done.stderr == (
        "error: Standard output cannot be written: File too large. Send it elsewhere.\n"
    )
    assert (tmp_path / "output").stat().st_size == 100
    assert (tmp_path / "done").exists() == (argv == ["work"])


def test_standard_output_that_is_closed_is_told_before_anything_is_done(tmp_path):
    script = (
        "import os, sys; from rs_models.settings import run_script\n"
        "sys.exit(run_script(lambda _: open('done', 'w').close(), []))\n"
    )
    done = _script(script, [], tmp_path, preexec_fn=lambda: os.close(1))
    assert done.returncode == 2 and not (tmp_path / "done").exists()
    assert done.stderr.startswith("error: Standard output is closed: send it")
    both = _script(script, [], tmp_path, preexec_fn=lambda: os.closerange(1, 3))
    assert both.returncode == 2


def test_the_exit_code_stays_where_standard_error_cannot_be_written(tmp_path):
    script = (
        "import os, resource, sys; from rs_models.settings import run_script\n"
        "from rs_models.errors import ServiceError\n"
        "def main(argv):\n    raise ServiceError('gone')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2, 2))\n"
        "sys.exit(run_script(main, []))\n"
    )
    with open(tmp_path / "errors", "w") as errors:
        assert _script(script, [], tmp_path, stderr=errors).returncode == 1


# No bytecode is written, which the limits would cut off.
_PLAIN = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}


def _script(script, argv, folder, **more):
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", script, *argv],
        cwd=folder,
        env={**_PLAIN, "PYTHONPATH": str(root)},
        text=True,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    )


def test_names_that_are_no_text_are_told_and_printed(capsys, tmp_path):
    name = "a\x1b[31m\udcff\nb"

    def main(argv):
        print(name)
        if argv:
            raise UserError(f"{name} is missing: name {'x' * 5000} anew")
        (tmp_path / "table.csv").write_text(name, encoding="utf-8")

    assert run_script(main, ["x"]) == 2
    shown, told = capsys.readouterr()
    assert shown == "a\x1b[31m\\udcff\nb\n"  # as it is for pipes, but for what is no text
    assert told.startswith("error: a\\x1b[31m\\udcff b is missing") and told.endswith("anew.\n")
    assert told.count("\n") == 1 and len(told) < 1200
    assert run_script(main, []) == 2
    told = capsys.readouterr().err
    assert "no text in UTF-8" in told and "\\udcff" in told and told.count("\n") == 1
