#!/bin/bash
#SBATCH --job-name=slotcon
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slotcon-%j.log
#
# Pretraining on the nodes of a Slurm job, one process on each, which takes its GPUs:
#
#   sbatch examples/launch/slurm.sh --recipe=coco --data_dir=/data/coco --workdir=runs/coco
#
# The words behind the script are flags of slotcon-pretrain; give a --workdir that all
# nodes see. Ten minutes before the job's time is over every process is told to stop: the
# run saves and ends with status 143, and the job queues again and goes on.
set -uo pipefail

# Ports are the job's own, so that two jobs on one node do not meet.
port=$((20000 + SLURM_JOB_ID % 20000))
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST") || exit 1
workers=""
for node in $nodes; do
    workers+="${workers:+, }\"$node:$port\""
    port=$((port + 1))
done
export WORKERS="$workers"

# Not --kill-on-bad-exit: processes end each other, after the first one has saved.
# shellcheck disable=SC2016  # the task's own shell knows its SLURM_PROCID
srun --kill-on-bad-exit=0 bash -c '
    task="{\"type\": \"worker\", \"index\": $SLURM_PROCID}"
    export TF_CONFIG="{\"cluster\": {\"worker\": [$WORKERS]}, \"task\": $task}"
    exec slotcon-pretrain "$@"' task "$@"
status=$?
if [ "$status" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
