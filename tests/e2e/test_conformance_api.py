"""What every built-in resource must do: create, read, list, watch, patch, update, status, delete, delete a collection. One row a resource; upstream's
conformance has a case of its own for most of them ("should support X API operations", "should run through the lifecycle of X")."""

import json

import pytest

from api import Api
from machine import eventually

SPEC = {"containers": [{"name": "c", "image": "test/none:1"}], "nodeSelector": {"nowhere": "x"}}
POD = {"metadata": {"labels": {"a": "b"}}, "spec": SPEC}
SELECT = {"matchLabels": {"a": "b"}}
CLAIM = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "none.example.com"}}]}}
VAP = {"matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nones"]}]}}
MAP = {**VAP, "reinvocationPolicy": "IfNeeded", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}]}
PVC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "none"}
HOOK = {"webhooks": []}
CONDITION = {"conditions": [{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from a test"}]}
CONDITION_T = {"conditions": [dict(CONDITION["conditions"][0], lastTransitionTime="2026-01-01T00:00:00Z")]}
# group/version, resource, kind, namespaced, the object beside its metadata, status to write (None: no such subresource)
ROWS = [
    ("v1", "configmaps", "ConfigMap", True, {"data": {"k": "v"}}, None),
    ("v1", "secrets", "Secret", True, {"stringData": {"k": "v"}}, None),
    ("v1", "services", "Service", True, {"spec": {"ports": [{"port": 80}]}}, CONDITION_T),
    ("v1", "serviceaccounts", "ServiceAccount", True, {"automountServiceAccountToken": False}, None),
    ("v1", "podtemplates", "PodTemplate", True, {"template": POD}, None),
    ("v1", "limitranges", "LimitRange", True, {"spec": {"limits": [{"type": "Container", "max": {"cpu": "500m"}}]}}, None),
    ("v1", "resourcequotas", "ResourceQuota", True, {"spec": {"hard": {"cpu": "1"}}}, {"hard": {"cpu": "1"}}),
    ("v1", "replicationcontrollers", "ReplicationController", True, {"spec": {"replicas": 0, "selector": {"a": "b"}, "template": POD}}, CONDITION),
    ("v1", "endpoints", "Endpoints", True, {"subsets": [{"addresses": [{"ip": "192.0.2.77"}], "ports": [{"port": 80}]}]}, None),
    ("v1", "events", "Event", True, {"involvedObject": {"kind": "Pod", "name": "x", "namespace": "NS"}, "reason": "Test", "message": "m", "type": "Normal"}, None),
    ("v1", "pods", "Pod", True, {"spec": SPEC}, CONDITION),
    ("v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, {"spec": PVC}, CONDITION),
    ("v1", "persistentvolumes", "PersistentVolume", False, {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/tmp/none"}, "storageClassName": "none", "persistentVolumeReclaimPolicy": "Retain"}}, {"message": "StatusUpdate", "reason": "E2E"}),
    ("v1", "nodes", "Node", False, {"spec": {"unschedulable": True}}, CONDITION),
    ("apps/v1", "deployments", "Deployment", True, {"spec": {"replicas": 0, "selector": SELECT, "template": POD}}, CONDITION),
    ("apps/v1", "replicasets", "ReplicaSet", True, {"spec": {"replicas": 0, "selector": SELECT, "template": POD}}, CONDITION),
    ("apps/v1", "statefulsets", "StatefulSet", True, {"spec": {"replicas": 0, "serviceName": "s", "selector": SELECT, "template": POD}}, CONDITION),
    ("apps/v1", "daemonsets", "DaemonSet", True, {"spec": {"selector": SELECT, "template": POD}}, CONDITION),
    ("apps/v1", "controllerrevisions", "ControllerRevision", True, {"data": {"x": 1}, "revision": 1}, None),
    ("batch/v1", "jobs", "Job", True, {"spec": {"suspend": True, "template": {"spec": {**SPEC, "restartPolicy": "Never"}}}}, CONDITION),
    ("batch/v1", "cronjobs", "CronJob", True, {"spec": {"schedule": "* * 31 2 *", "jobTemplate": {"spec": {"template": {"spec": {**SPEC, "restartPolicy": "Never"}}}}}},
        {"lastScheduleTime": "2026-01-01T00:00:00Z"}),
    ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", True, {"spec": {"minAvailable": 1, "selector": {"matchLabels": {"none": "x"}}}}, {"disruptionsAllowed": 0,
        "currentHealthy": 0, "desiredHealthy": 1, "expectedPods": 0}),
    ("networking.k8s.io/v1", "ingresses", "Ingress", True, {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}},
        {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", True, {"spec": {"podSelector": {}}}, None),
    ("networking.k8s.io/v1", "ingressclasses", "IngressClass", False, {"spec": {"controller": "example.com/c"}}, None),
    ("networking.k8s.io/v1", "servicecidrs", "ServiceCIDR", False, {"spec": {"cidrs": ["198.51.100.0/24"]}}, CONDITION_T),
    ("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", True, {"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.9"]}]}, None),
    ("coordination.k8s.io/v1", "leases", "Lease", True, {"spec": {"holderIdentity": "h", "leaseDurationSeconds": 30}}, None),
    ("events.k8s.io/v1", "events", "Event", True, {"eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "i", "action": "Do",
        "reason": "Test", "type": "Normal", "note": "n", "regarding": {"kind": "Pod", "name": "x", "namespace": "NS"}}, None),
    ("flowcontrol.apiserver.k8s.io/v1", "flowschemas", "FlowSchema", False, {"spec": {"priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 9000,
        "distinguisherMethod": {"type": "ByUser"}}}, CONDITION_T),
    ("flowcontrol.apiserver.k8s.io/v1", "prioritylevelconfigurations", "PriorityLevelConfiguration", False, {"spec": {"type": "Limited", "limited":
        {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}}, CONDITION_T),
    ("rbac.authorization.k8s.io/v1", "roles", "Role", True, {"rules": []}, None),
    ("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", False, {"rules": []}, None),
    ("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding", True, {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}}, None),
    ("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", False, {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
        "name": "view"}}, None),
    ("node.k8s.io/v1", "runtimeclasses", "RuntimeClass", False, {"handler": "h"}, None),
    ("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", False, {"value": 5}, None),
    ("storage.k8s.io/v1", "storageclasses", "StorageClass", False, {"provisioner": "example.com/p"}, None),
    ("storage.k8s.io/v1", "csidrivers", "CSIDriver", False, {"spec": {}}, None),
    ("storage.k8s.io/v1", "csinodes", "CSINode", False, {"spec": {"drivers": []}}, None),
    ("storage.k8s.io/v1", "csistoragecapacities", "CSIStorageCapacity", True, {"storageClassName": "s"}, None),
    ("storage.k8s.io/v1", "volumeattachments", "VolumeAttachment", False, {"spec": {"attacher": "a.example.com", "nodeName": "n", "source":
        {"persistentVolumeName": "v"}}}, {"attached": True}),
    ("storage.k8s.io/v1", "volumeattributesclasses", "VolumeAttributesClass", False, {"driverName": "d.example.com", "parameters": {"a": "b"}}, None),
    ("resource.k8s.io/v1", "deviceclasses", "DeviceClass", False, {"spec": {"selectors": []}}, None),
    ("resource.k8s.io/v1", "resourceclaims", "ResourceClaim", True, {"spec": CLAIM}, {}),
    ("resource.k8s.io/v1", "resourceclaimtemplates", "ResourceClaimTemplate", True, {"spec": {"spec": CLAIM}}, None),
    ("resource.k8s.io/v1", "resourceslices", "ResourceSlice", False, {"spec": {"driver": "d.example.com", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        "nodeName": "n"}}, None),
    ("admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False, {"spec": {**VAP, "validations": [{"expression": "true"}]}},
        CONDITION_T),
    ("admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False, {"spec": {"policyName": "p",
        "validationActions": ["Deny"]}}, None),
    ("admissionregistration.k8s.io/v1", "mutatingadmissionpolicies", "MutatingAdmissionPolicy", False, {"spec": MAP}, None),
    ("admissionregistration.k8s.io/v1", "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", False, {"spec": {"policyName": "p"}}, None),
    ("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False, HOOK, None),
    ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False, HOOK, None),
    ("certificates.k8s.io/v1", "certificatesigningrequests", "CertificateSigningRequest", False, "csr", CONDITION),
]
# A write to their /status leaves metadata alone.
STATUS_ALONE = ("flowschemas", "prioritylevelconfigurations", "resourceclaims", "validatingadmissionpolicies")
MERGE, STRATEGIC, APPLY = "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"


