//! Determines the client: its address, which is that of the TCP peer or the one that a trusted proxy forwards; and whom a
//! request counts against.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use super::interceptor::Interceptor;
use crate::auth::{Auth, KnownCaller};
use crate::config::{Forwarding, Settings};
use crate::context::bearer;
use crate::telemetry::ClientIp;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Marks a request that came through a trusted proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct ViaTrustedProxy;

/// Whom a request counts against, for limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// The caller of a token that was verified before, by tenant and subject, whatever the address: all of a hospital may
    /// have the same. It is their hash.
    Caller(u64),
    V4([u8; 4]),
    /// The first 64 bits: a customer may use any address within such a network.
    V6(u64),
}

impl Client {
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => Self::V6(u64::try_from(ip.to_bits() >> 64).unwrap_or_default()),
        }
    }
}

/// Inserts [`Client`] into the extensions of a request, and [`KnownCaller`] where it has one. A token that was not verified
/// before counts against the address once.
#[derive(Debug, Clone)]
pub(super) struct SetClient {
    auth: Arc<Auth>,
    hasher: RandomState,
}

impl SetClient {
    pub(super) fn new(auth: Arc<Auth>) -> Self {
        Self { auth, hasher: RandomState::new() }
    }
}

impl Interceptor for SetClient {
    type Context = ();

    fn on_request(&self, request: &mut Request) -> Result<(), Response> {
        let known = bearer(request.headers()).ok().and_then(|token| self.auth.known(token));
        let client = match &known {
            Some(KnownCaller(claims)) => Some(Client::Caller(self.hasher.hash_one((&claims.tenant, &claims.subject)))),
            None => request.extensions().get::<ClientIp>().map(|client| Client::of(client.0)),
        };
        if let Some(client) = client {
            request.extensions_mut().insert(client);
        }
        if let Some(known) = known {
            request.extensions_mut().insert(known);
        }
        Ok(())
    }
}

/// Inserts [`ClientIp`] into the extensions of a request.
#[derive(Debug, Clone)]
pub(super) struct SetClientIp(pub(super) Arc<Settings>);

impl Interceptor for SetClientIp {
    type Context = ();

    fn on_request(&self, request: &mut Request) -> Result<(), Response> {
        if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
            let (peer, proxies) = (peer.ip().to_canonical(), &self.0.trusted_proxies);
            let forwarding = proxies.forwarding(peer);
            let trusted = |ip| proxies.forwarding(ip).is_some();
            let ip = forwarding.map_or(peer, |forwarding| forwarded_ip(request.headers(), forwarding, peer, trusted));
            request.extensions_mut().insert(ClientIp(ip));
            if forwarding.is_some() {
                request.extensions_mut().insert(ViaTrustedProxy);
            }
        }
        Ok(())
    }
}

/// The address that the proxy at `peer` forwards, or `peer` itself if it forwards no valid address.
fn forwarded_ip(headers: &HeaderMap, forwarding: Forwarding, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    match forwarding {
        // Most proxies append to X-Forwarded-For and pass on a client's X-Real-IP, so that X-Real-IP counts only alone.
        Forwarding::Standard if headers.contains_key(X_FORWARDED_FOR) => {
            let lines = headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or_default());
            let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
            rightmost_untrusted(&hops, peer, trusted)
        }
        Forwarding::Standard | Forwarding::RealIpOnly => real_ip(headers).unwrap_or(peer),
    }
}

/// The client's address among the hops of X-Forwarded-For. Each hop was appended by the one to its right, so the first
/// untrusted one from the right is the client. The client can forge everything left of it, or left of a text that is not
/// an address.
fn rightmost_untrusted(hops: &[&str], peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    for hop in hops.iter().rev() {
        let Some(ip) = address(hop) else { break };
        client = ip;
        if !trusted(ip) {
            break;
        }
    }
    client
}

fn real_ip(headers: &HeaderMap) -> Option<IpAddr> {
    address(only_line(headers, &X_REAL_IP)?)
}

/// A header that stands there once.
pub(super) fn only_line<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())?.to_str().ok()
}

/// Reads an address; some proxies add a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_client_is_the_rightmost_untrusted_hop() {
        let cases: [(&[(&'static str, &'static str)], &str); 14] = [
            (&[], "10.0.0.1"),
            (&[("x-real-ip", "203.0.113.9")], "203.0.113.9"),
            (&[("x-real-ip", "::ffff:203.0.113.9")], "203.0.113.9"),
            (&[("x-real-ip", "unknown")], "10.0.0.1"),
            (&[("x-real-ip", "203.0.113.9"), ("x-real-ip", "203.0.113.8")], "10.0.0.1"),
            (&[("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
            (&[("x-forwarded-for", "1.1.1.1, 203.0.113.9")], "203.0.113.9"),
            (&[("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2,10.0.0.3")], "203.0.113.9"),
            (&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
            (&[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            (&[("x-forwarded-for", "203.0.113.9, <script>")], "10.0.0.1"),
            (&[("x-forwarded-for", "203.0.113.9:4711")], "203.0.113.9"),
            (&[("x-forwarded-for", "[2001:db8::1]:4711")], "2001:db8::1"),
            (&[("x-forwarded-for", "203.0.113.9"), ("x-real-ip", "1.1.1.1")], "203.0.113.9"),
        ];
        let trusted = |ip: IpAddr| ip.to_string().starts_with("10.");
        for (lines, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            let ip = forwarded_ip(&headers, Forwarding::Standard, "10.0.0.1".parse().unwrap(), trusted);
            assert_eq!(ip.to_string(), expected, "{lines:?}");
        }
    }

    #[test]
    fn real_ip_only_ignores_x_forwarded_for() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "203.0.113.9".parse().unwrap());
        let peer = "100.64.0.1".parse().unwrap();
        assert_eq!(forwarded_ip(&headers, Forwarding::RealIpOnly, peer, |_| false), peer);
        headers.insert("x-real-ip", "198.51.100.7".parse().unwrap());
        assert_eq!(forwarded_ip(&headers, Forwarding::RealIpOnly, peer, |_| false).to_string(), "198.51.100.7");
    }
}
