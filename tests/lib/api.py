"""Plain HTTPS requests to a machine's API server, with the administrator's certificate, a token, or nothing. The connection is made inside the
machine's network namespace by a helper process there, so no address of a machine is reached from the host. Or on the wire that the machine is plugged
into: then the helper outlives the machine."""

import base64
import json
import subprocess
import sys

SCRIPT = r"""
import base64, http.client, json, ssl, sys
conn = None
for line in sys.stdin:
    q = json.loads(line)
    try:
        if conn is None or q.get("fresh"):
            context = ssl.create_default_context(cafile=q["ca"])
            if q.get("cert"):
                context.load_cert_chain(q["cert"], q["key"])
            conn = http.client.HTTPSConnection(q["host"], q["port"], context=context, timeout=q["timeout"])
        conn.request(q["method"], q["path"], body=base64.b64decode(q["body"]) if q["body"] is not None else None, headers=q["headers"])
        r = conn.getresponse()
        body = r.read()
        answer = {"status": r.status, "headers": {k.lower(): v for k, v in r.getheaders()}, "body": base64.b64encode(body).decode()}
    except Exception as e:
        conn = None
        answer = {"error": repr(e)}
    print(json.dumps(answer), flush=True)
"""


class Reply:
    def __init__(self, answer):
        self.status, self.headers = answer["status"], answer["headers"]
        self.bytes = base64.b64decode(answer["body"])

    @property
    def json(self):
        return json.loads(self.bytes)

    def __repr__(self):
        return f"{self.status} {self.bytes[:800]!r}"


class Api:
    def __init__(self, machine, certificate=True, token=None, wire=None, timeout=30):
        self.m, self.token, self.timeout = machine, token, timeout
        self.certificate = certificate
        self.host = machine.ip if wire else "127.0.0.1"
        self.p = subprocess.Popen((wire or machine).enter(sys.executable, "-c", SCRIPT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, method, path, body=None, content_type="application/json", headers=None, **kw):
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        head = dict(headers or {})
        if body is not None:
            head["Content-Type"] = content_type
        if self.token:
            head["Authorization"] = f"Bearer {self.token}"
        pki = f"{self.m.data}/pki"
        q = {"method": method, "path": path, "headers": head, "host": self.host, "port": self.m.port, "timeout": self.timeout, "ca": f"{pki}/ca.crt",
             "body": base64.b64encode(body).decode() if body is not None else None, **kw}
        if self.certificate:
            q.update(cert=f"{pki}/admin.crt", key=f"{pki}/admin.key")
        self.p.stdin.write(json.dumps(q) + "\n")
        self.p.stdin.flush()
        answer = json.loads(self.p.stdout.readline())
        if "error" in answer:
            raise ConnectionError(answer["error"])
        return Reply(answer)

    def get(self, path, **kw):
        return self.call("GET", path, **kw)

    def post(self, path, body, **kw):
        return self.call("POST", path, body, **kw)

    def close(self):
        self.p.stdin.close()
        self.p.wait(timeout=10)
