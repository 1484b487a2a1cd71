//! Whether a chain holds: all of it, or behind repairs that name what was broken.

use super::archive::archived_end;
use super::chain::GENESIS;
use super::repair_entry::{Repair, Repaired, remains, repairs};
use super::walk::{Break, End, Place, walk};
use crate::database::Transaction;
use crate::entity::audit_log::{self, Column};
use crate::ids::TenantId;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter};

/// A chain that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Where it did not hold and was repaired, oldest first.
    pub repairs: Vec<Repaired>,
    /// The number of the last entry that is archived; 0 where none is.
    pub archived: i64,
    /// How many entries are there.
    pub entries: u64,
    /// The last one's hash: kept elsewhere, it shows later that nothing up to here was changed.
    pub head: String,
}

/// What was found of a chain.
pub(super) struct Findings {
    /// The number of the last entry that is archived.
    pub(super) archived: i64,
    /// The breaks that were repaired.
    pub(super) repairs: Vec<Repaired>,
    /// The first one that was not, and the last place before it up to which the chain holds.
    pub(super) broken: Option<(Place, Break)>,
}

/// Walks the tenant's chain as it stands now, in bounded memory; others may go on appending to it.
pub async fn verify(transaction: &Transaction, tenant: TenantId) -> Result<Result<Verified, Break>, DbErr> {
    let end = End::now(transaction, tenant).await?;
    let Findings { archived, repairs, broken } = examine(transaction, tenant, &end).await?;
    let head = match (broken, end.recorded) {
        (Some((_, broken)), _) => return Ok(Err(broken)),
        (None, None) => return Ok(Err(Break::NoHead)),
        (None, Some(head)) => head,
    };
    let entries =
        audit_log::Entity::find().filter(Column::TenantId.eq(tenant)).filter(Column::Sequence.lte(head.sequence));
    Ok(Ok(Verified { archived, repairs, entries: entries.count(transaction).await?, head: head.hash }))
}

/// Walks the tenant's chain. A repair counts where it names exactly what is found before it, as it was found then: the
/// end that was recorded at that time, the first break, the last place that held, and all that stood behind that.
pub(super) async fn examine(transaction: &Transaction, tenant: TenantId, end: &End) -> Result<Findings, DbErr> {
    let mut start = archived_end(transaction, tenant).await?.unwrap_or_else(Place::beginning);
    let mut findings = Findings { archived: start.sequence, repairs: Vec::new(), broken: None };
    for entry in repairs(transaction, tenant).await? {
        let Some(repair) = Repair::of(&entry) else { continue };
        let sequence = entry.sequence;
        let (place, broken) = if let Some(found) = findings.broken.take() {
            found
        } else {
            let end = End::before(transaction, tenant, sequence, repair.head.clone()).await?;
            let (place, broken) = walk(transaction, tenant, &start, &end).await?;
            (place, broken.unwrap_or(Break::OtherRepair(sequence)))
        };
        let named = place == repair.intact && broken == repair.broken;
        if named && remains(transaction, tenant, place.sequence, sequence).await? == repair.remains {
            let hash = repair.head.as_ref().map_or_else(|| GENESIS.to_owned(), |head| head.hash.clone());
            start = Place { sequence: sequence - 1, hash };
            findings.repairs.push(Repaired { repair, sequence, at: entry.created_at });
        } else {
            let broken = if broken == repair.broken { Break::OtherRepair(sequence) } else { broken };
            findings.broken = Some((place, broken));
        }
    }
    if findings.broken.is_none() {
        let (place, broken) = walk(transaction, tenant, &start, end).await?;
        findings.broken = broken.map(|broken| (place, broken));
    }
    Ok(findings)
}
