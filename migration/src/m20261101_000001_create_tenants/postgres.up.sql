-- Tenants: the customers. Each row of another table belongs to one of them.

CREATE TABLE tenants (
    id          uuid PRIMARY KEY,
    name        varchar(255) NOT NULL CHECK (name <> ''),
    external_id varchar(128) NOT NULL UNIQUE,
    status      text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'trial')),
    kms_key_arn text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamptz
);
CREATE INDEX tenants_live_newest ON tenants (created_at DESC, id DESC) WHERE deleted_at IS NULL;
