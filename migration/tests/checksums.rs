//! The checksums that databases have recorded for the migrations that were applied to them. A build with another checksum
//! refuses such a database: lines are added to checksums.txt, and never changed.

#![allow(clippy::unwrap_used)]

use sea_orm_migration::sea_orm::DbBackend;
use std::fs;

/// A migration's name, and its checksums on PostgreSQL and on SQLite.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/checksums.txt");

#[test]
fn applied_migrations_keep_their_checksums() {
    let lines: Vec<String> = bulkhead_migration::all()
        .iter()
        .map(|migration| {
            let [postgres, sqlite] =
                [DbBackend::Postgres, DbBackend::Sqlite].map(|backend| migration.checksum(backend));
            format!("{} {postgres} {sqlite}", migration.name)
        })
        .collect();
    let recorded = fs::read_to_string(RECORDED).unwrap();
    let recorded: Vec<&str> = recorded.lines().collect();
    assert!(!recorded.is_empty() && recorded.len() <= lines.len(), "a migration is gone");
    assert_eq!(lines[..recorded.len()], recorded, "a migration that databases may have applied has changed");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(RECORDED, lines.join("\n") + "\n").unwrap();
    } else {
        assert_eq!(
            lines.len(),
            recorded.len(),
            "UPDATE_DOCS=1 cargo test -p bulkhead-migration adds the new one's line"
        );
    }
}
