//! Whether entries are those of a checkpoint that was signed earlier. It needs nothing but the entries, wherever they come from;
//! [`replay`] takes them from the database.

use super::archive::{archived_end, archived_groups};
use super::chain::{AuditEntry, GENESIS};
use super::event::Action;
use super::repair_entry::{Remains, Repair};
use super::tree::{leaf, no_leaf};
use super::walk::{Break, Place, entries};
use crate::database::{self, Access};
use crate::ids::TenantId;
use crate::merkle::{Frontier, Hash};
use crate::note::Checkpoint;
use sea_orm::{DatabaseConnection, DbErr};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What entries are, held to a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They are those that were signed.
    Fits,
    /// There are fewer than were signed.
    Cut {
        /// The number of the last one that is there.
        last: i64,
        /// How many were signed.
        size: u64,
    },
    /// The root over them is not the one that was signed.
    Rewritten {
        /// How many were signed.
        size: u64,
        /// What shows of the chain besides.
        first: Option<Break>,
    },
    /// They are archived, or some are: nothing here tells what they were. A larger checkpoint that fits continues this one.
    Archived(i64),
    /// Their hashes are those that were signed, and an entry is not what its hash was made of.
    Changed(Break),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fits => f.write_str("the entries are those that were signed"),
            Self::Cut { last: 0, .. } => f.write_str("there are no entries any more"),
            Self::Cut { last, size } => write!(f, "entries {} to {size} were cut off", last + 1),
            Self::Rewritten { size, first: None } => {
                write!(f, "entries 1 to {size} were rewritten: the root is another")
            }
            Self::Rewritten { size, first: Some(first) } => {
                write!(f, "entries 1 to {size} are not those that were signed: {first}")
            }
            Self::Archived(last) => write!(f, "entries 1 to {last} are archived"),
            Self::Changed(what) => what.fmt(f),
        }
    }
}

/// Goes through the entries of one tenant, oldest first, and notes the root at each size that a checkpoint has.
#[derive(Debug)]
pub struct Replay {
    sizes: BTreeSet<u64>,
    roots: BTreeMap<u64, Hash>,
    tree: Frontier,
    /// The last number, and its hash.
    last: (i64, String),
    /// The number of the last entry that is archived.
    archived: i64,
    /// How many entries must be there for a root that tells something: those that are archived, and those in a group with one.
    from: u64,
    /// What does not hold, in the order of the numbers.
    broken: Vec<Break>,
    /// The first break that no repair has declared so far.
    open: Option<Open>,
    /// The numbers behind which, and up to which, a repair declares that the chain need not hold.
    repaired: Vec<(i64, i64)>,
}

/// A break that a repair may declare later.
#[derive(Debug)]
struct Open {
    /// The last place before it.
    intact: Place,
    /// What stands behind that.
    remains: Remains,
}

impl Open {
    /// Whether the repair is of this break, and what stood behind it then stands there now.
    fn is_declared_by(&self, repair: &Repair) -> bool {
        match repair.broken {
            // Where the chain ended then is in no entry; its entries behind that may continue it.
            Break::BeyondEnd(_) => repair.intact.sequence <= self.intact.sequence,
            _ => repair.intact == self.intact && repair.remains == self.remains.clone().digest(),
        }
    }
}

impl Replay {
    /// For checkpoints of these sizes.
    pub fn new(sizes: impl IntoIterator<Item = u64>) -> Self {
        Self {
            sizes: sizes.into_iter().collect(),
            roots: BTreeMap::new(),
            tree: Frontier::default(),
            last: (0, GENESIS.to_owned()),
            archived: 0,
            from: 0,
            broken: Vec::new(),
            open: None,
            repaired: Vec::new(),
        }
    }

    /// For checkpoints of these sizes of a log whose entries up to `end` are archived. `groups` are the roots of the groups of 256
    /// entries up to the one that `end` is in, if they are known. They need not be right: a signed root over them and the entries
    /// behind them tells, and the hash of such an entry stands for all that are before it.
    pub fn behind(sizes: impl IntoIterator<Item = u64>, end: Place, groups: Option<Vec<Hash>>) -> Self {
        let mut replay = Self::new(sizes);
        replay.archived = end.sequence;
        replay.last = (end.sequence, end.hash);
        let Some(groups) = groups else { return Self { from: u64::MAX, ..replay } };
        for root in groups {
            replay.tree.push_group(root);
        }
        replay.from = replay.tree.size();
        replay
    }

