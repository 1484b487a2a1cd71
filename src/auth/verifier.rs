//! Whether a token is one that this API accepts: RFC 7519, RFC 8725 and RFC 9068, with our own limits.

use super::claims::RawClaims;
use super::development::DevelopmentIssuer;
use super::key_cache::{KeyCache, Snapshot};
use crate::clock::unix_seconds;
use crate::config::{ApiToken, AuthSettings, Issuer};
use crate::entity::user::Role;
use crate::error::ErrorCode;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// What clocks may differ by, in seconds.
const LEEWAY: i64 = 60;

/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// Claims of which the first that is there names the tenant, where no setting says which one does.
const TENANT_CLAIMS: [&str; 4] = ["tenant_id", "organization_id", "org_id", "custom:tenant_id"];

/// The tenant that is ours and nobody's to claim.
const SYSTEM_TENANT: &str = "system";

const NOT_FOR_AN_API: TokenError = TokenError::Invalid("the token is not for calling an API");

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is malformed, or a claim is missing or not acceptable.
    #[error("{0}")]
    Invalid(&'static str),
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its signature, algorithm or key is not acceptable.
    #[error("{0}")]
    Signature(&'static str),
    /// No claim names a tenant.
    #[error("no claim names a tenant")]
    NoTenant,
    /// The claim that names the tenant is not of a tenant's form.
    #[error("the tenant claim is not 3 to 128 letters, digits, '_' or '-', or is reserved")]
    BadTenant,
    /// There are no keys to check it with.
    #[error("the identity provider's keys are not to be had")]
    NoKeys,
}

impl From<TokenError> for ErrorCode {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid(_) => Self::InvalidToken,
            TokenError::Expired => Self::TokenExpired,
            TokenError::Signature(_) => Self::BadSignature,
            TokenError::NoTenant => Self::NoTenant,
            TokenError::BadTenant => Self::BadTenant,
            TokenError::NoKeys => Self::ProviderUnreachable,
        }
    }
}

/// What an accepted token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The provider's name for the caller.
    pub subject: String,
    /// The tenant's external id: 3 to 128 of `[A-Za-z0-9_-]`.
    pub tenant: String,
    /// What the token says of the caller's role.
    pub role: RoleClaim,
    /// When it expires: Unix time in seconds.
    pub expires_at: i64,
}

/// What a token says of its bearer's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleClaim {
    /// Nothing: the claim is not there, or null.
    Absent,
    /// None that is ours: the claim is there, but names other things.
    Foreign,
    /// This role, the highest of those that the claim names.
    Of(Role),
}

impl RoleClaim {
    fn of(claim: Option<&Value>) -> Self {
        match claim {
            None | Some(Value::Null) => Self::Absent,
            Some(claim) => highest_role(claim).map_or(Self::Foreign, Self::Of),
        }
    }

    /// The role, which is the `row`'s where the token says nothing. A claim that names no role of ours gives none: the
    /// provider has the say, and may have taken the role away.
    #[must_use]
    pub fn or(self, row: Option<Role>) -> Option<Role> {
        match self {
            Self::Absent => row,
            Self::Foreign => None,
            Self::Of(role) => Some(role),
        }
    }
}

/// The rules, and the tokens that have passed them lately.
#[derive(Debug)]
pub(super) struct Verifier {
    audiences: Vec<String>,
    api_token: ApiToken,
    /// The one claim that names the tenant; without it, one of [`TENANT_CLAIMS`].
    tenant_claim: Option<String>,
    role_claim: String,
    max_lifetime: Duration,
    /// By the token's SHA-256, so that memory holds no token.
    remembered: Cache<[u8; 32], Remembered>,
}

#[derive(Debug, Clone)]
struct Remembered {
    generation: u64,
    claims: Arc<Claims>,
}

/// What is read of a token's header before its signature is checked (RFC 7515, section 4.1).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
}

impl Verifier {
    pub(super) fn new(identity: &AuthSettings) -> Self {
        Self {
            audiences: match &identity.issuer {
                Issuer::Provider(provider) => provider.accepted_audiences(),
                Issuer::Development(_) => vec![DevelopmentIssuer::AUDIENCE.to_owned()],
                Issuer::Disabled => Vec::new(),
            },
            api_token: match &identity.issuer {
                Issuer::Provider(provider) => provider.api_token,
                Issuer::Development(_) | Issuer::Disabled => ApiToken::Access,
            },
            tenant_claim: match &identity.issuer {
                // The setting is about a provider's tokens; our own always say it in the same claim.
                Issuer::Development(_) => None,
                Issuer::Provider(_) | Issuer::Disabled => identity.tenant_claim.clone(),
            },
            role_claim: identity.role_claim.clone(),
            max_lifetime: identity.max_token_lifetime,
            remembered: Cache::new(identity.token_cache_capacity),
        }
    }

