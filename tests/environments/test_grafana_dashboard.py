"""The dashboard for Grafana: its expressions have the names and labels of the metrics, and it shows all metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from msd.broker.status.downloads import DownloadTotals
from msd.broker.status.metrics import SnapshotCollector
from msd.wire.protocol.states import DownloadState, WorkerState
from tests.unit.snapshots import snapshot

FILE = Path(__file__).parents[2] / "deploy" / "grafana" / "msd.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
#: The label that Prometheus adds to all metrics of one server and that the dashboard uses.
TARGET_LABELS = {"instance"}
#: What Grafana calls a number without a unit, bytes, bytes per second, events per second, and seconds.
UNITS = {"short", "bytes", "binBps", "cps", "dtdurations"}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def exported() -> dict[str, set[str]]:
    """The labels of each metric that the servers export."""
    status = snapshot(*WorkerState)
    workers = [replace(worker, name="attic", host="192.0.2.7", catalogue=b"c") for worker in status.workers]
    totals = DownloadTotals(states=dict.fromkeys(DownloadState, 1))
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(lambda: (replace(status, workers=workers), totals)))
    families: Iterable[Metric] = registry.collect()
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


METRICS = exported()


def targets() -> list[tuple[str, dict[str, Any]]]:
    return [(panel["title"], target) for panel in PANELS for target in panel["targets"]]


def queries() -> list[str]:
    """All expressions, and those of the variables."""
    variables = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    return [*(target["expr"] for _, target in targets()), *variables]


def names(query: str) -> set[str]:
    """The metrics that an expression uses."""
    return set(re.findall(r"\bmsd_\w+", query))


def test_every_metric_is_shown_and_no_other_is_asked_for() -> None:
    assert set().union(*map(names, queries())) == METRICS.keys()


@pytest.mark.parametrize(("title", "target"), targets())
def test_the_labels_exist(title: str, target: dict[str, Any]) -> None:
    query = target["expr"]
    for name, matchers in re.findall(r"\b(msd_\w+)(?:{([^}]*)})?", query):
        labels = set(re.findall(r"(\w+)(?==)", matchers))
        assert labels <= METRICS[name] | TARGET_LABELS, f"{title}: {name}"
        assert "instance" in labels, f"{title}: {name} is not limited to the chosen servers"
    known = TARGET_LABELS.union(*(METRICS[name] for name in names(query)))
    lists = re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", query)
    assert {label for each in lists for label in each.split(", ")} <= known
    shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    # What is summed up has only the labels that are named.
    kept = {label for each in lists for label in each.split(", ")} if "sum" in query else known
    assert shown <= kept, title


def test_every_state_of_a_worker_has_a_number_and_a_word() -> None:
    (panel,) = [panel for panel in PANELS if panel["type"] == "state-timeline"]
    numbers = dict(re.findall(r'state="(\w+)"} \* (\d+)', panel["targets"][0]["expr"]))
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    assert numbers.keys() == {state.value for state in WorkerState}
    assert {value["text"]: number for number, value in mapping["options"].items()} == numbers


def test_it_works_with_any_data_source_of_any_grafana() -> None:
    """It is fit for provisioning, which resolves no ``__inputs``."""
    assert "__inputs" not in DASHBOARD
    assert DASHBOARD["id"] is None
    datasource, instance = DASHBOARD["templating"]["list"]
    assert (datasource["name"], datasource["type"], datasource["query"]) == ("datasource", "datasource", "prometheus")
    assert instance["name"] == "instance"
    assert instance["datasource"] == DATASOURCE
    assert all(panel["datasource"] == DATASOURCE for panel in PANELS)
    assert all(target["datasource"] == DATASOURCE for _, target in targets())


def test_every_panel_has_a_description_a_unit_and_a_place() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert [row["title"] for row in ROWS] == ["Overview", "Traffic", "Downloads", "Workers", "Problems"]
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        units = {panel["fieldConfig"]["defaults"]["unit"]}
        assert units <= UNITS, panel["title"]
        for target in panel["targets"]:
            assert target["legendFormat"], panel["title"]
    areas = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(area["x"] + area["w"] <= 24 for area in areas)
    for one, other in combinations(areas, 2):
        is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert is_beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
