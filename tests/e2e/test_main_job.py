"""The main job: a replication controller and a service on real containers."""

import signal

from machine import eventually

WEB = """
apiVersion: v1
kind: ReplicationController
metadata: {{name: web, namespace: {ns}}}
spec:
  replicas: 3
  selector: {{app: web}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: test/busybox:1
        command: [/bin/sh, -c]
        args: ["mkdir -p /www; hostname > /www/index.html; trap 'exit 1' TERM; httpd -f -p 8080 -h /www & wait $!"]
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {ns}}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http}}]
"""


def names(pods):
    return sorted(p["metadata"]["name"] for p in pods)


def test_replication_controller_and_service(cluster, ns):
    cluster.apply(WEB.format(ns=ns))
    pods = cluster.wait_pods("app=web", 3, ns=ns)
    assert len({p["status"]["podIP"] for p in pods}) == 3

    ip = cluster.get("service", "web", "-n", ns)["spec"]["clusterIP"]
    client = names(pods)[0]

    def ask(host):
        return cluster.kubectl("exec", "-n", ns, client, "--", "timeout", "2", "wget", "-qO-", f"http://{host}/").strip()

    eventually(lambda: ask(ip) in names(pods), 10, "an answer by virtual address")
    assert ask("web") in names(pods)
    assert ask(f"web.{ns}.svc.cluster.local") in names(pods)
    # Every pod gets its share, the asking one included (hairpin).
    answers = cluster.kubectl("exec", "-n", ns, client, "--", "sh", "-c", f"for i in $(seq 60); do timeout 2 wget -qO- http://{ip}/; done").split()
    assert sorted(set(answers)) == names(pods)
    assert min(answers.count(n) for n in names(pods)) >= 6

    # A container that dies is started again, in the same pod.
    victim = names(pods)[1]
    cluster.kubectl("exec", "-n", ns, victim, "--", "kill", "1", check=False)
    eventually(lambda: cluster.get("pod", victim, "-n", ns)["status"]["containerStatuses"][0]["restartCount"] == 1, 20, "a restart")
    # A pod that goes is replaced by another.
    cluster.kubectl("delete", "pod", victim, "-n", ns)
    after = cluster.wait_pods("app=web", 3, ns=ns)
    assert victim not in names(after)

    cluster.kubectl("scale", "rc", "web", "--replicas=1", "-n", ns)
    cluster.wait_pods("app=web", 1, ns=ns)
    eventually(lambda: len(cluster.get("pods", "-n", ns)["items"]) == 1, 20, "two pods gone")


def test_service_without_endpoints_refuses(cluster, ns):
    cluster.kubectl("run", "client", "-n", ns, "--image=test/busybox:1", "--command", "--", "sleep", "1000")
    cluster.wait_pods("run=client", 1, ns=ns)
    cluster.kubectl("create", "service", "clusterip", "nobody", "--tcp=80:80", "-n", ns)
    ip = cluster.get("service", "nobody", "-n", ns)["spec"]["clusterIP"]

    def refused():
        _, out, err = cluster.kubectl("exec", "-n", ns, "client", "--", "timeout", "2", "wget", "-qO-", f"http://{ip}/", check=False)
        return "refused" in out + err

    eventually(refused, 10, "connection refused")


def test_node_port(cluster, ns):
    cluster.apply(WEB.format(ns=ns))
    pods = cluster.wait_pods("app=web", 3, ns=ns)
    cluster.kubectl("patch", "service", "web", "-n", ns, "-p", '{"spec":{"type":"NodePort"}}')
    port = cluster.get("service", "web", "-n", ns)["spec"]["ports"][0]["nodePort"]
    assert 30000 <= port <= 32767
    got = eventually(lambda: cluster.sh(f"curl -s -m 2 http://{cluster.ip}:{port}/").strip(), 10, "an answer on the node port")
    assert got in names(pods)


def test_several_containers_share_the_network(cluster, ns):
    cluster.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: two, namespace: {ns}, labels: {{app: two}}}}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{{name: shared, emptyDir: {{}}}}]
  initContainers:
  - {{name: init, image: test/busybox:1, command: [sh, -c, "echo prepared > /shared/index.html"], volumeMounts: [{{name: shared, mountPath: /shared}}]}}
  containers:
  - {{name: server, image: test/busybox:1, command: [httpd, -f, -p, "127.0.0.1:8080", -h, /shared], volumeMounts: [{{name: shared, mountPath: /shared}}]}}
  - {{name: client, image: test/busybox:1, command: [sleep, "1000"]}}
""")
    cluster.wait_pods("app=two", 1, ns=ns)
    out = eventually(lambda: cluster.kubectl("exec", "-n", ns, "two", "-c", "client", "--", "wget", "-qO-", "http://localhost:8080/"), 10, "localhost")
    assert out.strip() == "prepared"
    addresses = [cluster.kubectl("exec", "-n", ns, "two", "-c", c, "--", "hostname", "-i") for c in ("server", "client")]
    assert addresses[0] == addresses[1]


def test_static_pod(cluster):
    path = f"{cluster.data}/manifests/static.yaml"
    with open(path, "w") as f:
        f.write("""
apiVersion: v1
kind: Pod
metadata: {name: static, namespace: default, labels: {app: static}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: test/busybox:1, command: [sleep, "1000"]}]
""")
    pod = cluster.wait_pods("app=static", 1)[0]
    assert pod["metadata"]["name"] == f"static-{cluster.name}"
    assert pod["metadata"]["annotations"]["kubernetes.io/config.source"] == "file"
    # The mirror can be deleted; the pod runs on and is shown again.
    cluster.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0", check=False)
    again = eventually(lambda: [p for p in cluster.pods("app=static") if p["metadata"]["uid"] != pod["metadata"]["uid"]], 20, "the mirror again")
    assert again[0]["status"]["containerStatuses"][0]["containerID"] == pod["status"]["containerStatuses"][0]["containerID"]
    import os
    os.unlink(path)
    eventually(lambda: not cluster.get("pods", "-l", "app=static")["items"], 20, "the static pod gone")


def test_restart_loses_nothing(machine):
    """kill -9 of everything, then a start: same objects, same containers, and the cluster goes on working."""
    machine.start()
    machine.wait_node()
    machine.import_busybox()
    machine.apply(WEB.format(ns="default"))
    before = machine.wait_pods("app=web", 3)
    machine.stop(signal.SIGKILL)
    machine.start()
    machine.wait_node()
    after = machine.wait_pods("app=web", 3)

    def identity(pods):
        return sorted((p["metadata"]["uid"], p["status"]["containerStatuses"][0]["containerID"], p["status"]["containerStatuses"][0]["restartCount"])
                      for p in pods)

    assert identity(before) == identity(after)
    machine.kubectl("scale", "rc", "web", "--replicas=4")
    machine.wait_pods("app=web", 4)


def test_stop_keeps_containers(machine):
    machine.start()
    machine.wait_node()
    machine.import_busybox()
    machine.apply(WEB.format(ns="default"))
    pods = machine.wait_pods("app=web", 3)
    machine.stop()
    ip = pods[0]["status"]["podIP"]
    assert machine.sh(f"curl -s -m 2 http://{ip}:8080/").strip() == pods[0]["metadata"]["name"]
