"""The house keeps its walls: who imports whom, where libraries may appear, what is forbidden, how long things are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mcutune"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Who may import whom, besides itself; FREE modules may be imported by all (ARCHITECTURE.md shows the picture).
FREE = {"errors", "files", "inert", "strict_yaml", "shipped"}
ROOMS_OF_FILES = {"__main__": "cli", "__init__": "export"}
MAY_SEE = {
    "domain": set(),
    "data": {"domain"},
    "model": {"domain", "data"},
    "training": {"domain", "data", "model"},
    "search": {"domain", "data", "training", "cluster"},
    "robustness": {"domain", "data", "model"},
    "cluster": set(),
    "export": {"domain", "data", "model", "training", "robustness"},
    "cli": {"domain", "data", "model", "training", "search", "robustness", "cluster", "export"},
}
# Library -> the folders and files that may import it.
ONLY_IN = {
    "torch": ("model/", "training/", "robustness/predict.py"),
    "ray": ("search/runner.py", "search/forerunner.py", "training/worker.py", "training/actor_client.py", "cluster/"),
    "optuna": ("search/proposals.py", "search/export.py"),
    "onnx": ("model/onnx_graph.py",),
    "onnxscript": (),
    "onnxruntime": ("model/onnx_graph.py",),
    "typer": ("cli/",),
    "click": (),
    "rich": ("cli/",),
    "yaml": ("strict_yaml.py", "training/config.py"),
    "pickle": ("data/label_pickle.py",),
    "pickletools": ("data/label_pickle.py",),
    "cloudpickle": (),
    "dill": (),
    "joblib": (),
    "shelve": (),
    "marshal": (),
}
FORBIDDEN_CALLS = {
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "torch.save", "eval", "exec", "os.system",
    "pandas.read_pickle", "pd.read_pickle",
}  # fmt: skip


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(module: ast.Module) -> Iterator[tuple[str, int]]:
    """The dotted names that a module imports anywhere in it, with the line."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            assert node.module is not None
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def wrong_imports(name: str, module: ast.Module) -> list[str]:
    """What a module (given as its path in the package) imports against MAY_SEE and ONLY_IN."""
    found = []
    own = name.split("/")[0] if "/" in name else ROOMS_OF_FILES.get(name.removesuffix(".py"))
    for dotted, line in imported(module):
        parts = dotted.split(".")
        if parts[0] == "mcutune" and len(parts) > 1:
            seen = parts[1]
            if seen in FREE or seen == own or seen == "__version__":
                continue
            if own is None or seen not in MAY_SEE.get(own, set()):
                found.append(f"{name}:{line} imports {dotted}")
        elif parts[0] in ONLY_IN and not name.startswith(ONLY_IN[parts[0]] or ("\0",)):
            found.append(f"{name}:{line} imports {dotted}")
    return found


def forbidden_calls(name: str, module: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        shell = any(k.arg == "shell" and getattr(k.value, "value", True) is not False for k in node.keywords)
        pickled = any(k.arg == "allow_pickle" and getattr(k.value, "value", True) is not False for k in node.keywords)
        if called in FORBIDDEN_CALLS or shell or pickled:
            found.append(f"{name}:{node.lineno} calls {ast.unparse(node)[:80]}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_go_one_way(path: Path) -> None:
    assert wrong_imports(relative(path), tree(path)) == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_nothing_forbidden_is_called(path: Path) -> None:
    assert forbidden_calls(relative(path), tree(path)) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("robustness/x.py", "from mcutune.search import ledger"),
        ("domain/x.py", "import mcutune.data.table"),
        ("data/x.py", "import torch.nn"),
        ("search/coordinator.py", "from ray import tune"),
        ("search/x.py", "from mcutune import cli"),
        ("errors.py", "from mcutune.domain import trial"),
        ("data/importers.py", "import pickle"),
        ("robustness/report.py", "import typer"),
    ],
)
def test_a_wrong_import_is_seen(name: str, line: str) -> None:
    assert wrong_imports(name, ast.parse(line))


@pytest.mark.parametrize(
    "line",
    ["yaml.load(text)", "torch.load(path)", "eval(text)", "run('x', shell=True)", "numpy.load(p, allow_pickle=True)"],
)
def test_a_forbidden_call_is_seen(line: str) -> None:
    assert forbidden_calls("data/x.py", ast.parse(line))


def test_files_are_short() -> None:
    sources = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "bench").rglob("*.py"))]
    lengths = {p.relative_to(ROOT).as_posix(): len(p.read_text(encoding="utf-8").splitlines()) for p in sources}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_functions_are_short() -> None:
    long = []
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 60:
                    long.append(f"{relative(path)}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_importing_does_nothing() -> None:
    """Importing the package and its pure parts loads no heavy library, prints nothing and writes nothing."""
    code = (
        "import sys, mcutune, mcutune.errors, mcutune.files, mcutune.shipped, mcutune.domain.trial, mcutune.cli.app\n"
        "heavy = {'torch', 'ray', 'optuna', 'pandas', 'pyarrow', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_top_level_of_modules_only_defines() -> None:
    """At import, modules define and assign; they do not call for effect (logging, registries, environment)."""
    effects = []
    for path in MODULES:
        for node in tree(path).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = ast.unparse(node.value)
                # The table of commands in the command line's own files is a definition, too.
                if not (relative(path).startswith("cli/") and called.split("(")[0] in ("app.command", "app.add_typer")):
                    effects.append(f"{relative(path)}:{node.lineno} {called[:80]}")
    assert effects == []
