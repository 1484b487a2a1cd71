CREATE TRIGGER users_tenant_stays BEFORE UPDATE OF id, tenant_id ON users
WHEN NEW.tenant_id <> OLD.tenant_id OR NEW.id <> OLD.id
BEGIN
    SELECT RAISE(ABORT, 'a user stays in its tenant');
END;
CREATE TRIGGER documents_tenant_stays BEFORE UPDATE OF id, tenant_id, bucket, storage_key ON documents
WHEN NEW.tenant_id <> OLD.tenant_id OR NEW.id <> OLD.id
    OR NEW.bucket <> OLD.bucket OR NEW.storage_key <> OLD.storage_key
BEGIN
    SELECT RAISE(ABORT, 'a document stays in its tenant, and its file where it is');
END;
