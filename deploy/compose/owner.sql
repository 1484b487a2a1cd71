-- PostgreSQL runs this once, when it makes its data: the database and its owner, who may make the API's login. That is for
-- `bulkhead database prepare`, in the service `migrate`. The password is the one of the owner's URL.
\set url `cat /run/secrets/database_owner_url`
SELECT substring(:'url' FROM '://[^:]+:([^@]+)@') AS password \gset

CREATE ROLE bulkhead_owner LOGIN CREATEROLE PASSWORD :'password';
CREATE DATABASE bulkhead OWNER bulkhead_owner;
