// Takes the steps by which docs/railway.md moves a service from railway.json, on the graph: what a plan lists after each.
// The comparison is Railway's own, of the last npm package that has it: since 3.11.0 the command line has a port of it
// (github.com/railwayapp/cli/pull/1113).
import assert from "node:assert/strict";
import { test } from "node:test";
import { database, type EnvironmentConfig, type RailwayGraph, type ServiceConfig } from "railway/iac";
import { diffGraphs, environmentConfigToGraph } from "railway-plan/iac";
import { evaluate, read, resource, values } from "./graph.ts";

const { deploy, build } = JSON.parse(read("railway.json"));
const page = read("docs/railway.md");
const now = (numReplicas: number) => ({ multiRegionConfig: { "us-west2": { numReplicas } } });

/** What Railway has of a project whose API reads railway.json: the dashboard's defaults, and what people set. */
function existing(api: ServiceConfig = {}): EnvironmentConfig {
  return {
    services: {
      bulkhead: {
        configFile: "railway.json",
        networking: { serviceDomains: { "bulkhead.up.railway.app": {} } },
        variables: {
          DATABASE_URL: { value: "${{Postgres.DATABASE_URL}}" },
          DATABASE_PASSWORD: {},
          TRUSTED_PROXIES: { value: "railway" },
          OIDC_ISSUER_URL: { value: "https://id.example.org/" },
          OIDC_CLIENT_SECRET: { isSealed: true },
        },
        ...api,
        deploy: { ...now(1), ...api.deploy },
      },
      Postgres: {
        source: { image: "ghcr.io/railwayapp-templates/postgres-ssl:18" },
        deploy: { requiredMountPath: "/var/lib/postgresql/data", ...now(1) },
        volumeMounts: { "postgres-volume": { mountPath: "/var/lib/postgresql/data" } },
      },
    },
    volumes: { "postgres-volume": { sizeMB: 50_000, region: "us-west2" } },
  };
}

/** A plan: its errors, and a line for each change, with what would be lost in capitals. */
function plan(current: EnvironmentConfig, desired: RailwayGraph) {
  const { changes, diagnostics } = diffGraphs({ current: environmentConfigToGraph(current) as RailwayGraph, desired });
  return {
    errors: diagnostics.filter(({ severity }) => severity === "error").map(({ message }) => message),
    changes: changes.map(({ summary, severity }) => (severity === "destructive" ? summary.toUpperCase() : summary)),
  };
}

const desired = await evaluate("production");
const given = ["ENVIRONMENT", "LOG_LEVEL", "DOCS_ENABLED", "DATABASE_URL", "MIGRATION_DATABASE_URL"];
const variables = given.map((name) => `${name === "DATABASE_URL" ? "Update" : "Set"} variable bulkhead.${name}`);
const ofTheBuild = "Update bulkhead build.builder, build.watchPatterns";

