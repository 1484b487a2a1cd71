#!/usr/bin/env bash
# PostgreSQL runs this once, when it makes its data: the owner of the schema, the run-time login, which owns nothing, and the
# database. docs/tenancy.md explains the roles. The passwords are those of the URLs.
set -euo pipefail

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username postgres --dbname postgres <<'SQL'
\set owner_url `cat /run/secrets/database_owner_url`
\set api_url `cat /run/secrets/database_url`
SELECT substring(:'owner_url' FROM '://[^:]+:([^@]+)@') AS owner_password,
  substring(:'api_url' FROM '://[^:]+:([^@]+)@') AS api_password \gset

CREATE ROLE bulkhead_app NOLOGIN;
CREATE ROLE bulkhead_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE bulkhead_api LOGIN PASSWORD :'api_password';
GRANT bulkhead_app TO bulkhead_owner, bulkhead_api;
CREATE DATABASE bulkhead OWNER bulkhead_owner;
REVOKE TEMPORARY ON DATABASE bulkhead FROM PUBLIC;
SQL
