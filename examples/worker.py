"""A worker in another language, whole: forwards each job to an OpenAI-compatible server and signs what it delivers.

Usage: worker.py NATS_URL OPERATOR.creds NODE_ID NODE_KEY_HEX MODEL WEIGHTS_SHA256_HEX BACKEND_URL

BACKEND_URL (http://127.0.0.1:8081, say) offers /v1/chat/completions and /tokenize, as llama.cpp's server does. Its output
cannot be re-executed bit for bit, so the receipt says `attested`: the ids are the server's own tokens of the delivered
text, and the chain is c_0 = BLAKE3("counterfoil attested chain 1\0" job weights body), c_i = BLAKE3(c_(i-1) id_i).
Thin on purpose: one job after another, and a receipt not acknowledged before this process dies is lost.
"""
import asyncio
import base64
import json
import sys
import time

import cbor2
import httpx
import nats
import nkeys
from blake3 import blake3
from nacl.public import PrivateKey, SealedBox

URL, CREDS, NODE, NODE_KEY, MODEL, WEIGHTS, BACKEND = sys.argv[1:8]
with open(CREDS) as creds:
    SIGNER = nkeys.from_seed(next(line.strip() for line in creds if line.startswith("SU")).encode())
OPERATOR = SIGNER.public_key.decode()
BOX = SealedBox(PrivateKey(bytes.fromhex(NODE_KEY)))
CROCKFORD = str.maketrans("0123456789abcdefghjkmnpqrstvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
STATE = {"running": None, "beats": 0, "frames": 0, "cancelled": set()}


def id_bytes(text):
    """The 16 bytes behind `job_...` or `node_...`."""
    return base64.b32decode(text.split("_")[1].translate(CROCKFORD) + "======")


def u32(*numbers):
    return b"".join(n.to_bytes(4, "little") for n in numbers)


def commitment(domain, salt, data):
    return blake3(domain + data, key=bytes.fromhex(salt)).digest()


def body_bytes(body):
    """The bytes that the log's commitment covers; specs/job-protocol.md."""
    ids, seed, stops = body["prompt_ids"], body["seed"], [s.encode() for s in body["stop"]]
    sampling = [body[k] for k in ("max_tokens", "temperature_millionths", "top_p_millionths", "top_k")]
    head = id_bytes(body["job"]) + u32(len(ids), *ids, *sampling)
    seed_bytes = bytes([seed is not None]) + (seed or 0).to_bytes(8, "little")
    return head + seed_bytes + u32(len(stops)) + b"".join(u32(len(s)) + s for s in stops)


def signed_receipt(offer, body, ids, chain, finish, started_us):
    operator = base64.b32decode(OPERATOR)[1:33]
    output = commitment(b"counterfoil output 1\0", body["salt"], u32(*ids))
    receipt = cbor2.dumps([
        1, id_bytes(offer["job"]), offer["attempt"], id_bytes(NODE), operator, bytes.fromhex(WEIGHTS), "attested", 1,
        bytes.fromhex(offer["body_commitment"]), len(body["prompt_ids"]), len(ids), output, chain, finish, started_us,
        time.time_ns() // 1000, "worker.py",
    ])
    return cbor2.dumps([receipt, SIGNER.sign(b"counterfoil receipt 1\0" + receipt)])


async def deltas(http, body):
    """Text as the backend streams it."""
    request = {"model": MODEL, "stream": True, "messages": body["messages"], "max_tokens": body["max_tokens"],
               "temperature": body["temperature_millionths"] / 1e6, "top_p": body["top_p_millionths"] / 1e6,
               "stop": body["stop"] or None, "seed": body["seed"]}
    async with http.stream("POST", f"{BACKEND}/v1/chat/completions", json=request) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                for choice in json.loads(line[6:])["choices"]:
                    if choice["delta"].get("content"):
                        yield choice["delta"]["content"]


async def run(nc, http, offer, body, say):
    started_us, ids, finish, STATE["frames"] = time.time_ns() // 1000, [], 0, 0  # 0 stop, 1 length, 2 cancelled
    start = id_bytes(offer["job"]) + bytes.fromhex(WEIGHTS + offer["body_commitment"])
    chain = blake3(b"counterfoil attested chain 1\0" + start).digest()
    async for text in deltas(http, body):
        tokens = (await http.post(f"{BACKEND}/tokenize", json={"content": text})).json()["tokens"]
        tokens = tokens[:body["max_tokens"] - len(ids)]
        for token in tokens:
            chain = blake3(chain + u32(token)).digest()
        if tokens:
            await say(kind="frame", seq=STATE["frames"], ids=tokens, text=text, chain=chain.hex())
            ids, STATE["frames"] = ids + tokens, STATE["frames"] + 1
        if (offer["job"], offer["attempt"]) in STATE["cancelled"]:
            finish = 2
            break
        if len(ids) >= body["max_tokens"]:
            finish = 1
            break
    receipt = signed_receipt(offer, body, ids, chain, finish, started_us)
    STATE["running"] = None  # before the gateway hears of the end: it may send the next job at once
    await say(kind="done", seq=STATE["frames"], receipt=base64.b64encode(receipt).decode())
    while True:  # the operator is paid by this: until the stream has it
        try:
            return await nc.jetstream().publish(f"receipt.{OPERATOR}.{offer['job']}.{offer['attempt']}", receipt)
        except nats.errors.Error as error:
            print("receipt not acknowledged:", error, file=sys.stderr)
            await asyncio.sleep(1)


async def on_offer(nc, http, offer):
    subject = f"result.{OPERATOR}.{NODE}.{offer['gateway']}.{offer['job']}.{offer['attempt']}"

    async def say(**message):
        await nc.publish(subject, json.dumps(message).encode())

    async def nak(reason, detail):
        await say(kind="nak", attempt=offer["attempt"], reason=reason, detail=detail)

    if STATE["running"]:
        return await nak("busy", "one job at a time")
    if (offer["model"], offer["weights"]) != (MODEL, WEIGHTS):
        return await nak("model", f"this node serves {MODEL}")
    try:
        body = json.loads(BOX.decrypt(base64.b64decode(offer["sealed_body"])))
        if "controls" in body:
            return await nak("unsupported", "no penalties, biases, formats or log-probabilities here")
        committed = commitment(b"counterfoil body 1\0", body["salt"], body_bytes(body)).hex()
        assert body["job"] == offer["job"] and committed == offer["body_commitment"]
    except Exception:
        return await nak("body", "the body does not open or does not match its commitment")
    STATE["running"] = key = (offer["job"], offer["attempt"])
    await say(kind="accept", attempt=offer["attempt"])
    try:
        await run(nc, http, offer, body, say)
    except httpx.HTTPError as error:
        await say(kind="failed", seq=STATE["frames"], detail=type(error).__name__)
    finally:
        if STATE["running"] == key:
            STATE["running"] = None


async def main():
    nc = await nats.connect(URL, user_credentials=CREDS, inbox_prefix=f"_INBOX_{OPERATOR}".encode(), max_reconnect_attempts=-1)
    tasks = set()

    async def on_message(message):
        content = json.loads(message.data)
        if message.subject.endswith(".cancel"):
            STATE["cancelled"].add((content["job"], content["attempt"]))
        elif message.subject.endswith(".offer"):
            task = asyncio.create_task(on_offer(nc, http, content))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async with httpx.AsyncClient(timeout=600) as http:
        await nc.subscribe(f"job.{OPERATOR}.{NODE}.*", cb=on_message)
        while True:
            beat = {"protocol": 1, "node": NODE, "seq": STATE["beats"], "inflight": int(STATE["running"] is not None), "slots": 1,
                    "models": [MODEL], "draining": False}
            await nc.publish(f"hb.{OPERATOR}.{NODE}", json.dumps(beat).encode())
            STATE["beats"] += 1
            await asyncio.sleep(2)


asyncio.run(main())
