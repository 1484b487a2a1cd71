//! A limit for each tenant: how many of one tenant's may run at once, so that others find a place.

use crate::ids::TenantId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of each tenant. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct TenantLimit {
    at_once: usize,
    /// Of the tenants that have one taken.
    tenants: Arc<Mutex<HashMap<TenantId, Arc<Semaphore>>>>,
}

impl TenantLimit {
    /// So many places for each tenant; one at least.
    pub(crate) fn new(at_once: usize) -> Self {
        Self { at_once: at_once.clamp(1, Semaphore::MAX_PERMITS), tenants: Arc::default() }
    }

    /// Waits for one of the tenant's places, which is held until the value is dropped.
    pub(crate) async fn place(&self, tenant: TenantId) -> Option<OwnedSemaphorePermit> {
        let places = {
            let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
            tenants.retain(|_, places| Arc::strong_count(places) > 1);
            Arc::clone(tenants.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(self.at_once))))
        };
        // Nobody closes it.
        places.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::FutureExt;
    use uuid::Uuid;

    #[test]
    fn one_tenant_waits_and_others_need_not() {
        let limit = TenantLimit::new(5);
        let (one, other) = (TenantId(Uuid::now_v7()), TenantId(Uuid::now_v7()));
        let place = |tenant| limit.place(tenant).now_or_never().flatten();
        let mut taken: Vec<_> = (0..5).map(|_| place(one).unwrap()).collect();
        assert!(place(one).is_none());
        assert!(place(other).is_some());
        taken.pop();
        taken.push(place(one).unwrap());
        assert!(place(one).is_none());
        drop(taken);
        assert!(place(other).is_some());
        assert_eq!(limit.tenants.lock().unwrap().len(), 1, "who has no place is forgotten");
    }
}
