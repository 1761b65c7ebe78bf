# Everything here assumes `./bootstrap build` has run once; each target runs it, and the second time it is quick.
PY := .venv/bin/python

.PHONY: help build check test bench bench-addons bench-addons-memory flood-logs pictures bench-layers bench-cri bench-node many-cri demo conformance critest critest-vm containerd-2 victoria-logs kubelet control-plane metrics-server e2e-node e2e histories fuzz fuzz-layer fuzz-dataplane fuzz-dns fuzz-probe bench-proxy flood-proxy kill-proxy churn-proxy bench-proxy-memory bench-proxy-plan bench-dns broken-dns asan vm vm-shell vm-test power-cuts vm-engines vm-trixie box soak clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build:  ## the C modules, the launcher and pyrun-init, in place
	@./bootstrap build

check: build  ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

test:  ## every test that runs on this machine (root)
	./bootstrap test

bench: build  ## pyrun against runc and crun, interleaved (root)
	tests/view $(PY) tests/bench/bench.py

demo:  ## a container step by step, then a node with pods and a Service (root)
	./bootstrap demo

conformance: build  ## the validation programs of opencontainers/runtime-tools (root; needs Go)
	tests/view $(PY) -m tests.conformance.run

kube-objects:  ## Kubernetes' types, anew from lightkube-models, into pyrun/kube/objects
	$(PY) -m tests.support.kube.generate_objects

critest: build  ## Kubernetes' validation of a CRI against pyrun cri (root; needs Go)
	tests/view $(PY) -m tests.critest.run $(ARGS)

critest-vm: build  ## the same in the guest, which has every controller and AppArmor; takes ten minutes (root; needs Go)
	$(PY) -m tests.support.cri.tools
	$(PY) -m tests.support.vm run 'cd /job/src && export PYRUN_VIEW=vm PYTHONPATH=/job/site:/usr/local/lib/pyrun && \
		python3 -m tests.critest.run $(ARGS)'

containerd-2: build  ## containerd 2.4, made from its Go module once and kept, drives pyrun on this machine (root; needs Go)
	$(PY) -m tests.support.engines.containerd_2
	tests/view $(PY) -m pytest -q tests/host/test_containerd.py $(ARGS)

victoria-logs: build  ## VictoriaLogs, made from its Go module once and kept, takes what pyrun collect sends (needs Go, four CPU minutes)
	$(PY) -m tests.support.engines.victoria_logs
	$(PY) -m pytest -q tests/unit/test_logs_ship.py $(ARGS)

kubelet: build  ## a kubelet, made from its Go module once and kept, runs pods on pyrun cri (root; needs Go, ten CPU minutes)
	$(PY) -m tests.support.kube.build kubelet
	tests/view $(PY) -m pytest -q tests/cluster $(ARGS)

control-plane: build  ## an API server, controllers and etcd, made once and kept: the API client, the proxy (root; needs Go, 15 CPU minutes)
	$(PY) -m tests.support.kube.build etcd kube-apiserver kube-controller-manager kube-scheduler kubectl
	tests/view $(PY) -m pytest -q $(filter-out %/test_kubelet.py,$(wildcard tests/cluster/test_*.py)) $(ARGS)

metrics-server: build  ## metrics-server, made from its Go module once and kept, asks a node for what kubectl top shows (root; needs Go, 20 CPU minutes)
	$(PY) -m tests.support.kube.build etcd kube-apiserver kube-controller-manager kube-scheduler kubectl
	$(PY) -m tests.support.engines.metrics_server
	tests/view $(PY) -m pytest -q tests/cluster/test_metrics_server.py $(ARGS)

e2e-node: build  ## upstream's node e2e specs with a real kubelet on pyrun cri (root; needs Go, 20 CPU minutes to build, 8 to run)
	$(PY) -m tests.support.kube.build kubelet e2e_node.test ginkgo agnhost nonewprivs
	tests/view $(PY) -m tests.cluster.e2e_node $(ARGS)

e2e: build  ## upstream's conformance specs of a cluster whose one node is pyrun (root; needs Go and apt, 30 CPU minutes to build, 20 to run)
	$(PY) -m tests.support.kube.build etcd kube-apiserver kube-controller-manager kube-scheduler kubectl e2e.test ginkgo agnhost nonewprivs
	tests/view $(PY) -m tests.cluster.e2e $(ARGS)

histories: build  ## what a real kubelet and the node agent tell an API server of the same pods (root; two minutes once `make kubelet control-plane` is there)
	tests/view $(PY) -m tests.cluster.histories $(ARGS)

fuzz: build  ## fuzz the plan decoder for a minute (needs clang)
	$(PY) cffi_build/build.py --fuzz --seconds 60

fuzz-layer: build  ## fuzz the unpacker of layers for a minute (root; needs clang)
	$(PY) cffi_build/build.py --fuzz-layer --seconds 60

bench-dns: build  ## pyrun-dns against CoreDNS, unbound and dnsmasq, interleaved (root)
	$(PY) -m tests.bench.dns

broken-dns: build  ## a million broken objects at the DNS: named, the rest served, in bounded memory
	$(PY) -m tests.bench.dns_broken $(ARGS)

fuzz-dns: build  ## fuzz pyrun-dns' queries, tables and control messages for a minute (needs clang)
	$(PY) cffi_build/build.py --fuzz-dns --seconds 60

