"""Cycles that Slurm runs: handed over by `sbatch`, looked at by later passes, judged like every other. No poller stays."""
