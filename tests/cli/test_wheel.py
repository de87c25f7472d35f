"""What a wheel holds: the package, its data, and the YAML folders of the repository, found there as in a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = (
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "mcutune",
    "search_spaces",
    "eval_protocols",
    "cluster",
)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a wheel built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    done = subprocess.run([*command, str(tree)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("mcutune-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_it_holds_the_shipped_folders_and_package_data(unpacked: Path) -> None:
    package = unpacked / "mcutune"
    for source, target in {
        "search_spaces": "search_spaces",
        "eval_protocols": "eval_protocols",
        "cluster": "cluster_files",
    }.items():
        wanted = {
            p.relative_to(ROOT / source)
            for p in (ROOT / source).rglob("*")
            if p.is_file() and "__pycache__" not in p.parts
        }
        assert wanted == {p.relative_to(package / target) for p in (package / target).rglob("*") if p.is_file()}
    data = [
        p.relative_to(ROOT) for p in (ROOT / "mcutune").rglob("*") if p.suffix not in (".py", ".pyc") and p.is_file()
    ]
    assert [str(path) for path in data if not (unpacked / path).is_file()] == []
    assert not (unpacked / "tests").exists()


def test_an_installed_wheel_finds_them_without_a_checkout(unpacked: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r})\n"
        "import mcutune, mcutune.shipped as s\n"
        f"assert mcutune.__file__.startswith({str(unpacked)!r})\n"
        "print(s.shipped_names('search_spaces'))\n"
        "print(s.find_shipped('search_spaces/quick.yaml', 'search_spaces', 'space'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "'quick'" in done.stdout
    assert str(unpacked / "mcutune" / "search_spaces" / "quick.yaml") in done.stdout
