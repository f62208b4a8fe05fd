"""Pods of `fullhouse deploy kubernetes`'s manifest, played by podman. It heeds no readiness: who uses them asks."""

import json
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

import containers
from private_servers import PrivateServer
from supervised import Site, wait_until

PORT = 8000
# podman 4 finds no keys of a Secret that is in the same file.
CONFIG_MAP = """apiVersion: v1
kind: ConfigMap
metadata: {name: mysite}
data:
"""


class Manifest:
    """One that podman can play for a pod at a time: its Deployment, for this image and this database."""

    def __init__(self, site: Site, image: str, server: PrivateServer, folder: Path, *words: str) -> None:
        entry = {"ENGINE": "fullhouse.db.postgresql", "HOST": server.host, "PORT": server.port, "NAME": server.database}
        entry |= {"USER": server.user, "PASSWORD": server.password}
        here = {"SITE_KEY": "x", "SITE_DATABASE": json.dumps(entry)}
        gateway = json.loads(containers._output(["network", "inspect", "podman"]))[0]["subnets"][0]["gateway"]
        there = here | {"SITE_DATABASE": json.dumps(entry | {"HOST": gateway})}  # which is there once a pod is
        self.folder = folder
        (folder / "manifests").mkdir()
        answer = site.command("deploy", "kubernetes", site.name, *words, f"--into={folder / 'manifests'}", **here)
        assert answer.returncode == 0, answer.stderr
        text = (folder / "manifests" / "deployment.yaml").read_text()
        for theirs, ours in {  # podman would publish the ports, for all pods
            "          ports: [{containerPort: 8000, name: http}, {containerPort: 9464, name: metrics}]\n": "",
            "port: http": f"port: {PORT}",
            "secretRef": "configMapRef",
            "image: mysite": f"image: {image}",
            "replicas: 2": "replicas: 1",
        }.items():
            assert theirs in text
            text = text.replace(theirs, ours)
        self._deployment = text
        self._secrets = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in there.items())

    @property
    def grace_s(self) -> int:
        """terminationGracePeriodSeconds, for which podman 4 has its own default."""
        return int(self._deployment.partition("terminationGracePeriodSeconds: ")[2].split()[0])

    def pod(self, name: str) -> "Pod":
        # podman gives an emptyDir to all pods of a Deployment together.
        text = self._deployment.replace("name: tmp", f"name: tmp-{name}").replace("  name: mysite", f"  name: {name}")
        path = self.folder / f"{name}.yaml"
        path.write_text(f"{CONFIG_MAP}{self._secrets}---\n{text}")
        return Pod(name, path, self.grace_s)


class Pod:
    """A pod; `with` it."""

    def __init__(self, name: str, manifest: Path, grace_s: int) -> None:
        self._manifest, self._grace_s = manifest, grace_s
        self._pod, self.container = f"{name}-pod-0", f"{name}-pod-0-mysite"
        self.address = ""

    def __enter__(self) -> Self:
        try:
            containers._output(["play", "kube", "--network=podman", str(self._manifest)])
            infrastructure = json.loads(containers._output(["pod", "inspect", self._pod]))["InfraContainerID"]
            self.address = address_of(infrastructure)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def wait_ready(self) -> None:
        wait_until(lambda: answers(self.container, self.address, "/-/ready", b"OK"), "the pod was ready")

    def stop(self) -> int:
        """As Kubernetes does: TERM, and KILL after the grace period. Returns the exit code of the site."""
        containers._output(["stop", f"--time={self._grace_s}", self.container])
        code: int = json.loads(containers._output(["inspect", self.container]))[0]["State"]["ExitCode"]
        return code

    def _remove(self) -> None:
        containers._podman(["play", "kube", "--down", str(self._manifest)])


def address_of(container: str) -> str:
    networks = json.loads(containers._output(["inspect", container]))[0]["NetworkSettings"]
    return str(networks["IPAddress"] or next(iter(networks["Networks"].values()))["IPAddress"])


def answers(container: str, address: str, path: str, expected: bytes, port: int = PORT) -> bool:
    """Whether a server in a container answers so. Fails where the container has ended."""
    running = containers._output(["inspect", "--format", "{{.State.Running}}", container]).strip()
    assert running == "true", containers._podman(["logs", container]).stderr
    with suppress(OSError, HTTPException), closing(HTTPConnection(address, port, timeout=5)) as client:
        client.request("GET", path)
        return client.getresponse().read().startswith(expected)
    return False


def limit_pods(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pods may have at most: no more than this machine allows."""
    ulimits = ", ".join(f'"{word.removeprefix("--ulimit=")}"' for word in containers.limits())
    (folder / "containers.conf").write_text(f"[containers]\ndefault_ulimits = [{ulimits}]\n")
    monkeypatch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
