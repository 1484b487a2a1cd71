//! The checksums that databases have recorded for the migrations that were applied to them. A build with another checksum
//! refuses such a database: lines are added here, and never changed.

use sea_orm_migration::sea_orm::DbBackend;

const POSTGRES: [(&str, &str); 11] = [
    ("m20261101_000001_create_tenants", "f322ad161304a0b303552166b351c6ebbd1ee6bb39977025de374d6befecfb09"),
    ("m20261101_000002_create_users", "ea24c50a296112ac45131b79fce15ec4c0e7096ff0b07d3f798a9cfa2064d5da"),
    ("m20261122_000003_index_users_by_role", "63e287bfc21c87371344a045f0c63f4ed879880508034fbfce93d73bf2d53f60"),
    ("m20261124_000004_create_documents", "e3a69cadb1e125f4abc795b63b7c18508ce1d99852cfe2b17e0f9feb7a45f770"),
    ("m20261124_000005_create_audit_logs", "bf05957980c099c47909cf37733efe5cc500040afd10648d184120403a50973d"),
    ("m20261124_000006_create_triggers", "ca6f4d0627856d215a4e0b0c1b6e9702a79e41bd162063922d935b7156cda03b"),
    ("m20261124_000007_enforce_tenancy", "d0a27cca794eb1980053a2d52b78cf546a35225772e8889d3dd12a3dfb5a2f74"),
    ("m20261124_000008_index_users_by_subject", "7398d603eff61d3c0df77664280ba836b03353740b8ba177583cb2e38f055331"),
    ("m20261125_000009_confine_functions", "ba49d88181ef67fe6f3b750d6a92b8e41471bff9baf598612a50c8e9b81cb44f"),
    ("m20261126_000010_index_audit_logs_by_time", "0d080c8c246afa47bcfae3623f76b1157de112ea330e51edaa014250f7b0994e"),
    ("m20261126_000011_confine_repairs", "2501bd51623520a3aecda18dea0fe77b9aa2b8cb6ce4964f07edbe1d7e3036be"),
];

const SQLITE: [(&str, &str); 11] = [
    ("m20261101_000001_create_tenants", "42e20654587645b4bc8d4b2fbc5703d9a89e63f9d5d7deab17cbb3d1d69fd980"),
    ("m20261101_000002_create_users", "a418968bac2ed06966b9757a6f567dd591f60381b45d50d445132de396c0c9e8"),
    ("m20261122_000003_index_users_by_role", "9ebb1501a0c22320b7b084313e6ec91b3fb4a7f04eee248ba1032863dee583b1"),
    ("m20261124_000004_create_documents", "86b524f43541dc8e0bd74a919ee85104899127e6c2771325e127dcf4c07bf69e"),
    ("m20261124_000005_create_audit_logs", "8dd139ed8bba555d849c108785246b04bd24b6ae40ab019ffafc89157b2efc29"),
    ("m20261124_000006_create_triggers", "f92eb566cd8061a40f1bcc33d44908d35f4019b673ab4524c58f89ddb1e7f859"),
    ("m20261124_000007_enforce_tenancy", "c9c87085ff780f2a93e2c5286e390d4d16575fc30c8775121f3dba754eb08c3b"),
    ("m20261124_000008_index_users_by_subject", "8dcb0bf6d268bace0ebc156bce5b72491dc0095bb6a85fd07f0f358d40bb61c1"),
    ("m20261125_000009_confine_functions", "a0a22c9dfa428cdce6fb3e58a40d4052335e17e5fbe42efc2f17f9ca813be62c"),
    ("m20261126_000010_index_audit_logs_by_time", "bfdbd07247336a0d3d2318868536288f82f2037da3e7e7258157e004a7e96e02"),
    ("m20261126_000011_confine_repairs", "a0a22c9dfa428cdce6fb3e58a40d4052335e17e5fbe42efc2f17f9ca813be62c"),
];

#[test]
fn applied_migrations_keep_their_checksums() {
    for (backend, recorded) in [(DbBackend::Postgres, POSTGRES), (DbBackend::Sqlite, SQLITE)] {
        let now: Vec<(&str, String)> =
            bulkhead_migration::all().iter().map(|migration| (migration.name, migration.checksum(backend))).collect();
        let recorded = recorded.map(|(name, checksum)| (name, checksum.to_owned()));
        assert_eq!(now, recorded, "on {backend:?}");
    }
}
