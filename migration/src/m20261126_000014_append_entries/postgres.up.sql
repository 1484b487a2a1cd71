-- Entries of one chain are appended together: the end of the chain is read and moved once for all of them, not for each.
--
-- - append_entries numbers, dates and hashes the entries of the transaction's tenant, as the trigger does for a single row. It
--   runs with its owner's rights, since nobody else may write these columns: so it names the tenant itself, and no one repairs
--   a chain through it.
-- - Its rows, and the end of the chain that it moves, pass their triggers by app.appending. Only the owner has the rights that this
--   setting needs: without them, it changes nothing.
-- - The time of an entry is taken once the end of the chain is held, and chooses the entry's partition (docs/scaling.md).
-- - record_entries sorts the entries by tenant once; before, it read all of them again for each tenant.
-- - The metadata of reads is not handed to canonical_json, which would take a third of the call.
-- - SQLite has no functions.

DO $do$
BEGIN
    EXECUTE format($sql$
        CREATE FUNCTION %1$I.append_entries(entries jsonb) RETURNS void
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = %1$I, pg_temp AS $$
        DECLARE
            tenant uuid := NULLIF(current_setting('app.current_tenant_id', true), '')::uuid;
            entry record;
            last_sequence bigint;
            place bigint := 0;
            written timestamptz;
            times timestamptz[] := '{}';
            -- The metadata of a read by id and of a list: PostgreSQL's text of it is canonical, but for the spaces.
            reads text := '^\{(("found": (true|false))?|"count": \d{1,15}, "id_ends": "[A-Za-z0-9_-]*", '
                || '"newest_ms": \d{1,15}, "oldest_ms": \d{1,15})\}$';
            -- The hash of the entry before the first, and of each entry.
            hashes text[];
        BEGIN
            SELECT h.sequence, ARRAY[h.hash] INTO last_sequence, hashes
                FROM %1$I.audit_heads h WHERE h.tenant_id = tenant FOR UPDATE;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'the tenant of this transaction has no audit chain'
                    USING ERRCODE = 'insufficient_privilege';
            END IF;
            FOR entry IN
                SELECT e.tenant_id IS NOT DISTINCT FROM tenant AND e.action <> 'CHAIN_REPAIRED' AS allowed,
                    '{"action":' || to_json(e.action)::text || ',"created_at":"' AS before_time,
                    '","id":"' || e.id
                    || '","ip":' || coalesce(to_json(host(e.ip))::text, 'null')
                    || ',"metadata":' || CASE
                        WHEN e.metadata::text ~ reads THEN replace(e.metadata::text, ' ', '')
                        ELSE %1$I.canonical_json(e.metadata) END
                    || ',"prev_hash":"' AS before_hash,
                    '","resource_id":' || coalesce(to_json(e.resource_id)::text, 'null')
                    || ',"resource_type":' || to_json(e.resource_type)::text
                    || ',"sequence":' AS before_sequence,
                    ',"tenant_id":"' || e.tenant_id
                    || '","user_agent":' || coalesce(to_json(e.user_agent)::text, 'null')
                    || ',"user_id":' || coalesce(to_json(e.user_id)::text, 'null') || '}' AS after_sequence
                FROM ROWS FROM (jsonb_to_recordset(entries) AS (
                    id uuid, tenant_id uuid, user_id uuid, action text, resource_type text, resource_id uuid, ip inet,
                    user_agent varchar(256), metadata jsonb)) WITH ORDINALITY AS e ORDER BY e.ordinality
            LOOP
                IF entry.allowed IS NOT TRUE THEN
                    RAISE EXCEPTION 'an entry is of another tenant than the transaction, or has an action that is not its writer''s to choose'
                        USING ERRCODE = 'insufficient_privilege';
                END IF;
                place := place + 1;
                written := clock_timestamp();
                times := times || written;
                hashes := hashes || encode(sha256(convert_to(
                    entry.before_time || to_char(written AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                    || entry.before_hash || hashes[place]
                    || entry.before_sequence || last_sequence + place
                    || entry.after_sequence, 'UTF8')), 'hex');
            END LOOP;
            IF place = 0 THEN
                RETURN;
            END IF;
            PERFORM set_config('app.appending', 'on', true);
            INSERT INTO %1$I.audit_logs (id, tenant_id, user_id, action, resource_type, resource_id, ip, user_agent, metadata,
                    sequence, created_at, prev_hash, hash)
                SELECT e.id, e.tenant_id, e.user_id, e.action, e.resource_type, e.resource_id, e.ip, e.user_agent, e.metadata,
                    last_sequence + e.ordinality, times[e.ordinality], hashes[e.ordinality], hashes[e.ordinality + 1]
                FROM ROWS FROM (jsonb_to_recordset(entries) AS (
                    id uuid, tenant_id uuid, user_id uuid, action text, resource_type text, resource_id uuid, ip inet,
                    user_agent varchar(256), metadata jsonb)) WITH ORDINALITY AS e;
            UPDATE %1$I.audit_heads h SET sequence = last_sequence + place, hash = hashes[place + 1] WHERE h.tenant_id = tenant;
            PERFORM set_config('app.appending', '', true);
        END $$;

        CREATE OR REPLACE FUNCTION %1$I.record_entries(entries jsonb, patience text) RETURNS void
            LANGUAGE plpgsql SET search_path = %1$I, pg_temp AS $$
        DECLARE
            chain record;
        BEGIN
            PERFORM set_config('role', 'bulkhead_app', true), set_config('lock_timeout', patience, true);
            -- Nothing to sort, which would cost a tenth of the call.
            IF jsonb_array_length(entries) = 1 THEN
                PERFORM set_config('app.current_tenant_id', entries -> 0 ->> 'tenant_id', true);
                PERFORM %1$I.append_entries(entries);
                RETURN;
            END IF;
            FOR chain IN
                SELECT (e.entry ->> 'tenant_id')::uuid AS tenant, jsonb_agg(e.entry ORDER BY e.ordinality) AS entries
                FROM jsonb_array_elements(entries) WITH ORDINALITY AS e (entry) GROUP BY 1 ORDER BY 1
            LOOP
                PERFORM set_config('app.current_tenant_id', chain.tenant::text, true);
                PERFORM %1$I.append_entries(chain.entries);
            END LOOP;
        END $$;

        CREATE OR REPLACE FUNCTION %1$I.continue_audit_chain() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = %1$I, pg_temp AS $$
        DECLARE
            written timestamptz;
            month_end timestamptz;
        BEGIN
            IF NEW.hash IS NOT NULL AND current_setting('app.appending', true) = 'on' THEN
                RETURN NEW;
            END IF;
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
REVOKE ALL ON FUNCTION append_entries(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION append_entries(jsonb) TO bulkhead_app;
DROP TRIGGER audit_heads_advance ON audit_heads;
CREATE TRIGGER audit_heads_advance BEFORE UPDATE ON audit_heads FOR EACH ROW
    WHEN (NEW.tenant_id <> OLD.tenant_id OR NEW.sequence <= OLD.sequence
        OR current_setting('app.appending', true) IS DISTINCT FROM 'on'
            AND (pg_trigger_depth() = 0 OR NEW.sequence <> OLD.sequence + 1))
    EXECUTE FUNCTION refuse_change();
