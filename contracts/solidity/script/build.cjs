#!/usr/bin/env node
// Compiles src/*.sol and writes one trimmed artefact a contract: `node build.cjs --out DIR`.
// The same sources give the same bytes on every machine: pinned compiler, no metadata hash, sorted keys.
const fs = require("fs");
const path = require("path");
const { directory, load } = require("./node-modules.cjs");

const COMPILER = "0.8.37";
const LIBRARY = "5.7.0";
const CONTRACTS = [
  "AllotmentBounds",
  "CheckpointAnchor",
  "CreditVault",
  "DollarToken",
  "FoilToken",
  "NetworkGovernor",
  "OperatorPayouts",
  "Packages",
  "StakeRegistry",
  "Treasury",
];
const source_directory = path.resolve(__dirname, "../src");

const settings = {
  optimizer: { enabled: true, runs: 10000 },
  evmVersion: "cancun",
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: {
    "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences"] },
  },
};

function fail(text) {
  process.stderr.write(`build: ${text}\n`);
  process.exit(1);
}

function readImport(name) {
  const place = name.startsWith("@") ? path.join(directory, name) : path.join(source_directory, "..", name);
  try {
    return { contents: fs.readFileSync(place, "utf8") };
  } catch (error) {
    return { error: `${place}: ${error.code}` };
  }
}

function compile(solc) {
  const sources = {};
  for (const name of CONTRACTS) {
    sources[`src/${name}.sol`] = { content: fs.readFileSync(path.join(source_directory, `${name}.sol`), "utf8") };
  }
  const input = { language: "Solidity", sources, settings };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: readImport }));
  const ours = (message) => message.severity === "error" || (message.sourceLocation || {}).file?.startsWith("src/");
  const messages = (output.errors || []).filter(ours);
  for (const message of messages) process.stderr.write(message.formattedMessage);
  if (messages.length > 0) fail("the compiler has something to say about our sources; warnings count");
  return output.contracts;
}

// Immutables have no fixed value in the artefact; their places let a reader compare deployed code with it.
function immutablePlaces(references) {
  return Object.values(references || {}).flat().sort((a, b) => a.start - b.start);
}

function artefact(name, built) {
  return {
    contractName: name,
    compiler: COMPILER,
    abi: built.abi,
    bytecode: `0x${built.evm.bytecode.object}`,
    deployedBytecode: `0x${built.evm.deployedBytecode.object}`,
    immutablePlaces: immutablePlaces(built.evm.deployedBytecode.immutableReferences),
  };
}

function main() {
  const at = process.argv.indexOf("--out");
  const out = process.argv[at + 1];
  if (at < 0 || !out) fail("usage: node build.cjs --out DIR");
  const solc = load("solc");
  if (!solc.version().startsWith(`${COMPILER}+`)) fail(`expected solc ${COMPILER}, got ${solc.version()}`);
  const library = load("@openzeppelin/contracts/package.json").version;
  if (library !== LIBRARY) fail(`expected @openzeppelin/contracts ${LIBRARY}, got ${library}`);
  const contracts = compile(solc);
  fs.mkdirSync(out, { recursive: true });
  for (const name of CONTRACTS) {
    const text = JSON.stringify(artefact(name, contracts[`src/${name}.sol`][name]), null, 1);
    fs.writeFileSync(path.join(out, `${name}.json`), `${text}\n`);
  }
}

main();
