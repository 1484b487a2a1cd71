//! What sea-orm-migration lacks for many processes that start at once.
//!
//! [`Runner`] applies the migrations of a build under a lock. It recognises an edited migration by its fingerprint, tells an
//! older schema from a newer one, and says why a build and a schema do not fit. It depends on nothing of Bulkhead:
//! [`Migrations`] can be anyone's.

mod catalogue;
mod error;
mod history;
mod runner;
mod state;

pub use catalogue::{Describe, DescribedMigration, Migrations, Mode, Sql, SqlMigration};
pub use error::{Left, MigrationError, code, is_missing_table};
pub use runner::{Changes, Options, Planned, Progress, Repair, Runner, Target};
pub use state::{Fit, Leniency, Misfit, Standing, State, Step};
