"""Two elastic trainings at once: python sides.py."""

import subprocess
import sys
import time

first = subprocess.Popen([sys.executable, "side.py", "first", "0.25", "30"])
time.sleep(3)
second = subprocess.Popen([sys.executable, "side.py", "second", "0.25", "6"])
sys.exit(first.wait() or second.wait())
