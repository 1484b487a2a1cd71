CREATE INDEX users_subject ON users (tenant_id, external_idp_id)
