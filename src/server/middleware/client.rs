//! The client's address: the TCP peer's, or the one that a trusted proxy names.

use super::around::Concern;
use crate::config::{Forwarding, Settings};
use crate::telemetry::ClientIp;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Marks a request that came through a trusted proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct ThroughProxy;

/// What counts as one client where requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Network {
    V4([u8; 4]),
    /// The first 64 bits: a customer's network, within which addresses are free for the taking.
    V6(u64),
}

impl Network {
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => Self::V6(u64::try_from(ip.to_bits() >> 64).unwrap_or_default()),
        }
    }
}

/// Finds the client, by these settings.
#[derive(Debug, Clone)]
pub(super) struct FindClient(pub(super) Arc<Settings>);

impl Concern for FindClient {
    type Kept = ();

    fn before(&self, request: &mut Request) -> Result<(), Response> {
        if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
            let (peer, proxies) = (peer.ip().to_canonical(), &self.0.trusted_proxies);
            let forwarding = proxies.forwarding(peer);
            let trusted = |ip| proxies.forwarding(ip).is_some();
            let ip = forwarding.map_or(peer, |forwarding| named(request.headers(), forwarding, peer, trusted));
            request.extensions_mut().insert(ClientIp(ip));
            if forwarding.is_some() {
                request.extensions_mut().insert(ThroughProxy);
            }
        }
        Ok(())
    }
}

/// Whom the proxy at `peer` names; the peer itself where it names nobody, or not an address.
fn named(headers: &HeaderMap, forwarding: Forwarding, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    match forwarding {
        // Most proxies append to X-Forwarded-For and let a client's X-Real-IP pass: it counts only alone.
        Forwarding::Standard if headers.contains_key(X_FORWARDED_FOR) => {
            let lines = headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or_default());
            let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
            walk(&hops, peer, trusted)
        }
        Forwarding::Standard | Forwarding::RealIpOnly => real_ip(headers).unwrap_or(peer),
    }
}

/// From the right, each hop was written by the one after it: the first that is not trusted is the client. What
/// stands left of it, or of anything that is no address, is the client's own word.
fn walk(hops: &[&str], peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
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
    let mut lines = headers.get_all(X_REAL_IP).iter();
    let only = lines.next().filter(|_| lines.next().is_none())?;
    address(only.to_str().ok()?)
}

/// An address as proxies write it, some of them with a port.
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
    fn the_client_is_the_first_hop_from_the_right_that_is_not_trusted() {
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
            let ip = named(&headers, Forwarding::Standard, "10.0.0.1".parse().unwrap(), trusted);
            assert_eq!(ip.to_string(), expected, "{lines:?}");
        }
    }

    #[test]
    fn where_x_real_ip_alone_counts_x_forwarded_for_is_ignored() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "203.0.113.9".parse().unwrap());
        let peer = "100.64.0.1".parse().unwrap();
        assert_eq!(named(&headers, Forwarding::RealIpOnly, peer, |_| false), peer);
        headers.insert("x-real-ip", "198.51.100.7".parse().unwrap());
        assert_eq!(named(&headers, Forwarding::RealIpOnly, peer, |_| false).to_string(), "198.51.100.7");
    }
}
