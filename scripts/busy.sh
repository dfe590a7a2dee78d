#!/usr/bin/env bash
# busy.sh COMMAND...: runs a command beside two busy loops for each processor, and ends with its exit code. The loops
# end with this script, also when it is killed.
set -euo pipefail

# loop keeps a processor busy for as long as this script runs.
loop() {
  while kill -0 $$ 2>/dev/null; do
    for ((i = 0; i < 100000; i++)); do :; done
  done
}

loops=()
trap 'kill "${loops[@]}" 2>/dev/null || :' EXIT
for ((n = 2 * $(nproc); n > 0; n--)); do
  loop &
  loops+=($!)
done
"$@"
