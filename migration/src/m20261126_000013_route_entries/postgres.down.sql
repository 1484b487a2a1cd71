DO $do$
BEGIN
    EXECUTE format($sql$
        CREATE OR REPLACE FUNCTION %1$I.continue_audit_chain() RETURNS trigger
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
END $do$
