"""Service traffic and names beyond the main job: UDP, headless services, SRV, ExternalName, affinity, readiness."""

import pytest

from machine import eventually


def pod(name, ns, command, labels="", extra=""):
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {ns}, labels: {{{labels or f'app: {name}'}}}}}
spec:
  terminationGracePeriodSeconds: 0
  {extra}
  containers: [{{name: c, image: test/busybox:1, command: [sh, -c, '{command}']}}]
---
"""


@pytest.fixture
def client(cluster, ns):
    cluster.apply(pod("client", ns, "sleep 1000"))
    cluster.wait_pods("app=client", 1, ns=ns)

    def sh(command, check=True):
        return cluster.kubectl("exec", "-n", ns, "client", "--", "sh", "-c", command, check=check)
    return sh


def test_udp_service(cluster, ns, client):
    """A service over UDP, with endpoints given by hand: the cluster's own DNS behind another address."""
    cluster.apply(f"""
apiVersion: v1
kind: Service
metadata: {{name: names, namespace: {ns}}}
spec: {{ports: [{{name: dns, port: 53, protocol: UDP}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: names-1, namespace: {ns}, labels: {{kubernetes.io/service-name: names}}}}
addressType: IPv4
ports: [{{name: dns, port: 53, protocol: UDP}}]
endpoints: [{{addresses: [10.43.0.10]}}]
""")
    ip = cluster.get("service", "names", "-n", ns)["spec"]["clusterIP"]
    eventually(lambda: "10.43.0.1" in client(f"nslookup kubernetes.default.svc.cluster.local {ip}", check=False)[1].split("Name:")[-1], 15, "an answer over UDP")


def test_headless_service_and_srv(cluster, ns, client):
    serve = "httpd -f -p 8080"
    cluster.apply(pod("a", ns, serve, "app: db", "hostname: one\n  subdomain: db") + pod("b", ns, serve, "app: db", "hostname: two\n  subdomain: db") + f"""
apiVersion: v1
kind: Service
metadata: {{name: db, namespace: {ns}}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{name: http, port: 8080}}]}}
""")
    pods = {p["metadata"]["name"]: p["status"]["podIP"] for p in cluster.wait_pods("app=db", 2, ns=ns)}
    domain = f"db.{ns}.svc.cluster.local"

    def addresses(name):
        out = client(f"nslookup {name}", check=False)[1]
        return sorted(line.split()[-1] for line in out.split("\n\n", 1)[1].splitlines() if line.startswith("Address"))

    eventually(lambda: addresses(domain) == sorted(pods.values()), 10, "the addresses of both pods")
    assert addresses(f"one.{domain}") == [pods["a"]]
    out = client(f"nslookup -type=srv _http._tcp.{domain}", check=False)[1]
    assert f"one.{domain}" in out and f"two.{domain}" in out and "8080" in out


def test_external_name_points_inside(cluster, ns, client):
    cluster.kubectl("create", "service", "externalname", "alias", "--external-name", f"kubernetes.default.svc.cluster.local", "-n", ns)
    eventually(lambda: "canonical name = kubernetes.default.svc.cluster.local" in client(f"nslookup alias.{ns}.svc.cluster.local", check=False)[1],
               10, "the alias")


