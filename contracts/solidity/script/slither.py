"""Runs slither over built sources and compares what it finds with the answered findings (`slither-answered.txt`).

Usage, in contracts/solidity: python script/slither.py FOLDER_OF_FORGE [--accept]. Exit code 1: a finding without an answer,
or an answer whose finding is gone. What we answer stands in specs/contracts-review.md.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

ANSWERED = pathlib.Path("slither-answered.txt")


def subject(finding: dict) -> str:
    """Contract and function, variable or event; never a line number, which any edit above it would change."""
    named = [e for e in finding["elements"] if e["type"] in ("function", "contract", "variable", "event")]
    first = (named or finding["elements"])[0]
    fields = first.get("type_specific_fields", {})
    name = fields.get("signature") or first["name"]
    parent = fields.get("parent", {})
    # A parameter's parent is its function, whose parent is the contract.
    above = parent.get("type_specific_fields", {}).get("parent", {}).get("name")
    owner = f"{above}.{parent['name']}" if above and parent.get("type") == "function" else parent.get("name")
    return f"{owner}.{name}" if owner else name


def findings(built: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.json"
        slither = pathlib.Path(sys.executable).with_name("slither")
        # Exit codes say how many findings there are; whether it worked stands in the report.
        run = subprocess.run(
            [slither, ".", "--ignore-compile", "--foundry-out-directory", built,
             "--filter-paths", "node_modules|test/", "--json", report],
            capture_output=True, text=True,
        )
        if not report.exists():
            sys.exit(f"slither wrote no report and ended with {run.returncode}:\n{run.stderr[-4000:]}")
        told = json.loads(report.read_text())
    if not told["success"]:
        sys.exit(f"slither failed: {told['error']}")
    return sorted(f"{finding['check']} {subject(finding)}" for finding in told["results"]["detectors"])


def main() -> None:
    found = findings(sys.argv[1])
    if "--accept" in sys.argv:
        ANSWERED.write_text("".join(f"{line}\n" for line in found))
    answered = ANSWERED.read_text().splitlines()
    open_ones = list(found)
    gone = []
    for line in answered:
        open_ones.remove(line) if line in open_ones else gone.append(line)
    for line in open_ones:
        print(f"slither: no answer yet: {line}; answer it in specs/contracts-review.md and list it")
    for line in gone:
        print(f"slither: answered, but no longer found: {line}; take it off the list")
    if open_ones or gone:
        sys.exit(1)
    print(f"slither: {len(found)} findings, each with its answer")


main()
