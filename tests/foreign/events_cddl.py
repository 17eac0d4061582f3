"""Foreign check of event bytes: a CBOR decoder and a CDDL validator that Counterfoil did not write.

usage: events_cddl.py SCHEMA GOLDEN_HEX [COMMITS_HEX]
"""
import sys

import cbor2
from pycddl import Schema, ValidationError


def main() -> int:
    text = open(sys.argv[1], encoding="utf-8").read()
    event = Schema("root = event\n" + text)
    count = 0
    for line in open(sys.argv[2], encoding="utf-8"):
        kind, digits = line.split()
        data = bytes.fromhex(digits)
        value = cbor2.loads(data)
        assert cbor2.dumps(value, canonical=True) == data, f"{kind}: not canonical for cbor2"
        assert value[0] == 1 and len(value) == 5, kind
        event.validate_cbor(data)
        broken = cbor2.dumps(value[:2] + [[value[2][0], value[2][1] + ["extra"] * 3]] + value[3:], canonical=True)
        try:
            event.validate_cbor(broken)
            raise SystemExit(f"{kind}: the schema accepts three more elements")
        except ValidationError:
            pass
        count += 1
    print(f"{count} events decoded, canonical and valid by the schema")
    return 0


if __name__ == "__main__":
    sys.exit(main())
