-- Entries of the audit log in one call, which is one transaction: role and tenant are set, and the rows inserted, chain by chain.
--
-- - Chains are taken in the order of their tenants' ids, so that two calls never wait for each other.
-- - `patience` is how long to wait for the end of a chain that another transaction holds (lock_timeout, such as '100ms').
-- - The function runs with its caller's rights, and takes the role of run time first: whatever bulkhead_app may not insert
--   is refused here, too. SQLite has no functions.

DO $do$
BEGIN
    EXECUTE format($sql$
        CREATE FUNCTION %1$I.record_entries(entries jsonb, patience text) RETURNS void
            LANGUAGE plpgsql SET search_path = %1$I, pg_temp AS $$
        DECLARE
            tenant uuid;
        BEGIN
            PERFORM set_config('role', 'bulkhead_app', true), set_config('lock_timeout', patience, true);
            FOR tenant IN
                SELECT DISTINCT (e.entry ->> 'tenant_id')::uuid AS id FROM jsonb_array_elements(entries) AS e (entry) ORDER BY id
            LOOP
                PERFORM set_config('app.current_tenant_id', tenant::text, true);
                INSERT INTO %1$I.audit_logs
                    (id, tenant_id, user_id, action, resource_type, resource_id, ip, user_agent, metadata)
                SELECT e.id, e.tenant_id, e.user_id, e.action, e.resource_type, e.resource_id, e.ip, e.user_agent, e.metadata
                FROM ROWS FROM (jsonb_to_recordset(entries) AS (
                    id uuid, tenant_id uuid, user_id uuid, action text, resource_type text, resource_id uuid, ip inet,
                    user_agent text, metadata jsonb)) WITH ORDINALITY AS e
                WHERE e.tenant_id = tenant ORDER BY e.ordinality;
            END LOOP;
        END $$;
    $sql$, current_schema());
END $do$;
REVOKE ALL ON FUNCTION record_entries(jsonb, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_entries(jsonb, text) TO bulkhead_app;
