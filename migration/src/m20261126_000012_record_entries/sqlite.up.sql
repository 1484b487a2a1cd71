-- SQLite has no roles: see postgres.up.sql.

SELECT 1
