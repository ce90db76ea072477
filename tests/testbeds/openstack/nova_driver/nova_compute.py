"""nova-compute, with the folder of this file as a part of the package nova.virt: where nova looks for drivers."""

import sys
from pathlib import Path

import nova.cmd  # first: it patches the standard library for eventlet
import nova.virt
from nova.cmd.compute import main

nova.virt.__path__.append(str(Path(__file__).parent))
sys.argv[0] = "nova-compute"
main()
