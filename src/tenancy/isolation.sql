-- What of this schema does not keep tenants apart, a row for each fault; no row where all is well. By rule:
-- what another migration adds is held to the same. What belongs to an extension is left alone.
WITH here AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname = current_schema()
),
relations AS (
    SELECT c.oid, c.relname AS name, c.relkind AS kind, c.relowner AS owner, c.relacl AS acl,
        c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced, a.attnum AS tenant, a.attname AS tenant_name, a.attnotnull,
        CASE WHEN c.relispartition THEN (SELECT relname FROM pg_class WHERE oid = pg_partition_root(c.oid)) END AS partition_of
    FROM pg_class c
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
            AND a.attname = CASE c.relname WHEN 'tenants' THEN 'id' ELSE 'tenant_id' END
    -- Not by a join: the planner then knows how few tables this is, and finds their columns by an index.
    WHERE c.relnamespace = quote_ident(current_schema())::regnamespace
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND NOT EXISTS (
            SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
),
-- Every table whose rows belong to tenants.
bound AS (
    SELECT * FROM relations WHERE kind IN ('r', 'p') AND tenant IS NOT NULL
),
policies AS (
    SELECT p.polrelid, p.polname, p.polpermissive, p.polcmd, p.polroles = '{0}' AS everyone,
        0 = ANY (p.polroles)
            OR EXISTS (SELECT FROM unnest(p.polroles) AS r WHERE r <> 0 AND pg_has_role('bulkhead_app', r, 'MEMBER')) AS ours,
        pg_get_expr(p.polqual, p.polrelid) AS reads,
        coalesce(pg_get_expr(p.polwithcheck, p.polrelid), pg_get_expr(p.polqual, p.polrelid)) AS writes,
        format('(%s = (NULLIF(current_setting(''app.current_tenant_id''::text, true), ''''::text))::uuid)', b.tenant_name) AS own
    FROM pg_policy p JOIN bound b ON b.oid = p.polrelid
),
functions AS (
    SELECT p.oid, p.oid::regprocedure::text AS name, p.prosecdef, p.proacl, p.proowner, p.prorettype,
        (SELECT setting FROM unnest(p.proconfig) AS setting WHERE setting LIKE 'search_path=%') AS path
    FROM pg_proc p
    WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
),
columns AS (
    SELECT r.oid, r.name, r.kind, a.attname, a.attnum FROM relations r
        JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
),
-- Table, function, and what fires it: bits of pg_trigger.tgtype.
named (relation, function, bits, moment) AS (
    SELECT name, 'set_updated_at', 1 + 2 + 16, 'before every update' FROM columns
        WHERE attname = 'updated_at' AND kind IN ('r', 'p')
    UNION VALUES
        ('tenants', 'begin_audit_chain', 1 + 4, 'after every insert'),
        ('audit_logs', 'continue_audit_chain', 1 + 2 + 4, 'before every insert'),
        ('audit_logs', 'refuse_change', 2 + 8 + 16 + 32, 'before every change'),
        ('audit_nodes', 'refuse_change', 2 + 8 + 16 + 32, 'before every change'),
        ('audit_checkpoints', 'refuse_change', 2 + 8 + 16 + 32, 'before every change'),
        ('audit_heads', 'refuse_change', 2 + 8 + 32, 'before every deletion'),
        ('audit_heads', 'refuse_change', 1 + 2 + 16, 'before every update')
),
-- A statement that names a partition runs that partition's triggers alone.
needed AS (
    SELECT * FROM named
    UNION ALL
    SELECT r.name, n.function, n.bits, n.moment FROM named n JOIN relations r ON r.partition_of = n.relation
        WHERE n.relation = 'audit_logs'
)
SELECT format('table %I: row-level security is not %s', name, CASE WHEN enabled THEN 'forced on its owner' ELSE 'enabled' END)
    FROM bound WHERE NOT (enabled AND forced)
UNION ALL
SELECT format('table %I: row-level security does not bind %I', name, current_user)
    FROM bound WHERE enabled AND forced AND current_user = 'bulkhead_app' AND NOT row_security_active(oid)
UNION ALL
SELECT format('table %I: no policy shows the rows of the transaction''s tenant alone, to everyone and for every command', name)
    FROM bound WHERE NOT EXISTS (
        SELECT FROM policies WHERE polrelid = bound.oid AND polpermissive AND polcmd = '*' AND everyone
            AND reads = own AND writes = own)
UNION ALL
SELECT format('policy %I of table %I: it opens the rows of other tenants to bulkhead_app', polname, b.name)
    FROM policies JOIN bound b ON b.oid = polrelid
    WHERE polpermissive AND ours AND (coalesce(reads, own) <> own OR coalesce(writes, own) <> own)
UNION ALL
SELECT format('table %I: bulkhead_app may record that a chain was repaired', name) FROM bound
    WHERE name = 'audit_logs' AND NOT EXISTS (
        SELECT FROM pg_policy WHERE polrelid = bound.oid AND NOT polpermissive AND polcmd IN ('a', '*') AND polroles = '{0}'
            AND pg_get_expr(polwithcheck, polrelid)
                = '((action <> ''CHAIN_REPAIRED''::text) OR has_table_privilege((''audit_logs''::regclass)::oid, ''TRUNCATE''::text))')
UNION ALL
-- find_caller and the command line look across tenants as the owner. After a restore it may be another role.
SELECT format('table %I: its owner cannot look across tenants: ALTER POLICY directory ON %I TO %s', name, name, owner::regrole)
    FROM bound WHERE name IN ('tenants', 'users')
        AND NOT EXISTS (SELECT FROM pg_roles WHERE pg_roles.oid = owner AND (rolsuper OR rolbypassrls))
        AND NOT EXISTS (
            SELECT FROM pg_policy WHERE polrelid = bound.oid AND polpermissive AND polcmd IN ('r', '*')
                AND owner = ANY (polroles)
                AND pg_get_expr(polqual, polrelid) = '(current_setting(''app.directory''::text, true) = ''on''::text)')
UNION ALL
SELECT format('table %I: tenant_id may be null', name) FROM bound WHERE NOT attnotnull
UNION ALL
SELECT format('table %I: tenant_id is no foreign key to tenants', name) FROM bound
    WHERE name <> 'tenants' AND NOT EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = bound.oid AND contype = 'f' AND convalidated
            AND conkey = ARRAY[bound.tenant] AND confrelid = (SELECT oid FROM bound WHERE name = 'tenants'))
UNION ALL
-- A key of a partitioned table would have to contain the column that it is partitioned by: each partition has its own.
SELECT format('table %I: no primary or unique key begins with tenant_id', name) FROM bound
    WHERE name <> 'tenants' AND kind = 'r' AND NOT EXISTS (
        SELECT FROM pg_index WHERE indrelid = bound.oid AND indisunique AND indisvalid AND indkey[0] = bound.tenant)
UNION ALL
SELECT format('table %I: foreign key %I does not carry tenant_id', b.name, k.conname)
    FROM pg_constraint k JOIN bound b ON b.oid = k.conrelid JOIN bound other ON other.oid = k.confrelid
    WHERE k.contype = 'f' AND other.name <> 'tenants' AND NOT EXISTS (
        SELECT FROM unnest(k.conkey, k.confkey) AS pair (one, two) WHERE one = b.tenant AND two = other.tenant)
UNION ALL
SELECT format('%s %I: bulkhead_app may use it, and no policy binds a view or a foreign table',
        CASE kind WHEN 'f' THEN 'foreign table' ELSE 'view' END, name)
    FROM relations WHERE kind IN ('v', 'm', 'f')
        AND has_any_column_privilege('bulkhead_app', oid, 'SELECT, INSERT, UPDATE')
UNION ALL
-- Expired keys of requests are removed by the requests that come after them.
SELECT format('table %I: bulkhead_app may %s', name, privilege)
    FROM relations, unnest(ARRAY['DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
    WHERE kind IN ('r', 'p') AND (name, privilege) <> ('idempotency_keys', 'DELETE')
        AND has_table_privilege('bulkhead_app', oid, privilege)
UNION ALL
SELECT format('table %I: it has no tenant_id, and bulkhead_app may %s', name, privilege)
    FROM relations, unnest(ARRAY['INSERT', 'UPDATE']) AS privilege
    WHERE kind IN ('r', 'p') AND tenant IS NULL AND has_any_column_privilege('bulkhead_app', oid, privilege)
UNION ALL
-- The policies of a partition do not hold for statements on the whole table, nor those of the whole for statements on a partition
-- (postgresql.org/docs/current/ddl-rowsecurity.html speaks of the table that a statement names). So each has its own above, and
-- nobody but the owner names a partition.
SELECT format('table %I: it is a partition of %I, and bulkhead_app may %s it by its own name', name, partition_of, privilege)
    FROM relations, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS privilege
    WHERE partition_of IS NOT NULL AND has_any_column_privilege('bulkhead_app', oid, privilege)
UNION ALL
SELECT format('table %I: its partition %s is in another schema', b.name, c.oid::regclass)
    FROM bound b JOIN pg_inherits i ON i.inhparent = b.oid JOIN pg_class c ON c.oid = i.inhrelid
        JOIN here ON here.oid <> c.relnamespace
UNION ALL
SELECT format('table %I: everybody has a right to it (PUBLIC)', name) FROM relations
    WHERE EXISTS (SELECT FROM aclexplode(acl) WHERE grantee = 0)
        OR EXISTS (SELECT FROM pg_attribute a, aclexplode(a.attacl) WHERE a.attrelid = relations.oid AND grantee = 0)
UNION ALL
SELECT format('table %I: bulkhead_app may update %I', name, attname) FROM columns
    WHERE (attname IN ('id', 'tenant_id', 'created_at', 'updated_at') OR name IN ('audit_logs', 'audit_heads', 'audit_nodes', 'audit_checkpoints'))
        AND has_column_privilege('bulkhead_app', oid, attnum, 'UPDATE')
UNION ALL
SELECT format('table %I: bulkhead_app may choose %I', name, attname) FROM columns
    WHERE (attname IN ('created_at', 'updated_at') OR name = 'audit_heads'
            OR name = 'audit_logs' AND attname IN ('sequence', 'prev_hash', 'hash'))
        AND has_column_privilege('bulkhead_app', oid, attnum, 'INSERT')
UNION ALL
-- A foreign key has several triggers, whose names say nothing.
SELECT DISTINCT CASE WHEN k.contype = 'f' THEN format('table %I: foreign key %I is not checked', r.name, k.conname)
        ELSE format('table %I: trigger %I is disabled', r.name, t.tgname) END
    FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid LEFT JOIN pg_constraint k ON k.oid = t.tgconstraint
    WHERE t.tgenabled NOT IN ('O', 'A')
UNION ALL
SELECT format('table %I: no trigger runs %I %s', n.relation, n.function, n.moment)
    FROM needed n WHERE NOT EXISTS (
        SELECT FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
            JOIN here ON here.oid = p.pronamespace
        WHERE r.name = n.relation AND p.proname = n.function AND t.tgtype & n.bits = n.bits
            -- Of those that guard the log, only the one that lets the end of a chain advance has a condition.
            AND (n.function = 'set_updated_at'
                OR t.tgattr::text = '' AND (t.tgqual IS NULL OR n.relation = 'audit_heads' AND t.tgtype & 1 = 1)))
UNION ALL
SELECT format('function %s: it runs with its owner''s rights, and its search_path does not end with pg_temp', name)
    FROM functions WHERE prosecdef AND path IS DISTINCT FROM 'search_path=pg_temp' AND path NOT LIKE '%, pg\_temp'
        OR prosecdef AND path IS NULL
UNION ALL
SELECT format('function %s: everybody may execute it (PUBLIC)', name) FROM functions
    WHERE proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0)
UNION ALL
SELECT format('function %s: bulkhead_app may make it the trigger of another table', name) FROM functions
    WHERE prorettype = 'trigger'::regtype AND proacl IS NOT NULL AND has_function_privilege('bulkhead_app', oid, 'EXECUTE')
        AND NOT EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0)
UNION ALL
SELECT format('schema %I: bulkhead_app may create objects in it', nspname) FROM here
    WHERE has_schema_privilege('bulkhead_app', oid, 'CREATE')
UNION ALL
SELECT 'role bulkhead_app: it is a superuser, or may bypass row-level security, or create roles'
    FROM pg_roles WHERE rolname = 'bulkhead_app' AND (rolsuper OR rolbypassrls OR rolcreaterole)
UNION ALL
SELECT format('role bulkhead_app: it is a member of %s, which owns tables', owner::regrole)
    FROM relations WHERE pg_has_role('bulkhead_app', owner, 'MEMBER') GROUP BY owner
