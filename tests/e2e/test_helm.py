"""helm: install, upgrade, rollback and uninstall a chart."""

import os

import pytest

from machine import CLIENTS, eventually

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: web\nversion: 0.1.0\n",
    "values.yaml": "replicas: 1\ngreeting: hello\n",
    "templates/all.yaml": """
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}-page}
data: {index.html: {{ .Values.greeting | quote }}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata:
      labels: {app: {{ .Release.Name }}}
      annotations: {page: {{ .Values.greeting | sha256sum }}}
    spec:
      terminationGracePeriodSeconds: 0
      volumes: [{name: page, configMap: {name: {{ .Release.Name }}-page}}]
      containers:
      - {name: c, image: "test/busybox:1", command: [httpd, -f, -p, "8080", -h, /www], volumeMounts: [{name: page, mountPath: /www}]}
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}}
spec: {selector: {app: {{ .Release.Name }}}, ports: [{port: 80, targetPort: 8080}]}
""",
}


@pytest.fixture
def helm(cluster, ns):
    chart = f"{cluster.dir}/chart"
    for name, text in CHART.items():
        os.makedirs(os.path.dirname(f"{chart}/{name}"), exist_ok=True)
        with open(f"{chart}/{name}", "w") as f:
            f.write(text)

    def call(*args, **kw):
        return cluster.run(os.path.join(CLIENTS, "helm"), "--kubeconfig", cluster.kubeconfig, "-n", ns, *args, timeout=90,
                           env={"HOME": cluster.dir}, **kw).stdout
    call.chart = chart
    return call


def test_release(cluster, ns, helm):
    def page():
        pod = cluster.pods("app=site", ns=ns)[0]["metadata"]["name"]
        return cluster.kubectl("exec", "-n", ns, pod, "--", "wget", "-qO-", "http://site/")

    assert "STATUS: deployed" in helm("install", "site", helm.chart, "--wait", "--timeout", "60s")
    eventually(lambda: page() == "hello", 15, "the first page")
    helm("upgrade", "site", helm.chart, "--set", "replicas=2,greeting=changed", "--wait", "--timeout", "60s")
    cluster.wait_pods("app=site", 2, ns=ns)
    eventually(lambda: page() == "changed", 15, "the changed page")
    helm("rollback", "site", "1", "--wait", "--timeout", "60s")
    eventually(lambda: page() == "hello", 15, "the first page again")
    assert len(helm("history", "site").splitlines()) == 4
    helm("uninstall", "site", "--wait")
    eventually(lambda: not cluster.get("deployments,services,pods", "-n", ns)["items"], 30, "nothing left")
