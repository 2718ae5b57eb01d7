# make quickstart | test | test-slow | lint | clean
# INDEX_URL=... takes torch and torchvision from another package index (see ./init_venv.sh --help).

VENV ?= venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test test-slow lint clean

quickstart: $(INSTALLED)
	$(PYTHON) tools/quickstart.py

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m "not slow" -n auto --dist loadfile

# pytest's exit code 5 means that no test was selected.
test-slow: $(INSTALLED)
	$(PYTHON) -m pytest -m slow || [ $$? -eq 5 ]

lint: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m mypy tools/*.py benchmarks/*.py external/*/*.py
	$(VENV)/bin/lint-imports

# The environment stays; it takes minutes to make.
clean:
	rm -rf quickstart build *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find classification tests tools benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): setup.py constraints.txt
	./init_venv.sh "$(VENV)" --dev $(if $(INDEX_URL),--index-url "$(INDEX_URL)")
	touch $@