def test_unready_pod_gets_no_traffic(cluster, ns, client):
    cluster.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: {ns}, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: test/busybox:1
    command: [sh, -c, "echo ok > /index.html; touch /ready; httpd -f -p 8080 -h /"]
    readinessProbe: {{exec: {{command: [test, -e, /ready]}}, periodSeconds: 1, failureThreshold: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {ns}}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
""")
    cluster.wait_pods("app=web", 1, ns=ns)
    eventually(lambda: client("timeout 2 wget -qO- http://web/", check=False)[1] == "ok\n", 10, "an answer")
    cluster.kubectl("exec", "-n", ns, "web", "--", "rm", "/ready")
    eventually(lambda: "refused" in client("timeout 2 wget -qO- http://web/", check=False)[2], 10, "refusal while not ready")
    cluster.kubectl("exec", "-n", ns, "web", "--", "touch", "/ready")
    eventually(lambda: client("timeout 2 wget -qO- http://web/", check=False)[1] == "ok\n", 10, "an answer again")


def test_liveness_restarts(cluster, ns):
    cluster.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: sick, namespace: {ns}, labels: {{app: sick}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: test/busybox:1
    command: [sh, -c, "touch /alive; sleep 1000"]
    livenessProbe: {{exec: {{command: [test, -e, /alive]}}, periodSeconds: 1, failureThreshold: 1}}
""")
    cluster.wait_pods("app=sick", 1, ns=ns)
    cluster.kubectl("exec", "-n", ns, "sick", "--", "rm", "/alive")
    eventually(lambda: cluster.get("pod", "sick", "-n", ns)["status"]["containerStatuses"][0]["restartCount"] == 1, 20, "a restart")
    assert "Liveness probe failed" in cluster.kubectl("get", "events", "-n", ns)


def test_pod_reaches_the_api(cluster, ns, client):
    out = client("cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; env | grep KUBERNETES_SERVICE")
    assert ns in out and "KUBERNETES_SERVICE_HOST=10.43.0.1" in out
    assert client("nc -w 2 10.43.0.1 443 < /dev/null && echo connected").strip() == "connected"


def test_addresses_are_not_taken(cluster, ns, client):
    """A service that names the API's or the DNS' address as an external one: both stay whose they are, also when it goes."""
    cluster.apply(f"""
apiVersion: v1
kind: Service
metadata: {{name: thief, namespace: {ns}}}
spec:
  externalIPs: [10.43.0.1, 10.43.0.10]
  ports: [{{name: api, port: 443, targetPort: 8080}}, {{name: dns, port: 53, protocol: UDP}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: thief-1, namespace: {ns}, labels: {{kubernetes.io/service-name: thief}}}}
addressType: IPv4
ports: [{{name: api, port: 1}}, {{name: dns, port: 1, protocol: UDP}}]
endpoints: [{{addresses: [10.42.9.9]}}]
""")
    ip = cluster.get("service", "thief", "-n", ns)["spec"]["clusterIP"]
    eventually(lambda: ip in cluster.run("nft", "list", "map", "inet", "skiff_proxy", "services").stdout, 10, "the thief's own address")

    def works():
        assert "10.43.0.1" in client("nslookup kubernetes.default.svc.cluster.local", check=False)[1]
        client("nc -w 3 10.43.0.1 443 </dev/null")
    works()
    assert cluster.kubectl("create", "service", "clusterip", "dns", "--clusterip", "10.43.0.10", "--tcp", "53", "-n", ns, check=False)[0] != 0
    cluster.kubectl("delete", "service", "thief", "-n", ns)
    eventually(lambda: ip not in cluster.run("nft", "list", "map", "inet", "skiff_proxy", "services").stdout, 10, "the thief's end")
    works()


def test_rules_come_back(cluster, ns, client):
    """Somebody removes the table of services; no service changes."""
    cluster.run("nft", "delete", "table", "inet", "skiff_proxy")
    eventually(lambda: client("nc -w 1 10.43.0.1 443 </dev/null", check=False)[0] == 0, 10, "the service rules")


def test_memory_limit_kills(cluster, ns):
    cluster.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: hungry, namespace: {ns}}}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: test/busybox:1
    command: [sh, -c, "dd if=/dev/zero of=/dev/null bs=200M count=1"]
    resources: {{limits: {{memory: 32Mi}}}}
""")

    def ended():
        s = cluster.get("pod", "hungry", "-n", ns)["status"]
        return s["phase"] == "Failed" and s["containerStatuses"][0]["state"]["terminated"]
    state = eventually(ended, 30, "the end of the container")
    assert state["reason"] == "OOMKilled" and state["exitCode"] == 137
