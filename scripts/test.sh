#!/usr/bin/env bash
# test.sh: what every change should pass. First what needs no cluster, then two lanes side by side, which keep two cores busy: all that
# needs OpenStack in one; all that needs Kubernetes, then the whole runs here in the other. So each testbed is started once.
# test.sh thorough: the rest of what CI runs, in the same lanes.
# The output of the second lane comes after that of the first, and the last line sums up all closing lines of pytest.
set -uo pipefail
cd "$(dirname "$0")/.."

logs=$(mktemp -d)
lane=
trap 'rm -rf "$logs"' EXIT
trap 'wait; exit 130' INT  # of a terminal: all tests get it too
trap '[[ -z $lane ]] || kill "$lane"; wait; exit 143' TERM

[[ ${1:-} == thorough ]] && chosen="thorough" || chosen="not thorough"

tests() { exec .venv/bin/python -m pytest "$@" -m "$chosen and not slow" --durations=20; }

# apart NAME WORDS...: tests whose temporary files lie apart, since the whole runs here look for leftovers in /tmp itself.
apart() {
  export TMPDIR=${TMPDIR:-/tmp}/lane-$1
  mkdir -p "$TMPDIR"
  tests "${@:2}"
}

on_openstack() { apart openstack tests/contract tests/testbeds/openstack tests/cloud -k "openstack or cloud"; }
on_kubernetes() { apart kubernetes tests/contract tests/testbeds/kubernetes tests/pods -k "kubernetes or pods"; }
here() { tests tests/contract tests/testbeds tests/e2e -k "not openstack and not kubernetes"; }

# second_lane NAME...: each of these functions after the other, with its output in a log. A background job of a shell ignores SIGINT, and
# with it all that its tests start, unless that is undone.
second_lane() {
  local name failed=0
  for name in "$@"; do
    (trap - INT TERM && "$name") > "$logs/$name" 2>&1 &
    trap 'wait; exit 130' INT
    trap 'kill -INT '$!'; wait; exit 143' TERM
    wait $! || failed=1
  done
  return "$failed"
}

status=0
if [[ $chosen != thorough ]]; then
  (tests tests/unit tests/jobs -n 2) 2>&1 | tee "$logs/units" || status=1
fi
second_lane on_kubernetes here &
lane=$!
(on_openstack) 2>&1 | tee "$logs/on_openstack" || status=1
wait "$lane" || status=1
lane=
cat "$logs/on_kubernetes" "$logs/here"
scripts/sum_up.sh "$SECONDS" "$logs"/*
exit "$status"
