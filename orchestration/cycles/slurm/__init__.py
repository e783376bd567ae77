"""Cycles that Slurm runs: handed over by `sbatch`, looked at by later ticks, judged here like every other. No poller stays."""