    /// The claims of a caller's token.
    pub(super) async fn verify(&self, keys: &KeyCache, token: &str) -> Result<Arc<Claims>, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Invalid("the token is longer than 16 KiB"));
        }
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let snapshot = keys.first().await.ok_or(TokenError::NoKeys)?;
        if let Some(known) = self.remembered.get(&id).filter(|known| known.generation == snapshot.generation) {
            return if unix_seconds() <= known.claims.expires_at + LEEWAY {
                Ok(known.claims)
            } else {
                Err(TokenError::Expired)
            };
        }
        let (claims, generation) = self.signed_claims(keys, snapshot, token, &self.audiences).await?;
        let claims = Arc::new(self.judge(&claims)?);
        self.remembered.insert(id, Remembered { generation, claims: Arc::clone(&claims) });
        Ok(claims)
    }

    /// The claims of an ID token that has just come from the provider, for `client_id` and with this nonce
    /// (OpenID Connect Core 1.0, section 3.1.3.7).
    pub(super) async fn verify_id_token(
        &self,
        keys: &KeyCache,
        token: &str,
        client_id: &str,
        nonce: &str,
    ) -> Result<(), TokenError> {
        let snapshot = keys.first().await.ok_or(TokenError::NoKeys)?;
        let (claims, _) = self.signed_claims(keys, snapshot, token, &[client_id.to_owned()]).await?;
        if claims.text("nonce") != Some(nonce) {
            return Err(TokenError::Invalid("the ID token's nonce is not the login's"));
        }
        if claims.get("azp").is_some() && claims.text("azp") != Some(client_id) {
            return Err(TokenError::Invalid("the ID token is for another party (azp)"));
        }
        Ok(())
    }

    /// The claims of a token whose signature, issuer, audience, times and subject are good, and the generation of the
    /// keys that say so.
    async fn signed_claims(
        &self,
        keys: &KeyCache,
        mut snapshot: Arc<Snapshot>,
        token: &str,
        audiences: &[String],
    ) -> Result<(RawClaims, u64), TokenError> {
        let header = header(token)?;
        let algorithm = match header.alg.as_str() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(TokenError::Signature("the algorithm is not RS256, ES256 or EdDSA")),
        };
        let Some(key_id) = header.kid.filter(|id| !id.is_empty()) else {
            return Err(TokenError::Signature("the header names no key (kid)"));
        };
        if snapshot.find(&key_id).is_none() {
            snapshot = keys.refreshed().await.ok_or(TokenError::NoKeys)?;
        }
        let key = snapshot.find(&key_id).ok_or(TokenError::Signature("the provider has no such key (kid)"))?;
        if key.algorithm != algorithm {
            return Err(TokenError::Signature("the algorithm is not the key's"));
        }
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY.unsigned_abs();
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&snapshot.issuer]);
        validation.set_audience(audiences);
        let claims = jsonwebtoken::decode::<RawClaims>(token, &key.decoding, &validation)
            .map_err(|error| refusal(error.kind()))?
            .claims;
        check_times_and_names(&claims, &snapshot.issuer)?;
        Ok((claims, snapshot.generation))
    }

    /// What the token says of its bearer, within our own limits.
    fn judge(&self, claims: &RawClaims) -> Result<Claims, TokenError> {
        check_kind(claims, self.api_token)?;
        let expires_at = claims.date("exp").unwrap_or_default();
        let lifetime = expires_at - claims.date("iat").unwrap_or_default();
        if lifetime.unsigned_abs() > self.max_lifetime.as_secs() {
            return Err(TokenError::Invalid("the token lives longer than JWT_MAX_LIFETIME_MINUTES"));
        }
        let tenant = self.tenant(claims).ok_or(TokenError::NoTenant)?;
        let tenant = tenant.as_str().filter(|name| is_tenant(name)).ok_or(TokenError::BadTenant)?;
        Ok(Claims {
            subject: claims.text("sub").unwrap_or_default().to_owned(),
            tenant: tenant.to_owned(),
            role: RoleClaim::of(claims.get(&self.role_claim)),
            expires_at,
        })
    }

    /// The claim that names the tenant. Where one is configured, no other takes its place: a user whom the provider has
    /// not given that claim could otherwise choose a tenant with a claim that users may edit.
    fn tenant<'c>(&self, claims: &'c RawClaims) -> Option<&'c Value> {
        let claim = |name: &str| claims.get(name).filter(|value| !value.is_null());
        match &self.tenant_claim {
            Some(name) => claim(name),
            None => TENANT_CLAIMS.into_iter().find_map(claim),
        }
    }
}

