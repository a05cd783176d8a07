"""The house holds: arrows point down, the web process has no torch, files and functions are small."""

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("engine.refusal", "engine.event", "engine.part", "engine.home"),
    ("engine.plan", "engine.optimizations", "engine.backends", "engine.models", "engine.kernels", "engine.labs"),
    ("engine.public",),
    ("engine.registry", "engine.ways", "engine.decode"),
    ("engine.spec",),
    ("engine.address", "engine.presets", "engine.lessons", "engine.measure", "engine.code", "engine.distil"),
    ("engine.run", "engine.export"),
    ("engine.console", "engine.lab_console", "engine.study_console", "engine.bench"),
    ("engine.commands", "engine.mcp", "components"),
    ("engine.__main__",),
    ("app",),
)
WEB = """
import app
from engine.run.jobs import Jobs
from engine.run.store import Store
jobs = Jobs(Store(Path("history.db")))
app.build(jobs)
jobs.close()
"""
HEAVY = ("torch", "transformers", "bitsandbytes", "accelerate")
MAX_FILE, MAX_FUNCTION = 300, 60


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(nodes) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def floor(name: str) -> int:
    found = [number for number, rooms in enumerate(FLOORS) for room in rooms if f"{name}.".startswith(f"{room}.")]
    assert found, f"{name} has no floor in the house"
    return found[0]


@pytest.mark.parametrize("path", [*sources("engine", "components"), ROOT / "app.py"], ids=module)
def test_arrows_point_down_and_everything_is_small(path):
    name = module(path)
    for other in imported(ast.walk(tree(path))):
        if other.split(".")[0] in ("engine", "components") and other not in ("engine", "components"):
            lazy = name.startswith("engine.backends.") and other.startswith("engine.decode.")
            assert lazy or floor(other) <= floor(name), f"{name} imports {other} from above"
    assert len(path.read_text("utf-8").splitlines()) <= MAX_FILE
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION, f"{name}.{node.name} is too long"
    assert ast.get_docstring(tree(path)), f"{name} does not say what it is"


@pytest.mark.parametrize("room", ["engine/optimizations", "engine/backends", "engine/labs"])
def test_variants_do_not_know_each_other(room):
    for path in sources(room):
        names = imported(ast.walk(tree(path)))
        others = {module(other) for other in sources(room) if other.name != "__init__.py"} - {module(path)}
        assert not names & others


def test_components_know_only_theme_and_controls_of_each_other():
    """The page, the map of its pictures, the report and the files are assemblies and may know all of them.

    A component in a folder is one: its files know each other.
    """
    for path in sources("components"):
        own = ".".join(module(path).split(".")[:2])
        if own in ("components", *(f"components.{name}" for name in ("page", "pictures", "report", "files"))):
            continue
        names = {name for name in imported(ast.walk(tree(path))) if name.startswith("components.")}
        names = {name for name in names if not f"{name}.".startswith(f"{own}.")}
        assert names <= {"components.theme", "components.controls"}, (path.name, names)


def test_no_general_file_asks_for_a_variant_by_name():
    """`if name == "kv_cache"` in a general file means that the class lacks a method."""
    names = {path.stem for path in sources("engine/optimizations") if path.stem != "__init__"}
    for path in [*sources("engine", "components"), ROOT / "app.py"]:
        if path.parent.name in ("optimizations", "models"):
            continue
        compared = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Compare)]
        strings = {leaf.value for node in compared for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)}
        assert not {text for text in strings if isinstance(text, str)} & names, path


def test_test_files_are_small_too():
    for path in sources("tests"):
        assert len(path.read_text("utf-8").splitlines()) <= MAX_FILE, path.name


def loaded_by(code: str, tmp_path: Path) -> set[str]:
    """The heavy modules that some code imports; stubs stand in for those that are not installed."""
    for name in HEAVY:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "__init__.py").write_text("")
    script = f"{code}\nimport sys\nprint(*[name for name in {(*HEAVY, 'gradio')!r} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_web_process_imports_no_torch(tmp_path):
    assert loaded_by(f"from pathlib import Path\n{WEB}", tmp_path) & set(HEAVY) == set()


def test_the_command_line_imports_neither_torch_nor_gradio(tmp_path):
    code = "import engine.__main__ as m; m.main(['optimizations']); m.main(['models']); m.main(['machine'])"
    loaded = loaded_by(f"import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()):\n  {code}", tmp_path)
    assert loaded & {*HEAVY, "gradio"} == set()


def test_this_test_sees_torch_when_it_is_there(tmp_path):
    assert "torch" in loaded_by("import torch", tmp_path)
