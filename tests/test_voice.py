"""One voice: how docstrings and error sentences of the package are written."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

FILES = sorted((ROOT / "rs_models").rglob("*.py"))
IMPERATIVES = {
    *("Add", "Append", "Build", "Check", "Choose", "Compute", "Create", "Decode", "Delete", "Draw"),
    *(
        "Find",
        "Get",
        "Give",
        "Hide",
        "Keep",
        "Load",
        "Make",
        "Move",
        "Open",
        "Print",
        "Put",
        "Raise",
    ),
    *("Read", "Record", "Refuse", "Replace", "Resize", "Return", "Run", "Save", "Start", "Stop"),
    *("Take", "Train", "Undo", "Vary", "Write", "Yield"),
}
# An argument that says nothing without the one above it, or without its own name.
LEANING = re.compile(
    r"^\s+(\w+): (?:Of |That |(?:Likewise|Theirs|Which of them|As above|Ditto|See the class)\b)",
    re.M,
)
CODE = re.compile(r"``|:(?:class|func|meth|mod|attr|data):`")
ERRORS = {"UserError", "ServiceError"}
# Rooms whose sentences still begin with the name of a setting ("cells.a: ...").
UNMENDED: set[str] = set()


def documented(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    """Name, line and docstring of everything that has one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", ""), getattr(node, "lineno", 1), text


def faults_of_docstrings(tree: ast.Module) -> list[str]:
    """What is wrong with the docstrings of a module."""
    faults = []
    for name, line, text in documented(tree):
        first = text.split()[0].rstrip(".,:;")
        if name and first in IMPERATIVES:
            faults.append(
                f"{line} {name} begins with the imperative '{first}': '{first}s' or a noun"
            )
        if CODE.search(text):
            faults.append(f"{line} {name} marks code with more than one backtick")
        if text.startswith("See the class"):
            faults.append(f"{line} {name} says nothing: 'See the class'")
        for match in LEANING.finditer(text):
            faults.append(f"{line} {name} describes '{match[1]}' by its neighbour: say what it is")
    return faults


def sentence(node: ast.expr) -> tuple[str, str] | None:
    """Beginning and end of a sentence that is written out; "{" and "}" stand for a placeholder."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value, node.value
    if isinstance(node, ast.JoinedStr) and node.values:
        first, last = node.values[0], node.values[-1]
        begin = first.value if isinstance(first, ast.Constant) else "{"
        end = last.value if isinstance(last, ast.Constant) else "}"
        return str(begin), str(end)
    return None


def faults_of_errors(tree: ast.Module) -> list[str]:
    """What is wrong with the sentences of a module's errors for users."""
    faults = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        ends = sentence(node.args[0])
        if name not in ERRORS or ends is None:
            continue
        begin, end = ends
        if not (begin[:1].isupper() or begin[:1] in "{'\"0123456789-"):
            faults.append(f"{node.lineno} the error begins in lower case: {begin!r}")
        if end.rstrip()[-1:] not in (".", "?", "}"):
            faults.append(f"{node.lineno} the error has no full stop: {end!r}")
    return faults


@pytest.mark.parametrize(
    ("check", "without"), [(faults_of_docstrings, set()), (faults_of_errors, UNMENDED)]
)
def test_one_voice(check, without):
    """No file of the package speaks otherwise."""
    faults = [
        f"{path.relative_to(ROOT)}:{fault}"
        for path in FILES
        if path.relative_to(ROOT / "rs_models").parts[0] not in without
        for fault in check(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('def f():\n    """Return a number."""', "imperative 'Return'"),
        ('def f():\n    """The ``number``."""', "more than one backtick"),
        ('def f():\n    """The :class:`int`."""', "more than one backtick"),
        (
            'def f(n):\n    """One.\n\n    Args:\n        n: Likewise.\n    """',
            "'n' by its neighbour",
        ),
        ('def f(n):\n    """One.\n\n    Args:\n        n: Of it.\n    """', "'n' by its neighbour"),
        ('class A:\n    """See the class."""', "says nothing"),
    ],
)
def test_the_faults_are_seen(source, fault):
    """Each kind of docstring that the package had is told."""
    [told] = faults_of_docstrings(ast.parse(source))
    assert fault in told


@pytest.mark.parametrize(
    ("call", "faults"),
    [
        ('UserError("The tile is empty.")', 0),
        ('UserError(f"{path} is empty: {hint}")', 0),
        ('UserError("tile is empty")', 2),
        ('errors.ServiceError(f"{path} is empty")', 1),
        ('KeyError("tile")', 0),
    ],
)
def test_sentences_of_errors(call, faults):
    """A capital or a placeholder first, a full stop or a placeholder last."""
    assert len(faults_of_errors(ast.parse(call))) == faults
