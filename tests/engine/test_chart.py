"""The chart in ``deploy/helm``: helm and the schemas of Kubernetes accept it, and its objects fit together."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest

from tests.engine.charts import CHART, RELEASE, ROOT, Helm, Object, pick, pod_templates

pytestmark = pytest.mark.engine

#: The oldest version of Kubernetes for which the chart is, and the newest one with schemas.
VERSIONS = ("1.25", "1.37")
PUBLIC, SERVER_SECRET, WORKER_SECRET = "b0" * 32, "5e" * 32, "3a" * 32

KEYS: Object = {
    "serverKey": {"public": PUBLIC},
    "workerKey": {"public": f"workers {PUBLIC}\n", "secret": f"{WORKER_SECRET}\n"},
}
EXISTING: Object = {
    "serverKey": {"public": PUBLIC, "existingSecret": "our-servers"},
    "workerKey": {"public": f"workers {PUBLIC}\n", "existingSecret": "our-workers"},
}
PEER = {"ipBlock": {"cidr": "192.0.2.0/24"}}
PLACEMENT: Object = {
    "nodeSelector": {"disk": "films"},
    "tolerations": [{"key": "films", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]
            }
        }
    },
    "podAnnotations": {"example.org/team": "films"},
}
FILLING = {
    "name": "fill",
    "image": "msd:0.1.0",
    "args": ["download", "-o", "/srv/share/"],
    "env": [{"name": "MSD_LINK", "valueFrom": {"secretKeyRef": {"name": "films", "key": "link"}}}],
    "volumeMounts": [{"name": "share", "mountPath": "/srv/share"}],
}
VARIANTS: dict[str, Object] = {
    "defaults": {},
    "keys": KEYS,
    "server-key": {**KEYS, "serverKey": {"public": PUBLIC, "secret": SERVER_SECRET}},
    "existing-secrets": EXISTING,
    "networks-of-nodes": {**KEYS, "broker": {"hostNetwork": True}, "workers": {"hostNetwork": True}},
    "node-port": {**KEYS, "broker": {"port": 30223}, "service": {"type": "NodePort"}},
    "load-balancer": {
        **KEYS,
        "service": {
            "type": "LoadBalancer",
            "annotations": {"example.org/internal": "true"},
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
        },
    },
    "volumes": {
        **KEYS,
        "workers": {
            "kind": "StatefulSet",
            "share": {"size": "2Ti", "storageClass": "fast"},
            "cache": {"storageClass": "fast"},
            "initContainers": [FILLING],
        },
    },
    "network-volume": {
        **KEYS,
        "workers": {"kind": "StatefulSet", "share": {"volume": {"nfs": {"server": "192.0.2.9", "path": "/films"}}}},
    },
    "store": {
        **KEYS,
        "workers": {
            "kind": "StatefulSet",
            "share": {"url": "s3://films/new/"},
            "args": ["--keep-index"],
            "env": [{"name": "AWS_REGION", "value": "eu-central-1"}],
            "envFrom": [{"secretRef": {"name": "films-store"}}],
        },
    },
    "folders-of-nodes": {
        **KEYS,
        "workers": {"share": {"hostPath": "/srv/films: all # 1"}, "cache": {"hostPath": "/var/cache/msd"}},
    },
    "store-on-each-node": {**KEYS, "workers": {"share": {"url": "https://films.example.org/one.bin"}}},
    "network-policy": {**KEYS, "networkPolicy": {"enabled": True}},
    "clients": {**KEYS, "networkPolicy": {"enabled": True, "clients": [PEER], "metrics": [PEER]}},
    "no-metrics": {**KEYS, "metrics": {"enabled": False}, "networkPolicy": {"enabled": True}},
    "no-volume-for-keys": {**EXISTING, "broker": {"persistence": {"enabled": False}}},
    "everything-else": {
        **KEYS,
        "image": {"repository": "registry.example.org/msd", "tag": "7", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "broker": {"authority": "node-1", "host": "::", "updateStrategy": "OnDelete", **PLACEMENT},
        "workers": {"args": ["--hidden", "--exclude=*.tmp"], "rate": "25MiB", **PLACEMENT},
    },
}
each_variant = pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())


def selects(selector: Object, template: Object) -> bool:
    return set(selector.items()) <= set(template["metadata"]["labels"].items())


def containers(template: Object) -> list[Object]:
    """The containers of the chart itself; the user's own are the user's affair."""
    spec = template["spec"]
    return [c for c in [*spec.get("initContainers", []), *spec["containers"]] if c["name"] != FILLING["name"]]


@each_variant
def test_helm_finds_nothing_to_complain_of(helm: Helm, values: Object) -> None:
    ended = helm.run("lint", "--strict", values=values)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "[WARNING]" not in ended.stdout


@each_variant
@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_of_kubernetes_accept_each_object(helm: Helm, values: Object, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for item in helm.render(values):
        assert validator.validate(item, version, strict=True) == version


def test_a_misspelt_key_would_be_found(helm: Helm) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    item = pick(helm.render(KEYS), "DaemonSet", "worker")
    item["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(validator.ValidationError, match="readynessProbe"):
        validator.validate(item, VERSIONS[0], strict=True)


@each_variant
def test_secret_keys_are_in_secrets_only(helm: Helm, values: Object) -> None:
    objects = helm.render(values)
    secrets = {o["metadata"]["name"]: o["stringData"] for o in objects if o["kind"] == "Secret"}
    others = json.dumps([o for o in objects if o["kind"] != "Secret"])
    assert SERVER_SECRET not in others
    assert WORKER_SECRET not in others
    given = {}
    if values.get("serverKey", {}).get("secret"):
        given[f"{RELEASE}-msd-server-key"] = {"server.key": SERVER_SECRET}
    if values.get("workerKey", {}).get("secret"):
        given[f"{RELEASE}-msd-worker-key"] = {"worker.key": WORKER_SECRET}
    assert secrets == given
    # An argument or a variable would show the key to others on the node.
    for template in pod_templates(objects):
        references = re.findall(r'"secretName": "([^"]+)"', json.dumps(template))
        assert {*references} <= {*secrets, "our-servers", "our-workers"}
        for container in containers(template):
            assert "secretKeyRef" not in json.dumps(container.get("env", []))


@each_variant
def test_containers_have_no_rights_that_they_do_not_need(helm: Helm, values: Object) -> None:
    for template in pod_templates(helm.render(values)):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        user = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}
        assert user.items() <= spec["securityContext"].items()
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        for container in spec["containers"]:
            assert {"requests", "limits"} <= container["resources"].keys()


def test_pods_with_volumes_are_admitted_at_the_level_restricted(helm: Helm) -> None:
    """Of the Pod Security Standards; the contexts of the containers, which they need, too, are tested above."""
    for template in pod_templates(helm.render(VARIANTS["volumes"])):
        assert not template["spec"].get("hostNetwork")
        kinds = {key for volume in template["spec"]["volumes"] for key in volume if key != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}


@each_variant
def test_probes_neither_end_a_worker_that_sleeps_nor_call_it_ready(helm: Helm, values: Object) -> None:
    for template in pod_templates(helm.render(values)):
        (container,) = template["spec"]["containers"]
        for name in ("startupProbe", "livenessProbe"):
            assert container[name]["exec"]["command"][:2] == ["msd", "health"]
            # The command takes up to 3 s, and Python some time on a busy node.
            assert container[name]["timeoutSeconds"] >= 10
        assert container["readinessProbe"]["tcpSocket"]["port"] in {port["name"] for port in container["ports"]}


@each_variant
def test_the_objects_fit_together(helm: Helm, values: Object) -> None:
    objects = helm.render(values)
    templates = pod_templates(objects)
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "Service":
            (template,) = [t for t in templates if selects(spec["selector"], t)]
            ports = {p["name"]: p["containerPort"] for p in template["spec"]["containers"][0]["ports"]}
            assert all(ports[port["targetPort"]] == port["port"] for port in spec["ports"])
        if item["kind"] == "NetworkPolicy":
            (template,) = [t for t in templates if selects(spec["podSelector"]["matchLabels"], t)]
            named = {p["name"] for p in template["spec"]["containers"][0]["ports"]}
            assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} == named
        if item["kind"] in ("StatefulSet", "DaemonSet"):
            assert [*filter(lambda t: selects(spec["selector"]["matchLabels"], t), templates)] == [spec["template"]]
            claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
            volumes = [volume["name"] for volume in spec["template"]["spec"]["volumes"]] + [*claims]
            mounted = {m["name"] for c in containers(spec["template"]) for m in c["volumeMounts"]}
            assert sorted(volumes) == sorted(mounted)
    names = {(o["kind"], o["metadata"]["name"]) for o in objects}
    assert len(names) == len(objects)


def test_workers_find_the_broker_by_the_name_of_its_service(helm: Helm) -> None:
    for values in VARIANTS.values():
        objects = helm.render(values)
        service = pick(objects, "Service", "broker")
        found = [t for t in pod_templates(objects) if "worker" in t["metadata"]["labels"].values()]
        assert len(found) == ("serverKey" in values)
        if not found:
            continue
        env = {e["name"]: e.get("value") for e in found[0]["spec"]["containers"][0]["env"]}
        status, control = (next(p for p in service["spec"]["ports"] if p["name"] == n) for n in ("status", "control"))
        assert env["MSD_JOIN"] == f"{service['metadata']['name']}:{status['port']}"
        # Workers and the snapshots of server 5 know no other control port, also on the nodes.
        assert control["port"] == status["port"] + 1
        assert [p.get("nodePort", p["port"]) for p in (status, control)] == [p["port"] for p in (status, control)]


def test_a_store_needs_no_volume(helm: Helm) -> None:
    spec = pick(helm.render(VARIANTS["store"]), "StatefulSet", "worker")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["args"] == ["worker", "--keep-index", "s3://films/new/"]
    assert container["envFrom"] == [{"secretRef": {"name": "films-store"}}]
    assert {"name": "AWS_REGION", "value": "eu-central-1"} in container["env"]
    assert "share" not in {mount["name"] for mount in container["volumeMounts"]}
    assert [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]] == ["cache"]


def test_one_worker_after_another_is_replaced(helm: Helm) -> None:
    daemons = pick(helm.render(KEYS), "DaemonSet", "worker")["spec"]
    assert daemons["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    objects = helm.render(VARIANTS["volumes"])
    volumes = pick(objects, "StatefulSet", "worker")["spec"]
    assert volumes["updateStrategy"] == {"type": "RollingUpdate"}
    assert pick(objects, "PodDisruptionBudget", "worker")["spec"]["maxUnavailable"] == 1
    assert daemons["minReadySeconds"] == volumes["minReadySeconds"] > 0


def test_a_pod_starts_again_only_if_what_it_reads_changes(helm: Helm) -> None:
    def templates(values: Object) -> tuple[Object, Object]:
        objects = helm.render(values)
        return (
            pick(objects, "StatefulSet", "broker")["spec"]["template"],
            pick(objects, "DaemonSet", "worker")["spec"]["template"],
        )

    broker, worker = templates(KEYS)
    assert templates({**KEYS, "service": {"type": "LoadBalancer"}}) == (broker, worker)
    changed_broker, changed_worker = templates({**KEYS, "broker": {"authority": "node-1"}})
    assert changed_broker != broker
    assert changed_worker == worker
    key = {"public": KEYS["workerKey"]["public"], "secret": "4b" * 32}
    changed_broker, changed_worker = templates({**KEYS, "workerKey": key})
    assert changed_broker == broker
    assert changed_worker != worker


def test_metrics_are_announced_where_they_are_served(helm: Helm) -> None:
    def announced(values: Object) -> tuple[Object, str]:
        objects = helm.render(values)
        annotations = pick(objects, "StatefulSet", "broker")["spec"]["template"]["metadata"]["annotations"]
        return annotations, pick(objects, "ConfigMap", "broker")["data"]["config.toml"]

    annotations, config = announced({})
    port = tomllib.loads(config)["broker"]["metrics_port"]
    assert annotations["prometheus.io/port"] == str(port)
    annotations, config = announced(VARIANTS["no-metrics"])
    assert "prometheus.io/port" not in annotations
    assert "metrics_port" not in tomllib.loads(config)["broker"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"serverKey": {"pubic": PUBLIC}}, "additional properties 'pubic' not allowed"),
        ({"serverKey": {"public": "b0"}}, "'/serverKey/public'"),
        ({"workerKey": {"public": PUBLIC}}, "'/workerKey/public'"),
        (
            {"serverKey": {"public": PUBLIC}},
            "workerKey.secret is not a secret key: give the content of a file NAME.key",
        ),
        ({**KEYS, "serverKey": {"secret": "b0"}}, "serverKey.secret is not a secret key"),
        ({"service": {"type": "NodePort"}}, "broker.port is 39223: with service.type NodePort it must be between"),
        (
            {"service": {"type": "NodePort"}, "broker": {"port": 30223, "hostNetwork": True}},
            "broker.hostNetwork uses the port of its node",
        ),
        ({"workers": {"kind": "Deployment"}}, "'/workers/kind'"),
    ],
)
def test_wrong_values_are_refused_with_the_reason(helm: Helm, values: Object, reason: str) -> None:
    ended = helm.run("template", RELEASE, values=values)
    assert ended.returncode == 1
    assert reason in ended.stderr
    assert ended.stdout == ""


def test_a_wrong_secret_key_is_not_printed(helm: Helm) -> None:
    values = {**KEYS, "workerKey": {"secret": "half-a-secret"}}
    ended = helm.run("template", RELEASE, values=values)
    assert ended.returncode == 1
    assert "half-a-secret" not in ended.stderr


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({}, ["msd keys new workers", f"exec {RELEASE}-msd-broker-0 -- msd keys list", "--set serverKey.public=KEY"]),
        (KEYS, ["rollout status daemonset/films-msd-worker", "invite . --server5 films-msd-broker.default:39223"]),
        (VARIANTS["node-port"], ["invite . --server5 NODE:30223"]),
        (VARIANTS["load-balancer"], ["invite . --server5 EXTERNAL-IP:39223"]),
        (VARIANTS["networks-of-nodes"], ["invite . --server5 NODE:39223"]),
        (VARIANTS["volumes"], ["rollout status statefulset/films-msd-worker"]),
    ],
)
def test_the_notes_name_the_next_commands(helm: Helm, values: Object, lines: list[str]) -> None:
    notes = helm.notes(values)
    assert [line for line in lines if line not in notes] == []
    assert SERVER_SECRET not in notes
    assert WORKER_SECRET not in notes


def test_chart_image_and_package_agree(helm: Helm) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'appVersion: "{project["version"]}"' in (CHART / "Chart.yaml").read_text()
    dockerfile = (ROOT / "Dockerfile").read_text()
    for template in pod_templates(helm.render(KEYS)):
        context: dict[str, Any] = template["spec"]["securityContext"]
        assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in dockerfile
