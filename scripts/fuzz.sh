#!/usr/bin/env bash
# fuzz.sh [DURATION]: fuzzes every target below for DURATION (default 60s), two at a time with one worker each. An
# input that fails is left in the package's testdata/fuzz, where go test runs it from then on: mend the code, and
# commit it.
set -euo pipefail
cd "$(dirname "$0")/.."

duration=${1:-60s}
targets=(
  "./vault FuzzParseReference"
  "./vault FuzzDecideRead"
  "./vault/login FuzzRead"
  "./config FuzzLoad"
  "./server FuzzRPC"
  "./server FuzzPaths"
)

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# fuzz PACKAGE TARGET: the output goes to the target's log, and there is a file LOG.failed if it failed. Minimising
# every new input would take most of the time. go test sometimes fails with "context deadline exceeded" when the time
# is over; without a failing input that is no failure.
fuzz() {
  local log=$logs/$2
  if go test -run='^$' -fuzz="^$2\$" -fuzztime="$duration" -fuzzminimizetime=10x -parallel=1 "$1" >"$log" 2>&1; then
    return
  fi
  if grep -q 'context deadline exceeded' "$log" && ! grep -qE 'Failing input|panic:|DATA RACE|fatal error' "$log"; then
    return
  fi
  touch "$log.failed"
}

for target in "${targets[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
  read -r package name <<<"$target"
  fuzz "$package" "$name" &
done
wait

failed=0
for target in "${targets[@]}"; do
  name=${target#* }
  if [ -e "$logs/$name.failed" ]; then
    failed=1
    cat "$logs/$name"
  fi
  printf '%-20s %s\n' "$name" "$(grep -E '^fuzz: elapsed' "$logs/$name" | tail -n 1)"
done
exit $failed
