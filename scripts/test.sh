#!/usr/bin/env bash
# All tests that CI runs: what needs no testbed first, then all that needs OpenStack beside all that needs Kubernetes, so that each
# testbed is started once; the output of the second comes after that of the first. The last line sums up all closing lines of pytest.
set -uo pipefail
cd "$(dirname "$0")/.."

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
tests() { exec .venv/bin/python -m pytest "$@" -m "not slow" --durations=20; }

# pytest's closing lines as one: how many of each outcome, and the time of all of it.
sum_up() {
  grep -hE '^=+ .* in [0-9.]+s' "$logs"/* | grep -oE '[0-9]+ [a-z]+' | sed 's/ errors$/ error/' |
    awk -v seconds="$SECONDS" '{ if (!($2 in count)) order[++n] = $2; count[$2] += $1 }
      END { for (i = 1; i <= n; i++) text = text (i > 1 ? ", " : "") count[order[i]] " " order[i]
            print "===== " text " in " seconds ".0s =====" }'
}

status=0
(tests tests/unit tests/jobs -n 2) 2>&1 | tee "$logs/units" || status=1
(tests tests/contract tests/testbeds tests/e2e -k "not openstack and not kubernetes") 2>&1 | tee "$logs/here" || status=1
# A background job of a shell ignores SIGINT, and with it all that its tests start.
(trap - INT && tests tests/contract tests/testbeds/kubernetes tests/pods -k "kubernetes or pods") > "$logs/pods" 2>&1 &
pods=$!
trap 'kill "$pods" 2> /dev/null; wait "$pods"; exit 130' INT TERM
(tests tests/contract tests/testbeds/openstack tests/cloud -k "openstack or cloud") 2>&1 | tee "$logs/cloud" || status=1
wait "$pods" || status=1
cat "$logs/pods"
sum_up
exit "$status"
