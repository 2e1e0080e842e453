#!/bin/sh
# Runs upstream's conformance suite against skiff inside test machines: tests/conformance/run.sh [-n NODES] [-p PROCS] [-t MINUTES] [-s SKIP] [FOCUS].
# Results: build/conformance/NAME/ (summary.txt, junit_*.xml, e2e.log, skiff.log). See README.md.
set -eu
cd "$(dirname "$0")/../.."
for bin in e2e.test ginkgo kubectl; do
	[ -x build/upstream/$bin ] || { tests/tools/fetch-upstream.sh conformance; break; }
done
[ -f build/upstream/images/nautilus-1.8.tar ] || tests/tools/fetch-upstream.sh images
exec python3 tests/conformance/run.py "$@"
