"""Tests of deploy/kubernetes: manifests that a released Kubernetes accepts, and pods that train together."""

import json
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from interrupts import Running, checkpoints, results
from tiny import ROOT, Run, write_params

KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = ["cpu", "gpu", "tpu"]
IMAGE = f"registry.example.org/reprise@sha256:{'0' * 64}"


def pods(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the pod specs of some manifests."""
    for document in documents:
        if document["kind"] == "Pod":
            yield document["spec"]
        elif document["kind"] in ("Job", "Deployment"):
            yield document["spec"]["template"]["spec"]


def read(text: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(text))


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("backoffLimit:", "backOffLimit:", "'backOffLimit' was unexpected"),
        ("runAsNonRoot: true", "runAsNonRoot: yes please", "'yes please' is not of type 'boolean'"),
        ("kind: Job", "kind: Jobs", "Couldn't find schema for kind Jobs"),
        ("spec:\n", "spec: {\n", "Couldn't parse YAML"),
        ("", "", ""),
    ],
    ids=["key", "type", "kind", "yaml", "none"],
)
def test_lint_finds_an_error_in_a_manifest(right: str, wrong: str, message: str, run: Run, tmp_path: Path) -> None:
    manifest = tmp_path / "job.yaml"
    text = (KUBERNETES / "base/job.yaml").read_text(encoding="utf-8")
    assert right in text
    manifest.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    # Use the installed environment, even if make considers it out of date.
    command = ("make", "--silent", "--old-file=.venv/.dev", "lint-kubernetes", f"MANIFESTS={manifest}")
    done = run(ROOT, *command, code=2 if message else 0)
    assert message in done.stdout + done.stderr


def check_unprivileged(pod: dict[str, Any], dockerfile: Path) -> None:
    """Check that a pod runs as its image's user, with no rights and a root that it cannot write."""
    user = f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert user in dockerfile.read_text(encoding="utf-8")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("file", ["base/job.yaml", "workplace.yaml"])
def test_a_pod_is_unprivileged_and_writes_only_to_its_volumes(file: str) -> None:
    (pod,) = pods(read((KUBERNETES / file).read_text(encoding="utf-8")))
    check_unprivileged(pod, ROOT / "docker/Dockerfile")
    claims = [volume for volume in pod["volumes"] if "emptyDir" not in volume]
    assert claims == [{"name": "checkout", "persistentVolumeClaim": {"claimName": "reprise"}}]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed: overlays are not built")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_sets_the_number_of_hosts_and_the_image_in_one_place(overlay: str, run: Run, tmp_path: Path) -> None:
    built = tmp_path / "built.yaml"
    built.write_text(run(ROOT, "kubectl", "kustomize", str(KUBERNETES / overlay)).stdout, encoding="utf-8")
    run(ROOT, "make", "--silent", "--old-file=.venv/.dev", "lint-kubernetes", f"MANIFESTS={built}")
    (job,) = (document for document in read(built.read_text(encoding="utf-8")) if document["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    patch = (KUBERNETES / overlay / "job.yaml").read_text(encoding="utf-8")
    assert f"completions: {job['spec']['completions']}" in patch
    assert environment["REPRISE_NODES"] == str(job["spec"]["completions"]) == str(job["spec"]["parallelism"])
    assert environment["REPRISE_IMAGE"] == container["image"]
    assert container["image"] == IMAGE


def test_every_manifest_names_its_image_by_digest() -> None:
    for overlay in OVERLAYS:
        (kustomization,) = read((KUBERNETES / overlay / "kustomization.yaml").read_text(encoding="utf-8"))
        (image,) = kustomization["images"]
        assert f"{image['newName']}@{image['digest']}" == IMAGE
        assert "newTag" not in image
    for file in KUBERNETES.glob("*.yaml"):
        images = [container["image"] for pod in pods(read(file.read_text("utf-8"))) for container in pod["containers"]]
        assert images == [IMAGE]


@pytest.mark.parametrize("image", ["registry.example.org/reprise:cuda", "reprise", "reprise@sha256:12", ""])
def test_a_pod_refuses_an_image_that_is_not_named_by_digest(image: str, run: Run, tmp_path: Path) -> None:
    environment = {"JOB_COMPLETION_INDEX": "0", "REPRISE_NODES": "1", "REPRISE_IMAGE": image}
    refused = run(tmp_path, "bash", str(KUBERNETES / "train.sh"), code=2, env=environment)
    assert "kustomization.yaml: images: got" in refused.stderr
    assert "expected NAME@sha256:DIGEST" in refused.stderr
    assert list(tmp_path.iterdir()) == []


SERVE = KUBERNETES / "serve"


def served(file: str) -> dict[str, Any]:
    """Return the only document of a manifest of the servers."""
    (document,) = read((SERVE / file).read_text(encoding="utf-8"))
    return document


def test_a_server_is_unprivileged_and_reads_its_model_without_writing() -> None:
    (pod,) = pods([served("deployment.yaml")])
    check_unprivileged(pod, ROOT / "docker/serve/Dockerfile")
    (container,) = pod["containers"]
    mounted = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounted["model"] == {"name": "model", "mountPath": "/model", "readOnly": True}
    (claim,) = [volume["persistentVolumeClaim"] for volume in pod["volumes"] if "emptyDir" not in volume]
    assert claim == {"claimName": served("volume.yaml")["metadata"]["name"], "readOnly": True}


def test_a_server_runs_the_command_of_its_image_with_the_requested_cores_as_threads() -> None:
    (pod,) = pods([served("deployment.yaml")])
    (container,) = pod["containers"]
    dockerfile = (ROOT / "docker/serve/Dockerfile").read_text(encoding="utf-8")
    *command, option, threads = container["command"]
    assert f"CMD {json.dumps(command)}\n" in dockerfile
    assert (option, threads) == ("--threads", "$(THREADS)")
    assert container["env"] == [{"name": "THREADS", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}}]
    assert f"EXPOSE {container['ports'][0]['containerPort']}\n" in dockerfile


def test_a_server_gets_requests_once_it_is_ready_and_has_the_time_to_answer_them_all() -> None:
    (pod,) = pods([served("deployment.yaml")])
    (container,) = pod["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    (_, waited) = container["lifecycle"]["preStop"]["exec"]["command"]
    answers, closes = 30, 5  # `reprise serve --timeout`, and for clients that read slowly
    assert pod["terminationGracePeriodSeconds"] >= int(waited) + answers + closes


def test_service_autoscaler_and_budget_select_the_servers() -> None:
    deployment = served("deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"] == {"matchLabels": labels}
    assert served("service.yaml")["spec"]["selector"] == labels
    assert served("disruption-budget.yaml")["spec"]["selector"] == {"matchLabels": labels}
    target = served("autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert "replicas" not in deployment["spec"]  # else each `kubectl apply` would undo the autoscaler


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed: the kustomization is not built")
def test_the_servers_are_of_an_image_that_is_named_by_digest(run: Run) -> None:
    documents = read(run(ROOT, "kubectl", "kustomize", str(SERVE)).stdout)
    assert sorted(document["kind"] for document in documents) == [
        "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Service",
    ]  # fmt: skip
    images = [container["image"] for pod in pods(documents) for container in pod["containers"]]
    assert images == [IMAGE.replace("/reprise@", "/reprise-serve@")]


class Pods:
    """The pods of a job, as processes in one checkout with the command and environment of their containers."""

    def __init__(self, folder: Path, nodes: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (job,) = read((KUBERNETES / "base/job.yaml").read_text(encoding="utf-8"))
        (container,) = job["spec"]["template"]["spec"]["containers"]
        shared = {"REPRISE_NODES": str(nodes), "REPRISE_RENDEZVOUS": f"127.0.0.1:{port}", "REPRISE_IMAGE": IMAGE}
        # The others start first, so that they have to wait for pod 0.
        self.running = [
            Running(folder, *container["command"], env={**shared, "JOB_COMPLETION_INDEX": str(index)})
            for index in reversed(range(nodes))
        ]

    def __enter__(self) -> list[Running]:
        return self.running[::-1]

    def __exit__(self, *error: Any) -> None:
        for pod in self.running:
            pod.kill(pod.groups())


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_two_pods_train_are_stopped_resume_and_have_nothing_left_to_do(
    repo_copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interrupts.TIMEOUT_S", 600.0)
    write_params(repo_copy, **{"train.epochs": 30, "run.save_steps": 2})
    with Pods(repo_copy, 2) as (first, second):
        first.until(lambda: checkpoints(repo_copy))
        assert "train.sh: waiting for 127.0.0.1:" in second.stdout
        second.send(signal.SIGTERM)  # its node is drained
        for pod in (first, second):
            pod.end(143)
    with Pods(repo_copy, 2) as (first, second):
        first.until(lambda: "train: resuming from step" in first.stdout)
        for pod in (second, first):
            pod.end()
    assert json.loads((repo_copy / "metrics/provenance.json").read_text())["sessions"][-1]["processes"] == 2
    before = results(repo_copy)
    with Pods(repo_copy, 2) as (first, second):
        output = first.end()
        assert "train.sh: train on" not in output
        assert not second.ended  # it is terminated when the job succeeds
        second.send(signal.SIGTERM)
        second.end(143)
    assert results(repo_copy) == before
