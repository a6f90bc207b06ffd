"""The cluster files, checked offline: Ray's own validation, KubeRay's schemas, and what neither of them looks at."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import importlib.metadata
import json
import re
import runpy
import shlex
import subprocess
import tomllib
import typing
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dcae15.config import Config

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "clusters"
SCHEMAS = Path(__file__).parent / "schemas"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS: dict[str, Requirement] = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|PRIVATE KEY-|://[^/\s:@]+:[^/\s@]+@"
    r"|(?:SECRET_ACCESS_KEY|AUTH_TOKEN|PASSWORD)['\"]?(?:,\s*value)?\s*[:=]\s*['\"]?(?![-'\"$\s])"
)


def read_yaml(path: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTERS / path).read_text())


def pins() -> dict[str, str]:
    lines = [line for line in (CLUSTERS / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pairs = [re.fullmatch(r"([a-z0-9._-]+)==([a-z0-9.]+)", line) for line in lines]
    assert all(pairs), [line for line, pair in zip(lines, pairs, strict=True) if not pair]
    versions: dict[str, str] = {canonicalize_name(pair[1]): pair[2] for pair in pairs if pair}
    assert len(versions) == len(lines), "a package is pinned twice"
    return versions


def every_file() -> list[Path]:
    return sorted(path for path in CLUSTERS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", every_file(), ids=lambda path: path.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    assert not SECRETS.search(path.read_text())


@pytest.mark.parametrize(
    "text",
    [
        "aws_access_key_id: AKIAIOSFODNN7EXAMPLE",
        "- {name: AWS_SECRET_ACCESS_KEY, value: x}",
        "AWS_SECRET_ACCESS_KEY: 'abc'",
        "-e RAY_AUTH_TOKEN=0123",
        "http://user:pw@mlflow:5000",
    ],
)
def test_secrets_are_recognised(text: str) -> None:
    assert SECRETS.search(text)


@pytest.mark.parametrize("path", [p for p in every_file() if p.suffix == ".sh"], ids=lambda path: path.name)
def test_shell_scripts_parse_and_run_from_anywhere(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    assert path.stat().st_mode & 0o111, "not executable"
    usage = subprocess.run([path], capture_output=True, text=True)
    assert usage.returncode == 2
    assert path.name in usage.stderr


def test_readme_names_only_files_that_exist() -> None:
    named = set(re.findall(r"clusters/[\w./-]*\w", (CLUSTERS / "README.md").read_text()))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


# --- constraints.txt


def test_every_dependency_is_pinned_within_its_range() -> None:
    versions = pins()
    wrong = [str(r) for name, r in REQUIREMENTS.items() if versions.get(name, "0") not in r.specifier]
    assert wrong == []


def test_the_pins_satisfy_each_other() -> None:
    versions, checked, wrong = pins(), 0, []
    for name, version in versions.items():
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
            pin = versions.get(canonicalize_name(needed.name))
            if wanted and (pin is None or not needed.specifier.contains(pin, prereleases=True)):
                wrong.append(f"{name} needs {needed}, pinned: {pin}")
    assert checked, "no pinned version is installed here: nothing was checked"
    assert wrong == []


# --- Dockerfile


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", (CLUSTERS / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def test_image_is_built_on_the_official_ray_of_the_pinned_version() -> None:
    tag = f"rayproject/ray:{pins()['ray']}-py311-"
    assert ("ARG", f"BASE={tag}gpu") in instructions()
    assert [rest for word, rest in instructions() if word == "FROM"] == ["${BASE}"]
    mentioned = re.findall(r"rayproject/ray:\S+", (CLUSTERS / "Dockerfile").read_text())
    assert {*mentioned} == {f"{tag}gpu", f"{tag}cpu"}


def test_image_installs_with_the_constraints_and_never_as_root() -> None:
    steps = instructions()
    users = [rest for word, rest in steps if word == "USER"]
    assert users and all(re.fullmatch(r"[1-9]\d*(:\d+)?", user) for user in users)
    first_run = next(i for i, (word, _) in enumerate(steps) if word == "RUN")
    assert any(word == "USER" for word, _ in steps[:first_run])
    installs = [
        command for word, rest in steps if word == "RUN" for command in rest.split("&&") if "pip install" in command
    ]
    assert installs and all("-c clusters/constraints.txt" in c or "--no-deps" in c for c in installs)


def test_dockerignore_lets_through_exactly_what_the_image_copies() -> None:
    copied = {source for word, rest in instructions() if word == "COPY" for source in shlex.split(rest)[1:-1]}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    assert copied == {line[1:] for line in ignore if line.startswith("!")}


def image_env() -> dict[str, str]:
    joined = " ".join(rest for word, rest in instructions() if word == "ENV")
    return dict(pair.split("=", 1) for pair in shlex.split(joined))


def test_image_sets_what_every_process_needs() -> None:
    env = image_env()
    assert env["RAY_DATA_USE_DATASOURCE_V2"] == "0"
    assert float(env["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"]) < 2
    assert env["RAY_worker_niceness"] == "0"
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
    problems = []
    types = config["available_node_types"]
    head = types[config["head_node_type"]]
    if head["resources"].get("GPU"):
        problems.append("the head has a GPU")
    if head["resources"].get("CPU") != 0:
        problems.append("tasks can run on the head")
    gpu_types = [name for name, node in types.items() if node["resources"].get("GPU")]
    if not gpu_types:
        problems.append("no GPU workers")
    for name, node in types.items():
        if "Name" not in node["node_config"].get("IamInstanceProfile", {}):
            problems.append(f"{name} has no instance profile")
        if node is head:
            continue
        if not 0 == node["min_workers"] < node["max_workers"] <= config["max_workers"]:
            problems.append(f"{name} does not scale from 0")
        if name in gpu_types and node["node_config"].get("InstanceMarketOptions") != {"MarketType": "spot"}:
            problems.append(f"{name} is not spot")
    starts = [c for kind in ("head", "worker") for c in config[f"{kind}_start_ray_commands"] if "ray start" in c]
    if len(starts) != 2 or not all("RAY_AUTH_MODE=token ray start" in command for command in starts):
        problems.append("a start command leaves RAY_AUTH_MODE to its default")
    return problems


def test_aws_cluster_is_what_ray_and_we_want() -> None:
    config = read_yaml("aws/cluster.yaml")
    full = prepared(config)
    assert aws_problems(full) == []
    setup = " ".join(full["setup_commands"] + full["head_setup_commands"] + full["worker_setup_commands"])
    assert "pip install" not in setup, "Ray's defaults came back"
    assert f"'{pins()['ray']}'" in setup
    env = dict(
        option.removeprefix("-e ").split("=", 1) for option in full["docker"]["run_options"] if option[:3] == "-e "
    )
    assert env["RAY_AUTH_MODE"] == "token"
    assert int(env["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"]) >= 600
    assert env["DCAE15_STORAGE"].startswith("s3://")
    assert {"AWS_DEFAULT_REGION", "MLFLOW_TRACKING_URI"} <= env.keys()
    assert "/home/ray/.ray/auth_token" in full["file_mounts"]
    images = [value for key, value in full["docker"].items() if key.endswith("image")]
    images += [n["docker"]["worker_image"] for n in full["available_node_types"].values() if "docker" in n]
    assert len(images) == 3
    assert all(image.split(":")[-1].startswith(PROJECT["version"]) for image in images)


def nested(config: Any, path: str) -> tuple[Any, Any]:
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in parents:
        config = config[key]
    return config, last


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("idle_timeout_minuts", 5),
        ("available_node_types.gpu_worker.max_wrokers", 2),
        ("available_node_types.gpu_worker.max_workers", "2"),
        ("available_node_types.gpu_worker.min_workers", 20),
        ("available_node_types.gpu_worker.resources.GPU", "four"),
        ("head_node_type", "haed"),
        ("docker.container_name", None),
    ],
)
def test_ray_refuses_a_broken_aws_cluster(path: str, value: Any) -> None:
    config = read_yaml("aws/cluster.yaml")
    parent, key = nested(config, path)
    parent[key] = value
    with pytest.raises((jsonschema.ValidationError, ValueError, AssertionError)):
        prepared(config)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("available_node_types.head.resources", {"CPU": 0, "GPU": 1}, "the head has a GPU"),
        ("available_node_types.head.resources", {}, "tasks can run on the head"),
        ("available_node_types.gpu_worker.min_workers", 3, "gpu_worker does not scale from 0"),
        ("available_node_types.gpu_worker.max_workers", 0, "gpu_worker does not scale from 0"),
        ("available_node_types.gpu_worker.node_config.InstanceMarketOptions", {}, "gpu_worker is not spot"),
        ("available_node_types.cpu_worker.node_config.IamInstanceProfile", {}, "cpu_worker has no instance profile"),
        ("worker_start_ray_commands", ["ray start --address=x"], "a start command leaves RAY_AUTH_MODE to its default"),
    ],
)
def test_we_refuse_what_ray_lets_pass(path: str, value: Any, problem: str) -> None:
    config = prepared(read_yaml("aws/cluster.yaml"))
    parent, key = nested(config, path)
    parent[key] = value
    assert problem in aws_problems(config)


# --- KubeRay


@pytest.fixture(scope="module")
def kuberay() -> dict[str, jsonschema.Draft202012Validator]:
    schemas = json.loads(gzip.decompress((SCHEMAS / "kuberay-1.7.0.json.gz").read_bytes()))
    return {kind: jsonschema.Draft202012Validator(schema) for kind, schema in schemas.items()}


FILES = {"RayCluster": "kuberay/raycluster.yaml", "RayJob": "kuberay/rayjob.yaml"}


def gibibytes(quantity: str) -> int:
    assert quantity.endswith("Gi"), quantity
    return int(quantity.removesuffix("Gi"))


def group_problems(name: str, group: dict[str, Any]) -> list[str]:
    """Return what is wrong with a group of pods that the schema does not see."""
    problems = []
    if "minReplicas" in group and not 0 == group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] != 0:
        problems.append(f"{name} does not scale from 0")
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    limits = container["resources"]["limits"]
    if container["resources"]["requests"] != limits:
        problems.append(f"{name} requests less than its limits")
    if ("nvidia.com/gpu" in limits) != (name == "gpu"):
        problems.append(f"{name} has the wrong GPUs")
    if name == "gpu" and "nvidia.com/gpu" not in [t["key"] for t in pod.get("tolerations", [])]:
        problems.append("gpu does not tolerate the taint of GPU nodes")
    shm = {volume["name"]: volume.get("emptyDir", {}) for volume in pod.get("volumes", [])}.get("shm", {})
    if {"name": "shm", "mountPath": "/dev/shm"} not in container.get("volumeMounts", []) or shm.get(
        "medium"
    ) != "Memory":
        problems.append(f"{name} has no memory under /dev/shm")
    elif not 0.3 * gibibytes(limits["memory"]) <= gibibytes(shm["sizeLimit"]) < gibibytes(limits["memory"]):
        problems.append(f"{name}'s /dev/shm does not hold the object store")
    if pod["securityContext"]["runAsUser"] == 0 or not pod["securityContext"]["runAsNonRoot"]:
        problems.append(f"{name} runs as root")
    if not container["image"].split(":")[-1].startswith(PROJECT["version"]):
        problems.append(f"{name} runs another version of the package")
    return problems


def spec_problems(spec: dict[str, Any]) -> list[str]:
    groups = {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}
    problems = [problem for name, group in groups.items() for problem in group_problems(name, group)]
    if spec["rayVersion"] != pins()["ray"]:
        problems.append("another Ray than the image's")
    if spec["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        problems.append("tasks can run on the head")
    if spec["authOptions"]["mode"] != "token" or spec["autoscalerOptions"]["version"] != "v2":
        problems.append("no token, or the old autoscaler")
    return problems


@pytest.mark.parametrize("kind", FILES)
def test_kuberay_accepts(kind: str, kuberay: dict[str, jsonschema.Draft202012Validator]) -> None:
    resource = read_yaml(FILES[kind])
    kuberay[kind].validate(resource)
    assert spec_problems(resource["spec"] if kind == "RayCluster" else resource["spec"]["rayClusterSpec"]) == []


def test_both_files_describe_the_same_cluster() -> None:
    assert read_yaml(FILES["RayJob"])["spec"]["rayClusterSpec"] == read_yaml(FILES["RayCluster"])["spec"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.shutdownAfterJobFinish", True),
        ("spec.backoffLimit", "3"),
        ("spec.suspend", "no"),
        ("spec.rayClusterSpec.autoscalerOptions.version", "v3"),
        ("spec.rayClusterSpec.authOptions.mode", "tokens"),
        ("spec.rayClusterSpec.workerGroupSpecs.1.maxReplicas", "2"),
        ("spec.rayClusterSpec.workerGroupSpecs.1.maxReplica", 2),
        ("spec.rayClusterSpec.workerGroupSpecs.1.template.spec.containers.0.volumeMount", []),
        ("spec.rayClusterSpec.workerGroupSpecs.1.template.spec.containers.0.resources.limits.memory", "320 Gigs"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("metadata.name", "DCAE_15"),
        ("kind", "RayJobs"),
    ],
)
def test_schema_refuses_a_broken_job(
    path: str, value: Any, kuberay: dict[str, jsonschema.Draft202012Validator]
) -> None:
    resource = read_yaml(FILES["RayJob"])
    parent, key = nested(resource, path)
    parent[key] = value
    with pytest.raises(jsonschema.ValidationError):
        kuberay["RayJob"].validate(resource)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("minReplicas", 3, "gpu does not scale from 0"),
        ("maxReplicas", -1, "gpu does not scale from 0"),
        ("template.spec.containers.0.resources.limits", {"cpu": "44", "memory": "320Gi"}, "gpu has the wrong GPUs"),
        ("template.spec.containers.0.volumeMounts", [], "gpu has no memory under /dev/shm"),
        ("template.spec.volumes.0.emptyDir.sizeLimit", "64Gi", "gpu's /dev/shm does not hold the object store"),
        ("template.spec.tolerations", [], "gpu does not tolerate the taint of GPU nodes"),
        ("template.spec.securityContext", {"runAsNonRoot": True, "runAsUser": 0}, "gpu runs as root"),
    ],
)
def test_we_refuse_what_the_schema_lets_pass(path: str, value: Any, problem: str) -> None:
    spec = copy.deepcopy(read_yaml(FILES["RayCluster"])["spec"])
    parent, key = nested(spec["workerGroupSpecs"][1], path)
    parent[key] = value
    assert problem in spec_problems(spec)


def test_job_starts_the_pipeline_cleans_up_and_retries() -> None:
    spec = read_yaml(FILES["RayJob"])["spec"]
    assert (
        spec["shutdownAfterJobFinishes"] is True and spec["suspend"] is False
    )  # may be suspended only if it cleans up
    assert spec["backoffLimit"] >= 1
    assert int(yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30
    python, script, *settings = shlex.split(spec["entrypoint"])
    assert python == "python" and script.endswith("/pipelines/full.py")
    values = dict(setting.split("=", 1) for setting in settings)
    assert [name for name in values if not is_config_field(name)] == []
    assert values["storage"].startswith("s3://") and values["data.source"].startswith("s3://")


def test_job_asks_for_no_more_than_the_gpu_group_can_grow_to() -> None:
    spec = read_yaml(FILES["RayJob"])["spec"]
    values = dict(setting.split("=", 1) for setting in shlex.split(spec["entrypoint"])[2:])
    gpu = spec["rayClusterSpec"]["workerGroupSpecs"][1]
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    gpus_per_pod = int(limits["nvidia.com/gpu"])
    assert values["scaling.use_gpu"] == "yes", "a cluster without nodes has no GPU to detect"
    assert 0 < int(values["scaling.num_workers"]) <= gpus_per_pod * gpu["maxReplicas"]
    assert 0 < int(values["scaling.cpus_per_worker"]) * gpus_per_pod <= int(limits["cpu"])
    least, most = json.loads(values["scaling.encoders"])
    assert 1 <= least <= most <= gpus_per_pod * gpu["maxReplicas"]


def is_config_field(name: str) -> bool:
    cls: Any = Config
    for part in name.split("."):
        if not dataclasses.is_dataclass(cls) or part not in (hints := typing.get_type_hints(cls)):
            return False
        cls = hints[part]
    return not dataclasses.is_dataclass(cls)


def test_a_misspelt_setting_is_noticed() -> None:
    assert is_config_field("scaling.num_workers")
    assert not is_config_field("scaling.workers")
    assert not is_config_field("scaling")


def test_derived_schema_is_strict_but_keeps_open_what_the_crd_leaves_open() -> None:
    strict = runpy.run_path(str(SCHEMAS / "derive_kuberay.py"))["strict"]
    schema = strict(
        {
            "type": "object",
            "description": "dropped",
            "properties": {
                "closed": {"type": "object", "properties": {"mode": {"type": "string", "enum": ["a"]}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "open": {"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": True},
            },
        }
    )
    assert "dropped" not in json.dumps(schema)
    jsonschema.validate({"closed": {"mode": "a"}, "labels": {"x": "y"}, "open": {"anything": 1}}, schema)
    for broken in ({"closed": {"mode": "b"}}, {"closed": {"mod": "a"}}, {"labels": {"x": 1}}, {"other": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)
