-- For callers, who are found by the subject of their token. Deleted users are in the index, too: they must be found to be
-- refused. The index is built without blocking writes.

CREATE INDEX CONCURRENTLY IF NOT EXISTS users_subject ON users (tenant_id, external_idp_id)
