"""LangChain's OpenAI client, unmodified: a chat, a stream, a bound tool, a structured output.

usage: sdk_langchain.py BASE_URL API_KEY MODEL
"""
import json
import sys

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    capital: bool
    large: bool


@tool
def weather(metric: bool) -> str:
    """The weather in Paris."""
    return f"Sunny, metric: {metric}."


def main(base_url: str, key: str, model: str) -> int:
    chat = ChatOpenAI(base_url=base_url + "/v1", api_key=key, model=model, temperature=0, max_tokens=160)
    whole = chat.invoke("Name the capital of France.")
    assert "Paris" in whole.content, whole
    assert whole.usage_metadata["total_tokens"] > 0
    streamed = "".join(chunk.content for chunk in chat.stream("Name the capital of France."))
    assert streamed == whole.content, (streamed, whole.content)
    called = chat.bind_tools([weather], tool_choice="weather").invoke("Weather in Paris?")
    assert called.tool_calls[0]["name"] == "weather", called
    structured = chat.with_structured_output(City, method="json_schema").invoke("Describe Paris.")
    assert isinstance(structured, City)
    again = ChatOpenAI(
        base_url=base_url + "/v1", api_key=key, model=model, temperature=0, max_tokens=12, use_responses_api=True)
    assert "Paris" in again.invoke("Name the capital of France.").text
    print(json.dumps({"langchain": "ok"}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