@pytest.fixture(scope="module")
def api(cluster):
    a = Api(cluster)
    yield a
    a.close()


def ok(reply, *codes):
    assert reply.status in (codes or (200, 201, 202)), reply
    return reply.json


def csr(cluster):
    import base64
    pem = cluster.sh("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null -subj /CN=e2e 2>/dev/null")
    return {"spec": {"request": base64.b64encode(pem.encode()).decode(), "signerName": "example.com/e2e", "usages": ["client auth"]}}


@pytest.mark.parametrize("row", ROWS, ids=[f"{r[0].split('/')[0]}-{r[1]}" for r in ROWS])
def test_operations(cluster, api, ns, row):
    gv, resource, kind, namespaced, body, status = row
    if body == "csr":
        body = csr(cluster)
    body = json.loads(json.dumps(body).replace('"NS"', json.dumps(ns)))
    root = f"/api/{gv}" if "/" not in gv else f"/apis/{gv}"
    base = f"{root}/namespaces/{ns}/{resource}" if namespaced else f"{root}/{resource}"
    name = f"conf-{ns[2:]}" if not resource == "csidrivers" else f"conf-{ns[2:]}.example.com"
    label = f"conf={ns}"

    def obj(n, colour="red"):
        return {"apiVersion": gv, "kind": kind, "metadata": {"name": n, "labels": {"conf": ns, "colour": colour}}, **body}
    if resource == "pods":
        eventually(lambda: api.get(f"{root}/namespaces/{ns}/serviceaccounts/default").status == 200, 10, "the default account")
    made = ok(api.post(base, obj(name)), 201)
    assert made["metadata"]["uid"] and made["metadata"]["creationTimestamp"]
    begin = made["metadata"]["resourceVersion"]
    assert made["apiVersion"] == gv and made["kind"] == kind
    one = f"{base}/{name}"
    again = api.post(base, obj(name))
    assert again.status == 409 and again.json["reason"] == "AlreadyExists", again
    got = ok(api.get(one), 200)
    assert got["metadata"]["uid"] == made["metadata"]["uid"]
    listed = ok(api.get(f"{base}?labelSelector={label}"), 200)
    assert [i["metadata"]["name"] for i in listed["items"]] == [name] and listed["kind"] == f"{kind}List"
    if namespaced:
        assert len(ok(api.get(f"{root}/{resource}?labelSelector={label}"), 200)["items"]) == 1
    patched = ok(api.call("PATCH", one, {"metadata": {"annotations": {"patched": "true"}}}, MERGE), 200)
    assert patched["metadata"]["annotations"]["patched"] == "true"
    patched = ok(api.call("PATCH", one, {"metadata": {"annotations": {"strategic": "true"}}}, STRATEGIC), 200)
    assert patched["metadata"]["annotations"] == {**patched["metadata"]["annotations"], "patched": "true", "strategic": "true"}

    def update(path=one, **change):
        """Read, change, write; again when another writer came between."""
        for _ in range(10):
            cur = ok(api.get(path), 200)
            cur["metadata"].setdefault("annotations", {}).update(change.get("annotations", {}))
            if "status" in change:
                cur["status"] = {**cur.get("status", {}), **change["status"]}
            r = api.call("PUT", path, cur)
            if r.status != 409:
                return ok(r, 200)
        raise AssertionError(r)
    assert update(annotations={"updated": "true"})["metadata"]["annotations"]["updated"] == "true"
    applied = ok(api.call("PATCH", f"{one}?fieldManager=conf&force=true", {"apiVersion": gv, "kind": kind, "metadata": {"name": name, "annotations": {"applied": "yes"}}},
                          APPLY), 200, 201)
    assert applied["metadata"]["annotations"]["applied"] == "yes" and applied["metadata"]["annotations"]["updated"] == "true"
    table = ok(api.get(one, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}), 200)
    assert table["kind"] == "Table" and len(table["rows"]) == 1 and table["columnDefinitions"][0]["name"] == ("Last Seen" if kind == "Event" else "Name")
    if status is not None:
        ok(api.get(f"{one}/status"), 200)
        out = ok(api.call("PATCH", f"{one}/status", {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": status}, MERGE), 200)
        assert ("patchedstatus" in out["metadata"]["annotations"]) != (resource in STATUS_ALONE)
        for k, v in status.items():
            want, have = (v, out["status"].get(k))
            if k == "conditions":
                assert any(c["type"] == "StatusUpdate" and c["status"] == "True" for c in have), out["status"]
            elif k not in ("disruptionsAllowed", "currentHealthy", "expectedPods"):
                assert want == have, (k, out)
        out = update(f"{one}/status", annotations={"updatedstatus": "true"}, status=status)
    ok(api.call("DELETE", f"{one}?gracePeriodSeconds=0"), 200, 202)

    def gone():
        r = api.get(one)
        if r.status == 200 and r.json["metadata"].get("finalizers"):
            api.call("PATCH", one, {"metadata": {"finalizers": None}}, MERGE)
        return r.status == 404
    eventually(gone, 10, f"{name} gone")
    watch = api.get(f"{base}?watch=1&resourceVersion={begin}&labelSelector={label}&timeoutSeconds=1")
    events = [json.loads(line)["type"] for line in watch.bytes.splitlines()]
    assert len(events) > 3 and set(events[:-1]) == {"MODIFIED"} and events[-1] == "DELETED", events
    if resource in ("servicecidrs", "nodes"):
        return
    names = [f"c{i}-{name}" for i in range(3)]
    for n in names:
        ok(api.post(base, obj(n)), 201)
    taken = ok(api.call("DELETE", f"{base}?labelSelector={label}&gracePeriodSeconds=0"), 200)
    assert taken["kind"] == f"{kind}List" and sorted(i["metadata"]["name"] for i in taken["items"]) == names, taken

    def empty():
        items = ok(api.get(f"{base}?labelSelector={label}"), 200)["items"]
        for i in items:
            if i["metadata"].get("finalizers"):
                api.call("PATCH", f"{base}/{i['metadata']['name']}", {"metadata": {"finalizers": None}}, MERGE)
        return not items
    eventually(empty, 10, "collection gone")
