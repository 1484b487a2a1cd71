//! Tokens, good and forged: any header, any claims, any signature.

use super::keys::{Keys, PublicKeyForm, Signature, Signer, base64url};
use serde_json::{Map, Value, json};

/// A token in the making: good as it starts, until something is changed.
#[derive(Debug, Clone)]
pub struct Token {
    keys: Keys,
    signer: Signer,
    signature: Signature,
    header: Map<String, Value>,
    raw_header: Option<String>,
    claims: String,
}

impl Token {
    pub(super) fn new(keys: Keys, claims: &Value) -> Self {
        let token = Self {
            keys,
            signer: Signer::Rsa,
            signature: Signature::OfTheKey,
            header: Map::new(),
            raw_header: None,
            claims: claims.to_string(),
        };
        token.header("typ", "JWT").by(Signer::Rsa)
    }

    /// Signs with this key, and says so in `alg` and `kid`.
    #[must_use]
    pub fn by(mut self, signer: Signer) -> Self {
        self.signer = signer;
        let id = self.keys.id(signer);
        self.header("alg", signer.algorithm()).header("kid", id)
    }

    /// Sets a member of the header; the signature stays what it is.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Takes a member out of the header.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Takes this text for the header, JSON or not.
    #[must_use]
    pub fn raw_header(mut self, text: impl Into<String>) -> Self {
        self.raw_header = Some(text.into());
        self
    }

    /// Takes this text for the claims, JSON or not.
    #[must_use]
    pub fn raw_claims(mut self, text: impl Into<String>) -> Self {
        self.claims = text.into();
        self
    }

    /// Writes another claim in front of all, though it may be there already: the name then comes twice.
    #[must_use]
    pub fn duplicate_claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        let first = format!("{{{}:{},", Value::from(name), value.into());
        self.claims = self.claims.replacen('{', &first, 1);
        self
    }

    /// Signs in this way, whatever the header says.
    #[must_use]
    pub fn signed_with(mut self, signature: Signature) -> Self {
        self.signature = signature;
        self
    }

    /// Claims `alg: none`, spelled in this way, with no signature.
    #[must_use]
    pub fn unsigned(self, spelling: &str) -> Self {
        self.header("alg", spelling).signed_with(Signature::Empty)
    }

    /// Signs by HS256 with the RSA public key, which everybody knows, as the secret.
    #[must_use]
    pub fn keyed_with_the_public_key(self, form: PublicKeyForm) -> Self {
        let secret = self.keys.rsa_public_key(form);
        self.header("alg", "HS256").signed_with(Signature::Hs256(secret))
    }

    /// The token: header, claims, signature.
    #[must_use]
    pub fn encode(&self) -> String {
        let header = self.raw_header.clone().unwrap_or_else(|| json!(self.header).to_string());
        let message = format!("{}.{}", base64url(header), base64url(&self.claims));
        let signature = self.keys.sign(self.signer, &self.signature, message.as_bytes());
        format!("{message}.{}", base64url(signature))
    }

    /// The token with other claims than those that were signed.
    #[must_use]
    pub fn encode_tampered(&self, claims: &Value) -> String {
        let good = self.encode();
        let [header, _, signature] = parts(&good);
        format!("{header}.{}.{signature}", base64url(claims.to_string()))
    }

    /// The token with the signature of another.
    #[must_use]
    pub fn encode_with_signature_of(&self, other: &Self) -> String {
        let (own, other) = (self.encode(), other.encode());
        let ([header, claims, _], [.., signature]) = (parts(&own), parts(&other));
        format!("{header}.{claims}.{signature}")
    }
}

/// Header, claims and signature of a token in its compact form.
fn parts(token: &str) -> [&str; 3] {
    let parts: Vec<&str> = token.split('.').collect();
    parts.try_into().expect("three parts")
}
