//! Certificates by an authority that nobody knows who was not told.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::fmt;

/// An authority, and what a server needs that it vouches for, each as PEM.
pub struct Certificates {
    /// The authority's own certificate, for clients.
    pub authority: String,
    /// The server's certificate.
    pub server: String,
    /// The server's key.
    pub key: String,
    /// The certificate of a client named `postgres`, of the same authority.
    pub client: String,
    /// The client's key.
    pub client_key: String,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    /// For a server of this name, which may be an IP address.
    ///
    /// # Panics
    /// When there is no such name.
    #[must_use]
    pub fn new(host: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority.distinguished_name.push(DnType::CommonName, "An authority of the tests' own");
        let certificate = authority.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(authority, key);

        let key = KeyPair::generate().expect("a key");
        let server = CertificateParams::new([host.to_owned()]).expect("a name").signed_by(&key, &issuer);
        let server = server.expect("a certificate").pem();
        let client_key = KeyPair::generate().expect("a key");
        let mut client = CertificateParams::default();
        client.distinguished_name = DistinguishedName::new();
        client.distinguished_name.push(DnType::CommonName, "postgres");
        let client = client.signed_by(&client_key, &issuer).expect("a certificate").pem();
        let (key, client_key) = (key.serialize_pem(), client_key.serialize_pem());
        Self { authority: certificate.pem(), server, key, client, client_key }
    }
}
