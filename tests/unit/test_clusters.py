"""The cluster files, checked offline: Ray's own validation, KubeRay's schemas, and what neither of them looks at."""

from __future__ import annotations

import copy
import gzip
import importlib.metadata
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dcae15.config import from_overrides

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "clusters"
FILES = sorted(path for path in CLUSTERS.rglob("*") if path.is_file())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS: dict[str, Requirement] = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
PINNED = [line for line in (CLUSTERS / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
PINS: dict[str, str] = {canonicalize_name(name): version for name, _, version in (x.partition("==") for x in PINNED)}
SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|PRIVATE KEY-|://[^/\s:@]+:[^/\s@]+@"
    r"|(?:SECRET_ACCESS_KEY|AUTH_TOKEN|PASSWORD)['\"]?(?:,\s*value)?\s*[:=]\s*['\"]?(?![-'\"$\s])"
)
GPU = "available_node_types.gpu_worker"
WORKERS = "spec.rayClusterSpec.workerGroupSpecs.1"


def read_yaml(path: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTERS / path).read_text())


def changed(tree: Any, path: str, value: Any) -> Any:
    """Return a copy of a tree with another value at a dotted path."""
    tree = place = copy.deepcopy(tree)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in parents:
        place = place[key]
    place[last] = value
    return tree


def test_no_file_holds_a_secret() -> None:
    for text in ("- {name: AWS_SECRET_ACCESS_KEY, value: x}", "-e RAY_AUTH_TOKEN=0123", "http://user:pw@mlflow:5000"):
        assert SECRETS.search(text), "a secret is recognised"
    assert [path.name for path in FILES if SECRETS.search(path.read_text())] == []


def test_shell_scripts_parse_and_say_how_to_be_used() -> None:
    scripts = [path for path in FILES if path.suffix == ".sh"]
    assert scripts
    for path in scripts:
        usage = subprocess.run([path], capture_output=True, text=True)
        assert usage.returncode == 2 and path.name in usage.stderr


def test_readme_names_only_files_that_exist() -> None:
    named = set(re.findall(r"clusters/[\w./-]*\w", (CLUSTERS / "README.md").read_text()))
    assert named and [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_pins_are_within_the_ranges_and_satisfy_each_other() -> None:
    assert len(PINNED) == len(PINS), "a package is pinned twice"
    assert all(re.fullmatch(r"[a-z0-9.]+", version) for version in PINS.values()), PINS
    wrong = [str(r) for name, r in REQUIREMENTS.items() if PINS.get(name, "0") not in r.specifier]
    checked = 0
    for name, version in PINS.items():
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if distribution.version.partition("+")[0] != version:
            continue
        checked += 1
        extras = {"", *(REQUIREMENTS[name].extras if name in REQUIREMENTS else ())}
        for needed in map(Requirement, distribution.requires or ()):
            wanted = needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras)
            pin = PINS.get(canonicalize_name(needed.name))
            if wanted and (pin is None or not needed.specifier.contains(pin, prereleases=True)):
                wrong.append(f"{name} needs {needed}, pinned: {pin}")
    assert checked, "no pinned version is installed here: nothing was checked"
    assert wrong == []


