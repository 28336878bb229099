"""Checks forkline.yaml without a cluster: every object against the published
schema (kubernetes-validate carries them), the pod against the restricted
profile of the Pod Security Standards, and what must fit together."""

import pathlib
import sys

import kubernetes_validate
import yaml

# From README.md, "Memory of a connection".
WORST_KIB, SILENT_KIB = 460, 60
# The profile allows these from Kubernetes 1.32 on.
SYSCTLS = {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}


def mib(quantity):
    assert quantity.endswith("Mi"), quantity
    return int(quantity[:-2])


def restricted(pod):
    """The fields that the profile requires, and those that a pod may use here."""
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True and security["runAsUser"] > 0
    assert security["seccompProfile"]["type"] == "RuntimeDefault"
    assert {sysctl["name"] for sysctl in security["sysctls"]} <= SYSCTLS
    for field in ["hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"]:
        assert field not in pod, field
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert all("hostPort" not in port for port in container["ports"])


def fits(pod, container):
    """The options, the limits and the waiting times agree."""
    options = dict(arg[2:].split("=") for arg in container["args"] if "=" in arg)
    cap, grace = int(options["max-children"]), int(options["grace"])
    resources = container["resources"]
    assert mib(resources["limits"]["memory"]) * 1024 >= cap * WORST_KIB
    assert mib(resources["requests"]["memory"]) * 1024 >= cap * SILENT_KIB
    # The grace time, then a second each for the reset and the kill.
    leaving = container["lifecycle"]["preStop"]["sleep"]["seconds"] + grace + 2
    assert leaving < pod["terminationGracePeriodSeconds"] <= leaving + 10
    assert container["args"][-1] == str(container["ports"][0]["containerPort"])


def main():
    text = (pathlib.Path(__file__).parent / "forkline.yaml").read_text()
    objects = list(yaml.safe_load_all(text))
    for version in sys.argv[1:]:
        for item in objects:
            kubernetes_validate.validate(item, version, strict=True)
            print(f"{item['kind']} {item['metadata']['name']}: valid for {version}")

    by_kind = {item["kind"]: item for item in objects}
    assert len(by_kind) == len(objects)
    namespace = by_kind["Namespace"]
    enforced = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"
    for kind in by_kind.keys() - {"Namespace"}:
        assert by_kind[kind]["metadata"]["namespace"] == namespace["metadata"]["name"]

    deployment = by_kind["Deployment"]["spec"]
    template = deployment["template"]
    pod, [container] = template["spec"], template["spec"]["containers"]
    restricted(pod)
    fits(pod, container)

    labels, [port] = template["metadata"]["labels"], container["ports"]
    service, policy = by_kind["Service"]["spec"], by_kind["NetworkPolicy"]["spec"]
    assert service["selector"] == labels
    assert policy["podSelector"]["matchLabels"] == labels
    assert deployment["selector"]["matchLabels"] == labels
    budget = by_kind["PodDisruptionBudget"]["spec"]
    assert budget["selector"]["matchLabels"] == labels
    assert budget["maxUnavailable"] < deployment["replicas"]
    assert service["ports"][0]["targetPort"] == port["name"]
    assert container["readinessProbe"]["tcpSocket"]["port"] == port["name"]
    assert policy["ingress"] == [{"ports": [{"port": port["name"]}]}]
    print("restricted profile, limits, times, labels and ports: ok")


main()
