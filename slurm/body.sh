# shellcheck shell=bash
# What all scripts of this folder share: it is sourced by them, inside the job, in the root of the repository.
#
# Variables that every script reads:
#   PYTHON            interpreter                 (.venv/bin/python; in a container: python)
#   CONTAINER         image.sif for Apptainer, or an image name or .sqsh file for pyxis    (none)
#   CONTAINER_MOUNTS  folders to see inside it besides the repository, a:b as SLURM's PATH  (none)
#   CACHE_DIR         shared folder for downloaded weights (HF_HOME, TORCH_HOME, DEEPFACE_HOME below it)
#   NUM_SHARDS        shards in all, where only some tasks of an array are run
#   SRUN_OPTIONS      further options of srun, separated by blanks
#
# A signal before the time limit (--signal=B:USR2@300 in the headers), or one by `scancel --signal=USR2`, makes
# the program save and end with 75; the job is then put back into the queue and continues from there.

readonly STOPPED=75
launcher=()     # puts a command into the container
srun_options=() # pyxis puts it there by these
is_asked_to_stop=0
step=''

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# run_job JOB [job options]: the whole of a job, after which the script is over.
run_job() {
    : "${SLURM_JOB_ID:?submit this with sbatch}"
    trap 'ask_to_stop' USR1 USR2 TERM
    mkdir -p logs/slurm
    set_environment
    set_container
    local command status_file first=0 code=0
    # As an array of words: names may hold blanks, quotes, line feeds.
    mapfile -d '' -t command < <(one_process "$PYTHON" -m facevox_programs.plan "$@")
    wait "$!" || end_job "$?"
    ((${#command[@]})) || end_job 0 # it was asked for help
    status_file=$PWD/logs/slurm/.status-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
    if ((is_asked_to_stop)); then
        code=$STOPPED # before anything began
    else
        run_step "$status_file" "${launcher[@]}" "$PYTHON" "${command[@]}" || code=$?
    fi
    [[ ! -e $status_file ]] || { first=$(< "$status_file") && rm -f -- "$status_file"; }
    ((first == 0)) || code=$first
    end_job "$code"
}

set_environment() {
    export PYTHONUNBUFFERED=1
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
    # sbatch passes on the environment of the shell that called it: these may be left from an earlier run.
    unset RANK WORLD_SIZE LOCAL_RANK
    local hosts
    mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    export MASTER_ADDR=${hosts[0]}
    if [[ -n ${CACHE_DIR:-} ]]; then
        export HF_HOME=${HF_HOME:-$CACHE_DIR/huggingface} TORCH_HOME=${TORCH_HOME:-$CACHE_DIR/torch}
        export DEEPFACE_HOME=${DEEPFACE_HOME:-$CACHE_DIR}
    fi
    # srun does not take this over from sbatch by itself.
    srun_options+=(--quiet --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"})
    local more
    read -r -a more <<< "${SRUN_OPTIONS:-}"
    srun_options+=("${more[@]}")
}

set_container() {
    if [[ -z ${CONTAINER:-} ]]; then
        PYTHON=${PYTHON:-.venv/bin/python}
        command -v "$PYTHON" > /dev/null || fail "$PYTHON: not there; run make install, or say PYTHON=…"
        return
    fi
    PYTHON=${PYTHON:-python}
    export PYTHONPATH=$PWD  # the packages of this checkout, as its scripts are, and not those in the image
    local mounts=() mount
    IFS=: read -r -a mounts <<< "$PWD${CONTAINER_MOUNTS:+:$CONTAINER_MOUNTS}"
    [[ -z ${CACHE_DIR:-} ]] || mounts+=("$CACHE_DIR")
    for mount in "${mounts[@]}"; do
        [[ -d $mount ]] || fail "CONTAINER_MOUNTS: $mount: there is no such folder"
    done
    if [[ $CONTAINER == *.sif ]]; then
        [[ -f $CONTAINER ]] || fail "CONTAINER=$CONTAINER: there is no such file"
        local tool
        tool=$(command -v apptainer || command -v singularity) \
            || fail "CONTAINER=$CONTAINER: neither apptainer nor singularity is on this node"
        launcher=("$tool" exec --pwd "$PWD")
        [[ ${SLURM_GPUS_ON_NODE:-0} == 0 ]] || launcher+=(--nv)
        for mount in "${mounts[@]}"; do launcher+=(--bind "$mount"); done
        launcher+=("$CONTAINER")
    else
        # Not by a pipe into grep -q: srun would be killed by the closed pipe, and pipefail would make that a failure.
        [[ $(srun --help) == *--container-image* ]] \
            || fail "CONTAINER=$CONTAINER: no .sif file, and this SLURM has no pyxis for other images"
        local list
        list=$(for mount in "${mounts[@]}"; do printf ',%s:%s' "$mount" "$mount"; done)
        srun_options+=("--container-image=$CONTAINER" "--container-mounts=${list#,}" "--container-workdir=$PWD"
            # The image's own settings of these would win over the job's.
            "--container-env=HF_HOME,TORCH_HOME,DEEPFACE_HOME,KERAS_HOME,PYTHONPATH")
    fi
}

# Runs a command once, where the tasks will run.
one_process() {
    if [[ -n ${CONTAINER:-} && ${#launcher[@]} -eq 0 ]]; then
        srun "${srun_options[@]}" --nodes=1 --ntasks=1 "$@"
    else
        "${launcher[@]}" "$@"
    fi
}

ask_to_stop() {
    is_asked_to_stop=1
    [[ -z $step ]] || kill -USR2 "$step" 2> /dev/null || true
}

# Runs the step; its exit code. In the background: only then does this shell hear signals while it waits.
run_step() {
    local status_file=$1 code
    shift
    srun "${srun_options[@]}" bash slurm/task.sh "$status_file" "$@" &
    step=$!
    while true; do
        code=0
        wait "$step" || code=$?
        kill -0 "$step" 2> /dev/null || break # a signal ends the waiting, not the step
    done
    ((code <= 128)) || { code=0 && wait "$step" || code=$?; }
    return "$code"
}

# Requeues a job that stopped cleanly, or lost a node; exits.
end_job() {
    local code=$1
    case $code in
        0 | 1 | 2) ;;
        # 128 + USR1, USR2, TERM: the signal came before the program could listen; nothing had begun.
        "$STOPPED" | 138 | 140 | 143) requeue 'stopped by a signal' ;;
    esac
    if ((code != 0 && code != 2 && ${SLURM_JOB_NUM_NODES:-1} > 1)) && ! have_all_nodes; then
        requeue 'a node was lost'
    fi
    exit "$code"
}

have_all_nodes() {
    timeout 60 srun --overlap --quiet --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 true > /dev/null 2>&1
}

requeue() {
    # Of an array only this task; the bare number of its first task would mean all of them.
    local job=$SLURM_JOB_ID
    [[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    # Cancelled, out of time or requeued by SLURM itself: it decides what becomes of the job.
    if [[ $(scontrol --oneliner show job "$job") == *' JobState=RUNNING '* ]]; then
        printf 'facevox: %s; job %s is queued again and resumes from here\n' "$1" "$job"
        trap - TERM # by which this script ends too
        scontrol requeue "$job" && sleep 60
    fi
}