def test_the_image_has_the_pinned_ray_and_never_runs_as_root() -> None:
    text = re.sub(r"^\s*#.*\n", "", (CLUSTERS / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    steps = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]
    assert ("ARG", f"BASE=rayproject/ray:{PINS['ray']}-py311-gpu") in steps and ("FROM", "${BASE}") in steps
    users = [rest for word, rest in steps if word == "USER"]
    assert users and all(re.fullmatch(r"[1-9]\d*(:\d+)?", user) for user in users)
    first_run = next(i for i, (word, _) in enumerate(steps) if word == "RUN")
    assert any(word == "USER" for word, _ in steps[:first_run])
    commands = [command for word, rest in steps if word == "RUN" for command in rest.split("&&")]
    installs = [command for command in commands if "pip install" in command]
    assert installs and all("-c clusters/constraints.txt" in c or "--no-deps" in c for c in installs)
    copied = {source for word, rest in steps if word == "COPY" for source in shlex.split(rest)[1:-1]}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore and copied == {line[1:] for line in ignore if line.startswith("!")}
    env = dict(pair.split("=", 1) for word, rest in steps if word == "ENV" for pair in shlex.split(rest))
    assert env["RAY_DATA_USE_DATASOURCE_V2"] == "0" and env["RAY_worker_niceness"] == "0"
    assert float(env["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"]) < 2
    assert env["AWS_REQUEST_CHECKSUM_CALCULATION"] == env["AWS_RESPONSE_CHECKSUM_VALIDATION"] == "when_required"


# --- AWS


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """Return what Ray makes of a cluster configuration, or raise what `ray up` would raise before it asks AWS."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    full = prepare_config(copy.deepcopy(config))
    validate_config(full)
    return full


def aws_problems(config: dict[str, Any]) -> list[str]:
    """Return what is wrong with a cluster configuration that Ray's own validation does not see."""
    types = config["available_node_types"]
    head = types[config["head_node_type"]]
    starts = [c for kind in ("head", "worker") for c in config[f"{kind}_start_ray_commands"] if "ray start" in c]
    found = {
        "the head has a GPU": bool(head["resources"].get("GPU")),
        "tasks can run on the head": head["resources"].get("CPU") != 0,
        "no GPU workers": not any(node["resources"].get("GPU") for node in types.values()),
        "RAY_AUTH_MODE is left to its default": len(starts) != 2
        or not all("RAY_AUTH_MODE=token ray start" in command for command in starts),
    }
    for name, node in types.items():
        spot = node["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}
        found[f"{name} has no instance profile"] = "Name" not in node["node_config"].get("IamInstanceProfile", {})
        if node is not head:
            bounds = 0 == node["min_workers"] < node["max_workers"] <= config["max_workers"]
            found[f"{name} does not scale from 0"] = not bounds
            found[f"{name} is not spot"] = bool(node["resources"].get("GPU")) and not spot
    return [problem for problem, is_so in found.items() if is_so]


def test_aws_cluster_is_what_ray_and_we_want() -> None:
    full = prepared(read_yaml("aws/cluster.yaml"))
    assert aws_problems(full) == []
    setup = " ".join(full["setup_commands"] + full["head_setup_commands"] + full["worker_setup_commands"])
    assert "pip install" not in setup and f"'{PINS['ray']}'" in setup, "Ray's defaults came back"
    options = full["docker"]["run_options"]
    env = dict(option.removeprefix("-e ").split("=", 1) for option in options if option[:3] == "-e ")
    assert env["RAY_AUTH_MODE"] == "token" and "/home/ray/.ray/auth_token" in full["file_mounts"]
    assert int(env["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"]) >= 600
    assert env["DCAE15_STORAGE"].startswith("s3://")
    assert {"AWS_DEFAULT_REGION", "MLFLOW_TRACKING_URI"} <= env.keys()
    images = [value for key, value in full["docker"].items() if key.endswith("image")]
    images += [n["docker"]["worker_image"] for n in full["available_node_types"].values() if "docker" in n]
    assert len(images) == 3 and all(image.split(":")[-1].startswith(PROJECT["version"]) for image in images)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("idle_timeout_minuts", 5),
        (f"{GPU}.max_workers", "2"),
        (f"{GPU}.min_workers", 20),
        (f"{GPU}.resources.GPU", "four"),
        ("head_node_type", "haed"),
    ],
)
def test_ray_refuses_a_broken_aws_cluster(path: str, value: Any) -> None:
    with pytest.raises((jsonschema.ValidationError, ValueError, AssertionError)):
        prepared(changed(read_yaml("aws/cluster.yaml"), path, value))


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("available_node_types.head.resources", {"CPU": 0, "GPU": 1}, "the head has a GPU"),
        ("available_node_types.head.resources", {}, "tasks can run on the head"),
        (f"{GPU}.min_workers", 3, "gpu_worker does not scale from 0"),
        (f"{GPU}.node_config.InstanceMarketOptions", {}, "gpu_worker is not spot"),
        ("available_node_types.cpu_worker.node_config.IamInstanceProfile", {}, "cpu_worker has no instance profile"),
        ("worker_start_ray_commands", ["ray start --address=x"], "RAY_AUTH_MODE is left to its default"),
    ],
)
def test_we_refuse_what_ray_lets_pass(path: str, value: Any, problem: str) -> None:
    assert problem in aws_problems(changed(prepared(read_yaml("aws/cluster.yaml")), path, value))


# --- KubeRay


@pytest.fixture(scope="module")
def kuberay() -> dict[str, jsonschema.Draft202012Validator]:
    schemas = json.loads(gzip.decompress((Path(__file__).parent / "schemas/kuberay-1.7.0.json.gz").read_bytes()))
    return {kind: jsonschema.Draft202012Validator(schema) for kind, schema in schemas.items()}


