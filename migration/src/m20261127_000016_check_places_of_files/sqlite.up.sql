CREATE TRIGGER documents_place_is_plain BEFORE INSERT ON documents
WHEN NEW.storage_key GLOB '*[^A-Za-z0-9._/-]*' OR instr('/' || NEW.storage_key || '/', '//')
    OR '/' || replace(NEW.storage_key, '.', '') || '/' GLOB '*//*'
    OR NEW.bucket GLOB '*[^a-z0-9._-]*' OR length(NEW.bucket) NOT BETWEEN 3 AND 63 OR instr(NEW.bucket, '..')
    OR NEW.bucket NOT GLOB '[a-z0-9]*[a-z0-9]'
BEGIN
    SELECT RAISE(ABORT, 'the place of a file has a character that it may not have');
END;
CREATE TRIGGER documents_place_stays_plain BEFORE UPDATE OF storage_key, bucket ON documents
WHEN NEW.storage_key GLOB '*[^A-Za-z0-9._/-]*' OR instr('/' || NEW.storage_key || '/', '//')
    OR '/' || replace(NEW.storage_key, '.', '') || '/' GLOB '*//*'
    OR NEW.bucket GLOB '*[^a-z0-9._-]*' OR length(NEW.bucket) NOT BETWEEN 3 AND 63 OR instr(NEW.bucket, '..')
    OR NEW.bucket NOT GLOB '[a-z0-9]*[a-z0-9]'
BEGIN
    SELECT RAISE(ABORT, 'the place of a file has a character that it may not have');
END;
