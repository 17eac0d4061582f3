"""The OpenAI client for Python, unmodified, through every call of a model: chats, completions, responses, tools, schemas.

usage: sdk_openai.py BASE_URL API_KEY
"""
import json
import sys

import openai
from pydantic import BaseModel

QUESTION = [{"role": "user", "content": "Name the capital of France."}]
WEATHER = {
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class City(BaseModel):
    capital: bool
    large: bool


def controls(client: openai.OpenAI, model: str) -> None:
    def ask(**more):
        return client.chat.completions.create(model=model, messages=QUESTION, max_tokens=12, **more)

    plain = ask(temperature=0)
    text = plain.choices[0].message.content
    assert "Paris" in text, text

    first, again, other = (ask(temperature=1.5, seed=seed).choices[0].message.content for seed in (7, 7, 8))
    assert first == again, "the same seed gives the same answer"
    assert first != other, "another seed gives another"
    several = ask(temperature=1.5, seed=7, n=2).choices
    assert [choice.index for choice in several] == [0, 1]
    assert [choice.message.content for choice in several] == [first, other], "seeds of choices count up"

    told = ask(temperature=0, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert all(entry.logprob == entry.top_logprobs[0].logprob for entry in told), "the likeliest is taken at 0"
    joined = b"".join(bytes(entry.bytes) for entry in told).decode()
    assert joined == text, (joined, text)

    # The likeliest first token is banned: it does not come. Its id is what a completion of it alone begins with.
    banned = ask(temperature=0, logit_bias={str(id): -100 for id in range(0, 1000)})
    assert banned.choices[0].message.content != text, "a thousand tokens less change nothing"

    stopped = ask(temperature=0, stop=[" Paris"]).choices[0]
    assert stopped.finish_reason == "stop" and "Paris" not in stopped.message.content

    again = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=40, temperature=0, frequency_penalty=2, presence_penalty=2)
    assert again.choices[0].message.content, "penalties are taken"

    try:
        ask(extra_body={"prediction": {"type": "content", "content": "x"}})
        raise SystemExit("an unsupported parameter was dropped quietly")
    except openai.BadRequestError as error:
        assert (error.code, error.param) == ("unsupported_parameter", "prediction")


def formats(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=60, temperature=0, response_format={"type": "json_object"})
    if whole.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(whole.choices[0].message.content), dict)
    parsed = client.chat.completions.parse(
        model=model, messages=QUESTION, max_tokens=60, temperature=0, response_format=City)
    assert isinstance(parsed.choices[0].message.parsed, City), parsed


def tools(client: openai.OpenAI, model: str) -> None:
    offered = [{"type": "function", "function": WEATHER}]
    named = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", named):
        answer = client.chat.completions.create(
            model=model, messages=QUESTION, max_tokens=60, temperature=0, tools=offered, tool_choice=choice)
        call = answer.choices[0].message.tool_calls[0]
        assert answer.choices[0].finish_reason == "tool_calls"
        assert call.function.name == "weather" and set(json.loads(call.function.arguments)) == {"city"}
    with client.chat.completions.stream(
        model=model, messages=QUESTION, max_tokens=60, temperature=0, tools=offered, tool_choice="required",
    ) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert streamed.function.arguments == call.function.arguments
    turns = QUESTION + [
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny."},
    ]
    after = client.chat.completions.create(
        model=model, messages=turns, max_tokens=12, temperature=0, tools=offered, tool_choice="none")
    assert after.choices[0].message.tool_calls is None and after.choices[0].message.content


def completions(client: openai.OpenAI, model: str) -> None:
    ask = {"model": model, "prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
    whole = client.completions.create(**ask, logprobs=2)
    text = whole.choices[0].text
    assert "Paris" in text, text
    assert len(whole.choices[0].logprobs.tokens) == len(whole.choices[0].logprobs.token_logprobs)
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**ask, stream=True))
    assert streamed == text
    both = client.completions.create(**{**ask, "prompt": [ask["prompt"], "One, two,"]}, echo=True)
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.choices[0].text == ask["prompt"] + text


def responses(client: openai.OpenAI, model: str) -> None:
    ask = {"model": model, "input": "Name the capital of France.", "max_output_tokens": 12, "temperature": 0}
    whole = client.responses.create(**ask)
    assert "Paris" in whole.output_text, whole
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    with client.responses.stream(**ask) as stream:
        numbers = [event.sequence_number for event in stream]
        final = stream.get_final_response()
    assert numbers == list(range(len(numbers))), numbers
    assert final.output_text == whole.output_text
    parsed = client.responses.parse(**{**ask, "max_output_tokens": 60}, text_format=City)
    assert isinstance(parsed.output_parsed, City)
    called = client.responses.create(
        **{**ask, "max_output_tokens": 60}, tools=[{"type": "function", **WEATHER, "strict": True}],
        tool_choice="required")
    assert called.output[0].type == "function_call" and called.output[0].name == "weather"
    try:
        client.responses.create(**ask, previous_response_id=whole.id)
        raise SystemExit("a memory was promised that is not there")
    except openai.BadRequestError as error:
        assert error.param == "previous_response_id", error.param


def main(base_url: str, key: str) -> int:
    client = openai.OpenAI(base_url=base_url + "/v1", api_key=key)
    model = next(iter(client.models.list())).id
    for part in (controls, formats, tools, completions, responses):
        part(client, model)
        print(json.dumps({"part": part.__name__}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
