# `make demo IMG=… SEG=…` and `make test` do all the set-up on a fresh machine: nothing but python3 and make is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMMA := ,
EXTRAS := mesh,logs,export,test$(if $(HEADS),$(COMMA)heads)
INSTALLED := $(VENV)/.installed-$(subst $(COMMA),-,$(EXTRAS))
OUT ?= demo-out
SEEDS ?= 0-3
KIMG ?= 1.2

.PHONY: demo test clean

$(INSTALLED): pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet -e ".[$(EXTRAS)]"
	touch $@

# All tests, the slow ones included.  HEADS=1 adds those that render heads (another 1.5 GB of packages).
test: $(INSTALLED)
	$(BIN)/python -m pytest

# From pictures to a trained network, samples, a mesh, a video and a style-mixing sheet, at 128 pixels.
demo: $(INSTALLED)
ifndef IMG
	$(error Say where the pictures and their masks are: make demo IMG=DIR_OR_ZIP SEG=DIR_OR_ZIP)
endif
ifndef SEG
	$(error Say where the masks are: make demo IMG=DIR_OR_ZIP SEG=DIR_OR_ZIP)
endif
	$(BIN)/python dataset_tool_seg.py --img_source "$(IMG)" --seg_source "$(SEG)" \
	  --img_dest $(OUT)/img.zip --seg_dest $(OUT)/seg.zip --resolution 128x128
	$(BIN)/python train.py --outdir $(OUT)/runs --img_data $(OUT)/img.zip --seg_data $(OUT)/seg.zip \
	  --cfg=ffhq --preset=cpu --batch=4 --gpus=1 --gamma=1 --gamma_seg=1 --gen_pose_cond=True --mirror=1 \
	  --use_torgb_raw=1 --decoder_activation=none --disc_module=MaskDualDiscriminatorV2 --triplane_depth=3 \
	  --density_reg=0 --blur_fade_kimg=2 --trans_reg=10 --kimg=$(KIMG) --tick=0.2 --snap=100
	set -e; PKL=$$(ls -t $(OUT)/runs/*/network-snapshot-*.pkl | head -n 1); \
	$(BIN)/python gen_samples.py --network "$$PKL" --seeds $(SEEDS) --outdir $(OUT)/samples --shapes true --shape-res 128 --shape-format .ply; \
	$(BIN)/python gen_interpolation.py --network "$$PKL" --outdir $(OUT)/interpolation; \
	$(BIN)/python gen_videos.py --network "$$PKL" --seeds $(SEEDS) --grid 2x2 --cfg Head --trunc 0.7 --w-frames 120 --outdir=$(OUT)/videos; \
	echo; echo "Look at:  $(OUT)/samples  $(OUT)/interpolation  $(OUT)/videos  and the grids beside $$PKL"

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info
