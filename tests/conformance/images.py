#!/usr/bin/env python3
"""Builds the images that upstream's conformance cases use, without a registry: build/upstream/images/NAME.tar, docker archives for `skiff image import`.

What upstream's own images hold of Go or C source is built from the module of the same release (its tree is the first argument); the distribution below it is
Debian's packages, unpacked, where upstream has Alpine, Debian or distroless: see README.md. Every tag begins with local.test/e2e, which repos.yaml tells e2e.test."""

import glob
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = os.path.join(ROOT, "build", "upstream", "images")
REGISTRY = "local.test/e2e"
COREDNS = ("github.com/coredns/coredns", "v1.13.1")
# wget: busybox' of Debian 12 crashes when it is given a timeout.
TOOLS = ["bash", "busybox", "bind9-dnsutils", "bind9-host", "ca-certificates", "curl", "dash", "iperf", "iproute2", "libc-bin", "netcat-openbsd", "util-linux", "wget"]
NGINX = ["nginx-light"]

PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nwww-data:x:33:33::/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUP = "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n"


def run(*argv, **kw):
    subprocess.run(argv, check=True, **kw)


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)


def skeleton(root):
    for d in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "root", "run", "var/tmp", "tmp", "proc", "sys", "dev", "home", "mnt"):
        os.makedirs(f"{root}/{d}", exist_ok=True)
    for d in ("bin", "sbin", "lib", "lib64"):
        if not os.path.lexists(f"{root}/{d}"):
            os.symlink(f"usr/{d}", f"{root}/{d}")
    for d in ("tmp", "var/tmp"):
        os.chmod(f"{root}/{d}", 0o1777)
    write(f"{root}/etc/passwd", PASSWD)
    write(f"{root}/etc/group", GROUP)
    write(f"{root}/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")


def debian(root, packages, alone=False):
    """Unpacks packages and what they depend on (not that when alone), as apt would install them where nothing is."""
    with tempfile.TemporaryDirectory() as tmp:
        os.chmod(tmp, 0o755)
        os.makedirs(f"{tmp}/debs/partial")
        write(f"{tmp}/status", "")
        run("apt-get", "-qq", "-y", "-o", f"Dir::State::status={tmp}/status", "-o", f"Dir::Cache::archives={tmp}/debs", "-o", "Debug::NoLocking=1",
            "-o", "APT::Install-Recommends=0", "-o", "APT::Sandbox::User=root", "install", "--download-only", *packages, stdout=subprocess.DEVNULL)
        for deb in sorted(glob.glob(f"{tmp}/debs/*.deb")):
            if alone and os.path.basename(deb).split("_")[0] not in packages:
                continue
            run("dpkg-deb", "-x", deb, root)
    merge_usr(root)
    for d in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/perl5", "usr/lib/x86_64-linux-gnu/perl-base"):
        shutil.rmtree(f"{root}/{d}", ignore_errors=True)


def merge_usr(root):
    """/bin and the like become links into /usr again: unpacking made folders of them."""
    for d in ("bin", "sbin", "lib", "lib64"):
        if not os.path.islink(f"{root}/{d}"):
            run("cp", "-a", f"{root}/{d}/.", f"{root}/usr/{d}")
            shutil.rmtree(f"{root}/{d}")
            os.symlink(f"usr/{d}", f"{root}/{d}")


