"""What upstream's conformance asks of services, endpoints, DNS and proxies."""

import json

import pytest

from api import Api
from machine import eventually

IMAGE = "test/busybox:1"
MERGE = "application/merge-patch+json"
SERVE = "mkdir -p /w/sub; hostname > /w/index.html; echo sub > /w/sub/index.html; echo ok > /w/ok; httpd -p 8080 -h /w; httpd -f -p 9090 -h /w"


@pytest.fixture(scope="module")
def api(cluster):
    a = Api(cluster)
    yield a
    a.close()


def pod(name, labels=None, spec=None, script=SERVE, ports=((8080, "http"), (9090, "admin"))):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": IMAGE, "command": ["sh", "-c", script], "ports": [{"containerPort": p, "name": n} for p, n in ports],
         "readinessProbe": {"httpGet": {"path": "/ok", "port": 8080}, "periodSeconds": 1}} if ports else {"name": "c", "image": IMAGE, "command": ["sh", "-c", script]}], **(spec or {})}}


def service(name, ports=(("http", 80, "http"),), selector=None, **spec):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"selector": selector or {"app": "web"}, "ports":
            [{"name": n, "port": p, "targetPort": t} for n, p, t in ports], **spec}}


@pytest.fixture(scope="module")
def net(cluster):
    """Two servers and a client."""
    ns = "t-net"
    cluster.kubectl("create", "namespace", ns)
    eventually(lambda: cluster.kubectl("get", "sa", "default", "-n", ns, check=False)[0] == 0, 10)
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": [pod("web-0", spec={"hostname": "web-0", "subdomain": "head"}), pod("web-1", spec={"hostname": "web-1", "subdomain":
                  "head"}), pod("client", {"app": "client"}, script="trap 'exit 0' TERM; sleep 10000 & wait", ports=())]}, "-n", ns)
    cluster.wait_pods("app=web", 2, ns=ns)
    cluster.wait_pods("app=client", 1, ns=ns)
    yield ns
    cluster.kubectl("delete", "namespace", ns, "--wait=false")


def ask(cluster, ns, url, pod="client"):
    _, out, err = cluster.kubectl("exec", pod, "-n", ns, "--", "timeout", "3", "wget", "-qO-", url, check=False)
    return out.strip() or err.strip()[-200:]


def lookup(cluster, ns, name, kind="a"):
    return cluster.kubectl("exec", "client", "-n", ns, "--", "timeout", "5", "nslookup", f"-type={kind}", name, check=False)[1]


def test_endpoints_follow(cluster, net):
    cluster.apply(service("multi", (("a", 80, "http"), ("b", 81, "admin"))), "-n", net)

    def there():
        e = cluster.get("endpoints", "multi", "-n", net)
        s = cluster.get("endpointslices", "-n", net, "-l", "kubernetes.io/service-name=multi")["items"]
        return e.get("subsets") and len(e["subsets"][0]["addresses"]) == 2 and sum(len(x["endpoints"]) for x in s) == 2 and {p["port"] for p in s[0]["ports"]} == {8080, 9090}
    eventually(there, 15, "endpoints and slices")
    for port in (80, 81):
        eventually(lambda: ask(cluster, net, f"http://multi:{port}/ok") == "ok", 10, f"port {port}")
    cluster.apply(service("none", selector={"app": "none"}), "-n", net)
    eventually(lambda: cluster.get("endpointslices", "-n", net, "-l", "kubernetes.io/service-name=none")["items"], 10, "an empty slice")
    assert cluster.kubectl("get", "endpoints", "none", "-n", net, check=False)[0] == 0
    cluster.kubectl("delete", "service", "multi", "none", "-n", net)
    eventually(lambda: not cluster.get("endpointslices", "-n", net, "-l", "kubernetes.io/service-name in (multi,none)")["items"] and
               cluster.kubectl("get", "endpoints", "multi", "-n", net, check=False)[0] != 0, 15, "they go with it")


def test_affinity(cluster, api, net):
    cluster.apply(service("sticky", sessionAffinity="ClientIP", type="NodePort"), "-n", net)
    s = cluster.get("service", "sticky", "-n", net)
    urls = [f"http://{s['spec']['clusterIP']}/", f"http://192.0.2.10:{s['spec']['ports'][0]['nodePort']}/"]

    def answers(url, n=12):
        out = cluster.kubectl("exec", "client", "-n", net, "--", "sh", "-c", f"for i in $(seq {n}); do timeout 3 wget -qO- {url}; done", check=False)[1]
        return out.split()
    for url in urls:
        eventually(lambda: len(answers(url)) == 12, 15, url)
        assert len(set(answers(url))) == 1, url
    cluster.kubectl("patch", "service", "sticky", "-n", net, "-p", '{"spec":{"sessionAffinity":"None"}}')
    for url in urls:
        eventually(lambda: len(set(answers(url, 30))) == 2, 15, f"{url} spreads")
    cluster.kubectl("patch", "service", "sticky", "-n", net, "-p", '{"spec":{"sessionAffinity":"ClientIP"}}')
    for url in urls:
        eventually(lambda: len(set(answers(url, 20))) == 1, 15, f"{url} sticks again")


