# make bench-etcd: a CREATE over etcd beside upstream's kube-apiserver, as root (ARGS="ROUNDS REQUESTS"). Needs what tests/tools/fetch-upstream.sh apiserver
# and fetch-etcd.sh bring.
.PHONY: bench-etcd
bench-etcd: $(BUILD)/skiff $(BUILD)/bench-load
	SKIFF=$(abspath $(BUILD))/skiff bench/etcd.py $(ARGS)
