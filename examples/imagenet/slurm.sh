#!/usr/bin/env bash
# Four machines of eight GPUs. Submit it again, or let --requeue do so, and it goes on from the last checkpoint:
#     sbatch examples/imagenet/slurm.sh
#SBATCH --job-name=robust-resnet50
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=128
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@180
set -euo pipefail

# A minute or so before the time is up SLURM sends USR1: each process saves and ends at its next line of the log.
export OMP_NUM_THREADS=1
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:29500" \
    examples/imagenet/train.py --config examples/imagenet/configs/resnet50_robust.yaml \
    --data "${IMAGENET:?the folder that holds train and val}" --output "${OUTPUT:-runs/resnet50-robust}" \
    --workers 14 --tensorboard --resume
