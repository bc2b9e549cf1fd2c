#!/usr/bin/env bash
# The command of each pod of base/job.yaml, in a checkout shared by all pods: pod 0 runs DVC, and all pods train.
# The job sets REPRISE_NODES and REPRISE_RENDEZVOUS; Kubernetes sets the index of the pod.
set -euo pipefail
export REPRISE_NODE_RANK="$JOB_COMPLETION_INDEX"

# A tag may become another image between two pods, and metrics/provenance.json would not tell which one trained. Exit
# code 2 fails the job.
digest='@sha256:[0-9a-f]{64}$'
if [[ ! ${REPRISE_IMAGE:-} =~ $digest ]]; then
  echo "reprise: error: kustomization.yaml: images: got ${REPRISE_IMAGE:-none}; expected NAME@sha256:DIGEST" >&2
  exit 2
fi

# SIGTERM, as when a node is drained, reaches only this shell. It is forwarded to the running command, which is waited
# for; then this script exits with 143.
child='' stopped=false
trap 'stopped=true; [ -z "$child" ] || kill -TERM "$child" 2> /dev/null || true' TERM
run() {
  local code=0
  "$@" &
  child=$!
  while wait "$child" && code=0 || code=$?; kill -0 "$child" 2> /dev/null; do :; done # a signal interrupts `wait`
  child=''
  ! $stopped || exit 143
  return "$code"
}

if [ "$REPRISE_NODE_RANK" != 0 ]; then
  # Pod 0 listens only once it trains, after the data is prepared. If there is nothing to train, it never listens, and
  # this pod is terminated when the job succeeds.
  echo "train.sh: waiting for $REPRISE_RENDEZVOUS"
  until (: < "/dev/tcp/${REPRISE_RENDEZVOUS%:*}/${REPRISE_RENDEZVOUS##*:}") 2> /dev/null; do run sleep 2; done
  run reprise train
  exit
fi

# A killed pod may leave DVC's lock file behind, with a process id that belongs to another process here.
rm -f .dvc/tmp/rwlock

# Results that others have pushed are pulled from the remote, if there is one.
remote=$(dvc config core.remote 2> /dev/null || true)
pull=(${remote:+--pull})

# Invalid input in params.yaml makes this command exit with 2, which fails the job. DVC exits with 255 for any failure,
# and the job retries.
run reprise environment

# Training itself runs outside of DVC, which would not forward SIGTERM to it.
run dvc repro "${pull[@]}" preflight

# Is there anything to train? DVC reproduces the stage with `false` as its shell. It runs the shell only if neither this
# checkout nor the cache has the results.
log=$(mktemp)
if run env SHELL=/bin/false dvc repro "${pull[@]}" --single-item train > "$log" 2>&1; then
  cat "$log"
elif grep -q "failed to run: reprise train" "$log"; then
  echo "train.sh: train on $REPRISE_NODES hosts"
  run reprise train
  run dvc commit --force train
else
  cat "$log" >&2
  exit 1
fi

# The stages after training; stages that are up to date are skipped.
run dvc repro "${pull[@]}"
[ -z "$remote" ] || run dvc push
run reprise summary
