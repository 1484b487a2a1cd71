// The Railway project: this API, its PostgreSQL and the daily check of its audit log, in each environment. `railway config
// plan` shows what would change, `railway config apply` changes it; docs/railway.md walks through both. railway.json says
// the same of the API's build and deploy, for services that still read it: change the two together, railway.test.ts holds
// one to the other.
import { defineRailway, image, postgres, preserve, project, service, type SourceConfig } from "railway/iac";

// What differs between the environments. Everything else is the same in each: Railway matches resources by their names, and
// its command line refuses a file that has a resource in one environment and not in another.
const environments: Record<string, { replicas: number; env: Record<string, string> }> = {
  production: {
    replicas: 2, // any number may start at once: migrations take a lock
    env: { ENVIRONMENT: "production", LOG_LEVEL: "info", DOCS_ENABLED: "false" },
  },
  staging: {
    replicas: 1,
    env: { ENVIRONMENT: "staging", LOG_LEVEL: "info,bulkhead=debug", DOCS_ENABLED: "true" },
  },
};

// Where deploys come from if BULKHEAD_IMAGE names no image. With none, `railway up` sends the working directory. With
// github("you/bulkhead"), imported from railway/iac, a push to main is built from the Dockerfile.
const otherwise: SourceConfig | undefined = undefined;

// What people set on the API. Apply deletes a variable that this file does not name, so here is every setting of
// docs/settings.md that is not given below: preserve() keeps the value that Railway has, sealed or not, and no secret
// stands in a file.
const setByPeople = [
  "ALLOWED_ORIGINS",
  "AUDIT_CHECKPOINT_MINUTES",
  "AUDIT_CHECKPOINT_WEBHOOK",
  "AUDIT_ORIGIN",
  "AUDIT_SIGNING_KEY",
  "AUDIT_SUBJECT_KEY",
  "BODY_TIMEOUT_SECONDS",
  "COOKIE_SECRET",
  "DATABASE_ACQUIRE_TIMEOUT_SECONDS",
  "DATABASE_ALLOW_UNVERIFIED",
  "DATABASE_CA",
  "DATABASE_MAX_CONNECTIONS",
  "DATABASE_PASSWORD", // of the login below, for DATABASE_URL
  "DATABASE_STATEMENT_TIMEOUT_SECONDS",
  "HOST",
  "JWKS_CACHE_TTL_SECONDS",
  "JWT_CACHE_CAPACITY",
  "JWT_MAX_LIFETIME_MINUTES",
  "JWT_ROLE_CLAIM_NAME",
  "JWT_TENANT_CLAIM_NAME",
  "JWT_TYPE",
  "LOG_FORMAT",
  "MAX_BODY_BYTES",
  "MAX_CONCURRENT_REQUESTS",
  "MAX_CONCURRENT_REQUESTS_PER_CLIENT",
  "MAX_CONNECTIONS",
  "MAX_METADATA_BYTES",
  "MAX_PAGE_BYTES",
  "METRICS_PORT",
  "MIGRATE_ON_START",
  "MIGRATION_ALLOW_UNKNOWN",
  "MIGRATION_DDL_LOCK_TIMEOUT_SECONDS",
  "MIGRATION_LOCK_TIMEOUT_SECONDS",
  "MIGRATION_STATEMENT_TIMEOUT_SECONDS",
  "OIDC_API_TOKEN",
  "OIDC_AUDIENCE",
  "OIDC_CLIENT_ID",
  "OIDC_CLIENT_SECRET",
  "OIDC_END_SESSION_ENDPOINT",
  "OIDC_ISSUER_URL",
  "OIDC_REDIRECT_URL",
  "OIDC_SCOPES",
  "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
  "OTEL_BSP_MAX_QUEUE_SIZE",
  "OTEL_BSP_SCHEDULE_DELAY",
  "OTEL_EXPORTER_OTLP_ENDPOINT",
  "OTEL_EXPORTER_OTLP_HEADERS",
  "OTEL_EXPORTER_OTLP_PROTOCOL",
  "OTEL_EXPORTER_OTLP_TIMEOUT",
  "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
  "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
  "OTEL_RESOURCE_ATTRIBUTES",
  "OTEL_SDK_DISABLED",
  "OTEL_SERVICE_NAME",
  "OTEL_TRACES_EXPORTER",
  "OTEL_TRACES_SAMPLER",
  "OTEL_TRACES_SAMPLER_ARG",
  "PORT", // Railway chooses one unless a person does
  "PROFILE", // for the build: docs/image.md
  "RATE_LIMIT_BURST",
  "RATE_LIMIT_PER_MINUTE",
  "REQUEST_TIMEOUT_SECONDS",
  "SHUTDOWN_DELAY_SECONDS",
  "SHUTDOWN_DRAIN_SECONDS",
  "SOURCE_REVISION", // docs/railway.md says when to set it
];

