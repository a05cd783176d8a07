PYTHON ?= python3
BIN := .venv/bin

# What pytest ends with where ARGS name no test of one half: those that may run side by side, and those that may not.
NONE := 5

.PHONY: setup run test bench lint chromium clean

setup: .venv/ready

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Pitlane needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 setup"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m engine.models.embedded
	@touch $@

.venv/ready-for-tests: .venv/ready tests/requirements.txt tests/gptq.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q -r tests/requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --upgrade --target .venv/gptq -r tests/gptq.txt
	@touch $@

chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		{ [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
		echo "No Chromium and no way to install it here: the browser tests will be skipped."

run: setup
	$(BIN)/python app.py $(ARGS)

test: .venv/ready-for-tests chromium lint
	@failed=0; \
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist worksteal -m beside $(ARGS) || \
		[ $$? = $(NONE) ] || failed=1; \
	$(BIN)/python -m pytest -m "not beside" $(ARGS) || [ $$? = $(NONE) ] || failed=1; \
	exit $$failed

lint: .venv/ready-for-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

bench: setup
	$(BIN)/python -m tests.bench $(ARGS)

clean:
	rm -rf .venv
