#!/usr/bin/env bash
# Runs Envoy, and on SIGTERM or SIGINT lets it finish what it admitted before it ends:
#
#   1. /healthz (the health listener) answers 503 from now on, and responses ask their clients to connect anew.
#   2. Load balancers get DOORBUSTER_DRAIN_NOTICE_S seconds to notice.
#   3. The listeners are closed: new connections are refused, requests under way go on.
#   4. Once no request is under way, or after DOORBUSTER_DRAIN_TIMEOUT_S seconds, Envoy ends.
#
# A container's grace period (terminationGracePeriodSeconds, stop_grace_period) must exceed both times together.
#
#   entrypoint.sh envoy -c /etc/envoy/envoy.yaml
set -u

admin_port=${DOORBUSTER_ADMIN_PORT:-9901}
notice_s=${DOORBUSTER_DRAIN_NOTICE_S:-5}
timeout_s=${DOORBUSTER_DRAIN_TIMEOUT_S:-15}

# Envoy's image has no HTTP client: bash opens the connection itself.
admin() {
  exec 3<>"/dev/tcp/127.0.0.1/$admin_port" || return 1
  printf '%s %s HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n' "$1" "$2" >&3
  cat <&3
  exec 3>&-
}

requests_under_way() {
  admin GET '/stats?filter=^http.gateway.downstream_rq_active$' | tr -d '\r' | sed -n 's/^http\.gateway\.downstream_rq_active: //p'
}

drain() {
  trap '' TERM INT
  echo "draining: telling load balancers for ${notice_s} s" >&2
  admin POST /healthcheck/fail >/dev/null
  sleep "$notice_s"
  admin POST /drain_listeners >/dev/null
  local deadline=$((SECONDS + timeout_s))
  # Twice, since a request may be between two reads of its connection.
  until [ "$(requests_under_way)" = 0 ] && sleep 0.2 && [ "$(requests_under_way)" = 0 ]; do
    [ "$SECONDS" -ge "$deadline" ] && { echo "draining: requests are still under way after ${timeout_s} s" >&2; break; }
    sleep 0.1
  done
  kill -TERM "$envoy" 2>/dev/null
}

"$@" &
envoy=$!
trap drain TERM INT
# `wait` returns when a signal arrives; the drain runs, and Envoy's own status is waited for again.
while kill -0 "$envoy" 2>/dev/null; do wait "$envoy"; status=$?; done
exit "${status:-0}"
