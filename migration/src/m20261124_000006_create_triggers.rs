//! What the tables see to themselves: when a row last changed, that the audit log only grows, that its chain holds.

use crate::{Mode, Sql, SqlMigration};

// - `updated_at` never stands still between two changes: clients compare it, as the ETag, to see whether there was one.
//   A login alone is no change of the user.
// - Statement triggers refuse what matches no row, too, and TRUNCATE.
// - The function that moves a chain's end on runs as its owner: whoever may append may not write the end by hand. Nobody
//   may: on PostgreSQL only a trigger moves it, on SQLite only to an entry that is there.
// - SQLite's REPLACE deletes without asking the triggers for DELETE: triggers for INSERT refuse it.
pub(crate) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261124_000006_create_triggers",
    minimum_build: "m20261101_000001_create_tenants",
    mode: Mode::Transaction,
    up: Sql {
        postgres: "
        CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
            RETURN NEW;
        END $$;
        CREATE TRIGGER tenants_updated_at BEFORE UPDATE ON tenants
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
        CREATE TRIGGER users_updated_at
            BEFORE UPDATE OF tenant_id, email, external_idp_id, full_name, role, created_at, updated_at, deleted_at ON users
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
        CREATE TRIGGER documents_updated_at BEFORE UPDATE ON documents
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();

        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
        END $$;
        CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_logs
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
        CREATE TRIGGER audit_heads_stay BEFORE DELETE OR TRUNCATE ON audit_heads
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
        CREATE TRIGGER audit_heads_advance BEFORE UPDATE ON audit_heads FOR EACH ROW
            WHEN (pg_trigger_depth() = 0 OR NEW.tenant_id <> OLD.tenant_id OR NEW.sequence <> OLD.sequence + 1)
            EXECUTE FUNCTION refuse_change();

        CREATE FUNCTION begin_audit_chain() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO audit_heads (tenant_id) VALUES (NEW.id);
            RETURN NULL;
        END $$;
        CREATE TRIGGER tenants_audit_chain AFTER INSERT ON tenants
            FOR EACH ROW EXECUTE FUNCTION begin_audit_chain();

        CREATE FUNCTION advance_audit_head() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
        BEGIN
            UPDATE audit_heads SET sequence = NEW.sequence, hash = NEW.hash
                WHERE tenant_id = NEW.tenant_id AND sequence = NEW.sequence - 1 AND hash = NEW.prev_hash;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'entry % does not continue the chain', NEW.sequence USING ERRCODE = 'check_violation';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER audit_logs_chain AFTER INSERT ON audit_logs
            FOR EACH ROW EXECUTE FUNCTION advance_audit_head();
    ",
        sqlite: "
        CREATE TRIGGER tenants_updated_at AFTER UPDATE ON tenants FOR EACH ROW WHEN NEW.updated_at = OLD.updated_at
        BEGIN
            UPDATE tenants SET updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                strftime('%Y-%m-%dT%H:%M:%fZ', OLD.updated_at, '+0.001 seconds')) WHERE id = NEW.id;
        END;
        CREATE TRIGGER users_updated_at
        AFTER UPDATE OF tenant_id, email, external_idp_id, full_name, role, created_at, updated_at, deleted_at ON users
        FOR EACH ROW WHEN NEW.updated_at = OLD.updated_at
        BEGIN
            UPDATE users SET updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                strftime('%Y-%m-%dT%H:%M:%fZ', OLD.updated_at, '+0.001 seconds')) WHERE id = NEW.id;
        END;
        CREATE TRIGGER documents_updated_at AFTER UPDATE ON documents FOR EACH ROW WHEN NEW.updated_at = OLD.updated_at
        BEGIN
            UPDATE documents SET updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                strftime('%Y-%m-%dT%H:%M:%fZ', OLD.updated_at, '+0.001 seconds')) WHERE id = NEW.id;
        END;

        CREATE TRIGGER audit_logs_no_update BEFORE UPDATE ON audit_logs
        BEGIN
            SELECT RAISE(ABORT, 'audit_logs is append-only');
        END;
        CREATE TRIGGER audit_logs_no_delete BEFORE DELETE ON audit_logs
        BEGIN
            SELECT RAISE(ABORT, 'audit_logs is append-only');
        END;
        CREATE TRIGGER audit_heads_stay BEFORE DELETE ON audit_heads
        BEGIN
            SELECT RAISE(ABORT, 'audit_heads is append-only');
        END;
        CREATE TRIGGER audit_heads_advance BEFORE UPDATE ON audit_heads
        WHEN NEW.tenant_id <> OLD.tenant_id OR NEW.sequence <> OLD.sequence + 1 OR NOT EXISTS (
            SELECT 1 FROM audit_logs
            WHERE tenant_id = NEW.tenant_id AND sequence = NEW.sequence AND hash = NEW.hash)
        BEGIN
            SELECT RAISE(ABORT, 'audit_heads is append-only');
        END;
        CREATE TRIGGER audit_logs_no_replace BEFORE INSERT ON audit_logs
        WHEN EXISTS (SELECT 1 FROM audit_logs WHERE id = NEW.id)
        BEGIN
            SELECT RAISE(ABORT, 'audit_logs is append-only');
        END;
        CREATE TRIGGER audit_heads_no_replace BEFORE INSERT ON audit_heads
        WHEN EXISTS (SELECT 1 FROM audit_heads WHERE tenant_id = NEW.tenant_id)
        BEGIN
            SELECT RAISE(ABORT, 'audit_heads is append-only');
        END;

        CREATE TRIGGER tenants_audit_chain AFTER INSERT ON tenants
        BEGIN
            INSERT INTO audit_heads (tenant_id) VALUES (NEW.id);
        END;
        CREATE TRIGGER audit_logs_chain BEFORE INSERT ON audit_logs
        BEGIN
            SELECT RAISE(ABORT, 'the entry does not continue the chain') WHERE NOT EXISTS (
                SELECT 1 FROM audit_heads
                WHERE tenant_id = NEW.tenant_id AND sequence = NEW.sequence - 1 AND hash = NEW.prev_hash);
        END;
        CREATE TRIGGER audit_logs_head AFTER INSERT ON audit_logs
        BEGIN
            UPDATE audit_heads SET sequence = NEW.sequence, hash = NEW.hash WHERE tenant_id = NEW.tenant_id;
        END;
    ",
    },
    down: Sql {
        postgres: "
        DROP TRIGGER audit_logs_chain ON audit_logs;
        DROP TRIGGER tenants_audit_chain ON tenants;
        DROP TRIGGER audit_heads_advance ON audit_heads;
        DROP TRIGGER audit_heads_stay ON audit_heads;
        DROP TRIGGER audit_logs_append_only ON audit_logs;
        DROP TRIGGER documents_updated_at ON documents;
        DROP TRIGGER users_updated_at ON users;
        DROP TRIGGER tenants_updated_at ON tenants;
        DROP FUNCTION advance_audit_head();
        DROP FUNCTION begin_audit_chain();
        DROP FUNCTION refuse_change();
        DROP FUNCTION set_updated_at();
    ",
        sqlite: "
        DROP TRIGGER audit_logs_head;
        DROP TRIGGER audit_logs_chain;
        DROP TRIGGER tenants_audit_chain;
        DROP TRIGGER audit_heads_no_replace;
        DROP TRIGGER audit_logs_no_replace;
        DROP TRIGGER audit_heads_advance;
        DROP TRIGGER audit_heads_stay;
        DROP TRIGGER audit_logs_no_delete;
        DROP TRIGGER audit_logs_no_update;
        DROP TRIGGER documents_updated_at;
        DROP TRIGGER users_updated_at;
        DROP TRIGGER tenants_updated_at;
    ",
    },
};
