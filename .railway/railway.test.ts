// Holds railway.ts to railway.json value by value, to docs/settings.md setting by setting, and to its graph as it is
// committed for each environment. UPDATE_SNAPSHOTS=1 writes the graphs anew.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { validateGraph } from "railway/iac";
import { environments, evaluate, read, resource, values } from "./graph.ts";

for (const environment of environments) {
  test(environment, async (t) => {
    const graph = await evaluate(environment);
    const api = resource(graph, "service.bulkhead");
    const audit = resource(graph, "service.audit-verify");
    const database = resource(graph, "database.Postgres");

    await t.test("the graph is the one that is committed", () => {
      const file = new URL(`./snapshots/${environment}.json`, import.meta.url);
      const text = `${JSON.stringify(graph, null, 2)}\n`;
      if (process.env.UPDATE_SNAPSHOTS) {
        writeFileSync(file, text);
      }
      assert.equal(text, readFileSync(file, "utf8"), "if that is meant: UPDATE_SNAPSHOTS=1 npm test --prefix .railway");
    });

    await t.test("the graph is valid: the owner's address comes from the database, the login's names it", () => {
      assert.deepEqual(validateGraph(graph), []);
      assert.equal(database.engine, "postgres");
      const edge = (from: string, key: string) => ({ from, to: database.address, type: "variable", key });
      assert.deepEqual(graph.edges, [
        edge(api.address, "MIGRATION_DATABASE_URL"),
        edge(audit.address, "DATABASE_URL"),
      ]);
    });

    await t.test("build and deploy are those of railway.json", async (t) => {
      const { $schema, environments: overrides = {}, ...everywhere } = JSON.parse(read("railway.json"));
      const expected = new Map([...values(everywhere), ...values(overrides[environment] ?? {})]);
      const found = new Map(values({ build: api.build, deploy: api.deploy }));
      // Where railway.json is read, the login that migrates also serves: there is no other to prepare.
      assert.deepEqual(api.deploy?.preDeployCommand, ["/bin/bulkhead database prepare"]);
      for (const [key, value] of values({ deploy: { preDeployCommand: api.deploy?.preDeployCommand } })) {
        expected.set(key, value);
      }
      for (const key of new Set([...expected.keys(), ...found.keys()])) {
        await t.test(key, () => assert.deepEqual(found.get(key), expected.get(key)));
      }
    });

    await t.test("a stop has the time that it may take", () => {
      const [delay, drain, refusals, pool] = [5, 30, 5, 1]; // docs/settings.md
      assert(delay + drain + refusals + pool < (api.deploy?.drainingSeconds ?? 0));
      assert((api.deploy?.overlapSeconds ?? 0) > 0);
    });

    await t.test("of the variables some are given, and every other setting stays as people set it", () => {
      const cells = (row: string) => row.split("|").map((cell) => cell.trim().replace(/`/g, ""));
      // What differs between the environments, as docs/railway.md shows it.
      const rows = read("docs/railway.md").split("\n").filter((line) => line.startsWith("|")).map(cells);
      const column = rows.find((row) => row.includes(environment))?.indexOf(environment) ?? 0;
      const shown = (name: string) => rows.find((row) => row[1] === name)?.[column];
      assert.equal(String(api.deploy?.numReplicas), shown("replicas of the API"));
      const given: Record<string, unknown> = {
        DATABASE_URL: literal(
          "postgresql://bulkhead_api:${{DATABASE_PASSWORD}}@${{Postgres.RAILWAY_PRIVATE_DOMAIN}}:5432/${{Postgres.PGDATABASE}}",
        ),
        MIGRATION_DATABASE_URL: { type: "reference", resource: database.address, output: "DATABASE_URL" },
        TRUSTED_PROXIES: literal("railway"),
        ENVIRONMENT: literal(environment),
        LOG_LEVEL: literal(shown("LOG_LEVEL")),
        DOCS_ENABLED: literal(shown("DOCS_ENABLED")),
      };

      const settings = read("docs/settings.md").split("\n").filter((line) => line.startsWith("| `"));
      const kept = settings
        .flatMap((row) => (row.split("|")[1] ?? "").match(/[A-Z][A-Z_]+/g) ?? [])
        .filter((name) => !(name in given) && name !== /* in development alone */ "DEVELOPMENT_KEY_FILE");
      assert(kept.length > 30, "docs/settings.md has a table of settings");
      // A build argument of the Dockerfile, and what DATABASE_URL refers to: no settings of the binary.
      kept.push("PROFILE", "DATABASE_PASSWORD");
      assert.match(read("Dockerfile"), /^ARG PROFILE=/m);
      assert.deepEqual(api.variables, {
        ...given,
        ...Object.fromEntries(kept.map((name) => [name, { type: "preserve" }])),
      });
    });

    await t.test("the audit log is verified each day, by the owner of the tables and from the same image", () => {
      assert.deepEqual([audit.source, audit.build], [api.source, api.build]);
      const { startCommand, cronSchedule, restartPolicyType, ...rest } = audit.deploy ?? {};
      assert.equal(startCommand, "/bin/bulkhead audit verify");
      assert.match(cronSchedule ?? "", /^\d+ \d+ \* \* \*$/);
      assert.deepEqual([restartPolicyType, rest], ["NEVER", {}]);
      assert.deepEqual(Object.keys(audit.variables ?? {}), ["DATABASE_URL"]);
    });

    await t.test("an image runs in both services, and only by its digest", async () => {
      const name = `registry.example:5000/you/bulkhead@sha256:${"0123456789abcdef".repeat(4)}`;
      const graph = await evaluate(environment, name);
      for (const address of ["service.bulkhead", "service.audit-verify"] as const) {
        assert.deepEqual(resource(graph, address).source, { type: "image", image: name });
      }
      for (const wrong of ["you/bulkhead:latest", "you/bulkhead@sha256:0123", name.toUpperCase(), ` ${name}`]) {
        await assert.rejects(evaluate(environment, wrong), /BULKHEAD_IMAGE must end with a digest/);
      }
      assert.equal(api.source, undefined);
      assert.deepEqual(await evaluate(environment, ""), await evaluate(environment));
    });
  });
}

test("the command line takes a file only with the same resources in each environment", async () => {
  const addresses = async (environment: string) => (await evaluate(environment)).resources.map(({ address }) => address);
  assert.deepEqual(await addresses("staging"), await addresses("production"));
});

test("an environment without values is refused, and so is a command line that names none", async () => {
  await assert.rejects(evaluate("live"), /railway.ts has no values for the environment "live"/);
  await assert.rejects(evaluate(undefined), /install a newer one/);
});

const literal = (value: string | undefined) => ({ type: "literal", value });
