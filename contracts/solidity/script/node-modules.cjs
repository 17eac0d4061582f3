// Where the pinned npm packages lie: COUNTERFOIL_NODE_MODULES, else .tools/npm/node_modules of this checkout.
const fs = require("fs");
const path = require("path");

const root = path.resolve(__dirname, "../../..");
const directory = process.env.COUNTERFOIL_NODE_MODULES || path.join(root, ".tools/npm/node_modules");

exports.directory = directory;

exports.load = (name) => {
  const place = path.join(directory, name);
  if (!fs.existsSync(place)) {
    process.stderr.write(`${name} is not in ${directory}: run "cargo xtask tools", or set COUNTERFOIL_NODE_MODULES\n`);
    process.exit(3);
  }
  return require(place);
};
