"""The course of a cycle around its command: what is put in place before it, and what is recorded after it.

Alike whoever runs the command, a runner on this host or Slurm on a node. The result is committed to the store first, with the
list of what the cycle left; the manifest is then written from the store, and the next tick repairs one that is missing
(design rule 8).
"""
