"""Versions below which a dependency is known to be unsafe here, kept by hand: no service is asked.

The requirements of the package are at least as high; this holds where an installer was told to ignore them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from mcutune.errors import BadInput


@dataclass(frozen=True)
class Floor:
    """The lowest version that is accepted. `why`: what lower ones let happen, with the advisories' numbers."""

    library: str
    version: str
    why: str


FLOORS = (
    Floor(
        "ray",
        "2.59",
        "before 2.52 a web page could run code through the dashboard (CVE-2025-62593), before 2.54 end its jobs "
        "(CVE-2026-27482), before 2.55 a Parquet file could run code (CVE-2026-41486); lower ones were not tested",
    ),
    Floor(
        "torch",
        "2.11",
        "before 2.6 and 2.10 a checkpoint could run code although loaded by weights only "
        "(CVE-2025-32434, CVE-2026-24747)",
    ),
    Floor("pyarrow", "26", "before 14.0.1 a file could run code (CVE-2023-47248); lower ones were not tested"),
    Floor("pyyaml", "6", "before 5.4 a file could run code through the full loader (CVE-2020-14343)"),
    Floor("jinja2", "3.1.6", "before 3.1.6 a template could leave its sandbox (CVE-2025-27516)"),
)


def below(version_of: Callable[[str], str] = metadata.version) -> Iterator[tuple[Floor, str]]:
    """The floors that are not kept, with the version found; what is not installed at all is somebody else's finding."""
    for floor in FLOORS:
        try:
            found = version_of(floor.library)
        except metadata.PackageNotFoundError:
            continue
        if _numbers(found) < _numbers(floor.version):
            yield floor, found


def refuse_vulnerable() -> None:
    """Raises BadInput where a dependency is below its floor."""
    for floor, found in below():
        raise BadInput(
            f"{floor.library} {found} is below {floor.version}: {floor.why}",
            hint=f"pip install '{floor.library}>={floor.version}'",
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, 2.13.0 of 2.13.0+cpu."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
