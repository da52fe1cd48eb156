#!/usr/bin/env bash
# Features of an image with curl and base64 alone:
#
#   ./curl.sh http://localhost:8501 photo.jpg
#
# The request is JSON, and so is the answer: {"outputs": {"pooled": [[...]], "ok": [true],
# "reason": [0]}}. SIGNATURE=objects or instances answers with boxes and vectors.
set -euo pipefail
server=$1 image=$2

printf '{"signature_name": "%s", "inputs": {"image_bytes": [{"b64": "%s"}]}}' \
    "${SIGNATURE:-embed}" "$(base64 < "$image" | tr -d '\n')" |
    curl --silent --show-error --fail-with-body --max-time 60 --data @- \
        "$server/v1/models/${MODEL_NAME:-slotcon}:predict"
