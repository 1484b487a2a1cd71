-- SQLite has no functions: see postgres.up.sql.

SELECT 1
