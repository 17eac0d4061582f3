// Compiles the hostile token of the forge tests and prints its creation code in hex: node hostile.cjs
const fs = require("fs");
const path = require("path");
const modules = require("../../solidity/script/node-modules.cjs");
const solc = modules.load("solc");

const root = path.resolve(__dirname, "../../solidity");
const source = path.join(root, "test/support/HostileToken.sol");
const input = {
  language: "Solidity",
  sources: { [source]: { content: fs.readFileSync(source, "utf8") } },
  settings: { evmVersion: "cancun", outputSelection: { [source]: { HostileToken: ["evm.bytecode.object"] } } },
};

const found = (name) => ({ contents: fs.readFileSync(path.join(modules.directory, name), "utf8") });
const output = JSON.parse(solc.compile(JSON.stringify(input), { import: found }));
const errors = (output.errors || []).filter(({ severity }) => severity === "error");
if (errors.length > 0) throw new Error(errors.map(({ formattedMessage }) => formattedMessage).join("\n"));
process.stdout.write(output.contracts[source].HostileToken.evm.bytecode.object);
