-- The place of a file has none of the characters that a decoder changes or a path gives a meaning, as the API checks, too.
--
-- The ranges of letters are those of ASCII in the collation C. Rows from before are not read, so that nobody waits for it.

ALTER TABLE documents
    ADD CONSTRAINT documents_storage_key_is_plain CHECK (
        storage_key COLLATE "C" ~ '^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)+$'
        AND storage_key COLLATE "C" !~ '(^|/)[.]+(/|$)'
    ) NOT VALID,
    ADD CONSTRAINT documents_bucket_is_plain CHECK (
        bucket COLLATE "C" ~ '^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$' AND strpos(bucket, '..') = 0
    ) NOT VALID;
