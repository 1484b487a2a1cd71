-- The run-time role cannot use the rights of the tables' owner, and the database itself writes the chain of the audit log.
--
-- - A function looks for names in its own schema, and in the temporary one last. Otherwise a caller's temporary view named
--   tenants would run with the owner's rights (postgresql.org/docs/current/sql-createfunction.html, "Writing SECURITY DEFINER
--   Functions Safely"). Names are qualified as well; operators compare text with text, and are those of pg_catalog.
-- - Nobody may call a function, or use one as a trigger of an own table, without a grant.
-- - The database sets an entry's number, time and hashes. The canonical form is RFC 8785's: PostgreSQL escapes strings in the
--   same way, numbers in metadata are integers of 15 digits at most, and names in it are of letters, digits and _.
-- - SQLite has neither roles nor SHA-256. There the application writes the chain.
-- - The functions that are dropped were called by triggers and builds that no release has.
-- squawk-ignore-file ban-drop-function

DO $do$
BEGIN
    EXECUTE format($sql$
        ALTER FUNCTION %1$I.set_updated_at() SET search_path = %1$I, pg_temp;
        ALTER FUNCTION %1$I.refuse_change() SET search_path = %1$I, pg_temp;

        CREATE OR REPLACE FUNCTION %1$I.begin_audit_chain() RETURNS trigger
            LANGUAGE plpgsql SET search_path = %1$I, pg_temp AS $$
        BEGIN
            INSERT INTO %1$I.audit_heads (tenant_id) VALUES (NEW.id);
            RETURN NULL;
        END $$;

        CREATE OR REPLACE FUNCTION %1$I.find_caller(external_id text, subject text)
            RETURNS TABLE (tenant_id uuid, status text, tenant_deleted boolean,
                           user_id uuid, role text, user_deleted boolean)
            LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = %1$I, pg_temp
        AS $$
        BEGIN
            PERFORM set_config('app.directory', 'on', true);
            RETURN QUERY
                SELECT t.id, t.status, t.deleted_at IS NOT NULL, u.id, u.role, u.deleted_at IS NOT NULL
                FROM %1$I.tenants t
                    LEFT JOIN %1$I.users u ON u.tenant_id = t.id AND u.external_idp_id::text = $2
                WHERE t.external_id::text = $1
                ORDER BY u.deleted_at DESC NULLS FIRST
                LIMIT 1;
            PERFORM set_config('app.directory', '', true);
        END $$;

        CREATE FUNCTION %1$I.canonical_json(value jsonb) RETURNS text
            LANGUAGE plpgsql IMMUTABLE SET search_path = %1$I, pg_temp AS $$
        DECLARE
            kind text := jsonb_typeof(value);
        BEGIN
            IF kind = 'object' THEN
                IF EXISTS (SELECT FROM jsonb_object_keys(value) AS name WHERE name !~ '^[A-Za-z0-9_]+$') THEN
                    RAISE EXCEPTION 'a name in the metadata is not of letters, digits and _'
                        USING ERRCODE = 'check_violation';
                END IF;
                RETURN '{' || coalesce((
                    SELECT string_agg(
                        to_json(m.key)::text || ':' || %1$I.canonical_json(m.value), ',' ORDER BY m.key COLLATE "C")
                    FROM jsonb_each(value) m), '') || '}';
            ELSIF kind = 'array' THEN
                -- Ids and names of fields, the common case: all that PostgreSQL writes otherwise is a space.
                IF value::text ~ '^\["[A-Za-z0-9_.:-]*"(, "[A-Za-z0-9_.:-]*")*\]$' THEN
                    RETURN replace(value::text, ', ', ',');
                END IF;
                RETURN '[' || coalesce((
                    SELECT string_agg(%1$I.canonical_json(e.value), ',' ORDER BY e.place)
                    FROM jsonb_array_elements(value) WITH ORDINALITY e (value, place)), '') || ']';
            ELSIF kind = 'number' AND value::text !~ '^(0|-?[1-9][0-9]{0,14})$' THEN
                RAISE EXCEPTION 'a number in the metadata is not a whole one of 15 digits at most'
                    USING ERRCODE = 'check_violation';
            END IF;
            RETURN value::text;
        END $$;

        CREATE FUNCTION %1$I.continue_audit_chain() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = %1$I, pg_temp AS $$
        BEGIN
            SELECT h.sequence + 1, h.hash INTO NEW.sequence, NEW.prev_hash
                FROM %1$I.audit_heads h WHERE h.tenant_id = NEW.tenant_id FOR UPDATE;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'the tenant of this transaction has no audit chain, or another one is named'
                    USING ERRCODE = 'insufficient_privilege';
            END IF;
            NEW.created_at := clock_timestamp();
            NEW.hash := encode(sha256(convert_to(
                '{"action":' || to_json(NEW.action)::text
                || ',"created_at":"' || to_char(NEW.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                || '","id":"' || NEW.id
                || '","ip":' || coalesce(to_json(host(NEW.ip))::text, 'null')
                || ',"metadata":' || %1$I.canonical_json(NEW.metadata)
                || ',"prev_hash":"' || NEW.prev_hash
                || '","resource_id":' || coalesce(to_json(NEW.resource_id)::text, 'null')
                || ',"resource_type":' || to_json(NEW.resource_type)::text
                || ',"sequence":' || NEW.sequence
                || ',"tenant_id":"' || NEW.tenant_id
                || '","user_agent":' || coalesce(to_json(NEW.user_agent)::text, 'null')
                || ',"user_id":' || coalesce(to_json(NEW.user_id)::text, 'null') || '}', 'UTF8')), 'hex');
            UPDATE %1$I.audit_heads h SET sequence = NEW.sequence, hash = NEW.hash
                WHERE h.tenant_id = NEW.tenant_id;
            RETURN NEW;
        END $$;
    $sql$, current_schema());
END $do$;
DROP TRIGGER audit_logs_chain ON audit_logs;
CREATE TRIGGER audit_logs_chain BEFORE INSERT ON audit_logs
    FOR EACH ROW EXECUTE FUNCTION continue_audit_chain();
DROP FUNCTION advance_audit_head();
DROP FUNCTION lock_audit_head(uuid);

REVOKE ALL ON FUNCTION set_updated_at(), refuse_change(), begin_audit_chain(), canonical_json(jsonb),
    continue_audit_chain(), find_caller(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_caller(text, text) TO bulkhead_app;
REVOKE INSERT ON audit_logs FROM bulkhead_app;
GRANT INSERT (id, tenant_id, user_id, action, resource_type, resource_id, ip, user_agent, metadata)
    ON audit_logs TO bulkhead_app;
DO $$
BEGIN
    -- Temporary tables, and whatever else is made in this schema, are the owner's to allow.
    IF pg_has_role((SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE') THEN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
    IF pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = current_schema()), 'USAGE') THEN
        EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
    END IF;
END $$;
