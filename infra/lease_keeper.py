"""Ends a run at its lease, whoever else is dead. Standard library only; it sleeps in a session of its own.

    python -I -S lease_keeper.py --until EPOCH_S --record FOLDER --log FILE -- COMMAND...

COMMAND is `dhctl down RUN`; it is tried again until the receipt in FOLDER is clean. The keeper leaves when the record
is gone or its receipt is clean.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

LOOK_EVERY_S = 1.0
TRY_AGAIN_S = 30.0
TRIES = 20


def closed(record: Path) -> bool:
    """Whether the run is over: its record is gone, or its receipt is clean."""
    if not record.is_dir():
        return True
    try:
        return bool(json.loads((record / "receipt.json").read_text())["clean"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def take_down(command: list[str], path: Path) -> None:
    """Runs the command once, in a session of its own: it goes on when it stops this keeper as the last of the run."""
    with path.open("ab") as log:
        try:
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, check=False
            )
        except OSError as error:  # such as a virtual environment that is being made anew: tried again
            log.write(f"{command[0]}: {error}\n".encode())


def main() -> int:
    """Entry point of the keeper process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--until", type=float, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    while time.time() < args.until:
        if closed(args.record):
            return 0
        time.sleep(LOOK_EVERY_S)
    for _ in range(TRIES):
        take_down(args.command[1:], args.log)
        if closed(args.record):
            return 0
        time.sleep(TRY_AGAIN_S)
    return 1


if __name__ == "__main__":
    sys.exit(main())
