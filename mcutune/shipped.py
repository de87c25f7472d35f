"""The YAML that ships with mcutune: search_spaces/ and eval_protocols/ (and cluster/) of the repository.

An installed wheel has them inside the package (setup.py puts them there); a checkout has them beside it.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from mcutune.errors import BadInput, Damaged
from mcutune.inert import inert

FOLDERS = ("search_spaces", "eval_protocols", "cluster")
# cluster/ of the repository must not be mixed with the code of mcutune/cluster/.
_INSTALLED_AS = {"cluster": "cluster_files"}


def shipped_folder(folder: str) -> Path:
    """The folder of that name (one of FOLDERS). Raises Damaged if the installation lacks it."""
    package = Path(__file__).parent
    for candidate in (package / _INSTALLED_AS.get(folder, folder), package.parent / folder):
        if candidate.is_dir():
            return candidate
    raise Damaged(f"the installation has no folder {folder}", hint="install mcutune again")


def shipped_names(folder: str) -> tuple[str, ...]:
    """The names, without suffix, of the YAML files that ship in a folder, sorted."""
    return tuple(sorted(path.stem for path in shipped_folder(folder).glob("*.yaml")))


def find_shipped(given: str, folder: str, what: str) -> Path:
    """A YAML file given as a path, else by name among those shipped: `ranks`, `ranks.yaml`, `search_spaces/ranks.yaml`.

    Raises BadInput naming the valid names, and the nearest one.
    """
    if "\0" in given or not given.strip():
        raise BadInput(f"the {what} has no usable name", hint=f"shipped: {', '.join(shipped_names(folder))}")
    path = Path(given).expanduser()
    if _is_file(path):
        return path
    name = given.removeprefix(f"{folder}/").removesuffix(".yaml")
    names = shipped_names(folder)
    if name in names:
        return shipped_folder(folder) / f"{name}.yaml"
    near = difflib.get_close_matches(name, names, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    shown = inert(given, limit=120)
    raise BadInput(f"no {what} '{shown}': neither a file nor shipped", hint=f"{meant}shipped: {', '.join(names)}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, for example
        return False
