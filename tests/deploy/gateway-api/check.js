// Holds objects of the Gateway API to its types, so that no field is unknown, and to its rules for values. Neither looks at
// metadata, or at what the API's own rules (CEL) say of several fields at once.
//   node check.js OBJECTS.json...
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const objects = process.argv.slice(2).flatMap((file) => JSON.parse(readFileSync(file, "utf8")));
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
let typed = "", wrong = 0;
for (const [index, object] of objects.entries()) {
  const module = `@kubernetes-models/gateway-api/${object.apiVersion}/${object.kind}`;
  typed += `import type { I${object.kind} as Type${index} } from "${module}";\n`;
  typed += `export const object${index}: Type${index} = ${JSON.stringify(object)};\n`;
  try {
    const { [object.kind]: Kind } = await import(module);
    new Kind(object).validate();
  } catch (error) {
    wrong += 1;
    console.error(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}
// Beside the packages, since the compiler looks for them from there.
mkdirSync(here("node_modules/.checked"), { recursive: true });
const file = here("node_modules/.checked/objects.ts");
writeFileSync(file, typed);
const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", file];
const compiled = spawnSync(here("node_modules/.bin/tsc"), options, { encoding: "utf8" });
if (compiled.status !== 0) {
  wrong += 1;
  console.error(compiled.stdout + compiled.stderr + (compiled.error ?? ""));
}
console.log(`Gateway API: ${objects.length} objects, ${wrong} faults`);
process.exitCode = objects.length > 0 && wrong === 0 ? 0 : 1;
