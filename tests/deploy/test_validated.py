"""What cannot run here is validated: each file by the tool that knows its form, which must find a fault that
is put in, and by the facts of ours that no schema knows."""

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import Settings
from app.limits import Limits
from app.provider.wire import read_answer
from app.services.state import read_state
from app.store import Database, Store
from tests.deploy.tools import DEPLOY, ROOT, debian_tool, must, python_tool, run
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.deploy
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OF_OTHERS = {"kustomization.yaml", "scaledobject.yaml"}
SIGNALS = ROOT / "docs" / "signals.md"
NOT_APPLIED = {"kustomization.yaml", "secret.example.yaml"}
DRAIN_S = 19
"""`web` and `worker` end within so much after SIGTERM and the delay (docs/operations.md)."""
KNOWN = {
    str(field.validation_alias or f"TALLYHOOK_{name}").upper()
    for name, field in Settings.model_fields.items()
}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def compose() -> dict[str, Any]:
    (found,) = documents(DEPLOY / "compose.yaml")
    return found


def test_the_dockerfile(tmp_path: Path) -> None:
    """hadolint, every rule; and it finds what is wrong."""
    hadolint = python_tool("hadolint")
    text = (DEPLOY / "Dockerfile").read_text()
    must(hadolint, DEPLOY / "Dockerfile")
    broken = tmp_path / "Dockerfile"
    broken.write_text(text.replace("tini=0.19.*", "tini").replace("USER 10001:10001\n", "USER root\n"))
    found = run(hadolint, broken).stdout
    assert "DL3008" in found
    assert "DL3002" in found


def test_both_stages_of_the_dockerfile_have_one_base_by_its_digest() -> None:
    bases = re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-\w+@sha256:[0-9a-f]{64}", bases[0])


def test_the_compose_file(tmp_path: Path) -> None:
    """By the compose specification's schema; and it finds what is wrong."""
    check = [python_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    must(*check, DEPLOY / "compose.yaml")
    broken = tmp_path / "compose.yaml"
    broken.write_text((DEPLOY / "compose.yaml").read_text().replace("restart: unless", "restarts: unless"))
    assert run(*check, broken).returncode != 0


def test_the_compose_file_keeps_to_itself_what_is_nobody_s_business() -> None:
    """No metrics, database, queue or receiver is published; only nginx is, and the API on loopback."""
    file = compose()
    ports = {name: service.get("ports", []) for name, service in file["services"].items()}
    assert {name: value for name, value in ports.items() if value} == {
        "nginx": ["443:443"],
        "api": ["127.0.0.1:8081:8081"],
    }
    assert all(file["networks"][name]["internal"] for name in ("front", "data"))
    inner = {"postgres", "valkey", "migrate"}
    assert all(file["services"][name]["networks"] == ["data"] for name in inner)
    assert "outbound" not in file["services"]["web"]["networks"]


def test_each_service_is_bounded_started_again_and_given_time_to_end() -> None:
    for name, service in compose()["services"].items():
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= limits.keys(), name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["logging"]["options"]["max-size"], name
        assert "healthcheck" in service, name
        if name in ("web", "api", "worker", "migrate"):
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN_S, name
        else:
            assert re.search(r":\d+\.\d+(\.\d+)?-bookworm$", service["image"]), f"{name}: an exact version"


@pytest.mark.parametrize(
    "path", [m for m in MANIFESTS if m.name not in OF_OTHERS], ids=lambda path: path.name
)
def test_a_manifest(path: Path) -> None:
    """By the schemas of Kubernetes 1.37, where an unknown field is a fault."""
    must(python_tool("kubernetes-validate"), "--strict", path)


def test_a_manifest_with_an_unknown_field_is_found(tmp_path: Path) -> None:
    broken = tmp_path / "web.yaml"
    broken.write_text(
        (DEPLOY / "kubernetes" / "web.yaml").read_text().replace("readinessProbe", "readynessProbe")
    )
    assert run(python_tool("kubernetes-validate"), "--strict", broken).returncode != 0


def test_what_kustomize_makes_of_the_manifests(tmp_path: Path) -> None:
    """By `kubectl kustomize`, which needs no cluster: each thing is in our namespace, each image is named in
    one place, and all of it is valid still."""
    made = tmp_path / "made.yaml"
    made.write_text(must(debian_tool("kubectl", "kubernetes-client"), "kustomize", DEPLOY / "kubernetes"))
    every = documents(made)
    names = {(one["kind"], one["metadata"]["name"]) for one in every}
    listed = [one for path in MANIFESTS if path.name not in NOT_APPLIED for one in documents(path)]
    assert names == {(one["kind"], one["metadata"]["name"]) for one in listed}
    for one in every:
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "tallyhook", one["kind"]
    images = re.findall(r"image: (\S+)", made.read_text())
    assert len(images) == 4
    assert set(images) == {"registry.example.com/tallyhook:0.1.0"}
    known = tmp_path / "known.yaml"
    known.write_text(yaml.safe_dump_all(one for one in every if "keda.sh" not in one["apiVersion"]))
    must(python_tool("kubernetes-validate"), "--strict", known)


def test_what_keda_reads_by_its_own_schema() -> None:
    """That of its CRDs, where an unknown field is a fault."""
    import jsonschema  # or each process of a test run takes two seconds for it

    kinds = json.loads((Path(__file__).parent / "schemas" / "keda.json").read_text())["kinds"]
    found = documents(DEPLOY / "kubernetes" / "scaledobject.yaml")
    assert [one["kind"] for one in found] == ["ScaledObject", "TriggerAuthentication"]
    for one in found:
        jsonschema.validate(one, kinds[one["kind"]])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**one, "spec": one["spec"] | {"unknown": 1}}, kinds[one["kind"]])
    assert found[0]["spec"]["minReplicaCount"] == 1, "a worker sends and sweeps also when nothing waits"
    (trigger,) = found[0]["spec"]["triggers"]
    assert all(isinstance(value, str) for value in trigger["metadata"].values())


