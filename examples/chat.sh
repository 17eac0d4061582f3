#!/bin/sh
# One streamed prompt with nothing but curl. The headers name the job, its cost and its receipt.
: "${COUNTERFOIL_API_KEY:?set it to the key that counterfoil up printed}"
PROMPT=$(printf '%s' "${1:-Name three colours.}" | sed 's/[\\"]/\\&/g')
exec curl --no-buffer --silent --show-error --include \
    "${COUNTERFOIL_URL:-http://127.0.0.1:8080}/v1/chat/completions" \
    --header "Authorization: Bearer $COUNTERFOIL_API_KEY" \
    --header "Content-Type: application/json" \
    --data "{\"model\": \"${MODEL:-SmolLM2-135M-Instruct}\", \"stream\": true, \"max_tokens\": 64,
             \"messages\": [{\"role\": \"user\", \"content\": \"$PROMPT\"}]}"
