#!/usr/bin/env bash
# What each pod of base/job.yaml does, in the checkout that all of them see: the first one runs DVC, and all of them train.
# The job says REPRISE_NODES and REPRISE_RENDEZVOUS; Kubernetes says the pod's number.
set -euo pipefail
export REPRISE_NODE_RANK="$JOB_COMPLETION_INDEX"

# SIGTERM, as when a node is drained, reaches this shell alone: it is handed on, and what runs is waited for. 143 says so.
child='' stopped=false
trap 'stopped=true; [ -z "$child" ] || kill -TERM "$child" 2> /dev/null || true' TERM
run() {
  local code=0
  "$@" &
  child=$!
  while wait "$child" && code=0 || code=$?; kill -0 "$child" 2> /dev/null; do :; done # a signal ends a wait early
  child=''
  ! $stopped || exit 143
  return "$code"
}

if [ "$REPRISE_NODE_RANK" != 0 ]; then
  # The first pod listens when it trains, not before: the data is there then. Where nothing is to train, it never does,
  # and the job's end is this pod's.
  echo "train.sh: waits for $REPRISE_RENDEZVOUS"
  until (: < "/dev/tcp/${REPRISE_RENDEZVOUS%:*}/${REPRISE_RENDEZVOUS##*:}") 2> /dev/null; do run sleep 2; done
  run reprise train
  exit
fi

# A pod that was killed may have left DVC's note of what it was writing, by a process number that another one has here.
rm -f .dvc/tmp/rwlock

# What others have cooked and pushed is taken from the remote, if there is one.
remote=$(dvc config core.remote 2> /dev/null || true)
pull=(${remote:+--pull})

# Bad input anywhere in params.yaml ends this with 2, and so the job; of DVC every failure is 255, and is tried again.
run reprise environment

# Training itself runs beside DVC, which would stand between it and SIGTERM.
run dvc repro "${pull[@]}" environment prepare

# Is there something to train? DVC is let to reproduce the stage with `false` in place of the shell that runs commands: it
# comes that far only where neither this checkout nor its cache has the results.
said=$(mktemp)
if run env SHELL=/bin/false dvc repro "${pull[@]}" --single-item train > "$said" 2>&1; then
  cat "$said"
elif grep -q "failed to run: reprise train" "$said"; then
  echo "train.sh: train on $REPRISE_NODES hosts"
  run reprise train
  run dvc commit --force train
else
  cat "$said" >&2
  exit 1
fi

# Whatever comes after training; what stands is left alone.
run dvc repro "${pull[@]}"
[ -z "$remote" ] || run dvc push
run reprise summary