async def test_what_keda_asks_the_database_is_the_age_and_no_scan(
    postgres: PostgresServer, postgres_url: str
) -> None:
    import asyncpg

    (trigger,) = documents(DEPLOY / "kubernetes" / "scaledobject.yaml")[0]["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    connection = await asyncpg.connect(postgres_url)
    try:
        assert await connection.fetchval(query) == 0
        await connection.execute(
            "INSERT INTO deliveries (id, source, received_at_ms, encoding, body, state, tries, due_at_ms)"
            " SELECT gen_random_uuid(), 'delivery', at, 'identity', '', s, 0, at FROM"
            " (VALUES ('new', 45000), ('done', 900000), ('quarantined', 900000), ('new', -60000))"
            " AS v(s, age), LATERAL (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint - age)"
            " AS w(at)"
        )
        asked = float(await connection.fetchval(query))
        assert 45 <= asked < 60
        store = Store(Database(postgres_url), read_answer)
        try:
            shown = await read_state(store, [], Limits(), has_archive=False)
        finally:
            await store.close()
        (age,) = [each.value for each in shown if each.name == "inbox_oldest_seconds"]
        assert asked == pytest.approx(age, abs=5), "the age that the alerts go by"
        await connection.execute("SET enable_seqscan = off")
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {query}"))
        assert "Seq Scan" not in plan, plan
    finally:
        await connection.close()


def pods() -> list[tuple[str, dict[str, Any]]]:
    """Name and pod specification of each workload."""
    return [
        (one["metadata"]["name"], one["spec"]["template"]["spec"])
        for path in MANIFESTS
        for one in documents(path)
        if one["kind"] in ("Deployment", "Job")
    ]


def test_each_pod_is_confined_and_given_time_to_end() -> None:
    delays = {"web": 15}
    assert sorted(name for name, _ in pods()) == ["api", "migrate", "web", "worker"]
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["automountServiceAccountToken"] is False, name
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"], name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert "memory" in container["resources"]["limits"], name
        if name != "migrate":
            assert pod["terminationGracePeriodSeconds"] > delays.get(name, 0) + DRAIN_S, name
            assert {"livenessProbe", "startupProbe"} <= container.keys(), name
    env = {one["name"]: one["value"] for _, pod in pods() for one in pod["containers"][0].get("env", [])}
    assert env == {"TALLYHOOK_DRAIN_DELAY_S": str(delays["web"])}


def test_no_secret_of_the_pages_is_committed_or_sent_to_a_builder() -> None:
    secrets = (".env", "deploy/.env", "deploy/tls/privkey.pem", "deploy/tls/fullchain.pem", "secret.yaml")
    ignored = run("git", "check-ignore", *secrets)
    assert ignored.stdout.split() == list(secrets)
    context = (ROOT / ".dockerignore").read_text().splitlines()
    for pattern in ("deploy/tls", "**/.env"):
        assert context.index(pattern) > context.index("!deploy"), "the last one that fits counts"


def test_every_workload_has_a_disruption_budget_and_kustomize_names_every_file() -> None:
    every = [one for path in MANIFESTS for one in documents(path)]
    named = {kind: {one["metadata"]["name"] for one in every if one["kind"] == kind}
             for kind in ("Deployment", "PodDisruptionBudget")}  # fmt: skip
    assert named["Deployment"] == named["PodDisruptionBudget"]
    (kustomization,) = documents(DEPLOY / "kubernetes" / "kustomization.yaml")
    listed = set(kustomization["resources"])
    assert listed == {path.name for path in MANIFESTS} - NOT_APPLIED


def test_what_prometheus_reads(tmp_path: Path) -> None:
    """The alerts, and the scrape configuration that docs/signals.md shows; and a fault in either is found."""
    promtool = os.environ.get("PROMTOOL") or debian_tool("promtool", "prometheus")
    alerts = DEPLOY / "prometheus" / "alerts.yaml"
    assert "SUCCESS" in must(promtool, "check", "rules", "--lint-fatal", alerts)
    broken = tmp_path / "alerts.yaml"
    broken.write_text(
        alerts.read_text().replace("max(tallyhook_inbox_oldest_seconds)", "max(tallyhook_inbox")
    )
    assert run(promtool, "check", "rules", broken).returncode != 0
    (shown,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", SIGNALS.read_text(), re.DOTALL)
    config = tmp_path / "prometheus.yml"
    config.write_text(f"rule_files: [{alerts}]\n{shown}")
    must(promtool, "check", "config", "--lint-fatal", config)
    config.write_text(f"{shown}".replace("targets", "target"))
    assert run(promtool, "check", "config", config).returncode != 0


def test_files_of_platforms() -> None:
    """fly, Render and Heroku: as far as it goes without them, the commands and variables exist."""
    fly = tomllib.loads((DEPLOY / "fly.toml").read_text())
    (render,) = documents(DEPLOY / "render.yaml")
    heroku = json.loads((DEPLOY / "app.json").read_text())
    services = [one for one in render["services"] if one["type"] in ("web", "worker")]
    assert (DEPLOY / fly["build"]["dockerfile"]).is_file()
    assert all((ROOT / one["dockerfilePath"]).is_file() for one in services)
    commands = [*fly["processes"].values(), fly["deploy"]["release_command"], services[0]["preDeployCommand"],
                services[1]["dockerCommand"]]  # fmt: skip
    assert set(commands) <= {f"tallyhook {name}" for name in ("web", "worker", "migrate")}
    assert fly["http_service"]["processes"] == ["web"], "nothing else is for the internet"
    assert int(fly["kill_timeout"].removesuffix("s")) > float(fly["env"]["TALLYHOOK_DRAIN_DELAY_S"]) + DRAIN_S
    assert set(heroku["formation"]) <= set(
        re.findall(r"^(\w+):", (ROOT / "Procfile").read_text(), re.MULTILINE)
    )


def test_every_variable_that_a_file_sets_is_a_setting() -> None:
    text = "\n".join(
        path.read_text()
        for path in sorted(DEPLOY.rglob("*"))
        if path.is_file()
        and path.suffix in (".yaml", ".toml", ".json", ".service", "")
        and "wheel" not in path.parts
    )
    found = set(re.findall(r"\b(?:TALLYHOOK|CLORO)_[A-Z_]+\b", text))
    assert len(found) > 6
    assert found <= KNOWN, found - KNOWN
