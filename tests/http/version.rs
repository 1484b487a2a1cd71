//! What an instance says that it was built from.

use crate::bulkhead;
use crate::support::{LocalServer, Serves};
use aws_lc_rs::digest::{SHA256, digest};
use std::path::Path;
use test_support::{Database, Server};

#[tokio::test]
async fn version_names_sources_and_dependencies() {
    let database = Database::migrated_sqlite().await;
    let server = LocalServer::without_provider(&database, &[("SOURCE_REVISION", "0123456789abcdef")]).await;
    let (status, version) = server.json("/api/v1/version").await;
    assert_eq!((status, &version["version"]), (200, &env!("CARGO_PKG_VERSION").into()));
    assert_eq!(version["source_revision"], "0123456789abcdef");
    for (field, file) in [("cargo_lock_sha256", "Cargo.lock"), ("flake_lock_sha256", "flake.lock")] {
        let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert_eq!(version[field], hex::encode(digest(&SHA256, &text)), "{file}");
    }
    let migrations = bulkhead_migration::all();
    assert_eq!(version["schema_version"], migrations.last().unwrap().name);
}

#[tokio::test]
async fn the_version_is_told_before_the_schema_is_there() {
    let database = Database::sqlite();
    let server = Server::listening(bulkhead(), &["serve"], &database, &[]).await;
    let (status, version) = server.get_json("/api/v1/version").await;
    assert_eq!((status.as_u16(), version["source_revision"].is_null()), (200, true), "{version}");
}
