#!/usr/bin/env bash
# One machine of a cluster made by hand: a head, or a worker that joins it.
#
#   clusters/local/node.sh head [OPTIONS...]                  on the first machine
#   clusters/local/node.sh join HEAD_IP[:PORT] [OPTIONS...]   on each further machine
#
# OPTIONS go to `ray start` (for example --num-gpus=2, --temp-dir=/scratch/ray).
# It stays in the foreground; Ctrl-C ends this node and nothing else (`ray stop` would end every Ray of the machine).
#
# All machines need the same Python, the same packages (pip install -c clusters/constraints.txt .), storage that all can
# reach (a bucket, or a shared folder under the same path), and the token of the head in ~/.ray/auth_token.
# Between them these ports must be open: 6379, 8076-8083, 8265 and 20000-20999. Keep them closed to everyone else.
set -euo pipefail

export RAY_AUTH_MODE=token                            # always explicit: the default depends on whether a token file exists
export RAY_DATA_USE_DATASOURCE_V2=0                   # the second version starts 32 actors per epoch
export RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=0.5          # a report waits for this interval
export RAY_worker_niceness=0                          # else workers run at nice 15, behind everything else
export AWS_REQUEST_CHECKSUM_CALCULATION=when_required # S3 servers that are not AWS
export AWS_RESPONSE_CHECKSUM_VALIDATION=when_required

PORTS=(
    --object-manager-port=8076 --node-manager-port=8077 --runtime-env-agent-port=8078
    --metrics-export-port=8079 --dashboard-agent-grpc-port=8080 --dashboard-agent-listen-port=8081
    --min-worker-port=20000 --max-worker-port=20999
)

usage() {
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

case "${1:-}" in
head)
    shift
    (umask 077 && ray get-auth-token --generate >/dev/null)   # keeps a token that is already there
    echo "Copy ~/.ray/auth_token to the other machines (scp; it is a password), then run there:" >&2
    echo "    clusters/local/node.sh join $(hostname -I 2>/dev/null | awk '{print $1}')" >&2
    exec ray start --head --block --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 \
        --disable-usage-stats "${PORTS[@]}" "$@"
    ;;
join)
    [[ $# -ge 2 ]] || usage
    head=$2
    [[ $head == *:* ]] || head="$head:6379"
    shift 2
    if [[ -z "${RAY_AUTH_TOKEN:-}" && ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]]; then
        echo "No token in ${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}: copy that file from the head first." >&2
        exit 1
    fi
    exec ray start --address="$head" --block --disable-usage-stats "${PORTS[@]}" "$@"
    ;;
*)
    usage
    ;;
esac