    /// The next entry, with the hash that it was stored with.
    pub fn add(&mut self, entry: &AuditEntry, hash: &str) -> Result<(), serde_json::Error> {
        let before = Place { sequence: self.last.0, hash: self.last.1.clone() };
        let breaks = self.broken.len();
        let expected = before.sequence.saturating_add(1);
        let follows = entry.sequence >= expected;
        let is_edited = entry.hash()? != hash;
        if entry.sequence > expected {
            self.broken.push(Break::Missing { first: expected, last: entry.sequence - 1 });
            // Numbers behind the largest size make no difference.
            let most = self.sizes.last().copied().unwrap_or_default();
            while self.tree.size() < most && self.tree.size() + 1 < entry.sequence.unsigned_abs() {
                self.grow(no_leaf());
            }
        }
        if is_edited && follows {
            self.broken.push(Break::Edited(entry.sequence));
        } else if !follows || entry.prev_hash != before.hash {
            self.broken.push(Break::Unlinked(entry.sequence));
        }
        if self.broken.len() > breaks && self.open.is_none() {
            self.open = Some(Open { intact: before, remains: Remains::new() });
        }
        // What its hash was not made of declares nothing.
        let repair = (follows && !is_edited && entry.action == Action::ChainRepaired.name()).then(|| Repair::of(entry));
        match (&mut self.open, repair.flatten()) {
            (Some(open), Some(repair)) if open.is_declared_by(&repair) => {
                self.repaired.push((open.intact.sequence, entry.sequence));
                self.open = None;
            }
            (Some(open), _) => open.remains.add(entry, hash)?,
            (None, _) => {}
        }
        if follows {
            if entry.sequence.unsigned_abs() > self.tree.size() {
                self.grow(leaf(hash));
            }
            self.last = (entry.sequence, hash.to_owned());
        }
        Ok(())
    }

    fn grow(&mut self, leaf: Hash) {
        self.tree.push(leaf);
        if self.sizes.contains(&self.tree.size()) {
            self.roots.insert(self.tree.size(), self.tree.root());
        }
    }

    /// The number of the last entry.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.last.0
    }

    /// The hash of the last entry.
    #[must_use]
    pub fn head(&self) -> &str {
        &self.last.1
    }

    /// In how many places the chain is broken or repaired. This much is in memory.
    #[must_use]
    pub fn breaks(&self) -> usize {
        self.broken.len() + self.repaired.len()
    }

    /// The first break among the first `end` entries that none of the repairs among them declares.
    #[must_use]
    pub fn first_break(&self, end: i64) -> Option<&Break> {
        let is_repaired = |number: i64| {
            self.repaired.iter().any(|(intact, repair)| *repair <= end && (*intact < number) && number <= *repair)
        };
        self.broken.iter().find(|broken| {
            let number = match broken {
                Break::Missing { first, .. } => *first,
                Break::Edited(number) | Break::Unlinked(number) => *number,
                // What is not found here.
                Break::NoHead | Break::BeyondEnd(_) | Break::OtherEnd(_) | Break::OtherRepair(_) => return false,
            };
            number <= end && !is_repaired(number)
        })
    }

    /// What the entries are, held to a checkpoint of one of the sizes.
    #[must_use]
    pub fn verdict(&self, checkpoint: &Checkpoint) -> Verdict {
        let size = checkpoint.size;
        let end = i64::try_from(size).unwrap_or(i64::MAX);
        if self.archived > 0 && size <= self.from {
            return Verdict::Archived(self.archived);
        }
        if self.last.0 < end {
            return Verdict::Cut { last: self.last.0, size };
        }
        let first = self.first_break(end).cloned();
        if self.roots.get(&size) != Some(&checkpoint.root) && size > 0 {
            return Verdict::Rewritten { size, first };
        }
        first.map_or(Verdict::Fits, Verdict::Changed)
    }
}

