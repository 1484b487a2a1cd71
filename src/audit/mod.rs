//! The audit log: who did what, chained per tenant so that tampering shows.
//!
//! A change appends its entry in its own transaction ([`append`]). A read is recorded by the [`Recorder`] before it is
//! answered, so that readers do not wait for each other. Refusals that repeat are counted by [`Refusals`].
//! Entries hold ids, names of fields and codes, never a patient's data.

mod archive;
mod chain;
mod checkpoint;
mod event;
mod recorder;
mod repair;
mod repair_entry;
mod repeats;
mod shared_transaction;
mod shown;
mod since;
mod tree;
mod turn;
mod verify;
mod walk;
mod webhook;
mod write_queue;

pub(crate) use archive::archived_end;
pub(crate) use chain::format_timestamp;
pub use chain::{AuditEntry, GENESIS, append};
pub use checkpoint::{Made, Refused, checkpoint};
pub(crate) use checkpoint::{Stored as StoredCheckpoint, newest as newest_checkpoint};
pub use event::{Action, ClientInfo, EventDraft, change};
pub use recorder::Recorder;
pub use repair::repair;
pub use repair_entry::{Repair, Repaired};
pub use repeats::Refusals;
pub use shown::{ID_ENDS, IDS, IdEnds, Shown, end_bytes, id_end};
pub use since::{Replay, Verdict, replay};
pub(crate) use tree::load;
pub use turn::Turn;
pub use verify::{Verified, verify};
pub use walk::{Break, Place, StoredEntry, entries};
pub(crate) use webhook::{NotTaken, Webhook};

use crate::ids::TenantId;
use uuid::Uuid;

/// The tenant in whose chain stands what belongs to no other: refused logins, callers of unknown tenants.
pub const SYSTEM_TENANT: TenantId = TenantId(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000));
