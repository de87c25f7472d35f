"""Places where work runs: this process, a local Ray, an existing cluster. Pure data; connect.py opens them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mcutune.errors import BadInput

Kind = Literal["process", "local", "cluster"]


@dataclass(frozen=True)
class Place:
    """An open place.

    `address`: of Ray's head, empty for this process. `dashboard`: its URL, None without one. `metrics`: Prometheus
    endpoints, one a node. `token_file`: what opens the dashboard and the API of a local Ray. `folder`: private
    temporary folder of this search, removed when the place closes; nothing in it is ever read back. `node`: Ray's id
    of the node on which this process runs, `raylet`: the address of its raylet, `pin`: a resource that only it has.
    """

    kind: Kind
    folder: Path
    address: str = ""
    dashboard: str | None = None
    metrics: tuple[str, ...] = ()
    token_file: Path | None = None
    node: str = ""
    raylet: str = ""
    pin: str = ""


def kind_of(address: str | None) -> tuple[Kind, str]:
    """The kind of place an `--address` names, and the address that Ray is given.

    None: RAY_ADDRESS if set, else a local Ray. `local`: a local Ray whatever RAY_ADDRESS says. `process`: no Ray.
    Anything else (`auto`, `HOST:PORT`): an existing cluster. Raises BadInput for what cannot be one.
    """
    named = (address if address is not None else os.environ.get("RAY_ADDRESS", "")).strip()
    if named in ("", "local"):
        return "local", "local"
    if named == "process":
        return "process", ""
    if named.startswith(("ray://", "http://", "https://")):
        raise BadInput(
            f"--address {named} is a client's or the job server's address",
            hint="run `mcutune search` on a node of the cluster with `--address auto`, "
            "for example by `ray job submit` or `ray exec`",
        )
    if named != "auto" and not _host_and_port(named):
        raise BadInput(f"--address {named!r} is not an address of Ray", hint="valid: auto, local, process or HOST:PORT")
    return "cluster", named


def _host_and_port(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and not set(host) & set(" /@\\") and port.isdigit() and 0 < int(port) < 65536
