//! Who sent a request, for its log line.

use crate::ids::{TenantId, UserId};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// The address of the client. Every request that came over a socket has it in its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

/// The ids of the caller. Every request has it in its extensions; it is empty until the caller's token is verified.
#[derive(Debug, Clone, Default)]
pub struct RequestIdentity(Arc<OnceLock<(TenantId, Option<UserId>)>>);

impl RequestIdentity {
    /// Sets the caller's tenant, and its user if the tenant has a row for it. Only the first call has an effect.
    pub fn set(&self, tenant_id: TenantId, user_id: Option<UserId>) {
        let _ = self.0.set((tenant_id, user_id));
    }

    /// The caller's tenant, once it is known.
    #[must_use]
    pub fn tenant_id(&self) -> Option<TenantId> {
        self.0.get().map(|(tenant_id, _)| *tenant_id)
    }

    /// The caller's user, once it is known.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        self.0.get().and_then(|(_, user_id)| *user_id)
    }
}
