"""Section H on the session's Ray: tokens, sockets, what another user can read, secrets in logs and arguments."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from mcutune.cluster.place import Place
from tests.faults.test_security import NOBODY, alone
from tests.ray import test_search_on_ray
from tests.ray.conftest import ROOT, patience

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

PATHS = ("/api/jobs/", "/api/version", "/api/cluster_status", "/nodes?view=summary", "/logical/actors", "/api/v0/tasks",
         "/api/train/v2/runs/v1", "/timezone", "/api/serve/applications/")  # fmt: skip
AGENT = {"User-Agent": "Mozilla/5.0", "Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}


@pytest.mark.parametrize("path", PATHS)
def test_64_nothing_answers_without_the_token(place: Place, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, AGENT, {"Host": "evil.example"}):
            request = urllib.request.Request(f"{place.dashboard}{path}", headers=headers, method=method)
            request.data = b"{}" if method in ("POST", "PUT") else None
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=patience(60))
            assert refused.value.code in (401, 403, 404, 405), (method, headers)
            if method == "GET":
                assert refused.value.code in (401, 403)


LOOPBACK_UP = """\
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_70_a_search_on_ray_without_network(tmp_path: Path) -> None:
    """A name space whose only interface is the loopback; also, somebody has turned tokens off there (row 64)."""
    around = {**os.environ, "RAY_ADDRESS": "", "RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "known to all"}
    process = subprocess.Popen(
        [*alone(), sys.executable, "-c", LOOPBACK_UP, "-m", "tests.ray.searching", "local", str(tmp_path), "8", "1"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=around,
    )  # fmt: skip
    out, err = process.communicate()
    assert process.returncode == 0, err
    begun, *_, last = map(json.loads, out.splitlines())
    assert last["done"] and last["finished"] == 8
    assert len(begun["auth"]) == 2 and set(begun["auth"]) <= {401, 403}


def test_65_every_port_is_on_this_machine_only(place: Place) -> None:
    test_search_on_ray.every_port_is_on_this_machine_only(place)


def test_66_another_user_reads_nothing(place: Place) -> None:
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    assert place.token_file is not None and stat.S_IMODE(place.token_file.stat().st_mode) == 0o600
    if os.geteuid() != 0:
        return
    for path in (place.folder, place.token_file, *list(place.folder.rglob("*.log"))[:3]):
        found = subprocess.run([*NOBODY, "ls", "-l", str(path)], capture_output=True, text=True, check=False)
        assert found.returncode != 0, path


def test_68_the_token_is_in_no_log_and_no_argument(place: Place) -> None:
    assert place.token_file is not None
    token = place.token_file.read_text(encoding="ascii").strip()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            assert token not in " ".join(process.cmdline())
    for path in place.folder.rglob("*"):
        if path != place.token_file and path.is_file() and not path.is_symlink():
            assert token.encode() not in _content(path), path


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.stat().st_size < 1 << 26 else b""
    except OSError:
        return b""