fn header(token: &str) -> Result<Header, TokenError> {
    const MALFORMED: TokenError = TokenError::Invalid("the token is not a signed JWT");
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(MALFORMED);
    };
    let json = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| MALFORMED)?;
    let header: Header = serde_json::from_slice(&json).map_err(|_| MALFORMED)?;
    if header.crit.is_some() {
        return Err(TokenError::Invalid("the header demands an extension that is not understood (crit)"));
    }
    // RFC 8725, section 3.11: a token of another kind is not one of ours, whoever has signed it.
    let kind = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    if !matches!(kind.trim_start_matches("application/"), "jwt" | "at+jwt") {
        return Err(TokenError::Invalid("the token is of another kind (typ)"));
    }
    Ok(header)
}

/// What the library leaves to its caller.
fn check_times_and_names(claims: &RawClaims, issuer: &str) -> Result<(), TokenError> {
    // The library takes a list of issuers where one of them fits; a token has one issuer (RFC 7519, section 4.1.1).
    if claims.text("iss") != Some(issuer) {
        return Err(TokenError::Invalid("the issuer is another one (iss)"));
    }
    // OpenID Connect Core 1.0, section 2: 255 characters at most. A control character has no place in a name.
    if claims.text("sub").is_none_or(|sub| sub.is_empty() || sub.len() > 255 || sub.chars().any(char::is_control)) {
        return Err(TokenError::Invalid("the token names nobody, or by an impossible name (sub)"));
    }
    let (Some(begins), Some(ends)) = (claims.date("iat"), claims.date("exp")) else {
        return Err(TokenError::Invalid("iat or exp is missing or not a date"));
    };
    if begins > unix_seconds() + LEEWAY {
        return Err(TokenError::Invalid("the token was issued in the future (iat)"));
    }
    if begins >= ends {
        return Err(TokenError::Invalid("the token expires before it was issued"));
    }
    // Cognito says it in token_use, Keycloak in typ.
    let of_another_use = |name: &str| {
        claims
            .text(name)
            .is_some_and(|usage| ["refresh", "offline", "logout"].iter().any(|other| usage.eq_ignore_ascii_case(other)))
    };
    if of_another_use("token_use") || of_another_use("typ") {
        return Err(NOT_FOR_AN_API);
    }
    Ok(())
}

/// Whether the token is one of the kind that callers use. Where `OIDC_AUDIENCE` is not set, the audience of an ID token
/// is an access token's too.
fn check_kind(claims: &RawClaims, api_token: ApiToken) -> Result<(), TokenError> {
    let claim = |name: &str| claims.get(name).filter(|value| !value.is_null());
    let said = |name| claim(name).map(|value| value.as_str().unwrap_or_default().to_ascii_lowercase());
    let (token_use, typ) = (said("token_use"), said("typ"));
    let is_id_token = match (token_use.as_deref(), typ.as_deref()) {
        // Keycloak has a dozen more: for registering clients, for links in mails.
        (_, Some(typ)) if !matches!(typ, "bearer" | "jwt" | "at+jwt" | "id") => return Err(NOT_FOR_AN_API),
        (Some("id"), _) | (_, Some("id")) => true,
        (Some("access"), _) | (_, Some("bearer" | "at+jwt")) => false,
        // Others do not say it. These are claims of ID tokens alone (OpenID Connect Core 1.0, sections 2 and 3.3.2.11);
        // a login here always asks for a nonce.
        _ => ["nonce", "at_hash", "c_hash"].iter().any(|name| claim(name).is_some()),
    };
    if is_id_token && api_token == ApiToken::Access {
        return Err(TokenError::Invalid("it is an ID token, and OIDC_API_TOKEN asks for access tokens"));
    }
    Ok(())
}

fn refusal(error: &ErrorKind) -> TokenError {
    match error {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::Invalid("the token is not valid yet (nbf)"),
        ErrorKind::InvalidAudience => TokenError::Invalid("the token is for another audience (aud)"),
        ErrorKind::InvalidIssuer => TokenError::Invalid("the issuer is another one (iss)"),
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            TokenError::Invalid("a claim is missing or malformed: exp, iss, aud, sub or nbf")
        }
        ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => {
            TokenError::Invalid("the token is not a signed JWT")
        }
        _ => TokenError::Signature("the signature is not the key's"),
    }
}

/// Whether this may name a tenant in a token: 3 to 128 of `[A-Za-z0-9_-]`, and not the reserved `system`.
#[must_use]
pub fn is_tenant(name: &str) -> bool {
    (3..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        && !name.eq_ignore_ascii_case(SYSTEM_TENANT)
}

/// A role by its name, or the highest of a list of them; groups and scopes of other services are passed over.
fn highest_role(claim: &Value) -> Option<Role> {
    let role = |value: &Value| match value.as_str()? {
        "admin" => Some(Role::Admin),
        "member" => Some(Role::Member),
        "viewer" => Some(Role::Viewer),
        _ => None,
    };
    match claim {
        Value::Array(values) => values.iter().filter_map(role).max(),
        value => role(value),
    }
}
