#!/bin/sh
# From a clean clone to a working dhctl: uv, .venv with everything pinned, the Pulumi engine. Quick when all is there.
# Needs Linux, Python >= 3.11 and a way to a Python package index and to a Go module proxy (or Pulumi's own site).
set -eu
cd "$(dirname "$0")/.."
exec < /dev/null

say() { printf '\n== %s\n' "$*" >&2; }
fail() { printf '\nbootstrap: %s\n' "$*" >&2; exit 1; }
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1; }

find_python() {
  for name in python3.13 python3.12 python3.11 python3; do
    # A name may be there and not run (pyenv's shims), so it is tried.
    if command -v "$name" > /dev/null 2>&1 && is_new_enough "$name"; then
      "$name" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  fail "no Python 3.11 or newer on PATH; install one (Debian: apt install python3.11 python3.11-venv) and try again"
}

find_uv() { command -v uv || { [ -x .tools/bin/uv ] && echo "$PWD/.tools/bin/uv"; }; }

install_uv() {
  say "installing uv into .tools"
  rm -rf .tools && mkdir -p .tools
  if "$1" -m venv .tools/venv > .tools/log 2>&1 && .tools/venv/bin/python -m pip install uv >> .tools/log 2>&1; then
    ln -s venv/bin .tools/bin
  elif rm -rf .tools/venv && "$1" -m pip install --target .tools uv >> .tools/log 2>&1; then
    [ -x .tools/bin/uv ] || fail "pip installed uv, but .tools/bin/uv is not there; see .tools/log"
  else
    tail -n 15 .tools/log >&2
    fail "cannot install uv: $1 has neither a working venv nor pip, or the package index does not answer (log above);" \
      "put uv on PATH, or install python3-venv or python3-pip"
  fi
}

# uv does not read pip's settings: a site's index that is set for pip only is passed on.
use_pips_index() {
  [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] || return 0
  index=${PIP_INDEX_URL:-$("$1" -m pip config get global.index-url 2> /dev/null || true)}
  [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
}

digest() { { cat pyproject.toml constraints.txt .venv/pyvenv.cfg 2> /dev/null; pwd; } | sha256sum; }
engine_digest() { { digest; printf '%s\n' "${DHCTL_HOME:-}" "${DHCTL_ENGINE:-}" "${XDG_DATA_HOME:-}" "${HOME:-}"; } | sha256sum; }
is_current() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

install_packages() {
  python=$(find_python)
  uv=$(find_uv) || { install_uv "$python"; uv=$(find_uv); }
  use_pips_index "$python"
  # No interpreter is downloaded: the one of this machine is what was asked for.
  export UV_PYTHON_DOWNLOADS=never
  if ! is_new_enough .venv/bin/python || [ "$(cat .venv/.dhctl-folder 2> /dev/null || pwd)" != "$(pwd)" ]; then
    say "making .venv with $python"
    "$uv" venv --clear --python "$python" .venv
  fi
  pwd > .venv/.dhctl-folder
  say "installing dhctl and what it needs into .venv (the first time some 5 GB, a few minutes)"
  # Compiled now: where PYTHONDONTWRITEBYTECODE is set, as in many images, each process would compile Ray and PyTorch again.
  "$uv" pip install --python .venv/bin/python --compile-bytecode --constraint constraints.txt --editable '.[jobs]' --group dev ||
    fail "the packages could not be installed; the reason is above"
  digest > .venv/.dhctl-packages
}

install_engine() {
  say "looking for the Pulumi engine (a machine without it: a download, or a build of about 5 minutes)"
  PATH="$PWD/.tools/bin:$PATH" .venv/bin/dhctl doctor --install || fail "the engine could not be installed; the reason is above"
  engine_digest > .venv/.dhctl-engine
}

is_current .venv/.dhctl-packages "$(digest)" || install_packages
is_current .venv/.dhctl-engine "$(engine_digest)" || install_engine
# dhctl's own code, and what tests start of the testbeds, where it has changed.
.venv/bin/python -m compileall -q infra stacks cli ray_jobs tests/testbeds
