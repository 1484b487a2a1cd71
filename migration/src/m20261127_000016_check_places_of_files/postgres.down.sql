ALTER TABLE documents
    DROP CONSTRAINT documents_storage_key_is_plain,
    DROP CONSTRAINT documents_bucket_is_plain;
