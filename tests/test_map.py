"""The map of the code: arrows point one way, and importing stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "rs_models"
LEFT = {"methods", "trainer", "signals"}
# Nothing below the commands knows of what only they start.
TOP = {"commands", "cli", "study", "demos"}
# The ground: it knows of nothing but the ground.
GROUND = {"assets", "bands", "errors", "files", "cards", "papers", "plots", "provenance"}
GROUND |= {"schedules", "settings", "version", "zoo", "preprocessing", "rasters"}
# What a room of the package must know nothing of, beside the rooms above it.
FORBIDDEN = {
    "backbones": {*LEFT, "evaluation", "export", "data", "tasks", "predict", "publish"},
    "data": {*LEFT, "evaluation", "export", "backbones", "tasks", "predict", "publish"},
    "signals": {"methods", "trainer", "evaluation", "export", "data", "tasks", "publish"},
    "methods": {"trainer", "evaluation", "export", "data", "tasks", "predict", "publish"},
    "trainer": {"tasks", "predict", "publish"},
    "export": {*LEFT, "evaluation", "publish"},
    "evaluation": {*LEFT, "tasks", "predict", "publish"},
    "tasks": {*LEFT, "predict", "publish"},
    "predict": {*LEFT, "publish", "labelling"},
    "labelling": {*LEFT, "publish"},
    "publish": LEFT,
    "convert_upstream": {*LEFT, "evaluation", "publish", "predict"},
}
LOOSE = 16
LONGEST_MODULE, LONGEST_FUNCTION = 400, 80


def modules() -> dict[str, Path]:
    """Dotted name -> file, packages included."""
    named = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that one imports anywhere, function bodies included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            inner = {f"{base}.{alias.name}" for alias in node.names}
            found |= {module if module in known else base for module in inner}
    return (found & known.keys()) - {name}


def test_no_two_modules_import_each_other_in_a_circle():
    known = modules()
    arrows = {name: imported(name, path, known) for name, path in known.items()}
    while True:  # take away what imports nothing that is left, until only circles are
        ends = {name for name, targets in arrows.items() if not targets & arrows.keys()}
        if not ends:
            break
        arrows = {name: targets for name, targets in arrows.items() if name not in ends}
    assert not arrows, f"circles among {sorted(arrows)}"


def test_the_circle_check_sees_imports_inside_functions():
    known = modules()
    # trainer's loop imports export inside a function; a check that missed it would see nothing.
    assert "rs_models.export" in imported(
        "rs_models.trainer.loop", known["rs_models.trainer.loop"], known
    )


def test_the_root_keeps_few_files():
    loose = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(loose) <= LOOSE, loose
    assert {path.stem for path in PACKAGE.glob("*.py")} <= {*GROUND, "__init__", "cli", "lazy"}


def imports(path: Path) -> set[str]:
    """Parts of rs_models that a module imports anywhere, function bodies included."""
    found = set()
    folder = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ["rs_models", *folder][: len(folder) + 2 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{name.name}" for name in node.names)}
    parts = {name.split(".")[1] for name in found if name.startswith("rs_models.")}
    known = {path.stem for path in PACKAGE.iterdir()}
    return parts & known


@pytest.mark.parametrize("room", FORBIDDEN)
def test_arrows_point_one_way(room):
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    for file in files:
        wrong = imports(file) & (FORBIDDEN[room] | TOP)
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


def test_the_ground_knows_only_the_ground():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    for name in GROUND:
        room = PACKAGE / name
        for file in room.rglob("*.py") if room.is_dir() else [PACKAGE / f"{name}.py"]:
            wrong = imports(file) & ((rooms | TOP) - GROUND)
            assert not wrong, f"{file} imports {sorted(wrong)}"


def test_only_commands_know_the_study_and_the_demos():
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0]
        if room not in ("study", "demos", "commands"):
            assert not imports(file) & {"study", "demos"}, file


def test_no_run_time_dependency_on_frameworks():
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [n.name for n in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = name.split(".")[0]
                assert root not in {"torchgeo", "terratorch", "lightly", "lightning"}, file


def test_importing_the_package_is_light_and_registers_the_methods():
    code = (
        "import sys, rs_models\n"
        "from transformers import AutoConfig\n"
        "heavy = {'timm', 'datasets', 'sklearn', 'cv2', 'rasterio', 'gradio'}\n"
        "print(sorted(heavy & set(sys.modules)), AutoConfig.for_model('rs_tov').model_type)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert shown.stdout.split("\n")[0] == "[] rs_tov"


def test_public_names_exist():
    import rs_models

    for name in rs_models.__all__:
        assert getattr(rs_models, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = rs_models.nonsense


def test_packages_are_attributes_after_the_import():
    code = (
        "import rs_models\nprint(rs_models.backbones.pooled.__name__, rs_models.data.load.__name__)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert shown.stdout.split() == ["pooled", "load"]


def test_no_call_opens_pickled_weights_or_remote_code():
    """`from_pretrained` reads a `.bin` where there is no safetensors file, unless it is told."""
    exempt = {"config_class", "AutoConfig", "AutoImageProcessor", "PreTrainedConfig"}
    seen = 0
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "training").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert keywords.get("trust_remote_code", "False") == "False", file
            if node.func.attr == "from_pretrained" and ast.unparse(node.func.value) not in exempt:
                assert keywords.get("use_safetensors") == "True", f"{file}: {ast.unparse(node)}"
                seen += 1
            assert node.func.attr != "load" or ast.unparse(node.func.value) != "pickle", file
    assert seen >= 1


def test_modules_and_functions_stay_short():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= LONGEST_MODULE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if ast.get_docstring(node) is not None:
                    lines -= node.body[0].end_lineno - node.body[0].lineno + 1
                assert lines <= LONGEST_FUNCTION, f"{path.name}: {node.name} has {lines} lines"