/// Goes through a tenant's entries in the database, up to the largest of the checkpoints.
pub async fn replay(
    connection: &DatabaseConnection,
    tenant: TenantId,
    checkpoints: &[Checkpoint],
) -> Result<Replay, DbErr> {
    let sizes = checkpoints.iter().map(|checkpoint| checkpoint.size);
    let transaction = database::begin(connection, tenant, Access::Operate).await?;
    let mut replay = match archived_end(&transaction, tenant).await? {
        None => Replay::new(sizes),
        Some(end) => {
            let groups = archived_groups(&transaction, tenant, &end).await?;
            Replay::behind(sizes, end, groups)
        }
    };
    drop(transaction);
    let largest = checkpoints.iter().map(|checkpoint| checkpoint.size).max().unwrap_or_default();
    let largest = i64::try_from(largest).unwrap_or(i64::MAX);
    loop {
        // A transaction a batch, as of an export.
        let transaction = database::begin(connection, tenant, Access::Operate).await?;
        let batch = entries(&transaction, tenant, replay.last(), i64::MAX).await?;
        drop(transaction);
        if batch.is_empty() || replay.last() >= largest {
            return Ok(replay);
        }
        for (entry, hash) in batch {
            replay.add(&entry, &hash).map_err(|error| DbErr::Json(error.to_string()))?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::AuditLogId;
    use crate::merkle;
    use serde_json::{Value, json};
    use uuid::Uuid;

    /// A chain, and the checkpoints over its first entries: of each length one.
    fn chain(actions: &[(&str, Value)]) -> (Vec<(AuditEntry, String)>, Vec<Checkpoint>) {
        let (mut entries, mut checkpoints, mut prev_hash) = (Vec::new(), Vec::new(), GENESIS.to_owned());
        let mut tree = Frontier::default();
        for ((action, metadata), sequence) in actions.iter().zip(1..) {
            let entry = AuditEntry {
                tenant_id: TenantId(Uuid::nil()),
                sequence,
                id: AuditLogId(Uuid::from_u128(sequence.unsigned_abs().into())),
                user_id: None,
                action: (*action).to_owned(),
                resource_type: "documents".to_owned(),
                resource_id: None,
                ip: None,
                user_agent: None,
                metadata: metadata.clone(),
                created_at: "2026-01-01T00:00:00.000000Z".to_owned(),
                prev_hash,
            };
            prev_hash = entry.hash().unwrap();
            tree.push(leaf(&prev_hash));
            checkpoints.push(Checkpoint { origin: "a/b".to_owned(), size: tree.size(), root: tree.root() });
            entries.push((entry, prev_hash.clone()));
        }
        (entries, checkpoints)
    }

    fn verdicts(entries: &[(AuditEntry, String)], checkpoints: &[Checkpoint]) -> Vec<Verdict> {
        let mut replay = Replay::new(checkpoints.iter().map(|checkpoint| checkpoint.size));
        for (entry, hash) in entries {
            replay.add(entry, hash).unwrap();
        }
        checkpoints.iter().map(|checkpoint| replay.verdict(checkpoint)).collect()
    }

    #[test]
    fn each_change_has_its_verdict() {
        let read = ("DATA_ACCESS", json!({}));
        let (entries, checkpoints) = chain(&vec![read.clone(); 5]);
        assert_eq!(verdicts(&entries, &checkpoints), vec![Verdict::Fits; 5]);
        let cut = verdicts(&entries[..3], &checkpoints[2..]);
        assert_eq!(cut, [Verdict::Fits, Verdict::Cut { last: 3, size: 4 }, Verdict::Cut { last: 3, size: 5 }]);
        let gone = verdicts(&[&entries[..1], &entries[2..]].concat(), &checkpoints[..2]);
        let first = Some(Break::Missing { first: 2, last: 2 });
        assert_eq!(gone, [Verdict::Fits, Verdict::Rewritten { size: 2, first }]);
        // All of it written anew.
        let (others, _) = chain(&[vec![read; 2], vec![("CREATED", json!({})); 3]].concat());
        let rewritten = verdicts(&others, &checkpoints[1..3]);
        assert_eq!(rewritten, [Verdict::Fits, Verdict::Rewritten { size: 3, first: None }]);
        let mut edited = entries;
        edited[1].0.action = "CREATED".to_owned();
        assert_eq!(verdicts(&edited, &checkpoints[..2]), [Verdict::Fits, Verdict::Changed(Break::Edited(2))]);
    }

    #[test]
    fn what_is_left_of_an_archived_log_is_held_to_the_roots_of_its_groups() {
        let (entries, checkpoints) = chain(&vec![("DATA_ACCESS", json!({})); 600]);
        let leaves: Vec<Hash> = entries.iter().map(|(_, hash)| leaf(hash)).collect();
        let verdicts = |archived: usize, groups: Option<usize>, left: &[(AuditEntry, String)]| {
            let roots = groups.map(|count| leaves.chunks(256).take(count).map(merkle::whole).collect());
            let end = Place { sequence: archived.try_into().unwrap(), hash: entries[archived - 1].1.clone() };
            let mut replay = Replay::behind([300, 512, 513, 600], end, roots);
            for (entry, hash) in left {
                replay.add(entry, hash).unwrap();
            }
            [300, 512, 513, 600].map(|size: usize| replay.verdict(&checkpoints[size - 1]))
        };
        let archived = || Verdict::Archived(300);
        let fit = [archived(), archived(), Verdict::Fits, Verdict::Fits];
        assert_eq!(verdicts(300, Some(2), &entries[300..]), fit);
        let fit = [Verdict::Archived(256), Verdict::Fits, Verdict::Fits, Verdict::Fits];
        assert_eq!(verdicts(256, Some(1), &entries[256..])[1..], fit[1..]);
        assert_eq!(verdicts(300, None, &entries[300..]), [archived(), archived(), archived(), archived()]);
        let cut = verdicts(300, Some(2), &entries[300..550]);
        assert_eq!(cut[2..], [Verdict::Fits, Verdict::Cut { last: 550, size: 600 }]);
        // In the group that is archived in part: only the chain shows it.
        let mut edited = entries[300..].to_vec();
        edited[5].0.action = "CREATED".to_owned();
        assert_eq!(verdicts(300, Some(2), &edited)[3], Verdict::Changed(Break::Edited(306)));
        let gone = [&entries[300..305], &entries[306..]].concat();
        assert_eq!(verdicts(300, Some(2), &gone)[3], Verdict::Changed(Break::Missing { first: 306, last: 306 }));
        // Behind it, the root does.
        let gone = [&entries[300..555], &entries[556..]].concat();
        let first = Some(Break::Missing { first: 556, last: 556 });
        assert_eq!(verdicts(300, Some(2), &gone)[3], Verdict::Rewritten { size: 600, first });
    }

    /// The metadata of a repair of entry 2, which was edited to say CREATED; what stands in its metadata then.
    fn repair_of(entries: &[(AuditEntry, String)]) -> Value {
        let mut remains = Remains::new();
        for (entry, hash) in &entries[1..] {
            remains.add(entry, hash).unwrap();
        }
        json!({
            "by": "operator", "reason": "r", "break": {"edited": 2}, "head": null, "remains": remains.digest(),
            "intact": {"sequence": 1, "hash": entries[0].1},
        })
    }

    #[test]
    fn a_repair_excuses_what_was_there_when_it_was_signed() {
        let read = ("DATA_ACCESS", json!({}));
        let edit = |entries: &mut [(AuditEntry, String)]| entries[1].0.action = "CREATED".to_owned();
        let (mut repaired, _) = chain(&vec![read.clone(); 3]);
        edit(&mut repaired);
        let repair = ("CHAIN_REPAIRED", repair_of(&repaired));
        let (mut entries, checkpoints) = chain(&[vec![read.clone(); 3], vec![repair, read]].concat());
        edit(&mut entries);
        let found = verdicts(&entries, &checkpoints);
        let changed = Verdict::Changed(Break::Edited(2));
        assert_eq!(found[..3], [Verdict::Fits, changed.clone(), changed.clone()], "signed before the repair");
        assert_eq!(found[3..], [Verdict::Fits, Verdict::Fits], "signed with the repair in it");
        // What is changed after the repair is not what it declares.
        for (at, action) in [(1, "UPDATED"), (2, "CREATED")] {
            let mut later = entries.clone();
            later[at].0.action = action.to_owned();
            assert_eq!(verdicts(&later, &checkpoints)[3..], [changed.clone(), changed.clone()], "entry {}", at + 1);
        }
    }

    #[test]
    fn an_entry_that_is_made_a_repair_excuses_nothing() {
        let (mut entries, checkpoints) = chain(&vec![("DATA_ACCESS", json!({})); 4]);
        entries[1].0.action = "CREATED".to_owned();
        let repair = repair_of(&entries[..2]);
        // The hashes are those that were signed.
        (entries[2].0.action, entries[2].0.metadata) = ("CHAIN_REPAIRED".to_owned(), repair);
        let changed = Verdict::Changed(Break::Edited(2));
        assert_eq!(verdicts(&entries, &checkpoints)[1..], [changed.clone(), changed.clone(), changed]);
    }
}
