//! Whom a request's log line names.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

/// The address of the client, in the extensions of every request that came over a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

/// Who the caller turned out to be, for the log: in the extensions of every request, empty until the caller is known.
#[derive(Debug, Clone, Default)]
pub struct Caller(Arc<OnceLock<CallerIds>>);

/// A caller that has shown a valid token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerIds {
    /// The tenant it belongs to.
    pub tenant_id: Uuid,
    /// Its user row, where it has one.
    pub user_id: Option<Uuid>,
}

impl Caller {
    /// Says who it is; the first to say so is believed.
    pub fn set(&self, ids: CallerIds) {
        // Fails only where it has been said before.
        let _ = self.0.set(ids);
    }

    /// Who it is, where that is known.
    #[must_use]
    pub fn get(&self) -> Option<CallerIds> {
        self.0.get().copied()
    }
}
