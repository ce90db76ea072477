"""Needs two workers at once, says how far it is, prints what is no UTF-8, and hands over a result."""

import json
import os
import sys
import time

import ray

print("first line", flush=True)
ray.init(log_to_driver=False)


@ray.remote(num_cpus=1)
def where(seconds: float) -> str:
    """The node it ran on."""
    time.sleep(seconds)
    return ray.util.get_node_ip_address()


nodes = ray.get([where.remote(4) for _ in range(2)])
print(
    '@dhctl {"type":"progress","stage":"tasks","step":2,"of":2,"unit":"task","metrics":{"nodes":%d}}' % len(set(nodes))
)
sys.stdout.flush()
sys.stdout.buffer.write(b"not utf-8: \xff\xfe\n")
sys.stdout.flush()
seen = {name: os.environ.get(name) for name in ("DHCTL_RUN_ID", "DHCTL_OUTPUT", "RAY_AUTH_TOKEN")}
print("@dhctl " + json.dumps({"type": "result", "result": {"nodes": sorted(set(nodes)), "seen": seen}}), flush=True)
