"""The manifests of `fullhouse deploy kubernetes`, as kubectl builds them, against the schemas that Kubernetes has."""

import subprocess
from pathlib import Path

import programs
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
    kustomize = [programs.path("kubectl"), "kustomize", str(tmp_path / "manifests")]
    built = subprocess.run(kustomize, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    assert f"image: {site.name}:latest" in built  # the tag is set in one place
    assert built.count("\nkind: ") + built.startswith("kind: ") == len(KINDS) - 1, "all but the migrations"
    (tmp_path / "built.yaml").write_text(built)
    python = overlay("manifests", [VALIDATOR])
    paths = [str(found[kind]) for kind in sorted(KINDS)]
    validate = [str(python), "-m", "kubernetes_validate", "--strict", *paths, str(tmp_path / "built.yaml")]
    said = subprocess.run(validate, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
