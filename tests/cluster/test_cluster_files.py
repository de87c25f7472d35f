"""The files for users in cluster/: each is what its reader (the cluster launcher, KubeRay, Grafana) takes."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mcutune.shipped import shipped_folder

FOLDER = shipped_folder("cluster")
LAUNCHED = ("gpu_node.yaml", "gpu_pool.yaml")
RAY = metadata.version("ray")

_RESOURCES = {
    "type": "object",
    "required": ["limits", "requests"],
    "additionalProperties": {
        "type": "object",
        "required": ["cpu", "memory"],
        "additionalProperties": {"type": "string"},
    },
}
_POD = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["containers", "restartPolicy"],
            "properties": {
                "restartPolicy": {"const": "Never"},  # a pod that Ray's autoscaler ended must not come back by itself
                "containers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["name", "image", "resources"],
                        "properties": {"resources": _RESOURCES},
                    },
                },
            },
        }
    },
}
_GROUP = {
    "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
    "template": _POD,
}
# The fields of ray.io/v1 that are used here; KubeRay's own description of them has tens of thousands of lines.
CLUSTER = {
    "type": "object",
    "required": ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
    "additionalProperties": False,
    "properties": {
        "rayVersion": {"const": RAY},
        "authOptions": {"const": {"mode": "token"}},
        "enableInTreeAutoscaling": {"type": "boolean"},
        "autoscalerOptions": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"version": {"enum": ["v1", "v2"]}, "idleTimeoutSeconds": {"type": "integer"}},
        },
        "headGroupSpec": {
            "type": "object",
            "required": ["rayStartParams", "template"],
            "additionalProperties": False,
            "properties": _GROUP,
        },
        "workerGroupSpecs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"],
                "additionalProperties": False,
                "properties": {
                    **_GROUP,
                    "groupName": {"type": "string"},
                    "replicas": {"type": "integer"},
                    "minReplicas": {"type": "integer"},
                    "maxReplicas": {"type": "integer"},
                },
            },
        },
    },
}
JOB = {
    "type": "object",
    "required": ["entrypoint", "rayClusterSpec"],
    "additionalProperties": False,
    "properties": {
        "entrypoint": {"type": "string"},
        "shutdownAfterJobFinishes": {"const": True},
        "ttlSecondsAfterFinished": {"type": "integer"},
        "backoffLimit": {"type": "integer"},
        "rayClusterSpec": CLUSTER,
    },
}


def load(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_launcher_takes_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ray up` reads, completes and validates a file so, before it speaks to the cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    (given,) = load(name)
    config = prepare_config(given)
    validate_config(config)
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert all(entry["max_workers"] <= config["max_workers"] for entry in types.values() if "max_workers" in entry)
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"].endswith(".ray/auth_token")
    assert f"rayproject/ray:{RAY}-" in config["docker"]["image"]
    heads = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert len(heads) == 1 and "--dashboard-host=127.0.0.1" in heads[0] and "--autoscaling-config" in heads[0]


def test_the_launcher_would_refuse_a_mistake() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (given,) = load("gpu_pool.yaml")
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**given, "maximum_workers": 3}))


def test_a_pool_grows_only_by_what_waits() -> None:
    (pool,) = load("gpu_pool.yaml")
    assert pool["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert pool["available_node_types"]["gpu"]["min_workers"] == 0


def test_kuberay_takes_the_cluster() -> None:
    claim, cluster = load("ray_cluster.yaml")
    check_claim(claim, cluster["spec"]["headGroupSpec"])
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    jsonschema.validate(cluster["spec"], CLUSTER)
    check_pods(cluster["spec"])


def test_kuberay_takes_the_job() -> None:
    claim, job = load("ray_job.yaml")
    check_claim(claim, job["spec"]["rayClusterSpec"]["headGroupSpec"])
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    jsonschema.validate(job["spec"], JOB)
    check_pods(job["spec"]["rayClusterSpec"])


def check_claim(claim: dict[str, Any], head: dict[str, Any]) -> None:
    """The head's home is on the volume that is claimed: a run outlives its pod."""
    assert claim["kind"] == "PersistentVolumeClaim"
    pod = head["template"]["spec"]
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (container,) = pod["containers"]
    (mount,) = container["volumeMounts"]
    home = {entry["name"]: entry["value"] for entry in container["env"]}["MCUTUNE_HOME"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], home)


def check_pods(cluster: dict[str, Any]) -> None:
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in pods]
    assert len({container["image"] for container in containers}) == 1
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for container in containers[1:]:
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize("name", ["gpu_node.yaml", "gpu_pool.yaml", "ray_cluster.yaml", "ray_job.yaml"])
def test_the_commands_in_it_are_ours(name: str) -> None:
    """Every `mcutune ...` in the files is a command, with options, that exists."""
    from mcutune.cli.app import app

    text = (FOLDER / name).read_text(encoding="utf-8")
    commands = re.findall(r"mcutune ((?:search|status|robustness)\b[^'\n]*)", text)
    assert commands
    known = options(app)
    for command in commands:
        verb, *words = command.split()
        assert [word for word in words if word.startswith("--") and word not in known[verb]] == [], command


def options(app: Any) -> dict[str, set[str]]:
    import typer

    group: Any = typer.main.get_command(app)
    return {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in group.commands.items()
    }


def test_the_image_has_the_version_of_ray_that_is_tested() -> None:
    assert f"FROM rayproject/ray:{RAY}-" in (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    board = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
    assert board["title"] == "mcutune" and board["uid"] and board["schemaVersion"] >= 39
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "run", "fold"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    for panel in board["panels"]:
        assert panel["type"] == "timeseries" and panel["title"] and panel["description"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_readme_names_every_file() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in FOLDER.iterdir() if path.is_file()} - {"README.md"}
    assert [name for name in sorted(files) if f"`{name}`" not in text] == []
