"""Reads the whole FEED with a NATS client that is not ours and prints one JSON object a message.

usage: feed_reader.py NATS_URL CREDS_FILE
The credentials are the auditor's: they can read LEDGER_0 and FEED, nothing else.
"""
import asyncio
import base64
import json
import sys

import nats
from nacl.signing import SigningKey


async def main(url: str, creds: str) -> int:
    text = open(creds, encoding="utf-8").read()
    jwt = text.split("BEGIN NATS USER JWT-----")[1].split("------END")[0].strip()
    seed = text.split("BEGIN USER NKEY SEED-----")[1].split("------END")[0].strip()
    # A seed is base32 of two prefix bytes, the 32 secret bytes and a checksum.
    key = SigningKey(base64.b32decode(seed + "=" * (-len(seed) % 8))[2:34])
    payload = jwt.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    options = {
        "user_jwt_cb": lambda: jwt.encode(),
        "signature_cb": lambda nonce: base64.b64encode(key.sign(nonce.encode()).signature),
        # A role's inbox is its own: `_INBOX_<public key>`.
        "inbox_prefix": b"_INBOX_" + claims["sub"].encode(),
    }
    client = await nats.connect(url, **options)
    stream = client.jetstream()
    info = await stream.stream_info("FEED")
    leaves = set()
    # By direct get: no role may create consumers, because a push consumer could be made to write anywhere.
    for sequence in range(info.state.first_seq, info.state.last_seq + 1):
        message = await stream.get_msg("FEED", seq=sequence, direct=True)
        if not message.subject.startswith("feed.log."):
            continue
        event, headers = json.loads(message.data), message.headers or {}
        leaf = int(headers["x-counterfoil-leaf"])
        assert event["header"]["leaf"] == leaf, "the header and the event disagree on the leaf"
        assert headers["ce-specversion"] == "1.0"
        assert message.subject == "feed.log." + event["body"]["type"], message.subject
        leaves.add(leaf)
        print(json.dumps({"leaf": leaf, "type": event["body"]["type"], "subject": message.subject}))
    assert leaves == set(range(len(leaves))), "leaves are missing in FEED"
    print(json.dumps({"messages": info.state.messages, "leaves": len(leaves)}), file=sys.stderr)
    await client.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2])))
