DROP FUNCTION record_entries(jsonb, text)
