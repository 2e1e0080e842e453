#!/bin/sh
# Brings the etcd versions that tests use into build/etcd: etcd-3.4 with etcdctl-3.4 (Debian's packages, unpacked, not installed) and etcd-3.6 (built from
# the Go module). Each is fetched once. `fetch-etcd.sh 3.4` fetches that one alone.
set -eu
cd "$(dirname "$0")/../.."
out=$PWD/build/etcd
mkdir -p "$out"
want=${1:-all}
module=go.etcd.io/etcd/server/v3
version=v3.6.5

debian() {
	[ -x "$out/etcd-3.4" ] && [ -x "$out/etcdctl-3.4" ] && return 0
	tmp=$(mktemp -d)
	chmod 755 "$tmp"
	(
		cd "$tmp"
		apt-get download -q etcd-server etcd-client >/dev/null 2>&1
		for p in etcd-server_*.deb etcd-client_*.deb; do dpkg-deb -x "$p" root; done
	) && cp "$tmp/root/usr/bin/etcd" "$out/etcd-3.4" && cp "$tmp/root/usr/bin/etcdctl" "$out/etcdctl-3.4"
	rm -rf "$tmp"
	[ -x "$out/etcd-3.4" ]
}
# A module of one's own: `go install module@version` refuses modules with replace lines, as etcd's is.
go_module() {
	[ -x "$out/etcd-3.6" ] && return 0
	command -v go >/dev/null || { echo "etcd 3.6: there is no go on this machine" >&2; return 1; }
	tmp=$(mktemp -d)
	(
		cd "$tmp"
		go mod init etcd >/dev/null 2>&1
		go get "$module@$version" >/dev/null 2>&1 || { echo "etcd 3.6: the module proxy does not serve $module@$version" >&2; exit 1; }
		CGO_ENABLED=0 nice go build -p 2 -trimpath -ldflags '-s -w' -o "$out/etcd-3.6" "$module"
	) || { rm -rf "$tmp"; return 1; }
	rm -rf "$tmp"
}
failed=
case $want in all | 3.4) debian || failed="$failed etcd-3.4" ;; esac
case $want in all) go_module || true ;; 3.6) go_module || failed="$failed etcd-3.6" ;; esac
ls "$out"
[ -z "$failed" ] || { echo "could not fetch:$failed" >&2; exit 1; }
