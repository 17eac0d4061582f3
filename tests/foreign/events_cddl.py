"""Foreign check of event bytes: a CBOR decoder and a CDDL validator that Counterfoil did not write.

usage: events_cddl.py SCHEMA GOLDEN_HEX      (lines of "<kind> <hex>")
"""
import sys

import cbor2
from zcbor.zcbor import zcbor


def main() -> int:
    text = open(sys.argv[1], encoding="utf-8").read()
    event = zcbor.DataTranslator.from_cddl(cddl_string=text, default_max_qty=4096).my_types["event"]
    count = 0
    for line in open(sys.argv[2], encoding="utf-8"):
        kind, digits = line.split()
        data = bytes.fromhex(digits)
        value = cbor2.loads(data)
        assert cbor2.dumps(value, canonical=True) == data, f"{kind}: not canonical for cbor2"
        event.validate_str(data)
        value[2][1] = value[2][1] + ["extra"] * 3
        try:
            event.validate_str(cbor2.dumps(value))
        except Exception:  # the validator has one error class per way to be wrong
            count += 1
            continue
        raise SystemExit(f"{kind}: the schema accepts three more elements")
    print(f"{count} events decoded, canonical and valid by the schema")
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())