def busybox_applets(root):
    """A link for every applet that no package brought."""
    names = subprocess.run([f"{root}/usr/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        path = f"{root}/usr/bin/{name}"
        if not os.path.lexists(path) and not os.path.lexists(f"{root}/usr/sbin/{name}"):
            os.symlink("busybox", path)


def go_build(tree, package, out):
    run("nice", "-n", "19", "go", "build", "-p", "2", "-trimpath", "-ldflags", "-s -w", "-o", out, package, cwd=tree,
        env={**os.environ, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"})


def coredns(out):
    with tempfile.TemporaryDirectory() as tmp:
        run("go", "mod", "init", "coredns", cwd=tmp, stderr=subprocess.DEVNULL)
        run("go", "get", "@".join(COREDNS), cwd=tmp, stderr=subprocess.DEVNULL)
        go_build(tmp, COREDNS[0], out)


# ---- layers: functions that fill a folder ----


def tools(root, tree):
    skeleton(root)
    debian(root, TOOLS)
    os.symlink("nc.openbsd", f"{root}/usr/bin/nc")
    # Not busybox' own shell: Debian's prefers its applets to the programs of the same names.
    if not os.path.lexists(f"{root}/usr/bin/sh"):
        os.symlink("dash", f"{root}/usr/bin/sh")
    # Debian's busybox has no printenv.
    write(f"{root}/usr/bin/printenv", '#!/bin/sh\n[ $# -gt 0 ] || exec env\neval "[ \\"\\${$1+set}\\" ] && echo \\"\\$$1\\""\n', 0o755)
    busybox_applets(root)
    write(f"{root}/etc/passwd", PASSWD)
    write(f"{root}/etc/group", GROUP)
    bundle = f"{root}/etc/ssl/certs/ca-certificates.crt"
    os.makedirs(os.path.dirname(bundle), exist_ok=True)
    with open(bundle, "wb") as f:
        for crt in sorted(glob.glob(f"{root}/usr/share/ca-certificates/mozilla/*.crt")):
            f.write(open(crt, "rb").read())


def agnhost(root, tree):
    os.makedirs(f"{root}/uploads")
    go_build(tree, "./test/images/agnhost", f"{root}/agnhost")
    os.symlink("agnhost", f"{root}/agnhost-2")
    for f in ("localhost.crt", "localhost.key"):
        shutil.copy(f"{tree}/test/images/agnhost/porter/{f}", f"{root}/{f}")
    coredns(f"{root}/coredns")
    write(f"{root}/etc/passwd", PASSWD + "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n")
    write(f"{root}/etc/group", GROUP + "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n")


def busybox(root, tree):
    skeleton(root)
    debian(root, ["busybox-static", "bash-static"], alone=True)
    # Debian's busybox shell drops variables whose names are not identifiers, upstream's does not, and cases look for them by running "sh"; another reads the
    # sentence that busybox says when /bin/sh may not write. So the first sh on the path is another one.
    os.makedirs(f"{root}/usr/local/bin")
    os.symlink("/bin/bash-static", f"{root}/usr/local/bin/sh")
    busybox_applets(root)


def pause(root, tree):
    run("gcc", "-Os", "-static", "-s", "-DVERSION=v1.36.1", "-o", f"{root}/pause", f"{tree}/build/pause/linux/pause.c")


def nonewprivs(root, tree):
    os.makedirs(f"{root}/usr/local/bin")
    go_build(tree, "./test/images/nonewprivs", f"{root}/usr/local/bin/nnp")
    os.chmod(f"{root}/usr/local/bin/nnp", 0o6755)


def invalid_packets(root, tree):
    go_build(tree, "./test/images/regression-issue-74839", f"{root}/regression-issue-74839")


def nginx(root, tree):
    skeleton(root)
    debian(root, NGINX)
    os.makedirs(f"{root}/var/log/nginx", exist_ok=True)
    os.makedirs(f"{root}/var/lib/nginx", exist_ok=True)
    for log, fd in (("access.log", "stdout"), ("error.log", "stderr")):
        os.symlink(f"/dev/{fd}", f"{root}/var/log/nginx/{log}")
    shutil.rmtree(f"{root}/etc/nginx/modules-enabled", ignore_errors=True)
    write(f"{root}/usr/share/nginx/html/index.html", "<html><body><h1>Welcome to nginx!</h1></body></html>\n")
    write(f"{root}/etc/nginx/nginx.conf", "user www-data;\nworker_processes 1;\npid /run/nginx.pid;\nevents {}\nhttp {\n\tinclude mime.types;\n"
          "\tserver { listen 80; root /usr/share/nginx/html; }\n}\n")


def page(name):
    def fill(root, tree):
        for f in glob.glob(f"{tree}/test/images/{name}/html/*"):
            shutil.copy(f, root)
    return fill


SHELL = {"Cmd": ["/bin/sh"]}
AGNHOST = {"Entrypoint": ["/agnhost"], "Cmd": ["pause"],
           "ExposedPorts": {f"{p}/tcp": {} for p in (80, 5000, 8080, 8081, 9376)}}
SERVE = {**AGNHOST, "Cmd": ["test-webserver"]}
# tag(s), layers, config
IMAGES = [
    (["agnhost:2.63.0", "agnhost:2.55"], [tools, agnhost], AGNHOST),
    (["busybox:1.37.0-1"], [busybox], {"Cmd": ["sh"]}),
    (["pause:3.10.2"], [pause], {"User": "65535:65535", "Entrypoint": ["/pause"]}),
    (["nginx:1.15-4", "nginx:1.27-0"], [nginx, busybox], {"Cmd": ["nginx", "-g", "daemon off;"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"}),
    (["nonewprivs:1.4"], [busybox, nonewprivs], {"Cmd": ["nnp"]}),
    (["regression-issue-74839:1.4"], [busybox, invalid_packets], {"Entrypoint": ["/regression-issue-74839"]}),
    (["nonroot:1.5"], [busybox], {**SHELL, "User": "1234"}),
    (["glibc-dns-testing:2.0.0"], [tools], {"Cmd": ["/bin/bash"]}),
    (["kitten:1.8"], [tools, agnhost, page("kitten")], SERVE),
    (["nautilus:1.8"], [tools, agnhost, page("nautilus")], SERVE),
]


def as_root(member):
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    return member


def layer_bytes(fill, tree, cache):
    if fill not in cache:
        with tempfile.TemporaryDirectory() as root:
            os.chmod(root, 0o755)
            fill(root, tree)
            blob = io.BytesIO()
            with tarfile.open(fileobj=blob, mode="w", format=tarfile.GNU_FORMAT) as t:
                for name in sorted(os.listdir(root)):
                    t.add(f"{root}/{name}", name, filter=as_root)
            cache[fill] = blob.getvalue()
    return cache[fill]


def add(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def build(tags, layers, config, tree, cache):
    path = f"{OUT}/{tags[0].replace(':', '-')}.tar"
    if os.path.exists(path):
        return
    blobs = [layer_bytes(fill, tree, cache) for fill in layers]
    digests = [hashlib.sha256(b).hexdigest() for b in blobs]
    config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/", **config}
    text = json.dumps({"architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z", "config": config,
                       "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d in digests]}}).encode()
    name = hashlib.sha256(text).hexdigest() + ".json"
    with tarfile.open(path + ".part", "w") as t:
        add(t, name, text)
        for digest, blob in zip(digests, blobs):
            add(t, f"{digest}/layer.tar", blob)
        add(t, "manifest.json", json.dumps([{"Config": name, "RepoTags": [f"{REGISTRY}/{tag}" for tag in tags],
                                             "Layers": [f"{d}/layer.tar" for d in digests]}]).encode())
    os.rename(path + ".part", path)
    print(f"{os.path.basename(path)}: {os.path.getsize(path) / 1e6:.1f} MB")


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    done = {}
    for row in IMAGES:
        build(*row, sys.argv[1], done)
