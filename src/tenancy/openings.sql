-- Who else sees rows of more than one tenant, by a policy or outside of the schema: what isolation.sql does not look at, since the
-- API's queries do not get there. A row for each: whether it is open to the API's role, what is open, and what closes it.
WITH bound AS (
    SELECT c.oid, c.relname AS name, c.relowner AS owner,
        format('(%s = (NULLIF(current_setting(''app.current_tenant_id''::text, true), ''''::text))::uuid)', a.attname) AS own
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
        AND a.attname = CASE c.relname WHEN 'tenants' THEN 'id' ELSE 'tenant_id' END
    WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND c.relkind IN ('r', 'p')
),
policies AS (
    SELECT polrelid, polname, polcmd, polroles, pg_get_expr(polqual, polrelid) AS reads,
        coalesce(pg_get_expr(polwithcheck, polrelid), pg_get_expr(polqual, polrelid)) AS writes,
        0 = ANY (polroles)
            OR EXISTS (SELECT FROM unnest(polroles) AS r WHERE r <> 0 AND pg_has_role('bulkhead_app', r, 'MEMBER')) AS ours
    FROM pg_policy WHERE polpermissive
),
-- Of other schemas, what holds rows of tenants and the API's role may use.
elsewhere AS (
    SELECT c.oid, c.relkind AS kind, format('%I.%I', n.nspname, c.relname) AS name, c.relrowsecurity AS enabled,
        '(tenant_id = (NULLIF(current_setting(''app.current_tenant_id''::text, true), ''''::text))::uuid)' AS own
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    WHERE n.nspname <> current_schema() AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_t%'
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
        AND has_schema_privilege('bulkhead_app', n.oid, 'USAGE')
        AND (has_any_column_privilege('bulkhead_app', c.oid, 'SELECT, INSERT, UPDATE')
            OR has_table_privilege('bulkhead_app', c.oid, 'DELETE'))
)
SELECT false AS to_the_api,
    format('policy %I of table %I opens the rows of other tenants to %s', polname, b.name,
        (SELECT string_agg(r::regrole::text, ', ' ORDER BY r::regrole::text) FROM unnest(polroles) AS r)) AS text,
    format('DROP POLICY %I ON %I', polname, b.name) AS mend
FROM policies JOIN bound b ON b.oid = polrelid
WHERE NOT ours AND (coalesce(reads, own) <> own OR coalesce(writes, own) <> own)
    -- What the migrations made for the command line.
    AND NOT (polcmd = 'r' AND polroles = ARRAY[b.owner] AND b.name IN ('tenants', 'users')
        AND reads = '(current_setting(''app.directory''::text, true) = ''on''::text)')
UNION ALL
SELECT true,
    format('%s %s holds rows of tenants outside of the schema, and shows bulkhead_app those of every tenant',
        CASE kind WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' WHEN 'f' THEN 'foreign table' ELSE 'table' END, name),
    format('REVOKE ALL ON %s FROM bulkhead_app, PUBLIC, or give it the policy own_tenant alone', name)
FROM elsewhere
WHERE kind IN ('v', 'm', 'f') OR NOT enabled
    OR EXISTS (
        SELECT FROM policies WHERE polrelid = elsewhere.oid AND ours
            AND (coalesce(reads, own) <> own OR coalesce(writes, own) <> own))
