"""What is deployed says the same as the code: metrics of dashboards and alerts, settings, commands, pinned versions."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from crosscut.api.exposition import exposition
from crosscut.cli import app
from crosscut.ports import Histogram, Metrics
from crosscut.settings import Settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/crosscut.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
PAGE = (ROOT / "docs/operate.md").read_text()

FUNCTIONS = {
    *("absent", "and", "by", "histogram_quantile", "ignoring", "increase", "max", "or", "rate", "sum", "vector"),
    "without",
}
OF_PROMETHEUS = {"up", "job", "instance"}


def amounts():
    """One of each, so that every family tells its labels."""
    return Metrics(
        queue_depth={("batch", "processor", "ready"): 1},
        queue_oldest_seconds={"processor": 1.0},
        unit_seconds={"batch": Histogram([(1.0, 1), (math.inf, 1)], 0.5)},
        retries={"timeout": 1},
        lost={"expired": 1},
        stage_seconds={"mix": 1.0},
        stage_count={"mix": 1},
        variations={"made": 1},
        bytes={"in": 1.0},
        cache={"hit": 1.0},
        jobs={"running": 1},
        workers={("processor", "busy"): 1},
    )


def known():
    """Names of samples and their labels, as /metrics tells them."""
    found = {}
    for family in text_string_to_metric_families(exposition(amounts)().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions():
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for number, query in enumerate(re.findall(r"^ +query: (.+)$", PAGE, re.MULTILINE)):
        yield f"docs/operate.md {number}", query


@pytest.mark.parametrize(("name", "expression"), list(expressions()))
def test_what_is_asked_of_prometheus_is_told(name, expression):
    metrics = known()
    bare = re.sub(r"\[[^]]*\]", "", re.sub(r'"[^"]*"', "", expression))
    words = set(re.findall(r"[a-z_][a-z_0-9]*", bare)) - FUNCTIONS
    asked = {word for word in words if word.startswith(("crosscut_", "process_"))}
    assert asked <= set(metrics), f"{name} asks for what is not there"
    assert asked or "up" in words
    labels = set().union(*(metrics[one] for one in asked))
    assert words - asked <= labels | OF_PROMETHEUS, f"{name} asks for labels that are not there"


@pytest.mark.parametrize(("name", "expression"), list(expressions()))
def test_amounts_of_the_whole_cluster_are_not_added_up_over_its_servers(name, expression):
    """Each server tells all of them."""
    if "crosscut_" in expression:
        assert "max" in expression or "absent" in expression, name
    for by in re.findall(r"sum by \(([^)]*)\)", expression):
        assert "instance" in by, name
    assert not re.search(r"sum\s*\(", expression), name


def test_every_row_of_the_dashboard_answers_a_question():
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["What waits", "What is slow", "What fails", "What it costs"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_service_is_pinned_and_has_a_health_check():
    assert set(SERVICES) == {"api", "worker", "postgres", "redis", "flower", "prometheus", "grafana"}
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-alpine)?", service["image"]), name
        assert service["healthcheck"]["test"][0] == "CMD", name
    assert re.search(r"^ARG DEBIAN=debian:\d+\.\d+-slim$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_only_this_machine_reaches_what_is_published():
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("name", ["api", "worker"])
def test_services_of_ours_use_settings_and_commands_that_exist(name):
    service = SERVICES[name]
    variables = {f"CROSSCUT_{field.upper()}" for field in Settings.model_fields} | {"OTEL_EXPORTER_OTLP_ENDPOINT"}
    assert set(service["environment"]) <= variables
    app.parse_args(service["command"], exit_on_error=False, print_error=False)
    if "crosscut" in service["healthcheck"]["test"]:
        app.parse_args(service["healthcheck"]["test"][2:], exit_on_error=False, print_error=False)
    grace = Settings.model_fields["grace_seconds"].default
    assert int(service["stop_grace_period"].rstrip("s")) > grace


def test_what_is_mounted_or_copied_exists():
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), volume
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        assert set(service.get("depends_on", ())) <= set(SERVICES)
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line


def test_what_the_compose_file_asks_for_is_in_the_example():
    text = (ROOT / "compose.yaml").read_text()
    example = (DEPLOY / "env.example").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == set(re.findall(r"^#?(\w+)=", example, re.MULTILINE))


@pytest.mark.parametrize("name", ["requirements.lock", "flower.lock"])
def test_the_image_has_what_was_tested(name):
    tested = _pins(ROOT / "requirements.lock")
    shipped = _pins(DEPLOY / name)
    assert len(shipped) > 15
    names = {package for package, _ in tested}
    assert [one for one in shipped if one[0] in names and one not in tested] == []
    assert (DEPLOY / name).read_text().count("--hash=sha256:") > len(shipped)


def _pins(path):
    return re.findall(r"^([a-z0-9-]+)==([^\s;]+)", path.read_text(), re.MULTILINE)
