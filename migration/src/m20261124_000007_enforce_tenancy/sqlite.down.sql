DROP TRIGGER documents_tenant_stays;
DROP TRIGGER users_tenant_stays;
