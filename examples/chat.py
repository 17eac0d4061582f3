"""A chat with the unmodified OpenAI client: only base URL and key differ."""
import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("COUNTERFOIL_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ["COUNTERFOIL_API_KEY"],
)
model = client.models.list().data[0].id
messages = [{"role": "user", "content": " ".join(sys.argv[1:]) or "Name three colours."}]
stream = client.chat.completions.create(
    model=model, messages=messages, max_tokens=64, stream=True, stream_options={"include_usage": True}
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    elif chunk.usage:
        print(f"\n{chunk.usage.prompt_tokens} + {chunk.usage.completion_tokens} tokens")
