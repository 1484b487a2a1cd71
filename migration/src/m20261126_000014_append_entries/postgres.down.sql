DO $do$
BEGIN
    EXECUTE format($sql$
        CREATE OR REPLACE FUNCTION %1$I.record_entries(entries jsonb, patience text) RETURNS void
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

        CREATE OR REPLACE FUNCTION %1$I.continue_audit_chain() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = %1$I, pg_temp AS $$
        DECLARE
            written timestamptz;
            month_end timestamptz;
        BEGIN
            SELECT h.sequence + 1, h.hash INTO NEW.sequence, NEW.prev_hash
                FROM %1$I.audit_heads h WHERE h.tenant_id = NEW.tenant_id FOR UPDATE;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'the tenant of this transaction has no audit chain, or another one is named'
                    USING ERRCODE = 'insufficient_privilege';
            END IF;
            written := clock_timestamp();
            -- When the entry was routed; null where the log is one table.
            IF date_trunc('month', NEW.created_at, 'UTC') <> date_trunc('month', written, 'UTC')
                AND (SELECT c.relispartition FROM pg_catalog.pg_class c WHERE c.oid = TG_RELID)
            THEN
                IF NEW.created_at NOT BETWEEN transaction_timestamp() AND written THEN
                    RAISE EXCEPTION 'the time of an entry is not for its writer to choose'
                        USING ERRCODE = 'insufficient_privilege';
                END IF;
                month_end := (date_trunc('month', NEW.created_at AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
                written := month_end - interval '1 microsecond';
                IF EXISTS (SELECT FROM %1$I.audit_logs l WHERE l.tenant_id = NEW.tenant_id
                    AND l.sequence = NEW.sequence - 1 AND l.created_at >= month_end)
                THEN
                    RAISE EXCEPTION 'a month began while the entry waited for its chain'
                        USING ERRCODE = 'serialization_failure';
                END IF;
            END IF;
            NEW.created_at := written;
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
DROP FUNCTION append_entries(jsonb);
DROP TRIGGER audit_heads_advance ON audit_heads;
CREATE TRIGGER audit_heads_advance BEFORE UPDATE ON audit_heads FOR EACH ROW
    WHEN (pg_trigger_depth() = 0 OR NEW.tenant_id <> OLD.tenant_id OR NEW.sequence <> OLD.sequence + 1)
    EXECUTE FUNCTION refuse_change()
