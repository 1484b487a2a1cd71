//! What sea-orm-migration lacks for many processes that start at once.
//!
//! [`Runner`] applies the migrations of a build under a lock. It detects an edited migration by its checksum, tells an
//! older schema from a newer one, and says why a build and a schema do not fit. It keeps sea-orm's history table, and
//! knows nothing of the schema that the migrations make.

mod compatibility;
mod error;
mod history;
mod locks;
mod migration;
mod runner;

pub use compatibility::{
    AllowOptions, CheckPolicy, Compatibility, MigrationInfo, MigrationStatus, SchemaMismatch, SchemaState,
};
pub use error::{AfterFailure, MigrationError, code, is_missing_table, text};
pub use locks::{LockMode, TableLock, TableSize};
pub use migration::{Migration, Migrations, Mode, Scopes, Sql};
pub use runner::{Changes, Options, Planned, Progress, Repair, Runner, Target};
