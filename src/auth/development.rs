//! The development issuer: a key of our own in a file, and tokens signed with it.
//!
//! It takes a [`DevelopmentKey`], which only settings of ENVIRONMENT=development hold: elsewhere there is nothing to
//! sign with, nothing to check with, and no way to ask for it.

use super::discovery::ProviderError;
use super::key_set::KeySet;
use crate::clock::unix_seconds;
use crate::config::DevelopmentKey;
use crate::entity::user::Role;
use aws_lc_rs::signature::Ed25519KeyPair;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sea_orm::ActiveEnum;
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Signs tokens for local use, and gives the key to check them with.
#[derive(Debug, Clone)]
pub struct DevelopmentIssuer(DevelopmentKey);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("DEVELOPMENT_KEY_FILE: cannot use {file}: {what}")]
pub struct DevelopmentTokenError {
    file: String,
    what: String,
}

impl DevelopmentIssuer {
    /// The `iss` of its tokens.
    pub const ISSUER: &'static str = "bulkhead-development";
    /// The `aud` of its tokens.
    pub const AUDIENCE: &'static str = "bulkhead-development";

    /// The issuer whose key lies there.
    #[must_use]
    pub fn new(key: DevelopmentKey) -> Self {
        Self(key)
    }

    /// A token for `subject` in `tenant` (its external id) with this role, good for `lifetime` from now. Makes the key
    /// where there is none yet.
    pub fn token(
        &self,
        subject: &str,
        tenant: &str,
        role: Role,
        lifetime: Duration,
    ) -> Result<String, DevelopmentTokenError> {
        let failed = |what: String| DevelopmentTokenError { file: self.0.file().display().to_string(), what };
        let der = match self.read().map_err(|error| failed(error.to_string()))? {
            Some(der) => der,
            None => self.make().map_err(failed)?,
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

    /// The public key, if there is a key yet.
    pub(super) fn keys(&self) -> Result<KeySet, ProviderError> {
        let failed = |what: String| ProviderError::DevelopmentKey { file: self.0.file().display().to_string(), what };
        let Some(der) = self.read().map_err(|error| failed(error.to_string()))? else { return Ok(KeySet::default()) };
        Ok(KeySet::from(jwk(&der).map_err(failed)?))
    }

    fn read(&self) -> std::io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.0.file()) {
            Ok(der) => Ok(Some(der)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn make(&self) -> Result<Vec<u8>, String> {
        let pair = Ed25519KeyPair::generate().map_err(|error| error.to_string())?;
        let der = pair.to_pkcs8v1().map_err(|error| error.to_string())?.as_ref().to_vec();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.0.file());
        file.and_then(|mut file| file.write_all(&der)).map_err(|error| error.to_string())?;
        Ok(der)
    }
}

/// The public part, its id the key's thumbprint (RFC 7638).
fn jwk(der: &[u8]) -> Result<Jwk, String> {
    let known = |error: jsonwebtoken::errors::Error| format!("it holds no Ed25519 key ({error}); remove it");
    Ed25519KeyPair::from_pkcs8(der).map_err(|error| format!("it holds no Ed25519 key ({error}); remove it"))?;
    let mut jwk = Jwk::from_encoding_key(&EncodingKey::from_ed_der(der), Algorithm::EdDSA).map_err(known)?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).map_err(known)?);
    Ok(jwk)
}
