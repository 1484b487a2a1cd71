//! `bulkhead`, built with other migrations: FIXTURE names what its own are followed by, separated by commas.
//! Without FIXTURE it is `bulkhead` itself.

use bulkhead_migrator::{Describe, DescribedMigration, Migrations, Mode, Sql, SqlMigration};
use clap::Parser;
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut migrations = bulkhead_migration::all();
    for name in std::env::var("FIXTURE").unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
        change(&mut migrations, name);
    }
    bulkhead::cli::Cli::parse().run(Migrations::new(migrations))
}

/// By this name the first one goes, whatever it does: a later build may have mended it.
const FIRST: &str = "m20990101_000001_first";
const OWN: &str = "m20261101_000001_create_tenants";

fn sql(name: &'static str, minimum_build: &'static str, mode: Mode, sql: &'static str) -> Box<dyn DescribedMigration> {
    let both = Sql { postgres: sql, sqlite: sql };
    let down = Sql { postgres: "SELECT 1", sqlite: "SELECT 1" };
    Box::new(SqlMigration { name, minimum_build, mode, up: both, down })
}

fn change(migrations: &mut Vec<Box<dyn DescribedMigration>>, name: &str) {
    const SEED: &str = "INSERT INTO seeds (n) VALUES (1)";
    let transaction = Mode::Transaction;
    migrations.push(match name {
        "seed" => sql(FIRST, OWN, transaction, SEED),
        // A later build can do without the seed, an earlier one cannot.
        "breaking" => sql(FIRST, FIRST, transaction, SEED),
        "hang" => Box::new(Hang),
        "fail" => sql(FIRST, OWN, transaction, "INSERT INTO seeds (n) VALUES (1); SELECT nonsense FROM nowhere"),
        "alter" => sql(FIRST, OWN, transaction, "ALTER TABLE seeds ADD COLUMN added int"),
        "unlock" => sql(FIRST, OWN, transaction, "SELECT pg_advisory_unlock_all()"),
        "by-hand-short" => sql(FIRST, OWN, Mode::ByHand, "SELECT pg_sleep(3)"),
        "by-hand" => sql(FIRST, OWN, Mode::ByHand, "SELECT pg_sleep(600)"),
        "index" => sql(
            FIRST,
            OWN,
            Mode::ConcurrentIndex("seeds_n"),
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS seeds_n ON seeds (n)",
        ),
        "second" => sql("m20990101_000002_second", OWN, transaction, SEED),
        "between" => return migrations.insert(1, sql("m20261101_000001_create_tenants_more", OWN, transaction, SEED)),
        "edited" => {
            migrations.remove(0);
            return migrations.insert(0, sql(OWN, OWN, transaction, "SELECT 'something else'"));
        }
        "older" => {
            migrations.pop();
            return;
        }
        _ => panic!("there is no fixture {name}"),
    });
}

/// Seeds, then never ends.
struct Hang;

impl MigrationName for Hang {
    fn name(&self) -> &str {
        FIRST
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Hang {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        connection.execute_unprepared("INSERT INTO seeds (n) VALUES (1)").await?;
        match manager.get_database_backend() {
            DbBackend::Postgres => connection.execute_unprepared("SELECT pg_sleep(600)").await.map(drop),
            _ => std::future::pending().await,
        }
    }
}

impl Describe for Hang {}
