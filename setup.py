"""Puts the YAML folders of the repository into the wheel; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# Repository folder -> folder in the package (mcutune/shipped.py looks for them there).
SHIPPED = {"search_spaces": "search_spaces", "eval_protocols": "eval_protocols", "cluster": "cluster_files"}


class BuildWithShippedFolders(build_py):
    """build_py that copies the shipped folders beside the modules; a checkout is read in place."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for source, target in SHIPPED.items():
            folder = Path(self.build_lib) / "mcutune" / target
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(ROOT / source, folder, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


setup(cmdclass={"build_py": BuildWithShippedFolders})
