# What skiff needs from Debian 12; sourced by quickstart.sh and test.sh.

run_packages="crun conmon nftables iproute2 busybox-static ca-certificates curl"
build_packages="gcc make pkg-config libuv1-dev libssl-dev libnghttp2-dev libhttp-parser-dev libsqlite3-dev libyaml-dev libarchive-dev
	libnftables-dev libmnl-dev libcap-dev libknot-dev libsystemd-dev zlib1g-dev libzstd-dev"
test_packages="libcmocka-dev python3 iperf3 clang libclang-rt-14-dev clang-format unzip procps bc containernetworking-plugins dbus python3-dbus python3-gi"

# install_packages NAME…: only what is missing, so that a machine that has all needs no network.
install_packages() {
	missing=
	for p in "$@"; do
		dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
	done
	[ -z "$missing" ] && return 0
	[ "$(id -u)" = 0 ] || { echo "these packages are missing:$missing; run as root, or install them" >&2; return 1; }
	echo "installing:$missing"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q >/dev/null || return 1
	# shellcheck disable=SC2086
	apt-get install -y -q --no-install-recommends $missing >/dev/null
}

# What may have come to this machine in another way is not asked of its package again.
install_kubectl() {
	command -v kubectl >/dev/null 2>&1 || install_packages kubernetes-client
}
install_test_tools() {
	command -v npm >/dev/null 2>&1 || install_packages nodejs npm
	python3 -c 'import pytest' 2>/dev/null || install_packages python3-pytest
	python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
}

# The control plane runs as this user and no other.
make_user() {
	id skiff >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin skiff
}
