//! Bulkhead's schema, one file per migration, and the [`Runner`] that applies it.
//!
//! Migrations are written as SQL, once for PostgreSQL and once for SQLite: the two differ in their types
//! (uuid, timestamptz), and an auditor reads the very statements that run.

mod m20261101_000001_create_tenants;
mod m20261101_000002_create_users;
mod runner;

pub use runner::{Changes, MigrationError, Runner, State, Step};

use sea_orm_migration::prelude::*;

/// Every migration of this build, oldest first.
#[derive(Debug, Clone, Copy)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261101_000001_create_tenants::Migration), Box::new(m20261101_000002_create_users::Migration)]
    }
}

/// The same step in the two databases' own SQL; several statements may stand in each.
struct Sql {
    postgres: &'static str,
    sqlite: &'static str,
}

impl Sql {
    async fn run(&self, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        let sql = match manager.get_database_backend() {
            sea_orm::DbBackend::Postgres => self.postgres,
            sea_orm::DbBackend::Sqlite => self.sqlite,
            other => return Err(DbErr::Custom(format!("{other:?} is not a database of this project"))),
        };
        manager.get_connection().execute_unprepared(sql).await?;
        Ok(())
    }
}
