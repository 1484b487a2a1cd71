-- SQLite has no partitions: see postgres.up.sql.

SELECT 1
