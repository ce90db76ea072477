"""Does not end, nor does what it starts in the background."""

import subprocess
import time

subprocess.Popen(["sleep", "1000"], start_new_session=True)
print("hanging", flush=True)
print('@dhctl {"type":"progress","stage":"hang","step":1,"of":2}', flush=True)
time.sleep(1000)
