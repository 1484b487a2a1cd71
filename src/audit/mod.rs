//! The audit log: who did what, chained per tenant so that tampering shows.
//!
//! What changes data appends its entry in the transaction of the change ([`append`]). What only reads is recorded by the
//! [`Recorder`] before it is answered, so that readers do not take turns. Refusals that repeat are counted by [`Refusals`].
//! Entries hold ids, names of fields and codes,
//! never a patient's data.

mod chain;
mod event;
mod recorder;
mod repair;
mod repeats;
mod shown;
mod verify;
mod walk;

pub(crate) use chain::instant;
pub use chain::{Entry, GENESIS, append};
pub use event::{Action, Actor, Event, Origin, Record, change};
pub use recorder::Recorder;
pub use repair::{Repair, Repaired, repair};
pub use repeats::Refusals;
pub use shown::{ID_ENDS, IDS, IdEnds, Shown, end_bytes, id_end};
pub use verify::{Verified, verify};
pub use walk::{Break, Place, entries};

use uuid::Uuid;

/// The tenant in whose chain stands what belongs to no other: refused logins, callers of unknown tenants.
pub const SYSTEM_TENANT: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000);