def test_type_changes(cluster, api, net):
    base = f"/api/v1/namespaces/{net}/services"

    def change(name, **spec):
        r = api.call("PATCH", f"{base}/{name}", {"spec": spec}, MERGE)
        assert r.status == 200, r
        return r.json["spec"]
    cluster.apply(service("target"), "-n", net)
    r = api.post(base, {"metadata": {"name": "x"}, "spec": {"type": "ExternalName", "externalName": f"target.{net}.svc.cluster.local"}})
    assert r.status == 201 and "clusterIP" not in r.json["spec"], r
    eventually(lambda: "canonical name" in lookup(cluster, net, f"x.{net}.svc.cluster.local", "cname"), 10, "the CNAME")
    s = change("x", type="ClusterIP", externalName=None, ports=[{"port": 80, "name": "http", "protocol": "TCP", "targetPort": 8080}], selector={"app": "web"})
    assert s["clusterIP"]
    eventually(lambda: ask(cluster, net, "http://x/ok") == "ok", 15, "x serves")
    s = change("x", type="NodePort")
    port = s["ports"][0]["nodePort"]
    eventually(lambda: ask(cluster, net, f"http://192.0.2.10:{port}/ok") == "ok", 15, "x by node port")
    s = change("x", type="ExternalName", externalName="example.com", clusterIP="", clusterIPs=None)
    assert not s.get("clusterIP") and "nodePort" not in s["ports"][0]
    eventually(lambda: "example.com" in lookup(cluster, net, f"x.{net}.svc.cluster.local", "cname"), 10)
    s = change("x", type="NodePort", externalName=None)
    assert s["clusterIP"] and s["ports"][0]["nodePort"]


def test_names(cluster, net):
    cluster.apply(service("head", clusterIP="None"), "-n", net)
    cluster.apply(service("plain"), "-n", net)
    ips = {p["metadata"]["name"]: p["status"]["podIP"] for p in cluster.get("pods", "-n", net)["items"]}
    plain = cluster.get("service", "plain", "-n", net)["spec"]["clusterIP"]
    zone = f"{net}.svc.cluster.local"
    table = [("kubernetes.default.svc.cluster.local", "a", "10.43.0.1"), (f"plain.{zone}", "a", plain), (f"web-0.head.{zone}", "a", ips["web-0"]), (f"head.{zone}", "a", ips["web-1"]),
             (f"_http._tcp.plain.{zone}", "srv", f"plain.{zone}"), (f"_http._tcp.head.{zone}", "srv", f"web-0.head.{zone}"),
             (ips["web-0"].replace(".", "-") + f".{net}.pod.cluster.local", "a", ips["web-0"])]
    for name, kind, want in table:
        eventually(lambda: want in lookup(cluster, net, name, kind), 10, f"{kind} {name} {want}; {lookup(cluster, net, name, kind)}")
    for ip, name in ((plain, "plain"), (ips["web-0"], "web-0.head")):
        out = cluster.kubectl("exec", "client", "-n", net, "--", "nslookup", ip, check=False)[1]
        assert f"name = {name}.{zone}" in out, out
    for partial in ("plain", f"plain.{net}", f"plain.{net}.svc"):
        assert ask(cluster, net, f"http://{partial}/ok") == "ok", partial
    assert "Kubernetes-managed hosts file" in cluster.kubectl("exec", "web-0", "-n", net, "--", "cat", "/etc/hosts")
    assert cluster.kubectl("exec", "web-0", "-n", net, "--", "hostname", "-f").strip() == f"web-0.head.{zone}"


