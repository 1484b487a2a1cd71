-- Makes the login that serves requests on Railway, and sets its password. As often as you like:
--
--   DATABASE_PASSWORD=... railway connect Postgres < .railway/login.sql
--
-- docs/railway.md has the steps around it. Its rights are those of bulkhead_app, which migrations grant (docs/tenancy.md).

\set ON_ERROR_STOP on
\set QUIET on
\set password ''
\getenv password DATABASE_PASSWORD

SELECT :'password' ~ '^[0-9A-Za-z]{24,}$' AS fits \gset
\if :fits
\else
  DO $$ BEGIN RAISE 'DATABASE_PASSWORD must be 24 or more letters and digits: it becomes part of a URL'; END $$;
\endif

-- A migration makes bulkhead_app where it is not there yet.
SELECT format('CREATE ROLE %I', role)
    FROM unnest(ARRAY['bulkhead_app', 'bulkhead_api']) AS role
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
ALTER ROLE bulkhead_api LOGIN PASSWORD :'password'
    NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
GRANT bulkhead_app TO bulkhead_api;
\echo bulkhead_api may log in
