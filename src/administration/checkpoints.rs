//! A checkpoint of every audit log.

use super::tenants::TenantRow;
use crate::audit::{self, Made};
use crate::database::{Access, Pool};
use crate::ids::TenantId;
use crate::note::SigningKey;
use sea_orm::{DatabaseConnection, DbErr};
use std::collections::BTreeMap;

/// What came of making a checkpoint of each log.
#[derive(Debug, Default)]
pub struct Checkpoints {
    /// The signed notes; an empty log has none.
    pub notes: BTreeMap<TenantId, String>,
    /// Why others were refused: their entries are not those that were signed.
    pub refused: Vec<String>,
    /// Why others could not be made: entries are archived.
    pub archived: Vec<String>,
}

/// Makes a checkpoint of each of these tenants' logs.
pub async fn make_checkpoints(
    connection: &DatabaseConnection,
    key: &SigningKey,
    tenants: &[TenantRow],
) -> Result<Checkpoints, DbErr> {
    let pool = Pool::from(connection.clone());
    let mut made = Checkpoints::default();
    for TenantRow { id, external_id } in tenants {
        match audit::checkpoint(&pool, Access::Operate, *id, key, None).await? {
            Ok(Made::Note(note)) => drop(made.notes.insert(*id, note)),
            Ok(Made::Empty | Made::NotDue(_)) => {}
            Err(reason) => {
                let list = if reason.contradicts() { &mut made.refused } else { &mut made.archived };
                list.push(format!("{external_id} ({id}): {reason}"));
            }
        }
    }
    Ok(made)
}