export default defineRailway((ctx) => {
  const environment = environments[ctx.environment ?? ""];
  if (!environment) {
    // Another environment's values would be wrong without a word.
    throw new Error(
      ctx.environment
        ? `railway.ts has no values for the environment "${ctx.environment}": add them to its list of environments`
        : "this version of Railway's command line does not say which environment it plans: install a newer one",
    );
  }
  const source = fromImage(process.env.BULKHEAD_IMAGE) ?? otherwise;

  const build = {
    builder: "DOCKERFILE" as const,
    dockerfilePath: "Dockerfile",
    // What the image is made of; a change to anything else deploys nothing.
    watchPatterns: [
      ".cargo/**",
      "Cargo.toml",
      "Cargo.lock",
      "Dockerfile",
      ".dockerignore",
      "build.rs",
      "deploy/build/**",
      "deploy/rootfs/**",
      "deploy/swagger-ui/**",
      "flake.lock",
      "migration/**",
      "migrator/**",
      "railway.json",
      "src/**",
    ],
  };

  // A database under another name would be deleted, and an empty one made.
  const db = postgres("Postgres");

  const api = service("bulkhead", {
    source,
    build,
    // No start command: it would replace the image's entrypoint. The migration has the binary's full path, since the
    // image has no shell to find it.
    preDeploy: ["/bin/bulkhead database prepare"],
    healthcheck: "/api/v1/health/ready",
    healthcheckTimeout: 300,
    replicas: environment.replicas,
    deploy: {
      restartPolicyType: "ON_FAILURE",
      restartPolicyMaxRetries: 3,
      // Both are 0 unless set (docs.railway.com/deployments/deployment-teardown). Old and new instances serve together
      // for the first. The second outlasts a stop: SHUTDOWN_DELAY_SECONDS 5, SHUTDOWN_DRAIN_SECONDS 30, 5 for refusals
      // that were counted and 1 for the pool are 41.
      overlapSeconds: 30,
      drainingSeconds: 45,
    },
    env: {
      ...Object.fromEntries(setByPeople.map((name) => [name, preserve()])),
      ...environment.env,
      // Requests are served as a login without rights of its own, which `database prepare` creates; the role that Railway
      // hands out is a superuser and owns the tables. Host and port are those of Railway's own DATABASE_URL.
      DATABASE_URL:
        "postgresql://bulkhead_api:${{DATABASE_PASSWORD}}" +
        `@\${{${db.name}.RAILWAY_PRIVATE_DOMAIN}}:5432/\${{${db.name}.PGDATABASE}}`,
      MIGRATION_DATABASE_URL: db.env.DATABASE_URL,
      // Whose word counts for a client's address: the edge's. Without it all clients share one rate limit.
      TRUSTED_PROXIES: "railway",
    },
  });

  // A broken chain ends the run with exit code 1, which Railway shows as a crash.
  const audit = service("audit-verify", {
    source,
    build,
    // It replaces the image's entrypoint in exec form (docs.railway.com/deployments/start-command).
    start: "/bin/bulkhead audit verify",
    deploy: {
      cronSchedule: "23 3 * * *", // in UTC (docs.railway.com/cron-jobs)
      restartPolicyType: "NEVER", // a chain that is broken stays so
    },
    // Looking across tenants takes the owner of the tables, and the command no other setting.
    env: { DATABASE_URL: db.env.DATABASE_URL },
  });

  return project("bulkhead", { resources: [db, api, audit] });
});

/** One image and no other, such as that of `nix build .#image`: a tag may move, and replicas would then differ. */
function fromImage(name: string | undefined): SourceConfig | undefined {
  if (!name) {
    return undefined;
  }
  if (!/^[^@\s]+@sha256:[0-9a-f]{64}$/.test(name)) {
    throw new Error(`BULKHEAD_IMAGE must end with a digest, @sha256: and 64 hexadecimal digits: ${name}`);
  }
  return image(name);
}
