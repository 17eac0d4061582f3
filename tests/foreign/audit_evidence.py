"""Evidence of auditors, read by programs that are not ours. audit_evidence.py WHAT ARGUMENT...; exit 1 when it is wrong.

report SCHEMA FILE...            jsonschema: reports against the published schema
dsse ENVELOPE PUBLIC REPORT      securesystemslib: the envelope is signed by this Ed25519 key (hex), and is about this report
log DIR KEY OLD INDEX [WITNESS...]  aics-tlog (Python 3.12): signature, as many cosignatures as witnesses are named, consistency
                                    with an older checkpoint (or -), one entry against the tiles
"""
import base64
import hashlib
import json
import os
import subprocess
import sys


def fail(words):
    print(words)
    sys.exit(1)


def report(schema, *files):
    import jsonschema
    with open(schema) as text:
        schema = json.load(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in files:
        with open(path) as text:
            for error in validator.iter_errors(json.load(text)):
                fail(f"{path}: {error.json_path}: {error.message}")
    print(len(files), "valid")


def dsse(path, public, report_path):
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey
    with open(path) as text:
        data = json.load(text)
    keyid = data["signatures"][0]["keyid"]
    # It takes the dictionary apart.
    envelope = Envelope.from_dict(data)
    key = SSlibKey(keyid, "ed25519", "ed25519", {"public": public})
    try:
        envelope.verify([key], 1)
    except Exception as error:
        fail(f"not signed by {public}: {error!r}")
    if hashlib.sha256(bytes.fromhex(public)).hexdigest() != keyid:
        fail("the key's id is not its hash")
    statement = json.loads(envelope.payload)
    with open(report_path, "rb") as data:
        digest = hashlib.sha256(data.read()).hexdigest()
    if {"name": "report.json", "digest": {"sha256": digest}} not in statement["subject"]:
        fail("the statement is about another report")
    print(statement["predicateType"], statement["predicate"]["result"])


def log(directory, key, old, index, *witnesses):
    program = os.path.join(os.path.dirname(sys.executable), "aics-tlog")
    if not os.path.exists(program):
        print("skipped: aics-tlog needs Python 3.12")
        return
    source = ["--tiles", directory, "--log-key", key]
    asked = [["verify-checkpoint", "--quorum", str(len(witnesses)), *[word for one in witnesses for word in ("--witness-key", one)]],
             ["verify-inclusion", "--index", index]]
    if old != "-":
        asked.append(["verify-consistency", "--old-checkpoint", old])
    for words in asked:
        told = subprocess.run([program, *words, *source], capture_output=True, text=True)
        if told.returncode != 0:
            fail(f"{words[0]}: {told.stdout}{told.stderr}")
    print("aics-tlog", len(asked), "checks")


if __name__ == "__main__":
    {"report": report, "dsse": dsse, "log": log}[sys.argv[1]](*sys.argv[2:])
