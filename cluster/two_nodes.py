"""A Ray cluster of two nodes on this machine, to try out what a search does on several machines.

    python cluster/two_nodes.py FOLDER

Each node has its own home folder under FOLDER (head/ and worker/); all ports are on 127.0.0.1; the token that opens
the cluster is FOLDER/token. The address, and how to use it, are printed; FOLDER/cluster.json has them for programs, and
of each node the Prometheus endpoint and the process number of its raylet, so that it can be killed: `kill -9 PID`.
Ctrl+C ends the cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from mcutune.cluster.connect import LOCAL, SETTINGS
from mcutune.cluster.private import new_token


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="A Ray cluster of two nodes on this machine.")
    parser.add_argument("folder", type=Path, help="a new or empty folder for the nodes' homes, the token, cluster.json")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs that each node is said to have (default 1)")
    given = parser.parse_args(arguments)
    folder = given.folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = new_token(folder)
    os.environ.update({**SETTINGS, **LOCAL, "RAY_AUTH_TOKEN_PATH": str(token)})
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory(prefix="mcutune-two-", dir="/tmp") as private:
        cluster = Running()
        try:
            cluster.start(folder, Path(private) / "r", given.cpus)
            cluster.announce(folder, token)
            while True:
                signal.pause()
        finally:
            cluster.end()


class Running:
    """The cluster of Ray's own tests: a head and one more node as processes of this machine."""

    def __init__(self) -> None:
        from ray._private import utils
        from ray.cluster_utils import Cluster

        utils.write_ray_address = lambda *_: None  # `auto` shall not find this cluster
        self.cluster = Cluster()
        self.nodes: dict[str, Any] = {}

    def start(self, folder: Path, temporary: Path, cpus: int) -> None:
        # Ray tries one port only for the dashboard of such a cluster, and another cluster here may have that.
        dashboard = {"include_dashboard": True, "dashboard_port": _free_port()}
        self._add("head", folder, cpus, temp_dir=str(temporary), **dashboard)
        self._add("worker", folder, cpus)

    def _add(self, name: str, folder: Path, cpus: int, **more: Any) -> None:
        home = folder / name
        home.mkdir(mode=0o700)
        variables = {"HOME": str(home), "MCUTUNE_HOME": str(home)}
        self.nodes[name] = self.cluster.add_node(num_cpus=cpus, env_vars=variables, **more)
        # A node that starts sets its own, which waits half a minute for its work to end.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: sys.exit(0))

    def announce(self, folder: Path, token: Path) -> None:
        facts = {
            "address": self.cluster.address,
            "token_file": str(token),
            "nodes": {
                name: {
                    "home": str(folder / name),
                    "raylet": node.all_processes["raylet"][0].process.pid,
                    "metrics": f"http://127.0.0.1:{node.metrics_export_port}/metrics",
                }
                for name, node in self.nodes.items()
            },
        }
        written = folder / "cluster.json.part"
        written.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        written.rename(folder / "cluster.json")
        print(f"two nodes at {facts['address']}, dashboard http://{self.cluster.webui_url}; in another terminal:")
        print(f"  export RAY_AUTH_TOKEN_PATH={token} MCUTUNE_HOME={folder / 'head'}")
        print(f"  mcutune search --space quick --address {facts['address']}")
        print(f"  kill -9 {facts['nodes']['worker']['raylet']}   # the node that is not the head", flush=True)

    def end(self) -> None:
        self.cluster.shutdown()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
