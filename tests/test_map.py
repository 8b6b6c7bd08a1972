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
# What a part of the package must know nothing of.
FORBIDDEN = {
    "bands": {*LEFT, "evaluation", "export", "data", "backbones"},
    "signals": {"methods", "trainer", "evaluation", "export", "data"},
    "backbones": {*LEFT, "evaluation", "export", "data"},
    "decoders": {*LEFT, "evaluation", "export", "data"},
    "data": {*LEFT, "evaluation", "export", "backbones"},
    "methods": {"trainer", "evaluation", "export", "cards", "hub"},
    "trainer": {"cards", "hub", "cli"},
    "export": {*LEFT, "evaluation", "cards", "hub"},
    "evaluation": LEFT,
    "tasks": LEFT,
    "predict": LEFT,
    "onnx_export": LEFT,
    "probe": LEFT,
    "cards": LEFT,
    "card_phrases": LEFT,
    "pages": LEFT,
    "hub": LEFT,
    "staging": LEFT,
    "push": LEFT,
    "zoo": {*LEFT, "evaluation", "export", "cards"},
    "claims_table": {*LEFT, "evaluation", "export", "data", "backbones", "cards", "study"},
    "papers": {*LEFT, "evaluation", "export", "data", "backbones", "cards", "zoo"},
    "convert_upstream": LEFT,
    "cli": LEFT,
    "slim": {*LEFT, "evaluation", "cards", "hub"},
    # Runs both halves, and only its command and script know of it.
    "study": {"cards", "hub", "demos"},
}


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


@pytest.mark.parametrize("part", FORBIDDEN)
def test_arrows_point_one_way(part):
    files = [PACKAGE / f"{part}.py", *(PACKAGE / part).rglob("*.py")]
    for file in files:
        if file.exists():
            wrong = imports(file) & FORBIDDEN[part]
            assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


def test_only_spaces_know_the_demos():
    for file in PACKAGE.rglob("*.py"):
        if "demos" not in file.relative_to(PACKAGE).parts:
            assert "demos" not in imports(file), file


def test_nothing_knows_the_study():
    for file in PACKAGE.rglob("*.py"):
        if "study" not in file.relative_to(PACKAGE).parts:
            assert "study" not in imports(file), file


def test_the_check_sees_imports_inside_functions():
    # trainer's loop imports export inside a function; a check that missed it would see nothing.
    assert "export" in imports(PACKAGE / "trainer" / "loop.py")


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
    assert seen >= 4
