"""Wants four workers at a time."""

import time

import ray

ray.init(log_to_driver=False)


@ray.remote(num_cpus=1)
def work(number: int) -> int:
    """Takes its time."""
    time.sleep(6)
    return number


print(sorted(ray.get([work.remote(number) for number in range(4)])), flush=True)
