// Holds railway.ts to railway.json value by value, and to docs/settings.md setting by setting.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { createRailwayContext, project, RAILWAY_GRAPH_VERSION, validateGraph } from "railway/iac";
import type { DatabaseNode, Edge, RailwayGraph, ResourceNode, ServiceNode } from "railway/iac";
import program from "./railway.ts";

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");

// As Railway's CLI does it: the resources as JSON, and an edge for every variable that refers to another resource.
const definition = await program(createRailwayContext({ environment: "production" }), project);
const resources: ResourceNode[] = JSON.parse(JSON.stringify(definition.resources ?? [])).flat();
const graph: RailwayGraph = {
  version: RAILWAY_GRAPH_VERSION,
  project: { name: definition.name },
  environments: [],
  resources,
  edges: resources.flatMap((resource) =>
    Object.entries("variables" in resource ? (resource.variables ?? {}) : {}).flatMap(([key, value]): Edge[] =>
      value.type === "reference" ? [{ from: resource.address, to: value.resource, type: "variable", key }] : [],
    ),
  ),
};
const api = resources.find((resource): resource is ServiceNode => resource.type === "service");
const database = resources.find((resource): resource is DatabaseNode => resource.type === "database");
assert(api && database);

test("the graph is valid, and the API refers to its PostgreSQL", () => {
  assert.deepEqual(validateGraph(graph), []);
  assert.equal(database.engine, "postgres");
  const edge = { from: api.address, to: database.address, type: "variable", key: "DATABASE_URL" };
  assert.deepEqual(graph.edges.filter((edge) => edge.from === api.address), [edge]);
});

test("build and deploy are those of railway.json", async (t) => {
  const { $schema, ...railwayJson } = JSON.parse(read("railway.json"));
  // One instance is what Railway runs where railway.json gives no number.
  const expected = new Map([["deploy.numReplicas", 1], ...values(railwayJson)]);
  const found = new Map(values({ build: api.build, deploy: api.deploy }));
  for (const key of new Set([...expected.keys(), ...found.keys()])) {
    await t.test(key, () => assert.deepEqual(found.get(key), expected.get(key)));
  }
});

test("of the variables two are given, and every other setting stays as people set it", () => {
  const { DATABASE_URL, TRUSTED_PROXIES, ...others } = api.variables ?? {};
  assert.deepEqual(DATABASE_URL, { type: "reference", resource: database.address, output: "DATABASE_URL" });
  assert.deepEqual(TRUSTED_PROXIES, { type: "literal", value: "railway" });

  const rows = read("docs/settings.md").split("\n").filter((line) => line.startsWith("| `"));
  const settings = rows.flatMap((row) => (row.split("|")[1] ?? "").match(/[A-Z][A-Z_]+/g) ?? []);
  const given = ["DATABASE_URL", "TRUSTED_PROXIES", /* in development alone */ "DEVELOPMENT_KEY_FILE"];
  const kept = settings.filter((name) => !given.includes(name));
  assert(kept.length > 30, "docs/settings.md has a table of settings");
  // A build argument of the Dockerfile, not a setting of the binary.
  kept.push("PROFILE");
  assert.match(read("Dockerfile"), /^ARG PROFILE=/m);
  assert.deepEqual(others, Object.fromEntries(kept.map((name) => [name, { type: "preserve" }])));
});

/** The values of a tree by their paths: `deploy.overlapSeconds`. Lists and whatever else is no object are values. */
function values(tree: object, path: string[] = []): [string, unknown][] {
  return Object.entries(tree).flatMap(([key, value]): [string, unknown][] =>
    value !== null && typeof value === "object" && !Array.isArray(value)
      ? values(value, [...path, key])
      : [[[...path, key].join("."), value]],
  );
}
