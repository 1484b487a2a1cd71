//! The proxies whose headers about the client are trusted.

use ipnet::{IpNet, Ipv4Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// The addresses of Railway's edge (RFC 6598).
const RAILWAY: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// The form of a list of proxies, for the settings' JSON Schema.
pub(super) const LIST: &str =
    r"\s*(railway|[0-9A-Fa-f:.]+(/[0-9]{1,3})?)\s*(,\s*(railway|[0-9A-Fa-f:.]+(/[0-9]{1,3})?)\s*)*";

/// The header with which a proxy forwards the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// X-Forwarded-For, or X-Real-IP if there is none.
    Standard,
    /// Only X-Real-IP: the last hop in X-Forwarded-For is one of Railway's own edges, which vary.
    RealIpOnly,
}

/// The networks of trusted proxies; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    railway: bool,
}

impl TrustedProxies {
    /// The header of the proxy at `peer`; `None` if `peer` is not trusted. An IPv4 address in IPv6 form
    /// (`::ffff:10.0.0.1`) counts as the IPv4 address.
    #[must_use]
    pub fn forwarding(&self, peer: IpAddr) -> Option<Forwarding> {
        let peer = peer.to_canonical();
        if self.railway && IpNet::V4(RAILWAY).contains(&peer) {
            return Some(Forwarding::RealIpOnly);
        }
        self.networks.iter().any(|network| network.contains(&peer)).then_some(Forwarding::Standard)
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut proxies = Self::default();
        for part in text.split(',').map(str::trim) {
            if part == "railway" {
                proxies.railway = true;
                continue;
            }
            let network = part.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
            let network = network.or_else(|_| part.parse::<IpNet>());
            proxies.networks.push(network.map_err(|_| {
                format!(
                    "must be networks such as 10.0.0.0/8, addresses, or railway, with commas between them, not {part:?}"
                )
            })?);
        }
        Ok(proxies)
    }
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let railway = self.railway.then(|| "railway".to_owned());
        let all: Vec<String> = railway.into_iter().chain(self.networks.iter().map(ToString::to_string)).collect();
        f.write_str(if all.is_empty() { "(none)" } else { "" })?;
        f.write_str(&all.join(","))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_peer_is_trusted_by_its_network_in_either_form() {
        let proxies: TrustedProxies = "10.0.0.0/8, 192.0.2.7, ::ffff:192.0.2.8, fd00::/8".parse().unwrap();
        for (peer, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.1.2.3", false),
            ("192.0.2.7", true),
            ("192.0.2.8", true),
            ("192.0.2.9", false),
            ("fd12::1", true),
            ("::1", false),
            ("100.64.0.1", false),
        ] {
            assert_eq!(proxies.forwarding(peer.parse().unwrap()).is_some(), trusted, "{peer}");
        }
    }

    #[test]
    fn railway_trusts_its_edge_and_only_x_real_ip() {
        let proxies: TrustedProxies = "railway".parse().unwrap();
        assert_eq!(proxies.forwarding("::ffff:100.64.0.9".parse().unwrap()), Some(Forwarding::RealIpOnly));
        assert_eq!(proxies.forwarding("100.127.255.255".parse().unwrap()), Some(Forwarding::RealIpOnly));
        assert_eq!(proxies.forwarding("100.128.0.0".parse().unwrap()), None);
        assert_eq!(proxies.to_string(), "railway");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["10.0.0.0/33", "proxy.internal", "10.0.0.1,,", "Railway", "*"] {
            assert!(text.parse::<TrustedProxies>().is_err(), "{text}");
        }
    }
}
