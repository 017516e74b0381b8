# Every target sets up what it needs first and does nothing where that is done: a second run is
# quick and needs no network. Root is asked for (sudo) only to install packages and to make
# network namespaces.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
# As root under sudo nothing may be left behind in the tree that its owner cannot remove.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
ROOT_ENV := $(if $(AS_ROOT),$(AS_ROOT) env CI=$(CI) PYTHONDONTWRITEBYTECODE=1 \
	XDG_CACHE_HOME=$(CACHE) KUBEBUILDER_ASSETS=$(KUBEBUILDER_ASSETS) \
	HYPOTHESIS_STORAGE_DIRECTORY=/tmp/kproxy-hypothesis,)
ROOT_PYTEST := $(if $(AS_ROOT),-p no:cacheprovider,)
VENV := .venv/bin
# The data path of `make demo`: iptables, ipvs or ebpf.
MODE := iptables
# Of pytest. Each makes its own API server and namespaces, and half of the time is waiting.
PROCESSES := 2
# Of `python -m bench run`: what is measured, of whom.
OPTIONS :=
# What `make vm` runs, from this folder.
CMD := uname --all

# What the data paths and the tests call, what python-iptables and bench/ are compiled with, what the
# C of the eBPF data path is compiled with, what builds and runs the image without a registry or a
# container engine, what bench/ loads a node with, what its page is looked at with, and what boots
# another kernel.
PACKAGES := iproute2 iptables ipset nftables conntrack procps \
	python3-venv python3-dev gcc libc6-dev \
	python3-bpfcc linux-headers-$(shell dpkg --print-architecture) \
	mmdebstrap buildah crun \
	iperf3 \
	chromium poppler-utils \
	qemu-system-x86 busybox-static kmod

.PHONY: help demo test check lint kernel test-vm vm bench numbers image programs packages setup clean

help: ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: setup ## a shop on two nodes, a rollout, and where each request went (20 s; MODE=ipvs, MODE=ebpf)
	@$(ROOT_ENV) $(VENV)/python -m examples.demo --mode $(MODE)

test: lint programs ## everything: linters, types, layers, all tests (with root)
	@# One more, which begins by waiting for the virtual machine.
	@$(ROOT_ENV) $(VENV)/python -m pytest $(ROOT_PYTEST) -n $$(($(PROCESSES) + 1))

check: lint ## what needs no root: linters, types, layers, pure tests (1 minute)
	@$(VENV)/python -m pytest -n $(PROCESSES) -m "not kernel and not cluster and not vm"

kernel: setup programs ## the tests that send packets through the kernel, in their own namespaces
	@$(ROOT_ENV) $(VENV)/python -m pytest $(ROOT_PYTEST) -n $(PROCESSES) -m kernel

test-vm: setup programs ## the tests that run on Debian's own kernel too, in a virtual machine (nine minutes)
	@$(ROOT_ENV) $(VENV)/python -m pytest $(ROOT_PYTEST) -m vm

vm: setup programs ## run CMD on Debian's own kernel, in a virtual machine (boots in 15 s)
	@$(ROOT_ENV) $(VENV)/python -m tests.support.vm $(CMD)

lint: setup
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports

bench: setup programs ## measure data paths beside their peers (5 minutes; OPTIONS="--help" tells of more)
	@$(ROOT_ENV) $(VENV)/python -m bench run $(OPTIONS)

numbers: setup ## write the table of goals in README.md again from bench/results/
	@$(VENV)/python -m bench.table

image: packages ## build the container image kproxy:<version>, with docker or buildah
	@deploy/image/build

programs: setup ## build etcd, kube-apiserver and others from their Go modules, get a kernel (7 minutes, once)
	@$(VENV)/python -m tests.support.cluster.programs
	@$(VENV)/python -m tests.deploy.promtool
	@$(VENV)/python -m tests.support.vm.kernel

setup: packages .venv/.ready
	@# As the image has it: without bytecode each start of the agent takes twice as long.
	@$(VENV)/python -m compileall -q kproxy backends

.venv/.ready: pyproject.toml .ci/constraints.txt | packages
	@# Debian packages some libraries (bcc) for /usr/bin/python3 only, hence this interpreter.
	/usr/bin/python3 -m venv --system-site-packages .venv
	$(VENV)/pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[dev]'
	@touch $@

packages:
	@missing=$$(for each in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}\n' $$each 2>/dev/null | grep -q '^install ok installed$$' \
			|| echo $$each; \
	done); \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		$(AS_ROOT) apt-get update -qq; \
		$(AS_ROOT) env DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	fi

clean: ## remove what `make` made here
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