fuzz-probe: build  ## fuzz pyrun-probe's reader of answers for a minute (needs clang)
	$(PY) cffi_build/build.py --fuzz-probe --seconds 60

fuzz-dataplane: build  ## fuzz the data plane's images and messages for a minute (needs clang)
	$(PY) cffi_build/build.py --fuzz-dataplane --seconds 60

bench-proxy: build  ## the service proxy in both modes against haproxy and nginx, interleaved (root)
	$(PY) -m tests.bench.proxy $(ARGS)

flood-proxy: build  ## floods at the service proxy: 50,000 connections of one pod, a million forged sources and broken objects (root)
	$(PY) -m tests.bench.proxy_flood $(ARGS)

kill-proxy: build  ## the proxy's data plane killed under a client that connects every ms: when it is served again (root)
	$(PY) -m tests.bench.proxy_kill $(ARGS)

churn-proxy: build  ## the service proxy while endpoints change without a pause, under load: 24 hours, or ARGS="--seconds 600" (root)
	$(PY) -m tests.bench.proxy_churn $(ARGS)

bench-proxy-memory: build  ## the proxy daemon's memory at 10,000 services with 10 endpoints each, and one change (root)
	$(PY) -m tests.bench.proxy_memory $(ARGS)

bench-proxy-plan: build  ## what the proxy's plan takes at 10,000 services with 10 endpoints each
	$(PY) -m tests.bench.proxy_plan $(ARGS)

bench-addons: build  ## logs in blocks: sealed, searched (ARGS=1000 for a gigabyte); a graph of 30 days; 500 pods in a browser
	$(PY) -m tests.bench.pod_logs_blocks $(ARGS)
	$(PY) -m tests.bench.metrics_past
	$(PY) -m tests.bench.dashboard_pods

bench-addons-memory: build  ## PSS and idle CPU of metrics, collect and dashboard beside twenty pods (root)
	tests/view unshare -n sh -c 'ip link set lo up; exec $(PY) -m tests.bench.addons_memory $(ARGS)'

flood-logs: build  ## a pod that writes 50 MB/s and one with lines of 10 MB: none lost but what is counted, others unaffected (root)
	tests/view $(PY) -m tests.bench.logs_flood $(ARGS)

pictures: build  ## docs/pictures anew: what the browser of the dashboard's tests sees (root)
	mkdir -p docs/pictures
	PYRUN_PICTURES=$(CURDIR)/docs/pictures tests/view $(PY) -m pytest -q tests/host/test_dashboard_story.py -k twenty

bench-layers: build  ## unpacking and removing a layer against GNU tar (root)
	$(PY) -m tests.bench.layers $(ARGS)

bench-cri: build  ## the CRI's calls against containerd's and runc's (root; builds these with Go the first time)
	$(PY) -c 'from tests.bench.cri import build_programs; build_programs()'
	tests/view unshare -n $(PY) -m tests.bench.cri $(ARGS)

bench-node: build  ## pyrun node run: how quick pods come and go, what probes and idling take, a kill under a hundred pods (root)
	tests/view $(PY) -m tests.bench.node $(ARGS)

many-cri: build  ## a thousand containers on one pyrun cri, which is killed in between; nothing may be left (root)
	tests/view $(PY) -m tests.bench.cri_many $(ARGS)

asan: build  ## the C test programs under ASan and UBSan
	$(PY) cffi_build/build.py --asan

vm: build  ## boots the guest with pyrun in it and runs JOB='a command' (root)
	@$(PY) -m tests.support.vm run '$(or $(JOB),pyrun --version)'

vm-shell: build  ## a root shell in the guest, on this terminal; exit ends it (root)
	@$(PY) -m tests.support.vm shell

vm-test:  ## the tests that need a kernel of their own, in the guest (root)
	./bootstrap test tests/vm $(ARGS)

power-cuts:  ## the power of a guest goes while containers, and pods of pyrun cri, come and go; booted again (root)
	PYRUN_POWER_PODS=1 ./bootstrap test -rP tests/vm_host/test_power_cut.py $(ARGS)

vm-engines:  ## containerd, podman and docker on pyrun, each in a guest of its own (root)
	./bootstrap test tests/vm/engines $(ARGS)

vm-trixie:  ## vm-test and vm-engines with Debian 13's kernel, systemd, engines and Python (root)
	PYRUN_VM_SUITE=trixie ./bootstrap test tests/vm $(ARGS)

box:  ## packs the guest as a box for Vagrant and prints its path (root)
	@vagrant/make-box

soak:  ## 200 kills at random moments of lifecycles, by pyrun alone and in each engine; takes hours (root)
	PYRUN_SOAK_KILLS=200 PYRUN_SOAK_SEEDS=100 ./bootstrap test -rP tests/host/test_soak.py \
		tests/vm/engines/test_engine_soak.py $(ARGS)

clean:  ## what was built; the caches of root file systems and packages stay
	rm -rf build dist *.egg-info pyrun/bin pyrun/*.so pyrun/_native.c pyrun/_seccomp.c .pytest_cache .mypy_cache .ruff_cache
	find pyrun cffi_build tests -name __pycache__ -type d -prune -exec rm -rf {} +
