"""What the credential on the nodes may do, as keystone's access rules: exactly the calls of compute.py and quota.py.

Access rules cannot say "only servers of this run": that a server is the run's is proven by its metadata before each
deletion. `**` stands for what a site puts before and after the version, such as /compute/v2.1 or /v2.1/<project id>.
What nova then asks of glance, neutron and cinder in the owner's name passes because nova sends its own token beside
(`[service_user] send_service_user_token`, which sites have on since CVE-2023-2088); else these need rules too.
"""

from __future__ import annotations

from collections.abc import Mapping

ACCESS_RULES: tuple[Mapping[str, str], ...] = tuple(
    {"service": "compute", "method": method, "path": path}
    for method, path in (
        ("GET", "/**/servers/*"),
        ("POST", "/**/servers"),
        ("DELETE", "/**/servers/*"),
        ("GET", "/**/limits"),
    )
)
