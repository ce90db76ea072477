#!/usr/bin/env bash
# sum_up.sh SECONDS LOG...: the closing lines of pytest in these logs as one, with that time. Nothing where there is none.
set -euo pipefail
grep -hE '^=+ .* in [0-9.]+s' "${@:2}" | grep -oE '[0-9]+ [a-z]+' | sed 's/ errors$/ error/' |
  awk -v seconds="$1" '{ if (!($2 in count)) order[++n] = $2; count[$2] += $1 }
    END { for (i = 1; i <= n; i++) text = text (i > 1 ? ", " : "") count[order[i]] " " order[i]
          if (n) print "===== " text " in " seconds ".0s =====" }'
