#!/bin/sh
# Builds upstream's own programs from the Go module of its release into build/upstream, each once: kube-apiserver (what our stored bytes and answers are held
# against), e2e.test (its conformance suite) with the ginkgo and kubectl that it runs with, and the images of its pods. `fetch-upstream.sh [apiserver|conformance|images|all]`; all is the default.
# Takes about 15 minutes and 2 GB of Go's caches on two cores. Needs go and Go's module proxy, for the images
# Debian's packages too; tests/conformance/README.md tells what the images are substitutes of.
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
out=$root/build/upstream
version=v1.36.1
staging=v0.36.1 # the same release of the modules that live in its tree
want=${1:-all}
mkdir -p "$out"
command -v go >/dev/null || { echo "upstream: there is no go on this machine" >&2; exit 1; }
tree=
trap '[ -z "$tree" ] || rm -rf "$tree"' EXIT
trap 'exit 1' INT TERM

# A writable copy of the module whose go.mod takes the staging modules from the proxy: the module itself replaces them by folders that its archive leaves out.
copy_tree() {
	[ -z "$tree" ] || return 0
	module=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
	[ -n "$module" ] || { echo "upstream: the module proxy does not serve k8s.io/kubernetes@$version" >&2; exit 1; }
	tree=$(mktemp -d)
	cp -r "$module/." "$tree"
	chmod -R u+w "$tree"
	rm -rf "$tree/vendor" "$tree/go.work" "$tree/go.work.sum"
	(
		cd "$tree"
		sed -n 's#^\t\(k8s.io/[a-z-]*\) => ./staging.*#-dropreplace=\1 -require=\1@'"$staging#p" go.mod | xargs go mod edit
	)
}
# go_build OUTPUT PACKAGE...: with the version that the release's programs print.
go_build() {
	bin=$1
	shift
	v=k8s.io/component-base/version
	(
		cd "$tree"
		export GOFLAGS=-mod=mod CGO_ENABLED=0
		nice -n 19 go $GO_VERB -p 2 -trimpath -ldflags "-s -w -X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=36" -o "$bin" "$@"
	)
}
apiserver() {
	[ -x "$out/kube-apiserver" ] && return 0
	copy_tree
	GO_VERB=build go_build "$out/kube-apiserver" ./cmd/kube-apiserver
	"$out/kube-apiserver" --version
}
# ginkgo runs the cases of e2e.test several at a time; some cases run kubectl.
conformance() {
	[ -x "$out/e2e.test" ] && [ -x "$out/ginkgo" ] && [ -x "$out/kubectl" ] && return 0
	copy_tree
	GO_VERB=build go_build "$out/kubectl" ./cmd/kubectl
	GO_VERB=build go_build "$out/ginkgo" github.com/onsi/ginkgo/v2/ginkgo
	GO_VERB="test -c -vet=off" go_build "$out/e2e.test" ./test/e2e
	"$out/e2e.test" --version
}
images() {
	copy_tree
	tests/conformance/images.py "$tree"
}
case $want in apiserver | all) apiserver ;; esac
case $want in conformance | all) conformance ;; esac
case $want in images | all) images ;; esac
ls "$out"
