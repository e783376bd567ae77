"""Two bare `os.scandir` passes and a set difference, with an interpreter that knows nothing else. Part of `tick.py`.

Usage: two_passes.py PROMOTIONS ACKS
"""

import os
import sys

acked = {entry.name.removesuffix("_ack.json") for entry in os.scandir(sys.argv[2])}
unacked = {entry.name.removesuffix(".json") for entry in os.scandir(sys.argv[1])} - acked
sys.exit(bool(unacked))
