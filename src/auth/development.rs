//! The development issuer signs tokens with a key in a local file.
//!
//! It needs a [`DevelopmentKey`], which exists only if ENVIRONMENT=development. In any other environment it can neither
//! sign nor verify.

use super::discovery::{Metadata, ProviderError};
use super::key_set::KeySet;
use super::key_source::{FetchedKeys, KeySource};
use crate::clock::unix_seconds;
use crate::config::DevelopmentKey;
use crate::entity::user::Role;
use aws_lc_rs::signature::Ed25519KeyPair;
use futures_util::future::BoxFuture;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sea_orm::ActiveEnum;
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Signs tokens for local use, and provides the key to verify them.
#[derive(Debug, Clone)]
pub struct DevelopmentIssuer(DevelopmentKey);

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
#[error("DEVELOPMENT_KEY_FILE: cannot use {file}: {reason}")]
pub struct DevelopmentTokenError {
    file: String,
    reason: String,
}

impl DevelopmentIssuer {
    /// The `iss` of its tokens.
    pub const ISSUER: &'static str = "bulkhead-development";
    /// The `aud` of its tokens.
    pub const AUDIENCE: &'static str = "bulkhead-development";

    /// The issuer that signs with the key in this file.
    #[must_use]
    pub fn new(key: DevelopmentKey) -> Self {
        Self(key)
    }

    /// A token for `subject` in `tenant` (its external id) with this role, valid for `lifetime` from now. Generates the key
    /// if there is none yet.
    pub fn token(
        &self,
        subject: &str,
        tenant: &str,
        role: Role,
        lifetime: Duration,
    ) -> Result<String, DevelopmentTokenError> {
        let failed = |reason: String| DevelopmentTokenError { file: self.0.file().display().to_string(), reason };
        let der = match self.load_key().map_err(|error| failed(error.to_string()))? {
            Some(der) => der,
            None => self.generate_key().map_err(failed)?,
        };
        let jwk = jwk(&der).map_err(failed)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = jwk.common.key_id;
        let now = unix_seconds();
        let expires = now.saturating_add_unsigned(lifetime.as_secs());
        let claims = json!({
            "iss": Self::ISSUER, "aud": Self::AUDIENCE, "sub": subject, "iat": now, "exp": expires,
            "tenant_id": tenant, "role": role.to_value(),
        });
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&der))
            .map_err(|error| failed(error.to_string()))
    }

    /// The public key, or an empty set if there is no key yet.
    fn keys(&self) -> Result<KeySet, ProviderError> {
        let failed =
            |reason: String| ProviderError::DevelopmentKey { file: self.0.file().display().to_string(), reason };
        let Some(der) = self.load_key().map_err(|error| failed(error.to_string()))? else {
            return Ok(KeySet::default());
        };
        Ok(KeySet::from(jwk(&der).map_err(failed)?))
    }

    fn load_key(&self) -> std::io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.0.file()) {
            Ok(der) => Ok(Some(der)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn generate_key(&self) -> Result<Vec<u8>, String> {
        let pair = Ed25519KeyPair::generate().map_err(|error| error.to_string())?;
        let der = pair.to_pkcs8v1().map_err(|error| error.to_string())?.as_ref().to_vec();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.0.file());
        file.and_then(|mut file| file.write_all(&der)).map_err(|error| error.to_string())?;
        Ok(der)
    }
}

impl KeySource for DevelopmentIssuer {
    fn fetch(&self, _known: Option<Metadata>) -> BoxFuture<'_, Result<FetchedKeys, ProviderError>> {
        Box::pin(async { Ok(FetchedKeys { issuer: Self::ISSUER.to_owned(), metadata: None, keys: self.keys()? }) })
    }

    /// Short, since a person may generate the key at any moment.
    fn min_refresh_interval(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// The public part of the key. Its id is the key's thumbprint (RFC 7638).
fn jwk(der: &[u8]) -> Result<Jwk, String> {
    let not_a_key = |error: jsonwebtoken::errors::Error| format!("it holds no Ed25519 key ({error}); remove it");
    Ed25519KeyPair::from_pkcs8(der).map_err(|error| format!("it holds no Ed25519 key ({error}); remove it"))?;
    let mut jwk = Jwk::from_encoding_key(&EncodingKey::from_ed_der(der), Algorithm::EdDSA).map_err(not_a_key)?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).map_err(not_a_key)?);
    Ok(jwk)
}
