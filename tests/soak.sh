#!/bin/sh
# soak.sh: what is too long for `make check`. Usage: tests/soak.sh
cd "$(dirname "$0")/.." || exit 1
failed=0

part() {                                               # part SCRIPT ARGUMENT
  echo "---- $*"
  "$@" || failed=1
}

part tests/long.sh full                                # 10^9 tokens
part tests/machines.sh full                            # every shape, emulated
part tests/faults.sh 10000                             # kills
part tests/fuzz.sh 3600                                # an hour each
part tests/coverage.sh                                 # minutes

[ "$failed" -eq 0 ]
