DROP INDEX users_live_role
