"""The manifests of `fullhouse deploy kubernetes` against the schemas that Kubernetes publishes."""

import subprocess
from pathlib import Path

from overlay import overlay
from private_servers import PrivateServer
from supervised import Site

VALIDATOR = "kubernetes-validate==1.37.0"
KINDS = {"deployment", "service", "disruption", "autoscaler", "migrate"}
TIMEOUT_S = 120


def test_the_manifests_are_valid(tmp_path: Path, postgresql_server: PrivateServer) -> None:
    site = Site(tmp_path / "site")
    site.use_database(postgresql_server)
    (tmp_path / "manifests").mkdir()
    words = ("--hosts=fleet", "--workers=2", f"--into={tmp_path / 'manifests'}")
    answer = site.command("deploy", "kubernetes", site.name, *words)
    assert answer.returncode == 0, answer.stderr
    found = {path.stem: path for path in (tmp_path / "manifests").iterdir()}
    assert found.keys() == KINDS | {"kustomization"}
    python = overlay("manifests", [VALIDATOR])
    paths = [str(found[kind]) for kind in sorted(KINDS)]
    validate = [str(python), "-m", "kubernetes_validate", "--strict", *paths]
    said = subprocess.run(validate, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
