# Every task of the project. `make` alone lists them.
#
# Values given on the command line reach the programs through the environment, never as text inside a
# shell line: folders may have spaces, quotes, dollar signs in their names.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VARIABLES := DATASET OUT DETECTOR WORKERS MODEL THRESHOLD META LIMIT ONLY
VARIABLES += IMAGES VOICES MATCHED GROUPS FACE_MODEL VOICE_MODEL EPOCHS BATCH METADATA VOX TYPE
VARIABLES += VIDEO AUDIO CHECKPOINT PORT MODE ZIPS LANDMARKS CLASSES
VARIABLES += BASE_IMAGE PIP_CONF DOCKER COMMAND MINUTES SEED
# make would expand a `$` inside a value on its way into the environment; $(value) does not.
$(foreach name,$(VARIABLES),$(eval export FACEVOX_$(name) := $$(value $(name))))
unexport $(VARIABLES)

PYTHON_IN_VENV := .venv/bin/python
LEFT_OUT := slow slurm container browser
# What the shell scripts of the project are, in the places that may hold some.
SHELL_FILES = $(wildcard .ci/run scripts/*/*.sh docker/*.sh slurm/*.sh slurm/*.sbatch)
TYPED_FOLDERS = $(wildcard scripts benchmarks examples)

.PHONY: help install doctor demo test test-all test-cpus fuzz soak slurm-test check bench extract voices faces pairs \
        train evaluate hq-split hq-train hq-evaluate lipsync-process lipsync-train lipsync-score lipsync-clean \
        emotion-preprocess emotion-train emotion-run serve landmarks landmarks-train docker-build docker-run \
        docker-test weights lock clean

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PYTHON=/path/to/python (3.11 to 3.13) and CUDA=1 go with every task that sets up."

# --- set-up ----------------------------------------------------------------------------------------------

install: ## set everything up in .venv (CUDA=1: for GPUs, CUDA=0: back to CPU; PYTHON=/path/to/python3.13)
	@sh scripts/setup/install.sh $(if $(CUDA),--torch $(if $(filter 0 no off,$(CUDA)),cpu,cuda))

doctor: ## what this machine and this set-up have: versions, GPU, weights, disk, optional parts
	@python=$(PYTHON_IN_VENV); [ -x "$$python" ] || python=python3; "$$python" scripts/setup/doctor.py

weights: install ## fetch the real weights ahead of time (ONLY="Facenet vit": only these)
	@$(PYTHON_IN_VENV) scripts/setup/fetch_weights.py $${FACEVOX_ONLY:+--only $$FACEVOX_ONLY}

# What everybody can reach, whatever this machine's own settings say; tests/setup/test_lock.py looks at the lock.
UV_LOCK = env -u UV_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS .venv/bin/uv lock --default-index https://pypi.org/simple

lock: install ## pin every version in uv.lock (UPGRADE=1: the newest that go together)
	@$(UV_LOCK) $(if $(UPGRADE),--upgrade)

clean: ## remove caches and build leftovers (keeps .venv, .env and runs/)
	rm -rf build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage
	find . \( -name .venv -o -name .uv -o -name .git -o -name runs \) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# --- work ------------------------------------------------------------------------------------------------

demo: install ## the whole job on synthetic people, with a report: runs/demo/report.html
	@$(PYTHON_IN_VENV) scripts/demo/run_demo.py --output_dir runs/demo

# Checked before anything is set up, so that this one line is the whole output.
ifneq ($(filter extract voices faces pairs,$(MAKECMDGOALS)),)
ifndef DATASET
$(error DATASET is missing: make $(firstword $(filter extract voices faces pairs,$(MAKECMDGOALS))) DATASET=/path/to/folder)
endif
endif
ifneq ($(filter pairs,$(MAKECMDGOALS)),)
ifndef META
$(error META is missing: make pairs DATASET=/path/to/folder META=/path/to/metadata.json)
endif
endif

extract: install ## faces out of videos: DATASET=/path OUT=runs/extract DETECTOR=mediapipe WORKERS=(all cores)
	@$(PYTHON_IN_VENV) scripts/preprocessing/extract_faces.py --dataset_path="$$FACEVOX_DATASET" \
	    --output_dir="$${FACEVOX_OUT:-runs/extract}" --detector_backend="$${FACEVOX_DETECTOR:-mediapipe}" \
	    $${FACEVOX_WORKERS:+--workers="$$FACEVOX_WORKERS"}

voices: install ## voices out of videos: DATASET=/path OUT=runs/voices WORKERS=(all cores)
	@$(PYTHON_IN_VENV) scripts/preprocessing/extract_voices.py --dataset_path="$$FACEVOX_DATASET" \
	    --output_dir="$${FACEVOX_OUT:-runs/voices}" $${FACEVOX_WORKERS:+--workers="$$FACEVOX_WORKERS"}

faces: install ## faces, and one per person: DATASET=/path OUT=runs/faces DETECTOR=mediapipe MODEL=Facenet THRESHOLD=(the model's)
	@$(PYTHON_IN_VENV) scripts/preprocessing/prepare_faces.py --dataset_path="$$FACEVOX_DATASET" \
	    --output_base_dir="$${FACEVOX_OUT:-runs/faces}" --detector_backend="$${FACEVOX_DETECTOR:-mediapipe}" \
	    --model_name="$${FACEVOX_MODEL:-Facenet}" $${FACEVOX_THRESHOLD:+--threshold="$$FACEVOX_THRESHOLD"} \
	    $${FACEVOX_WORKERS:+--workers="$$FACEVOX_WORKERS"}

pairs: install ## lists of face-voice pairs: DATASET=/path META=metadata.json OUT=runs/pairs LIMIT=100
	@$(PYTHON_IN_VENV) scripts/preprocessing/create_matched_file.py --dataset_path="$$FACEVOX_DATASET" \
	    --meta_path="$$FACEVOX_META" --output="$${FACEVOX_OUT:-runs/pairs}" --limit="$${FACEVOX_LIMIT:-100}"

# The two ways to say which pairs are meant.
ifneq ($(filter train evaluate,$(MAKECMDGOALS)),)
ifeq ($(value MATCHED),)
ifeq ($(and $(value IMAGES),$(value VOICES)),)
$(error pairs are missing: make $(firstword $(filter train evaluate,$(MAKECMDGOALS))) IMAGES=/path/to/faces VOICES=/path/to/voices, or MATCHED=/path/to/list.txt)
endif
endif
endif

train: install ## face-voice model: IMAGES=/path VOICES=/path (or MATCHED=list.txt) OUT=runs/train GROUPS=groups.csv EPOCHS=100 BATCH=32
	@if [ -n "$$FACEVOX_MATCHED" ]; \
	then set -- scripts/training/train_face_voice_from_matched_file.py --matched_file="$$FACEVOX_MATCHED"; \
	else set -- scripts/training/train_face_voice.py --image_folder="$$FACEVOX_IMAGES" \
	    --audio_folder="$$FACEVOX_VOICES"; fi; \
	exec $(PYTHON_IN_VENV) "$$@" --save_dir="$${FACEVOX_OUT:-runs/train}" \
	    $${FACEVOX_GROUPS:+--identity_csv="$$FACEVOX_GROUPS"} \
	    $${FACEVOX_FACE_MODEL:+--face_model="$$FACEVOX_FACE_MODEL"} \
	    $${FACEVOX_VOICE_MODEL:+--voice_model="$$FACEVOX_VOICE_MODEL"} \
	    $${FACEVOX_EPOCHS:+--num_epochs="$$FACEVOX_EPOCHS"} $${FACEVOX_BATCH:+--batch_size="$$FACEVOX_BATCH"}

evaluate: install ## its scores on people never seen: IMAGES, VOICES or MATCHED, GROUPS as for train, MODEL=runs/train METADATA=people.csv
	@if [ -n "$$FACEVOX_MATCHED" ]; \
	then set -- --matched_file="$$FACEVOX_MATCHED"; \
	else set -- --image_folder="$$FACEVOX_IMAGES" --audio_folder="$$FACEVOX_VOICES"; fi; \
	model="$${FACEVOX_MODEL:-runs/train}"; \
	exec $(PYTHON_IN_VENV) scripts/evaluation/evaluate_face_voice.py "$$@" --model_dir="$$model" \
	    --output_file="$${FACEVOX_OUT:-$$model/results.csv}" \
	    $${FACEVOX_GROUPS:+--identity_csv="$$FACEVOX_GROUPS"} $${FACEVOX_METADATA:+--metadata="$$FACEVOX_METADATA"}

hq-split: install ## who is trained on and who is tested: VOX=./data/HQVoxCeleb
	@vox="$${FACEVOX_VOX:-./data/HQVoxCeleb}"; \
	exec $(PYTHON_IN_VENV) scripts/hq/create_hq_voxceleb_split.py --vox_dir="$$vox" --output_json="$$vox/split.json"

hq-train: install ## HQ VoxCeleb model: VOX=./data/HQVoxCeleb TYPE=vox2 OUT=runs/hq EPOCHS=50 BATCH=16 FACE_MODEL=(ViT-Base)
	@exec $(PYTHON_IN_VENV) scripts/hq/train_hq_voxceleb.py \
	    --split_json_path="$${FACEVOX_VOX:-./data/HQVoxCeleb}/split.json" --dataset_type="$${FACEVOX_TYPE:-vox2}" \
	    --save_dir="$${FACEVOX_OUT:-runs/hq}" $${FACEVOX_FACE_MODEL:+--face_model="$$FACEVOX_FACE_MODEL"} \
	    $${FACEVOX_EPOCHS:+--num_epochs="$$FACEVOX_EPOCHS"} $${FACEVOX_BATCH:+--batch_size="$$FACEVOX_BATCH"}

hq-evaluate: install ## its scores on people never seen: MODEL=runs/hq METADATA=people.csv
	@exec $(PYTHON_IN_VENV) scripts/hq/evaluate_hq_voxceleb.py --model_dir="$${FACEVOX_MODEL:-runs/hq}" \
	    $${FACEVOX_METADATA:+--metadata="$$FACEVOX_METADATA"}

lipsync-process: install ## mouths and sound features out of data/videos and data/audios, into data/processed
	@exec $(PYTHON_IN_VENV) lipsync/data_processing.py $${FACEVOX_WORKERS:+--workers="$$FACEVOX_WORKERS"}

lipsync-train: install ## lip-sync model from data/processed, into checkpoints
	@exec $(PYTHON_IN_VENV) lipsync/train.py

ifneq ($(filter lipsync-score,$(MAKECMDGOALS)),)
ifeq ($(value VIDEO),)
$(error VIDEO is missing: make lipsync-score VIDEO=/path/to/video.mp4 AUDIO=/path/to/sound.wav)
endif
endif

lipsync-score: install ## do lips and speech match? VIDEO=clip.mp4 AUDIO=(its own) CHECKPOINT=(none)
	@exec $(PYTHON_IN_VENV) lipsync/inference.py --video="$$FACEVOX_VIDEO" \
	    $${FACEVOX_AUDIO:+--audio="$$FACEVOX_AUDIO"} \
	    $${FACEVOX_CHECKPOINT:+--checkpoint="$$FACEVOX_CHECKPOINT"} --score-only

ifneq ($(filter lipsync-clean,$(MAKECMDGOALS)),)
ifeq ($(value DATASET),)
$(error DATASET is missing: make lipsync-clean DATASET=/path/to/videos OUT=runs/clean)
endif
endif

lipsync-clean: install ## clips of one face, in sync, out of a folder of videos: DATASET=/path OUT=runs/clean WORKERS=(all cores)
	@exec $(PYTHON_IN_VENV) lipsync/clean.py --videos="$$FACEVOX_DATASET" --output_dir="$${FACEVOX_OUT:-runs/clean}" \
	    $${FACEVOX_WORKERS:+--workers="$$FACEVOX_WORKERS"}

emotion-preprocess: install ## AIHub's pictures to face crops; settings in .env: DATASET=(DATA_DIR_RAW) WORKERS=(all cores)
	@exec $(PYTHON_IN_VENV) emotion/preprocess.py $${FACEVOX_DATASET:+--data_dir_raw="$$FACEVOX_DATASET"} \
	    $${FACEVOX_WORKERS:+--workers="$$FACEVOX_WORKERS"}

emotion-train: install ## the emotion classifier, exported; settings in .env: OUT=(MODEL_DIR)
	@exec $(PYTHON_IN_VENV) emotion/main.py $${FACEVOX_OUT:+--model_dir="$$FACEVOX_OUT"}

emotion-run: install ## the classifier at work: MODE=webcam|image|video DATASET=(INPUT_PATH) OUT=runs/emotion
	@exec $(PYTHON_IN_VENV) emotion/run_model.py $${FACEVOX_MODE:+--test_mode="$$FACEVOX_MODE"} \
	    $${FACEVOX_DATASET:+--input_path="$$FACEVOX_DATASET"} $${FACEVOX_OUT:+--output_dir="$$FACEVOX_OUT"}

serve: install ## the live page of facial expressions, http://localhost:8001: PORT=(SERVER_PORT of .env)
	@exec $(PYTHON_IN_VENV) emotion/server.py $${FACEVOX_PORT:+--server_port="$$FACEVOX_PORT"}

ifneq ($(filter landmarks,$(MAKECMDGOALS)),)
ifeq ($(value ZIPS),)
$(error ZIPS is missing: make landmarks ZIPS=/path/to/archives (a folder, or one archive))
endif
endif

landmarks: install ## FaceMesh landmarks straight out of ZIPs: ZIPS=/path/to/archives LANDMARKS=runs/landmarks WORKERS=(all cores) LIMIT=(all)
	@exec $(PYTHON_IN_VENV) emotion/landmarks/extract.py --zips="$$FACEVOX_ZIPS" \
	    --output_dir="$${FACEVOX_LANDMARKS:-runs/landmarks}" \
	    $${FACEVOX_WORKERS:+--workers="$$FACEVOX_WORKERS"} $${FACEVOX_LIMIT:+--limit="$$FACEVOX_LIMIT"}

landmarks-train: install ## the classifier of landmarks: LANDMARKS=runs/landmarks OUT=models/emotion_landmarks CLASSES="neutral anxiety"
	@exec $(PYTHON_IN_VENV) emotion/landmarks/train.py --landmarks_dir="$${FACEVOX_LANDMARKS:-runs/landmarks}" \
	    --save_dir="$${FACEVOX_OUT:-models/emotion_landmarks}" --class_names $${FACEVOX_CLASSES:-neutral anxiety}

# --- containers ------------------------------------------------------------------------------------------

docker-build: ## the images facevox and facevox-emotion: CUDA=0 (for CPUs) BASE_IMAGE=(NVIDIA's Ubuntu) PIP_CONF=pip.conf DOCKER=docker
	@set -- --build-arg REVISION="$$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"; \
	$(if $(filter 0 no off,$(CUDA)),set -- "$$@" --build-arg ACCELERATOR=cpu \
	    --build-arg BASE_IMAGE="$${FACEVOX_BASE_IMAGE:-debian:bookworm-slim}",\
	    if [ -n "$$FACEVOX_BASE_IMAGE" ]; then set -- "$$@" --build-arg BASE_IMAGE="$$FACEVOX_BASE_IMAGE"; fi); \
	if [ -n "$$FACEVOX_PIP_CONF" ]; then set -- "$$@" --secret id=pip_conf,src="$$FACEVOX_PIP_CONF"; fi; \
	"$${FACEVOX_DOCKER:-docker}" build -f docker/facevox.Dockerfile -t facevox "$$@" . && \
	"$${FACEVOX_DOCKER:-docker}" build -f docker/emotion.Dockerfile -t facevox-emotion "$$@" .

docker-run: ## the emotion server and TensorBoard in containers, or COMMAND="python …" in facevox (CUDA=0: without GPUs)
	@mkdir -p checkpoints data/weights dataset_crop logs models outputs runs; \
	export FACEVOX_UID="$$(id -u)" FACEVOX_GID="$$(id -g)"; \
	set -- "$${FACEVOX_DOCKER:-docker}" compose -f docker/compose.yaml; \
	if [ -n "$$FACEVOX_COMMAND" ]; then \
	    exec "$$@" run --rm training$(if $(filter 0 no off,$(CUDA)),-cpu) sh -c "$$FACEVOX_COMMAND"; fi; \
	exec "$$@" up server tensorboard

docker-test: install ## both images built and tried for real, without an engine (root on Debian 12, 25 GB, 15 minutes)
	@FACEVOX_REQUIRE_CONTAINERS=1 $(PYTHON_IN_VENV) -m pytest -s tests/container

# --- development -----------------------------------------------------------------------------------------

# A file of tests goes to one process: what its tests share is made once.
test: install ## the tests, except those marked slow, slurm, container or browser; on up to 4 cores
	@echo "tests marked $(LEFT_OUT) are left out; make test-all runs every one that this machine can"
	@$(PYTHON_IN_VENV) -m pytest -n logical --maxprocesses 4 --dist loadfile \
	    -m "not slow and not slurm and not container and not browser"

test-all: install ## every test that this machine can run
	@$(PYTHON_IN_VENV) -m pytest

test-cpus: install ## the tests of equal numbers, as on other processors (docs/equality.md)
	@$(PYTHON_IN_VENV) tests/other_processors.py

fuzz: install ## damaged files of every format through all readers: MINUTES=10 SEED=0 LIMIT=2000 OUT=runs/fuzz
	@exec $(PYTHON_IN_VENV) tests/hostile/fuzz.py --output_dir="$${FACEVOX_OUT:-runs/fuzz}" \
	    $${FACEVOX_MINUTES:+--minutes="$$FACEVOX_MINUTES"} $${FACEVOX_SEED:+--seed="$$FACEVOX_SEED"} \
	    $${FACEVOX_LIMIT:+--max_mutations="$$FACEVOX_LIMIT"}

soak: install ## the live server beside hostile clients: MINUTES=10
	@exec $(PYTHON_IN_VENV) tests/hostile/soak.py $${FACEVOX_MINUTES:+--minutes="$$FACEVOX_MINUTES"}

slurm-test: install ## the tests on a real SLURM of two nodes, started here (Debian, root)
	@FACEVOX_REQUIRE_SLURM=1 $(PYTHON_IN_VENV) -m pytest -m slurm

check: install ## format, lint, types, JavaScript, shell scripts, Dockerfiles, lock, commits
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m mypy
	$(PYTHON_IN_VENV) -m mypy --explicit-package-bases --implicit-reexport --allow-untyped-calls $(TYPED_FOLDERS)
	@sh scripts/setup/check_page.sh
	PATH="$(CURDIR)/.venv/bin:$$PATH" shellcheck $(SHELL_FILES)
	.venv/bin/hadolint docker/*.Dockerfile
	$(UV_LOCK) --check --offline
	$(PYTHON_IN_VENV) scripts/setup/install.py --check
	$(PYTHON_IN_VENV) scripts/setup/check_commits.py

bench: install ## the benchmarks, each with its table
	@if [ -f benchmarks/run_all.py ]; then exec $(PYTHON_IN_VENV) benchmarks/run_all.py; fi; \
	status=0; for program in benchmarks/*.py; do \
	    [ -f "$$program" ] || { echo "error: benchmarks/ holds no program yet" >&2; exit 2; }; \
	    echo "== $$program"; $(PYTHON_IN_VENV) "$$program" || status=1; \
	done; exit $$status
