"""A worker in another language, whole: takes jobs over NATS, lets a command answer them, signs what it delivers.

Usage: worker.py NATS_URL JWT_FILE SEED_FILE NODE_ID NODE_KEY_HEX MODEL GGUF_FILE COMMAND...

COMMAND writes its answer to stdout as it comes; in it {prompt}, {max_tokens} and {temperature} are filled in:
  counterfoil model generate --model FILE --max-tokens {max_tokens} --temperature {temperature} --prompt {prompt}
Nobody can re-execute that bit for bit, so the receipt says `attested`: the ids are tokens of the price list's tokenizer whose
text is the text delivered, and the chain is c_0 = BLAKE3("counterfoil attested chain 1\\0" job weights body), c_i = BLAKE3(c_(i-1) id_i).
Thin on purpose: one job at a time, and a receipt not acknowledged before this process dies is lost.
"""
import asyncio
import base64
import codecs
import hashlib
import json
import sys
import time

import cbor2
import gguf
import nats
from blake3 import blake3
from nacl.public import PrivateKey, SealedBox
from nacl.signing import SigningKey

URL, JWT_FILE, SEED_FILE, NODE, NODE_KEY, MODEL, GGUF_FILE, *COMMAND = sys.argv[1:]
JWT = open(JWT_FILE, encoding="utf-8").read().strip()
SEED = open(SEED_FILE, encoding="utf-8").read().strip()
SIGNER = SigningKey(base64.b32decode(SEED + "=" * (-len(SEED) % 8))[2:34])  # two prefix bytes, the secret, a checksum
OPERATOR = json.loads(base64.urlsafe_b64decode(JWT.split(".")[1] + "=="))["sub"]
BOX = SealedBox(PrivateKey(bytes.fromhex(NODE_KEY)))
WEIGHTS = hashlib.sha256(open(GGUF_FILE, "rb").read()).hexdigest()
CROCKFORD = str.maketrans("0123456789abcdefghjkmnpqrstvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
STATE = {"running": None, "beats": 0, "frames": 0, "known": set(), "cancelled": set()}


def vocabulary():
    """Bytes of each ordinary token; the file writes them as printable characters (GPT-2's way)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in plain]
    byte_of = {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(hidden)}
    fields = gguf.GGUFReader(GGUF_FILE).fields
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    found = {}
    for number, (at, kind) in enumerate(zip(tokens.data, kinds.data)):
        if kinds.parts[kind][0] == 1:  # normal
            found[bytes(byte_of[c] for c in bytes(tokens.parts[at]).decode())] = number
    return found


VOCABULARY = vocabulary()
LONGEST = max(map(len, VOCABULARY))


def tokens_of(text):
    """Tokens whose text is this text: always the longest that fits."""
    data, ids = text.encode(), []
    while data:
        end = next(n for n in range(min(LONGEST, len(data)), 0, -1) if data[:n] in VOCABULARY)
        ids.append(VOCABULARY[data[:end]])
        data = data[end:]
    return ids


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
    output = commitment(b"counterfoil output 1\0", body["salt"], u32(*ids))
    receipt = cbor2.dumps([
        1, id_bytes(offer["job"]), offer["attempt"], id_bytes(NODE), bytes(SIGNER.verify_key), bytes.fromhex(WEIGHTS), "attested", 1,
        bytes.fromhex(offer["body_commitment"]), len(body["prompt_ids"]), len(ids), output, chain, finish, started_us,
        time.time_ns() // 1000, "worker.py",
    ])
    return cbor2.dumps([receipt, SIGNER.sign(b"counterfoil receipt 1\0" + receipt).signature])


async def pieces(body, process):
    """Text as the command writes it, whole characters only, without the newline that ends its output."""
    decoder, held = codecs.getincrementaldecoder("utf-8")("replace"), ""
    while data := await process.stdout.read(64):
        text = held + decoder.decode(data)
        text, held = (text[:-1], "\n") if text.endswith("\n") else (text, "")
        if text:
            yield text


async def run(nc, offer, body, say):
    key, started_us, ids, finish = (offer["job"], offer["attempt"]), time.time_ns() // 1000, [], 0  # 0 stop, 1 length, 2 cancelled
    start = id_bytes(offer["job"]) + bytes.fromhex(WEIGHTS + offer["body_commitment"])
    chain = blake3(b"counterfoil attested chain 1\0" + start).digest()
    known = {"prompt": body["messages"][-1]["content"], "max_tokens": body["max_tokens"],
             "temperature": body["temperature_millionths"] / 1e6}
    command = [part.format(**known) if "{" in part else part for part in COMMAND]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    async for text in pieces(body, process):
        tokens = tokens_of(text)[:body["max_tokens"] - len(ids)]
        for token in tokens:
            chain = blake3(chain + u32(token)).digest()
        await say(kind="frame", seq=STATE["frames"], ids=tokens, text=text, chain=chain.hex())
        ids, STATE["frames"] = ids + tokens, STATE["frames"] + 1
        if key in STATE["cancelled"] or len(ids) >= body["max_tokens"]:
            finish = 2 if key in STATE["cancelled"] else 1
            process.kill()
            break
    if await process.wait() and not finish:
        return await say(kind="failed", seq=STATE["frames"], detail="the command failed")
    receipt = signed_receipt(offer, body, ids, chain, finish, started_us)
    STATE["running"] = None  # before the gateway hears of the end: it may send the next job at once
    await say(kind="done", seq=STATE["frames"], receipt=base64.b64encode(receipt).decode())
    while True:  # the operator is paid by this: until the stream has it
        try:
            return await nc.jetstream().publish(f"receipt.{OPERATOR}.{offer['job']}.{offer['attempt']}", receipt)
        except nats.errors.Error as error:
            print("receipt not acknowledged:", error, file=sys.stderr)
            await asyncio.sleep(1)


async def on_offer(nc, offer):
    key, gateway = (offer["job"], offer["attempt"]), offer["gateway"]
    if key in STATE["known"] or not (gateway.isascii() and gateway.isalnum() and len(gateway) <= 64):
        return
    subject = f"result.{OPERATOR}.{NODE}.{gateway}.{offer['job']}.{offer['attempt']}"

    async def say(**message):
        await nc.publish(subject, json.dumps(message).encode())

    async def nak(reason, detail):
        await say(kind="nak", attempt=offer["attempt"], reason=reason, detail=detail)

    if (offer["model"], offer["weights"]) != (MODEL, WEIGHTS):
        return await nak("model", f"this node serves {MODEL}")
    if offer["deadline_us"] <= time.time_ns() // 1000:
        return await nak("unsupported", "the deadline has passed")
    try:
        body = json.loads(BOX.decrypt(base64.b64decode(offer["sealed_body"])))
        if "controls" in body:
            return await nak("unsupported", "no penalties, biases, formats or log-probabilities here")
        committed = commitment(b"counterfoil body 1\0", body["salt"], body_bytes(body)).hex()
        assert body["job"] == offer["job"] and committed == offer["body_commitment"]
    except Exception:
        return await nak("body", "the body does not open or does not match its commitment")
    if STATE["running"]:
        return await nak("busy", "one job at a time")
    STATE["running"], STATE["frames"] = key, 0
    STATE["known"].add(key)
    await say(kind="accept", attempt=offer["attempt"])
    try:
        await run(nc, offer, body, say)
    finally:
        if STATE["running"] == key:
            STATE["running"] = None


async def main():
    nc = await nats.connect(URL, user_jwt_cb=lambda: JWT.encode(), max_reconnect_attempts=-1,
                            signature_cb=lambda nonce: base64.b64encode(SIGNER.sign(nonce.encode()).signature),
                            inbox_prefix=f"_INBOX_{OPERATOR}".encode())
    tasks = set()

    async def on_message(message):
        try:
            content = json.loads(message.data)
            if message.subject.endswith(".cancel"):
                STATE["cancelled"].add((content["job"], content["attempt"]))
            elif message.subject.endswith(".offer"):
                task = asyncio.create_task(on_offer(nc, {**content, "job": str(content["job"])}))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except (ValueError, TypeError, KeyError):
            print("not a message of the protocol", file=sys.stderr)

    await nc.subscribe(f"job.{OPERATOR}.{NODE}.*", cb=on_message)
    while True:
        beat = {"protocol": 1, "node": NODE, "seq": STATE["beats"], "inflight": int(STATE["running"] is not None), "slots": 1,
                "models": [MODEL], "draining": False}
        await nc.publish(f"hb.{OPERATOR}.{NODE}", json.dumps(beat).encode())
        STATE["beats"] += 1
        await asyncio.sleep(2)


asyncio.run(main())
