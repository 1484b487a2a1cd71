-- The chain's trigger works in a log that is partitioned by month, too (docs/scaling.md).
--
-- - A row is routed by the default of created_at, before its trigger runs, and a trigger cannot move it to another partition
--   (postgresql.org/docs/current/ddl-partitioning.html, "Limitations"). The entry may wait for the end of its chain meanwhile,
--   and a month may begin. Then it takes the last microsecond of the month that it was routed to.
-- - If the chain already has an entry of the new month, this one is refused, and may be tried again: each month of a chain is
--   without a gap, so that a month can be archived with the numbers and hashes of its ends.
-- - A log that is one table has no default there, and nothing changes. SQLite has no partitions.

DO $do$
BEGIN
    EXECUTE format($sql$
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
END $do$
