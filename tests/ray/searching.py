"""A search without a model as a process of its own: `python -m tests.ray.searching ADDRESS FOLDER LANES PACKS [CPUS]`.

Prints a line of JSON a look at the progress. Exit code as the command line's.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from dataclasses import asdict
from pathlib import Path

from mcutune.cluster.connect import capacity, connect
from mcutune.cluster.gone import leave
from mcutune.cluster.resources import Request, plan
from mcutune.errors import UserError
from mcutune.search.runner import run_search
from tests.cluster.fake_search import FakeProgress, fake_snapshot
from tests.ray.conftest import fake_job


def show(progress: FakeProgress) -> None:
    print(json.dumps(asdict(progress)), flush=True)


def unasked(dashboard: str | None, named: str) -> list[int]:
    """What the dashboard answers to who has no token, and to who has the one that the environment named."""
    answers = []
    for token in ("", named) if dashboard else ():
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{dashboard}/api/version", headers=headers)) as answer:
                answers.append(answer.status)
        except urllib.error.HTTPError as error:
            answers.append(error.code)
    return answers


def main(address: str, folder: str, lanes: str, packs: str) -> int:
    named = os.environ.get("RAY_AUTH_TOKEN", "")
    try:
        with connect(address, cpus=2 if address == "local" else None) as place:
            facts = {"metrics": place.metrics, "folder": str(place.folder), "auth": unasked(place.dashboard, named)}
            print(json.dumps(facts), flush=True)
            request = Request(packs=int(packs))
            job = fake_job(Path(folder), "apart", lanes=int(lanes), epochs=4)
            run_search(job, place, plan(request, capacity()), watch=show, snapshot=fake_snapshot, every=0.2)
    except UserError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