def test_mirroring(cluster, api, net):
    api.post(f"/api/v1/namespaces/{net}/services", {"metadata": {"name": "own"}, "spec": {"ports": [{"port": 80}]}})
    e = {"metadata": {"name": "own"}, "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]}
    assert api.post(f"/api/v1/namespaces/{net}/endpoints", e).status == 201

    def slices():
        return cluster.get("endpointslices", "-n", net, "-l", "kubernetes.io/service-name=own")["items"]
    eventually(lambda: slices() and slices()[0]["endpoints"][0]["addresses"] == ["10.1.2.3"], 10, "the mirror")
    assert slices()[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslicemirroring-controller.k8s.io"
    e["subsets"][0]["addresses"][0]["ip"] = "10.2.3.4"
    assert api.call("PUT", f"/api/v1/namespaces/{net}/endpoints/own", e).status == 200
    eventually(lambda: slices()[0]["endpoints"][0]["addresses"] == ["10.2.3.4"], 10, "the change")
    api.call("DELETE", f"/api/v1/namespaces/{net}/endpoints/own")
    eventually(lambda: not slices(), 10, "its end")


def test_own_slices(cluster, api, net):
    """A service without selector, its slices written by hand: several addresses, several ports."""
    ips = [p["status"]["podIP"] for p in cluster.pods("app=web", ns=net)]
    api.post(f"/api/v1/namespaces/{net}/services", {"metadata": {"name": "hand"}, "spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}})
    for i, (name, port) in enumerate((("a", 8080), ("b", 9090))):
        api.post(f"/apis/discovery.k8s.io/v1/namespaces/{net}/endpointslices", {"metadata": {"name": f"hand-{i}", "labels": {"kubernetes.io/service-name": "hand",
                 "endpointslice.kubernetes.io/managed-by": "conf"}}, "addressType": "IPv4", "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in ips],
                 "ports": [{"name": name, "protocol": "TCP", "port": port}]})
    for port in (80, 81):
        eventually(lambda: ask(cluster, net, f"http://hand:{port}/ok") == "ok", 15, f"port {port}")


def test_proxies(cluster, api, net):
    cluster.apply(service("pro", (("http", 80, "http"), ("admin", 81, "admin"))), "-n", net)
    base = f"/api/v1/namespaces/{net}"
    for path in (f"{base}/pods/web-0/proxy/sub/", f"{base}/pods/web-0:8080/proxy/sub/", f"{base}/pods/http:web-0:9090/proxy/sub/", f"{base}/services/pro:http/proxy/sub/",
                 f"{base}/services/http:pro:admin/proxy/sub/", f"{base}/services/pro:81/proxy/sub/"):
        def works():
            r = api.get(path)
            return r.status == 200 and r.bytes == b"sub\n" or None
        eventually(works, 10, f"{path}: {api.get(path)}")
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for what in ("pods/web-0", "services/pro:http"):
            assert api.call(method, f"{base}/{what}/proxy/ok?method={method}", headers={}, fresh=True).status in (200, 400, 501), (method, what)
    r = api.get(f"{base}/pods/web-0/proxy")
    assert r.status in (301, 302, 200), r


def test_status_life(cluster, api, net):
    base = f"/api/v1/namespaces/{net}/services"
    api.post(base, service("lb", type="LoadBalancer"))
    r = api.call("PATCH", f"{base}/lb/status", {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}, "metadata": {"annotations": {"patchedstatus": "true"}}}, MERGE)
    assert r.status == 200 and r.json["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.1" and r.json["metadata"]["annotations"]["patchedstatus"] == "true", r

    def update():
        """Upstream's test tries again on a conflict too: a controller writes this status as well."""
        live = api.get(f"{base}/lb").json
        live["status"]["conditions"] = [{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        reply = api.call("PUT", f"{base}/lb/status", live)
        assert reply.status in (200, 409), reply
        return reply.status == 200
    eventually(update, 5, "an update of the status")
    api.call("DELETE", f"{base}/lb")
    e = api.get("/api/v1/namespaces/default/endpoints/kubernetes").json
    assert e["subsets"][0]["addresses"] and e["subsets"][0]["ports"][0]["name"] == "https"
    s = api.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").json
    assert s["endpoints"][0]["addresses"] == [e["subsets"][0]["addresses"][0]["ip"]] and s["metadata"]["labels"]["kubernetes.io/service-name"] == "kubernetes"
    ports = {p["name"]: p["port"] for p in api.get("/api/v1/namespaces/default/services/kubernetes").json["spec"]["ports"]}
    assert ports["https"] == 443


def test_udp_and_tcp_on_one_port(cluster, net):
    body = service("two")
    body["spec"]["ports"] = [{"name": "t", "port": 80, "targetPort": 8080, "protocol": "TCP"}, {"name": "u", "port": 80, "targetPort": 8080, "protocol": "UDP"}]
    cluster.apply(body, "-n", net)
    eventually(lambda: {(p["port"], p["protocol"]) for p in cluster.get("endpointslices", "-n", net, "-l", "kubernetes.io/service-name=two")["items"][0]["ports"]} ==
               {(8080, "TCP"), (8080, "UDP")}, 10, "both protocols")
    eventually(lambda: ask(cluster, net, "http://two/ok") == "ok", 10)
