#!/usr/bin/env bash
# Four machines of eight GPUs, for as many days as it takes: what the time limit or a preemption ends goes on by itself.
#     IMAGENET=/where/it/is sbatch examples/imagenet/slurm.sh
#SBATCH --job-name=robust-resnet50
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=128
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -euo pipefail

export IMAGENET="${IMAGENET:?the folder that holds train and val}" OUTPUT="${OUTPUT:-runs/resnet50-robust}"
export OMP_NUM_THREADS=1
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-128}"  # srun does not take it from sbatch by itself
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)  # reads all: head would end scontrol, and with it the job
mkdir -p "$OUTPUT"

# Five minutes before the time is up SLURM signals this shell alone. --requeue covers failed and preempted jobs, not those.
again=no
trap 'again=yes; touch "$OUTPUT/stop"' USR1

srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:29500" \
    examples/imagenet/train.py --config examples/imagenet/configs/resnet50_robust.yaml \
    --data "$IMAGENET" --output "$OUTPUT" --workers 14 --tensorboard --resume &
run=$!

status=0
wait "$run" || status=$?
if [ "$again" = yes ]; then # the signal ended the wait, not the run
    status=0
    wait "$run" || status=$?
fi

if [ "$again" = yes ] && [ "$status" -eq 0 ] && [ ! -e "$OUTPUT/results.json" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
