//! Tokens as `bulkhead dev-token` makes them, many at once: one line for each external id of a tenant on standard input.

use contenders::{ISSUER, development_key};
use jsonwebtoken::{Algorithm, Header};
use std::io::Write;
use time::OffsetDateTime;

fn main() -> anyhow::Result<()> {
    let (key, public) = development_key()?;
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = public.common.key_id;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let mut out = std::io::stdout().lock();
    for tenant in std::io::stdin().lines() {
        let claims = serde_json::json!({
            "iss": ISSUER, "aud": ISSUER, "sub": "developer", "iat": now, "exp": now + 86_400, "tenant_id": tenant?,
            "role": "admin",
        });
        writeln!(out, "{}", jsonwebtoken::encode(&header, &claims, &key)?)?;
    }
    Ok(())
}
