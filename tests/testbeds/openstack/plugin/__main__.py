"""`python -m testbeds.openstack.plugin`: a stand-in for the official `pulumi-resource-openstack`, for tests only.

Started by the Pulumi CLI, which reads the port from the first line of the output. Ends with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from pulumi.runtime.proto import provider_pb2_grpc

from testbeds.openstack.plugin.cloud import sdk
from testbeds.openstack.plugin.servicer import StandIn

MESSAGE_BYTES = 400 * 1024 * 1024
"""The engine's own limit."""

THREADS = 32
PARENT_S = 1.0


def main() -> None:
    """Serves until it is told to end, or until the CLI is gone: a plugin whose CLI was killed must not go on."""
    ended, parent = threading.Event(), os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    options = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
    server = grpc.server(ThreadPoolExecutor(THREADS), options=options)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(StandIn(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sdk()  # the first request for the cloud finds it
    while not ended.wait(PARENT_S) and os.getppid() == parent:
        pass
    server.stop(0)
    os._exit(0)  # not sys.exit: a request that waits for a cloud would hold the interpreter


if __name__ == "__main__":
    main()
