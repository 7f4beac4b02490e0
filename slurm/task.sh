#!/usr/bin/env bash
# One task of a step: bash slurm/task.sh STATUS_FILE COMMAND...
#
# srun ends all tasks as soon as one fails, or the others of a crashed one would wait for it for ever. But a
# task that stopped cleanly must not take down the first one, which is still writing the checkpoint:
# a task that fails leaves the first one time to end too. The first task's exit code goes to STATUS_FILE, because
# srun returns the highest of all, including those that it killed itself.
set -uo pipefail

status_file=$1
shift
patience_s=300

# SLURM signals every process of the task: the program receives it by itself, and this shell lives on.
trap : USR1 USR2 TERM
code=0
"$@" || code=$?

if [[ ${SLURM_PROCID:-0} == 0 ]]; then
    printf '%d\n' "$code" > "$status_file.part" && mv -- "$status_file.part" "$status_file"
elif ((code != 0)); then
    for ((waited_s = 0; waited_s < patience_s; waited_s++)); do
        [[ ! -e $status_file ]] || break
        sleep 1
    done
fi
# A task that is alone ends no others, and its own message says more than what srun would add.
((${SLURM_STEP_NUM_TASKS:-1} > 1)) || exit 0
exit "$code"
