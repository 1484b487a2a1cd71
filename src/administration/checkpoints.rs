//! A checkpoint of every audit log.

use super::tenants::TenantRow;
use crate::audit::{self, Made};
use crate::database::{Access, Pool};
use crate::ids::TenantId;
use crate::note::SigningKey;
use sea_orm::{DatabaseConnection, DbErr};
use std::collections::BTreeMap;

/// Makes a checkpoint of each of these tenants' logs: the signed notes, of which an empty log has none, and why others were
/// refused.
pub async fn make_checkpoints(
    connection: &DatabaseConnection,
    key: &SigningKey,
    tenants: &[TenantRow],
) -> Result<(BTreeMap<TenantId, String>, Vec<String>), DbErr> {
    let pool = Pool::from(connection.clone());
    let (mut notes, mut refused) = (BTreeMap::new(), Vec::new());
    for TenantRow { id, external_id } in tenants {
        match audit::checkpoint(&pool, Access::Operate, *id, key, None).await? {
            Ok(Made::Note(note)) => drop(notes.insert(*id, note)),
            Ok(Made::Empty | Made::NotDue(_)) => {}
            Err(reason) => refused.push(format!("{external_id} ({id}): {reason}")),
        }
    }
    Ok((notes, refused))
}
