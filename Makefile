# What people and CI run, the same words for both. `make run` shows Berth at work; `make test` is every test.

TARGET := target/x86_64-unknown-linux-gnu
TEST_FLAGS ?=
VM_FLAGS ?=
K8S_FLAGS ?=
CUTS ?= 150

.PHONY: run build test unit e2e fuzz agreement e2e-vm e2e-vm-node e2e-powercut e2e-kubernetes kubernetes-figures node-conformance chart image packages packages-test lint fmt conformance bench setup clean

run:
	e2e/run

setup:
	e2e/setup

# The metric berth_build_info tells the commit.
build:
	BERTH_COMMIT=$$(git rev-parse --short HEAD || echo unknown) cargo build --release -p berth
	cargo build --profile shim -p berth-shim

# Unit and driver tests, then the end-to-end tests. Those drive the daemon of the unit tests' profile: one build less. Cargo's
# default members are what is shipped: neither tests nor tools.
test: unit e2e

unit: setup
	cargo test $(TEST_FLAGS)
	cargo test -p berth-dist --bin berth-dist --test agreement $(TEST_FLAGS)

e2e: setup
	cargo build
	cargo build --profile shim -p berth-shim
	e2e/tools/build cri-tools cni
	BERTH_E2E_BERTH=$(CURDIR)/$(TARGET)/debug/berth e2e/test $(TEST_FLAGS)

# Each fuzz target of src/fuzzing.rs for so many seconds, under libFuzzer; `make test` runs their corpora. TARGETS='layer spdy'
# fuzzes some only.
FOR ?= 60
fuzz: setup
	FOR=$(FOR) fuzz/run $(TARGETS)

# Unpacks Debian's base system as GNU tar and bsdtar do, and compares all of it; a minute or two more to make it.
agreement: setup
	e2e/setup packages
	mkdir -p .cache
	test -s .cache/base.tar || { mmdebstrap --quiet --variant=standard --format=tar \
		"$$(. /etc/os-release && echo $$VERSION_CODENAME)" .cache/base.new && mv .cache/base.new .cache/base.tar; }
	BERTH_BASE_TAR=$(CURDIR)/.cache/base.tar cargo test -p berth --lib -- --nocapture a_whole_base_system

# On emulated nodes with cgroup v2, AppArmor and both cgroup drivers: what this machine can't tell. VM_FLAGS=--all runs
# everything there (an hour), VM_FLAGS='--only=security systemd' some test programs on one of the nodes, VM_FLAGS=oldest
# what the oldest kernel does in another way.
e2e-vm: setup
	e2e/setup vm
	cargo build
	cargo build --profile shim -p berth-shim
	e2e/tools/build cri-tools cni
	BERTH_E2E_BERTH=$(CURDIR)/$(TARGET)/debug/berth e2e/vm/test $(VM_FLAGS)

# The life of a node with systemd and a kubelet: the package installed, upgraded and removed, Berth and the machine restarted
# under pods, the kubelet switched from containerd and back. VM_FLAGS='--kernel=6.1 package' narrows it, on an older kernel.
e2e-vm-node: setup
	e2e/setup vm bench
	cargo build
	cargo build --profile shim -p berth-shim
	e2e/vm/node $(VM_FLAGS)

# Cuts the power at CUTS moments of pulls and removals on ext4 and as many on XFS, and looks at what is left each time:
# some ten minutes. `make test` cuts at a few.
e2e-powercut: setup
	cargo build
	cargo build --profile shim -p berth-shim
	BERTH_E2E_BERTH=$(CURDIR)/$(TARGET)/debug/berth BERTH_E2E_CUTS=$(CUTS) \
		cargo test -p berth-e2e --test power_cut -- --test-threads=1 --nocapture

# A one-node cluster of real Kubernetes on Berth; the first run builds Kubernetes itself. K8S_FLAGS='restarts:: logs::'
# runs some scenarios only, K8S_COMMAND=bash gives a shell with kubectl instead, BERTH_E2E_RUNTIME=containerd compares,
# K8S_GATES=EventedPLEG=true,PodAndContainerStatsFromCRI=true has the kubelet rely on more of CRI.
e2e-kubernetes: setup
	e2e/kubernetes/run $(K8S_FLAGS)

# How long pods take to start as the kubelet sees it, one and 100 at once, and what 110 pods cost that do nothing, beside
# containerd; half an hour on a quiet machine. IDLE=3600 does nothing for a whole hour.
kubernetes-figures: setup build
	e2e/kubernetes/figures

# Kubernetes' own tests of a node in the same cluster; FOCUS='expression' runs some only.
node-conformance: setup
	e2e/kubernetes/suite $(if $(FOCUS),'$(FOCUS)')

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt:
	cargo fmt --all

# RUNTIME=containerd compares; FOCUS='regular expression' runs some specs only; CNI=1 uses CNI plugins; WEBSOCKET=1
# streams over WebSocket.
conformance: setup
	e2e/conformance/run

# BENCH_PULL=gzip,zstd,layers,files BENCH_ROUNDS=5 BENCH_RUNTIMES=containerd,berth,berth-cni
bench: build
	e2e/setup bench
	e2e/tools/build cri-tools containerd runc cni
	cargo run --release -p berth-e2e --bin bench

# The chart: lint, golden templates, refused values, alerts; and manual pages. UPDATE=1 writes the golden files anew.
chart:
	e2e/tools/build helm
	dist/promtool
	cargo test -p berth-dist

# Berth's own OCI image, as a tar of an OCI layout: target/dist/berth-image.tar. IMAGE names it.
image: build
	cargo run -p berth-dist -- image $(TARGET)/release/berth $(TARGET)/shim/berth-shim target/dist/berth-image.tar

# target/dist/*.deb and *.rpm
packages: build
	dist/packages

# Installs, upgrades and removes the .deb in a Debian of its own, and looks into the .rpm.
packages-test: packages
	e2e/setup packages
	dist/test

clean:
	cargo clean
	rm -rf .cache
