DROP INDEX users_subject