def group_problems(name: str, group: dict[str, Any]) -> list[str]:
    """Return what is wrong with a group of pods that the schema does not see."""
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    limits, gpu = container["resources"]["limits"], "nvidia.com/gpu"
    volumes = {volume["name"]: volume.get("emptyDir", {}) for volume in pod.get("volumes", [])}
    shm = {"medium": "", "sizeLimit": "0Gi", **volumes.get("shm", {})}
    mounted = {"name": "shm", "mountPath": "/dev/shm"} in container.get("volumeMounts", [])
    memory, size = (int(text.removesuffix("Gi")) for text in (limits["memory"], shm["sizeLimit"]))
    scales = "minReplicas" not in group or 0 == group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] != 0
    security = pod["securityContext"]
    found = {
        "does not scale from 0": not scales,
        "requests less than its limits": container["resources"]["requests"] != limits,
        "has the wrong GPUs": (gpu in limits) != (name == "gpu"),
        "does not tolerate the taint of GPU nodes": name == "gpu"
        and gpu not in [toleration["key"] for toleration in pod.get("tolerations", [])],
        "has no memory under /dev/shm": not mounted or shm["medium"] != "Memory",
        "does not hold the object store in /dev/shm": not 0.3 * memory <= size < memory,
        "runs as root": security["runAsUser"] == 0 or not security["runAsNonRoot"],
        "runs another version": not container["image"].split(":")[-1].startswith(PROJECT["version"]),
    }
    return [f"{name} {problem}" for problem, is_so in found.items() if is_so]


def spec_problems(spec: dict[str, Any]) -> list[str]:
    groups = {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}
    found = {
        "another Ray than the image's": spec["rayVersion"] != PINS["ray"],
        "tasks can run on the head": spec["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0",
        "no token": spec["authOptions"]["mode"] != "token",
        "the old autoscaler": spec["autoscalerOptions"]["version"] != "v2",
    }
    return [problem for problem, is_so in found.items() if is_so] + [
        problem for name, group in groups.items() for problem in group_problems(name, group)
    ]


def test_kuberay_accepts_both_files_which_describe_the_same_cluster(kuberay) -> None:
    cluster, job = read_yaml("kuberay/raycluster.yaml"), read_yaml("kuberay/rayjob.yaml")
    kuberay["RayCluster"].validate(cluster)
    kuberay["RayJob"].validate(job)
    assert spec_problems(cluster["spec"]) == []
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.shutdownAfterJobFinish", True),
        ("spec.backoffLimit", "3"),
        ("spec.rayClusterSpec.authOptions.mode", "tokens"),
        (f"{WORKERS}.maxReplica", 2),
        (f"{WORKERS}.template.spec.containers.0.resources.limits.memory", "320 Gigs"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("metadata.name", "DCAE_15"),
        ("kind", "RayJobs"),
    ],
)
def test_the_schema_refuses_a_broken_job(path: str, value: Any, kuberay) -> None:
    with pytest.raises(jsonschema.ValidationError):
        kuberay["RayJob"].validate(changed(read_yaml("kuberay/rayjob.yaml"), path, value))


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("minReplicas", 3, "gpu does not scale from 0"),
        ("template.spec.containers.0.resources.limits", {"cpu": "44", "memory": "320Gi"}, "gpu has the wrong GPUs"),
        ("template.spec.containers.0.volumeMounts", [], "gpu has no memory under /dev/shm"),
        ("template.spec.volumes.0.emptyDir.sizeLimit", "64Gi", "gpu does not hold the object store in /dev/shm"),
        ("template.spec.tolerations", [], "gpu does not tolerate the taint of GPU nodes"),
        ("template.spec.securityContext", {"runAsNonRoot": True, "runAsUser": 0}, "gpu runs as root"),
    ],
)
def test_we_refuse_what_the_schema_lets_pass(path: str, value: Any, problem: str) -> None:
    spec = read_yaml("kuberay/raycluster.yaml")["spec"]
    assert problem in spec_problems(changed(spec, f"workerGroupSpecs.1.{path}", value))


def test_the_job_starts_the_pipeline_cleans_up_retries_and_fits() -> None:
    spec = read_yaml("kuberay/rayjob.yaml")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True and spec["suspend"] is False, "may be suspended if it cleans up"
    assert spec["backoffLimit"] >= 1
    assert int(yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30
    python, script, *settings = shlex.split(spec["entrypoint"])
    assert python == "python" and script.endswith("/pipelines/full.py")
    from_overrides(settings)  # raises for a misspelt field
    values = dict(setting.split("=", 1) for setting in settings)
    assert values["storage"].startswith("s3://") and values["data.source"].startswith("s3://")
    gpu = spec["rayClusterSpec"]["workerGroupSpecs"][1]
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    per_pod = int(limits["nvidia.com/gpu"])
    assert values["scaling.use_gpu"] == "yes", "a cluster without nodes has no GPU to detect"
    assert 0 < int(values["scaling.num_workers"]) <= per_pod * gpu["maxReplicas"]
    assert 0 < int(values["scaling.cpus_per_worker"]) * per_pod <= int(limits["cpu"])
    least, most = json.loads(values["scaling.encoders"])
    assert 1 <= least <= most <= per_pod * gpu["maxReplicas"]
