#!/usr/bin/env node
// Stands in for the native solc. forge only ever calls `--version` and `--standard-json`, with the sources inside
// the JSON, so that no import callback is needed.
const path = require("path");
const solc = require("./node-modules.cjs").load("solc");

// forge names a source outside its root sometimes by its whole path and sometimes by a relative one, and remaps to the
// relative one; the native compiler would bring them together by looking at the disk, which this one cannot do.
const wholePath = (name) => (name.startsWith("..") ? path.resolve(name) : name);

const withWholePaths = (byName) =>
  Object.fromEntries(Object.entries(byName).map(([name, value]) => [wholePath(name), value]));

function compile(text) {
  const input = JSON.parse(text);
  const settings = input.settings;
  input.sources = withWholePaths(input.sources);
  settings.outputSelection = withWholePaths(settings.outputSelection);
  settings.remappings = (settings.remappings || []).map((remapping) => {
    const [name, target] = remapping.split("=");
    return `${name}=${path.resolve(target)}/`;
  });
  return solc.compile(JSON.stringify(input));
}

const options = process.argv.slice(2);
if (options.includes("--version")) {
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}\n`);
} else if (options.includes("--standard-json")) {
  process.stdout.write(compile(require("fs").readFileSync(0, "utf8")));
} else {
  process.stderr.write(`solc-wrapper: expected --version or --standard-json, got: ${options.join(" ")}\n`);
  process.exit(2);
}
