#!/usr/bin/env bash
# Tell Ray when the cloud announces that it takes this spot node: watch_spot.sh aws|gcp [SECONDS]
#
# `ray up` does not do that itself: without this the node is only missed when it is gone. Looks every
# SECONDS (2), drains the node once, and ends. Training saves at once when it hears of a drain.
# AWS announces it 2 minutes ahead, Google 30 seconds; some time of it is left for the shutdown.
set -euo pipefail

cloud=$1
every=${2:-2}

# One watcher a node, however often Ray is started there.
exec 9>"$HOME/.watch_spot.lock"
flock --nonblock 9 || exit 0

ask() { curl --silent --fail --max-time 5 "$@"; }

taken() {
  case $cloud in
    aws)
      local host=${METADATA_HOST:-169.254.169.254} token
      token=$(ask -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" \
        "http://$host/latest/api/token") &&
        ask -H "X-aws-ec2-metadata-token: $token" -o /dev/null \
          "http://$host/latest/meta-data/spot/instance-action"
      ;;
    gcp)
      [[ "$(ask -H "Metadata-Flavor: Google" \
        "http://${METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance/preempted")" == TRUE ]]
      ;;
    *)
      echo "watch_spot.sh: unknown cloud $cloud; expected aws or gcp" >&2
      exit 2
      ;;
  esac
}

until taken; do sleep "$every"; done
case $cloud in aws) left=110 ;; gcp) left=25 ;; esac
until ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION \
  --reason-message "the cloud takes this spot node" --deadline-remaining-seconds "$left"; do
  sleep "$every"
done
