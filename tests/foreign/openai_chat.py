"""The OpenAI client, current version, unmodified, against a gateway: lists models, chats without and with streaming.

usage: openai_chat.py BASE_URL API_KEY
"""
import json
import sys

import openai


def main(base_url: str, key: str) -> int:
    client = openai.OpenAI(base_url=base_url + "/v1", api_key=key)
    model = next(iter(client.models.list())).id
    messages = [{"role": "user", "content": "Name the capital of France."}]

    whole = client.chat.completions.create(model=model, messages=messages, max_tokens=32, temperature=0)
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    text = whole.choices[0].message.content
    assert "Paris" in text, text

    parts, finish, usage = [], None, None
    stream = client.chat.completions.create(
        model=model, messages=messages, max_tokens=32, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.choices:
            parts.append(chunk.choices[0].delta.content or "")
            finish = chunk.choices[0].finish_reason or finish
        usage = chunk.usage or usage
    assert finish in ("stop", "length"), finish
    assert "".join(parts) == text, "streamed and whole answers differ at temperature 0"
    assert usage and usage.completion_tokens == whole.usage.completion_tokens

    try:
        client.chat.completions.create(model="no-such-model", messages=messages)
        raise SystemExit("an unknown model was accepted")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error.code
    try:
        openai.OpenAI(base_url=base_url + "/v1", api_key="wrong").models.list()
        raise SystemExit("a wrong key was accepted")
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key", error.code
    print(json.dumps({"model": model, "text": text, "tokens": usage.total_tokens}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
