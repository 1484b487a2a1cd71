-- Fills a database for scripts/bench, the same way each time: a tenant `bench` with :documents documents, and :tenants tenants
-- `bench-1`, `bench-2` and so on with ten each. It can be run again with larger numbers. Prints an external id and the id of a
-- document for each request that the load generator sends in turn: a thousand of `bench`, one of each other tenant.
\set ON_ERROR_STOP on
\pset tuples_only on
\pset format unaligned
\pset fieldsep ' '
SET client_min_messages = warning;
\o /dev/null
SELECT set_config('bench.tenants', :'tenants', false), set_config('bench.documents', :'documents', false);

-- An id of version 7: of this millisecond, its other bits a hash.
CREATE FUNCTION pg_temp.id_of(kind text, tenant bigint, number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex(1767225600000 + number), 12, '0') || '7' || substr(h, 1, 3) || 'a' || substr(h, 4, 15))::uuid
    FROM md5(kind || ' ' || tenant || ' ' || number) AS h
$$;
DO $$
DECLARE
    owner uuid;
    tenant uuid;
    there bigint;
BEGIN
    FOR n IN 0..current_setting('bench.tenants')::bigint LOOP
        tenant := pg_temp.id_of('tenant', n, n);
        owner := pg_temp.id_of('user', n, n);
        -- Row-level security holds for the tables' owner, too.
        PERFORM set_config('app.current_tenant_id', tenant::text, true);
        IF NOT EXISTS (SELECT FROM tenants WHERE id = tenant) THEN
            INSERT INTO tenants (id, name, external_id)
                VALUES (tenant, 'Bench ' || n, CASE n WHEN 0 THEN 'bench' ELSE 'bench-' || n END);
            INSERT INTO users (id, tenant_id, email, external_idp_id, full_name, role)
                VALUES (owner, tenant, 'ada@example.org', 'developer', 'Ada', 'admin');
        ELSIF n > 0 THEN
            CONTINUE;
        END IF;
        SELECT count(*) INTO there FROM documents d WHERE d.tenant_id = tenant;
        INSERT INTO documents
            (id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes, status, metadata, created_at)
        SELECT d.id, tenant, owner, tenant || '/' || d.id, 'scans', 'scan-' || d.number || '.pdf', 'application/pdf',
            48213 + d.number, 'completed', '{"pages": 3}', timestamptz '2026-01-01 00:00:00Z' + d.number * interval '1 ms'
        FROM (
            SELECT number, pg_temp.id_of('document', n, number) AS id
            FROM generate_series(there + 1, CASE n WHEN 0 THEN current_setting('bench.documents')::bigint ELSE 10 END) AS number
        ) AS d;
    END LOOP;
END $$;
VACUUM ANALYZE;
\o
SELECT 'bench', pg_temp.id_of('document', 0, number) FROM generate_series(1, 1000) AS number
UNION ALL
SELECT 'bench-' || n, pg_temp.id_of('document', n, 1) FROM generate_series(1, :tenants) AS n;
