"""The services' configuration files, from templates/*."""

from __future__ import annotations

import shutil
from pathlib import Path
from string import Template

from testbeds.openstack.layout import (
    ENDPOINTS,
    EXTERNAL_ADDRESS,
    EXTERNAL_BRIDGE,
    HERE,
    IDENTITY_URL,
    PASSWORD,
    TOKEN_CACHE_S,
    Layout,
)

TEMPLATES = HERE / "templates"
POLICIES = ("compute-policy.yaml", "network-policy.yaml")
"""Site policies on top of the packages' own, empty at first; the services read them anew when they change."""
_PLACES = {"placement.conf": "etc/placement/placement.conf", "clouds.yaml": "clouds.yaml"}
_FOLDERS = (
    "etc/placement",
    "log",
    "mysql",
    "run/mysql",
    "rabbit",
    "glance/images",
    "nova/instances",
    "neutron",
    "lock",
    "keystone/fernet",
    "keystone/receipts",
    "keystone/credential",
)
_AUTH = f"""\
auth_url = {IDENTITY_URL.removesuffix("/v3")}
auth_type = password
project_domain_name = Default
user_domain_name = Default
project_name = service
username = svc
password = {PASSWORD}
region_name = RegionOne"""
_AUTHTOKEN = f"""\
{_AUTH}
www_authenticate_uri = {IDENTITY_URL.removesuffix("/v3")}
memcached_servers = 127.0.0.1:11211
token_cache_time = {TOKEN_CACHE_S}
service_token_roles_required = false"""


def _values(layout: Layout) -> dict[str, str]:
    return {
        "state": str(layout.state),
        "password": PASSWORD,
        "identity_url": IDENTITY_URL,
        "api_address": EXTERNAL_ADDRESS,
        "image_url": ENDPOINTS["image"],
        "external_bridge": EXTERNAL_BRIDGE,
        "token_cache_s": str(TOKEN_CACHE_S),
        "database": f"mysql+pymysql://ostb:{PASSWORD}@127.0.0.1:3306",
        "broker": "rabbit://guest:guest@127.0.0.1:5672/",
        "auth": _AUTH,
        "authtoken": _AUTHTOKEN,
    }


def write_configuration(layout: Layout) -> None:
    """Makes the state folder's folders and fills every template in. Raises KeyError for an unknown `$name`."""
    for name in _FOLDERS:
        (layout.state / name).mkdir(parents=True, exist_ok=True)
    for folder in (layout.state / "mysql", layout.mysql_socket.parent):
        shutil.chown(folder, user="mysql")
    for key_folder in (layout.state / "keystone").iterdir():
        key_folder.chmod(0o700)
    values = _values(layout)
    for template in TEMPLATES.iterdir():
        place = layout.state / _PLACES.get(template.name, f"etc/{template.name}")
        place.write_text(Template(template.read_text()).substitute(values))
    for policy in POLICIES:
        (layout.etc / policy).write_text("{}\n")


def argument(path: Path) -> tuple[str, str]:
    """`--config-file PATH`."""
    return ("--config-file", str(path))
