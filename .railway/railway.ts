// The Railway project: this API and its PostgreSQL. `railway config plan` shows what would change, `railway config
// apply` changes it; docs/railway.md walks through both. railway.json says the same of the API's build and deploy, for
// services that still read it: change the two together, railway.test.ts holds one to the other.
import { defineRailway, postgres, preserve, project, service, type SourceConfig } from "railway/iac";

// Where deploys come from. With none, `railway up` sends the working directory. The others, imported from railway/iac:
//   github("you/bulkhead")                              a push to main is built from the Dockerfile
//   image("registry.example/you/bulkhead@sha256:...")   this image and no other, such as that of `nix build .#image`
const source: SourceConfig | undefined = undefined;

// What people set on the service. Apply deletes a variable that this file does not name, so here is every setting of
// docs/settings.md, and the build's own: preserve() keeps the value that Railway has, and no secret stands in a file.
const setByPeople = [
  "ALLOWED_ORIGINS",
  "BODY_TIMEOUT_SECONDS",
  "COOKIE_SECRET",
  "DATABASE_ACQUIRE_TIMEOUT_SECONDS",
  "DATABASE_MAX_CONNECTIONS",
  "DATABASE_STATEMENT_TIMEOUT_SECONDS",
  "DOCS_ENABLED",
  "ENVIRONMENT", // the image says production; a staging environment may say otherwise
  "HOST",
  "JWKS_CACHE_TTL_SECONDS",
  "JWT_CACHE_CAPACITY",
  "JWT_MAX_LIFETIME_MINUTES",
  "JWT_ROLE_CLAIM_NAME",
  "JWT_TENANT_CLAIM_NAME",
  "LOG_FORMAT",
  "LOG_LEVEL",
  "MAX_BODY_BYTES",
  "MAX_CONCURRENT_REQUESTS",
  "MAX_CONCURRENT_REQUESTS_PER_CLIENT",
  "MAX_CONNECTIONS",
  "MAX_METADATA_BYTES",
  "MAX_PAGE_BYTES",
  "MIGRATE_ON_START",
  "MIGRATION_ALLOW_UNKNOWN",
  "MIGRATION_DATABASE_URL",
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
  "PORT", // Railway chooses one unless a person does
  "PROFILE", // for the build: docs/image.md
  "RATE_LIMIT_BURST",
  "RATE_LIMIT_PER_MINUTE",
  "REQUEST_TIMEOUT_SECONDS",
  "SHUTDOWN_DELAY_SECONDS",
  "SHUTDOWN_DRAIN_SECONDS",
  "SOURCE_REVISION", // docs/railway.md says when to set it
];

export default defineRailway(() => {
  // Resources are matched by name: a database under another name would be deleted, and an empty one made.
  const db = postgres("Postgres");

  const api = service("bulkhead", {
    source,
    build: {
      builder: "DOCKERFILE",
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
    },
    // No start command: it would replace the image's entrypoint. The migration has the binary's full path, since the
    // image has no shell to find it.
    preDeploy: ["/bin/bulkhead migrate up"],
    healthcheck: "/api/v1/health/ready",
    healthcheckTimeout: 300,
    // Any number may start at once: migrations take a lock.
    replicas: 1,
    deploy: {
      restartPolicyType: "ON_FAILURE",
      restartPolicyMaxRetries: 3,
      // Both are 0 unless set. Draining outlasts SHUTDOWN_DELAY_SECONDS, SHUTDOWN_DRAIN_SECONDS and a second more.
      overlapSeconds: 30,
      drainingSeconds: 40,
    },
    env: {
      ...Object.fromEntries(setByPeople.map((name) => [name, preserve()])),
      DATABASE_URL: db.env.DATABASE_URL,
      // Whose word counts for a client's address: the edge's. Without it all clients share one rate limit.
      TRUSTED_PROXIES: "railway",
    },
  });

  return project("bulkhead", { resources: [db, api] });
});
