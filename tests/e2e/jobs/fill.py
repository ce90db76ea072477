"""Writes into its output until the disk is full."""

import os
from pathlib import Path

output = Path(os.environ["DHCTL_OUTPUT"])
output.mkdir(parents=True, exist_ok=True)
print("filling", flush=True)
with (output / "big").open("wb") as file:
    while True:
        file.write(bytes(2**20))
        file.flush()
