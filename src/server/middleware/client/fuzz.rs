//! What must hold of a request's client: see [`crate::fuzzing`].

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use super::{Client, SetClientIp, X_FORWARDED_FOR, X_REAL_IP};
use crate::config::{Forwarding, Settings, TrustedProxies};
use crate::server::middleware::interceptor::Interceptor;
use crate::telemetry::ClientIp;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderValue};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings::read(&|_| None).0.unwrap());

/// A line with TRUSTED_PROXIES, one with the peer's address, and a header in each further line: X-Real-IP behind `real `, else
/// X-Forwarded-For. The client is the peer, or has an address that a trusted peer forwards; and what a client sends along of these
/// headers makes it no other client.
pub fn client(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut text = || std::str::from_utf8(lines.next()?).ok();
    let (Some(proxies), Some(peer)) = (text(), text()) else { return };
    let (Ok(proxies), Ok(peer)) = (proxies.parse::<TrustedProxies>(), peer.parse::<IpAddr>()) else { return };
    assert_eq!(proxies.to_string().parse().as_ref(), Ok(&proxies), "they are shown as they can be set");
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.strip_prefix(b"real ").map_or((X_FORWARDED_FOR, line), |value| (X_REAL_IP, value));
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        headers.append(name, value);
    }
    let found = find(&proxies, peer, headers.clone());
    assert_eq!(found, found.to_canonical());
    assert_eq!(Client::of(found), Client::of(found.to_canonical()));
    let named = headers.values().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut named = named.filter_map(|hop| read(std::str::from_utf8(hop).ok()?.trim()));
    let peer = peer.to_canonical();
    let forged = HeaderValue::from_static("192.0.2.66");
    let mut also = HeaderMap::new();
    match proxies.forwarding(peer) {
        None => assert_eq!(found, peer, "nobody trusts this peer"),
        Some(_) => assert!(found == peer || named.any(|address| address == found), "{found} is not there"),
    }
    // What the client sends stands before what a proxy adds.
    let adds = match proxies.forwarding(peer) {
        Some(Forwarding::Standard) => headers.contains_key(X_FORWARDED_FOR) && proxies.forwarding(found).is_none(),
        Some(Forwarding::RealIpOnly) | None => true,
    };
    if adds {
        also.append(X_FORWARDED_FOR, forged.clone());
        if !matches!(proxies.forwarding(peer), Some(Forwarding::RealIpOnly)) {
            also.append(X_REAL_IP, forged);
        }
        for (name, value) in &headers {
            also.append(name, value.clone());
        }
        assert_eq!(find(&proxies, peer, also), found, "the client forges its address");
    }
}

fn find(proxies: &TrustedProxies, peer: IpAddr, headers: HeaderMap) -> IpAddr {
    let settings = Settings { trusted_proxies: proxies.clone(), ..SETTINGS.clone() };
    let mut request = Request::new(Body::empty());
    *request.headers_mut() = headers;
    request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer, 1)));
    SetClientIp(Arc::new(settings)).on_request(&mut request).unwrap();
    request.extensions().get::<ClientIp>().unwrap().0
}

fn read(hop: &str) -> Option<IpAddr> {
    let address = hop.parse().or_else(|_| hop.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}