// Step 4, as the page has it.
const settings = [...page.matchAll(/--service-config bulkhead (\S+) ('[^']*'|\S+)/g)].map(([, path = "", value = ""]) => {
  const text = value.replace(/^'(.*)'$/, "$1");
  return [path, /^[[0-9]/.test(text) ? JSON.parse(text) : text] as const;
});
const prepared: ServiceConfig = {
  deploy: Object.fromEntries(settings.map(([path, value]) => [path.replace("deploy.", ""), value])),
};

test("while railway.json manages the service, the plan is refused", () => {
  const { errors, changes } = plan(existing(prepared), desired);
  assert.match(errors.join(), /^bulkhead is already managed by railway.json/);
  assert.deepEqual(changes, ["Create service audit-verify"]);
});

test("the page's command gives the service what railway.json gives it, but for the replicas", () => {
  const { numReplicas, ...others } = deploy;
  assert.deepEqual(Object.fromEntries(settings), Object.fromEntries(values({ deploy: others })));
});

test("after the cutover the plan lists what the page says: nothing is destroyed, nothing is renamed", () => {
  const { errors, changes } = plan(existing({ ...prepared, configFile: null }), desired);
  assert.deepEqual(errors, []);
  assert.deepEqual(changes, [
    ...variables,
    ofTheBuild,
    "Update bulkhead regions.us-west2, deploy.preDeployCommand",
    "Create service audit-verify",
  ]);
});

test("after the 1st of December, without the steps before, the plan destroys nothing, either", () => {
  const { errors, changes } = plan(existing({ configFile: null }), desired);
  assert.deepEqual(errors, []);
  assert.equal(changes.length, variables.length + 3);
  assert.deepEqual(changes.filter((line) => line === line.toUpperCase() || line.startsWith("Rename")), []);
  assert.deepEqual(changes.filter((line) => line.includes("Postgres")), []);
});

test("after apply there is nothing left to do, in either environment", async () => {
  for (const environment of ["production", "staging"]) {
    const desired = await evaluate(environment);
    const api = resource(desired, "service.bulkhead");
    const audit = resource(desired, "service.audit-verify");
    // The number of replicas becomes that of the service's region.
    const stored = ({ build, deploy: { numReplicas, ...deploy } = {}, ...service }: typeof api): ServiceConfig => ({
      build: build ?? null,
      deploy: { ...deploy, ...now(numReplicas ?? 1) },
      variables: Object.fromEntries(
        Object.entries(service.variables ?? {}).map(([name, value]) => [
          name,
          value.type === "reference"
            ? { value: `\${{Postgres.${value.output}}}` }
            : { value: value.type === "literal" ? (value.value ?? null) : null },
        ]),
      ),
    });
    const applied = existing({ ...stored(api), configFile: null });
    applied.services = { ...applied.services, "audit-verify": stored(audit) };
    assert.deepEqual(plan(applied, desired), { errors: [], changes: [] });
  }
});

test("an image and the build are changed into each other without a loss", async () => {
  const image = `registry.example/you/bulkhead@sha256:${"0".repeat(64)}`;
  const current = existing({ ...prepared, build, configFile: null, source: { image } });
  const lines = (desired: RailwayGraph) => plan(current, desired).changes.filter((line) => line.includes("source"));
  assert.deepEqual(lines(await evaluate("production", image)), []);
  // The page warns of this: without the variable, the image goes.
  assert.deepEqual(lines(desired), ["Update bulkhead source.image, source.type"]);
});

test("what step 1 warns of is what the plan would do without it", async (t) => {
  const config = existing({ ...prepared, configFile: null });
  const { bulkhead, Postgres, ...none } = config.services ?? {};
  assert(bulkhead && Postgres);
  const changes = (services: Record<string, ServiceConfig>) => plan({ ...config, services }, desired).changes;

  await t.test("a variable, and a service, that the file does not name", () => {
    const more = { ...bulkhead, variables: { ...bulkhead.variables, OURS: { value: "1" } } };
    const lost = changes({ bulkhead: more, Postgres, web: {} }).filter((line) => line === line.toUpperCase());
    assert.deepEqual(lost, ["DELETE VARIABLE BULKHEAD.OURS", "DELETE SERVICE WEB"]);
  });
  await t.test("another name of the database", () => {
    assert(changes({ bulkhead, "Postgres-Xy1Z": Postgres }).includes("DELETE DATABASE POSTGRES-XY1Z"));
  });
  await t.test("an older PostgreSQL, which the page's lines keep", async () => {
    const image = "ghcr.io/railwayapp-templates/postgres-ssl:17";
    const older = { ...Postgres, source: { image } };
    const ofDatabase = (lines: string[]) => lines.filter((line) => line.includes("Postgres"));
    assert.equal(ofDatabase(changes({ bulkhead, Postgres: older })).length, 1);

    assert(page.includes(`image: "${image}"`));
    const kept = database("Postgres", "postgres", { image, output: "DATABASE_URL", defaultMountPath: "/var/lib/postgresql/data" });
    const resources = desired.resources.map((one) => (one.address === kept.address ? JSON.parse(JSON.stringify(kept)) : one));
    const services = { bulkhead, Postgres: older };
    assert.deepEqual(ofDatabase(plan({ ...config, services }, { ...desired, resources }).changes), []);
  });
  assert.deepEqual(none, {});
});
