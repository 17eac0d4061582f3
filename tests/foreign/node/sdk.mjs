// OpenAI's client for Node, the AI SDK with both of its providers, LangChain for JavaScript: unmodified, against a gateway.
// usage: node sdk.mjs BASE_URL API_KEY MODEL      (packages: NODE_PATH's folder, as package-lock.json pins them)
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [base, apiKey, model] = process.argv.slice(2);
const require = createRequire(process.env.COUNTERFOIL_SDK_MODULES + "/x.js");
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const baseURL = `${base}/v1`;
const question = "Name the capital of France.";
const messages = [{ role: "user", content: question }];
const schema = { type: "object", properties: { capital: { type: "boolean" } }, required: ["capital"], additionalProperties: false };

async function openaiNode() {
  const { default: OpenAI } = await load("openai");
  const client = new OpenAI({ baseURL, apiKey });
  const whole = await client.chat.completions.create({ model, messages, max_tokens: 12, temperature: 0 });
  assert.match(whole.choices[0].message.content, /Paris/);
  const stream = client.chat.completions.stream({ model, messages, max_tokens: 12, temperature: 0 });
  assert.equal(await stream.finalContent(), whole.choices[0].message.content);
  const response = await client.responses.create({ model, input: question, max_output_tokens: 12, temperature: 0 });
  assert.match(response.output_text, /Paris/);
  const tools = [{ type: "function", function: { name: "answer", parameters: schema } }];
  const called = await client.chat.completions.create({ model, messages, max_tokens: 40, tools, tool_choice: "required" });
  assert.equal(typeof JSON.parse(called.choices[0].message.tool_calls[0].function.arguments).capital, "boolean");
  await assert.rejects(client.chat.completions.create({ model: "no-such-model", messages }), { code: "model_not_found", status: 404 });
}

async function aiSdk() {
  const { generateText, streamText, Output, jsonSchema, tool } = await load("ai");
  const { createOpenAI } = await load("@ai-sdk/openai");
  const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
  const compatible = createOpenAICompatible({ name: "counterfoil", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true });
  // Its own OpenAI provider speaks the Responses call unless it is told otherwise.
  const openai = createOpenAI({ baseURL, apiKey });
  for (const one of [compatible(model), openai(model), openai.chat(model)]) {
    const settings = { model: one, prompt: question, maxOutputTokens: 12, temperature: 0 };
    const whole = await generateText(settings);
    assert.match(whole.text, /Paris/);
    assert.ok(whole.usage.totalTokens > 0);
    const streamed = streamText(settings);
    assert.equal(await streamed.text, whole.text);
    assert.ok(["stop", "length"].includes(await streamed.finishReason));
    const tools = { answer: tool({ description: "Answers.", inputSchema: jsonSchema(schema) }) };
    const called = await generateText({ ...settings, maxOutputTokens: 40, tools, toolChoice: "required" });
    assert.equal(called.toolCalls[0].toolName, "answer");
  }
  const structured = await generateText({
    model: compatible(model), prompt: question, maxOutputTokens: 40, output: Output.object({ schema: jsonSchema(schema) }),
  });
  assert.equal(typeof structured.output.capital, "boolean");
}

async function langchain() {
  const { ChatOpenAI } = await load("@langchain/openai");
  const chat = new ChatOpenAI({ model, apiKey, temperature: 0, maxTokens: 12, configuration: { baseURL } });
  const whole = await chat.invoke(question);
  assert.match(whole.content, /Paris/);
  let text = "";
  for await (const chunk of await chat.stream(question)) text += chunk.content;
  assert.equal(text, whole.content);
}

for (const part of [openaiNode, aiSdk, langchain]) {
  await part();
  console.log(JSON.stringify({ part: part.name }));
}
