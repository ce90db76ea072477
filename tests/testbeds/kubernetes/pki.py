"""The cluster's certificates, and a kubeconfig a user. All are made anew each time that the testbed is started."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testbeds.kubernetes.layout import API_ADDRESS, API_PORT, API_SERVICE_ADDRESS, DOMAIN, NODES, TENANT, Layout

LIFETIME = timedelta(days=30)
API_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}")
USERS = {
    "admin": ("admin", ("system:masters",)),
    "api-server": ("api-server-to-kubelet", ("system:masters",)),
    "controllers": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "proxy": ("system:kube-proxy", ()),
    TENANT: (TENANT, ("tenants",)),
    **{node.name: (f"system:node:{node.name}", ("system:nodes",)) for node in NODES},
}
"""Name of the files -> user and groups, as Kubernetes reads them from the certificate."""
SERVERS = {
    "api": (*API_NAMES, API_ADDRESS, API_SERVICE_ADDRESS),
    "fault-proxy": ("127.0.0.1",),
    **{f"{node.name}-kubelet": (node.name, node.address) for node in NODES},
}
"""Name of the files -> names and addresses of a server."""


def make_pki(layout: Layout) -> None:
    """Certificates in `layout.pki`, kubeconfigs, and the key that signs the tokens of service accounts."""
    layout.pki.mkdir(parents=True, mode=0o700)
    layout.admin_kubeconfig.parent.mkdir(mode=0o700)
    authority = _Authority(layout.pki)
    for name, (user, groups) in USERS.items():
        authority.issue(name, user, groups=groups)
        write_kubeconfig(layout, layout.kubeconfig(name), f"https://{API_ADDRESS}:{API_PORT}", name)
    for name, hosts in SERVERS.items():
        authority.issue(name, name, hosts=hosts)
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(layout.pki / "accounts.key", key)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (layout.pki / "accounts.pub").write_bytes(public)


def write_kubeconfig(layout: Layout, path: Path, server: str, user: str | None) -> None:
    """A kubeconfig with everything in it; without a user, `server` is to know its clients otherwise."""

    def data(name: str) -> str:
        return base64.b64encode((layout.pki / name).read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": data("ca.crt")}
    known = {"client-certificate-data": data(f"{user}.crt"), "client-key-data": data(f"{user}.key")} if user else {}
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "testbed",
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user or "nobody"}}],
        "clusters": [{"name": "testbed", "cluster": cluster}],
        "users": [{"name": user or "nobody", "user": known}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(body, indent=1))


class _Authority:
    """Signs with a key of its own, `ca.key`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "testbed")])
        own = self._builder(self._name, self._key.public_key())
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        own = own.add_extension(usage, critical=True)
        self._write("ca", own.sign(self._key, hashes.SHA256()), self._key)

    def issue(self, name: str, common_name: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> None:
        """`name.crt` and `name.key`: for a server of `hosts`, or for a client without any."""
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(subject, key.public_key()).add_extension(
            x509.ExtendedKeyUsage([purpose]), critical=False
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        self._write(name, builder.sign(self._key, hashes.SHA256()), key)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(subject_name=subject, issuer_name=self._name, public_key=key)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        return builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + LIFETIME)

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        (self._folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(self._folder / f"{name}.key", key)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
