DROP TABLE tenants
