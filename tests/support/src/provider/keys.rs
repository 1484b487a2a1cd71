//! The provider's keys: real ones, made once per process, and how they show in a key set (RFC 7517).

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PSS_SHA256, RsaEncoding,
};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Which of the provider's keys signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// RSA of 2048 bits: RS256.
    Rsa,
    /// Elliptic curve P-256: ES256.
    Ec,
    /// Ed25519: EdDSA.
    Ed,
    /// RSA of 2048 bits, published with `use: enc`: no token may be signed with it.
    Encryption,
    /// RSA of 2048 bits, never published: an attacker's.
    Stranger,
}

impl Signer {
    /// The signers whose tokens are good.
    pub const GOOD: [Self; 3] = [Self::Rsa, Self::Ec, Self::Ed];

    /// The `alg` that belongs to the key.
    #[must_use]
    pub fn algorithm(self) -> &'static str {
        match self {
            Self::Rsa | Self::Encryption | Self::Stranger => "RS256",
            Self::Ec => "ES256",
            Self::Ed => "EdDSA",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ec => "ec",
            Self::Ed => "ed",
            Self::Encryption => "enc",
            Self::Stranger => "stranger",
        }
    }
}

/// How the bytes are really signed, whatever the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// As belongs to the key.
    OfTheKey,
    /// RSASSA-PKCS1-v1_5 with SHA-384, by an RSA key.
    Rs384,
    /// RSASSA-PSS with SHA-256, by an RSA key.
    Ps256,
    /// HMAC with SHA-256 and this secret.
    Hs256(Vec<u8>),
    /// No bytes at all.
    Empty,
}

/// How the RSA public key is written: each is a secret that a confused verifier might take HS256 with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicKeyForm {
    /// PEM of the SubjectPublicKeyInfo.
    Pem,
    /// DER of the SubjectPublicKeyInfo.
    Der,
    /// DER of the RSAPublicKey (PKCS #1).
    Pkcs1,
    /// The JSON Web Key.
    Jwk,
}

struct Pairs {
    rsa: rsa::KeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Pairs {
    fn generate() -> Self {
        Self { rsa: generate_rsa(), ec: generate_ec(), ed: Ed25519KeyPair::generate().expect("an Ed25519 key") }
    }
}

fn generate_rsa() -> rsa::KeyPair {
    rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("an RSA key")
}

fn generate_ec() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a P-256 key")
}

/// Three sets of keys, through which rotation goes in turns under ever new ids: RSA keys are slow to make.
static PAIRS: [LazyLock<Pairs>; 3] = [const { LazyLock::new(Pairs::generate) }; 3];
static ENCRYPTION: LazyLock<rsa::KeyPair> = LazyLock::new(generate_rsa);
static STRANGER: LazyLock<rsa::KeyPair> = LazyLock::new(generate_rsa);

/// The keys after a number of rotations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    pub(super) rotations: usize,
    /// How often the keys were replaced under the ids that they had.
    pub(super) replacements: usize,
}

impl Keys {
    /// The key's id; every rotation gives new ones.
    pub(super) fn id(self, signer: Signer) -> String {
        format!("{}-{}", signer.name(), self.rotations)
    }

    fn pairs(self) -> &'static Pairs {
        &PAIRS[(self.rotations + self.replacements) % PAIRS.len()]
    }

    fn rsa(self, signer: Signer) -> &'static rsa::KeyPair {
        match signer {
            Signer::Encryption => &ENCRYPTION,
            Signer::Stranger => &STRANGER,
            _ => &self.pairs().rsa,
        }
    }

    pub(super) fn sign(self, signer: Signer, signature: &Signature, message: &[u8]) -> Vec<u8> {
        match (signature, signer) {
            (Signature::Empty, _) => Vec::new(),
            (Signature::Hs256(secret), _) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
            }
            (Signature::Rs384, _) => sign_rsa(self.rsa(signer), &RSA_PKCS1_SHA384, message),
            (Signature::Ps256, _) => sign_rsa(self.rsa(signer), &RSA_PSS_SHA256, message),
            (Signature::OfTheKey, Signer::Ec) => {
                self.pairs().ec.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
            }
            (Signature::OfTheKey, Signer::Ed) => self.pairs().ed.sign(message).as_ref().to_vec(),
            (Signature::OfTheKey, _) => sign_rsa(self.rsa(signer), &RSA_PKCS1_SHA256, message),
        }
    }

    /// The public key as a JSON Web Key: its type and parameters, id, use and algorithm.
    pub(super) fn jwk(self, signer: Signer) -> Value {
        let mut jwk = match signer {
            Signer::Ec => {
                // An uncompressed point (SEC 1, section 2.3.3): 4, x, y.
                let (x, y) = self.pairs().ec.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y)})
            }
            Signer::Ed => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(self.pairs().ed.public_key().as_ref())})
            }
            Signer::Rsa | Signer::Encryption | Signer::Stranger => {
                json!({"kty": "RSA", "n": base64url(modulus(self.rsa(signer))), "e": "AQAB"})
            }
        };
        jwk["kid"] = self.id(signer).into();
        jwk["use"] = if signer == Signer::Encryption { "enc" } else { "sig" }.into();
        jwk["alg"] = if signer == Signer::Encryption { "RSA-OAEP" } else { signer.algorithm() }.into();
        jwk
    }

    pub(super) fn rsa_public_key(self, form: PublicKeyForm) -> Vec<u8> {
        let key = self.rsa(Signer::Rsa).public_key();
        let der = || -> PublicKeyX509Der<'_> { key.as_der().expect("its DER") };
        match form {
            PublicKeyForm::Pkcs1 => key.as_ref().to_vec(),
            PublicKeyForm::Der => der().as_ref().to_vec(),
            PublicKeyForm::Pem => {
                let body = BASE64_STANDARD.encode(der().as_ref());
                let lines: Vec<&[u8]> = body.as_bytes().chunks(64).collect();
                let body = lines.join(b"\n".as_slice());
                [b"-----BEGIN PUBLIC KEY-----\n", body.as_slice(), b"\n-----END PUBLIC KEY-----\n"].concat()
            }
            PublicKeyForm::Jwk => self.jwk(Signer::Rsa).to_string().into_bytes(),
        }
    }
}

fn sign_rsa(key: &rsa::KeyPair, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message, &mut signature).expect("a signature");
    signature
}

/// The modulus, out of the DER of the RSAPublicKey (RFC 8017, appendix A.1.1): for 2048 bits, the headers of the
/// sequence and of the number take nine bytes, the last of them a zero that keeps the number positive.
fn modulus(key: &rsa::KeyPair) -> &[u8] {
    const HEADERS: usize = 9;
    &key.public_key().as_ref()[HEADERS..HEADERS + 256]
}

/// The `at_hash` of an access token in an ID token by this signer (OpenID Connect Core 1.0, section 3.1.3.6).
pub(super) fn token_hash(access_token: &str, signer: Signer) -> String {
    let function = if signer == Signer::Ed { &SHA512 } else { &SHA256 };
    let hash = digest(function, access_token.as_bytes());
    base64url(&hash.as_ref()[..hash.as_ref().len() / 2])
}

/// Base64 with the alphabet of URLs and without padding (RFC 7515, section 2).
pub(super) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{Algorithm, DecodingKey, crypto};

    #[test]
    fn another_library_accepts_every_signature() {
        let keys = Keys { rotations: 0, replacements: 0 };
        for (signer, signature, algorithm) in [
            (Signer::Rsa, Signature::OfTheKey, Algorithm::RS256),
            (Signer::Rsa, Signature::Rs384, Algorithm::RS384),
            (Signer::Rsa, Signature::Ps256, Algorithm::PS256),
            (Signer::Ec, Signature::OfTheKey, Algorithm::ES256),
            (Signer::Ed, Signature::OfTheKey, Algorithm::EdDSA),
            (Signer::Encryption, Signature::OfTheKey, Algorithm::RS256),
        ] {
            let mut jwk = keys.jwk(signer);
            jwk["alg"] = signer.algorithm().into();
            let key = DecodingKey::from_jwk(&serde_json::from_value::<Jwk>(jwk).unwrap()).unwrap();
            let bytes = base64url(keys.sign(signer, &signature, b"message"));
            assert!(crypto::verify(&bytes, b"message", &key, algorithm).unwrap(), "{signer:?} {signature:?}");
            let other = crypto::verify(&bytes, b"another", &key, algorithm);
            assert!(!other.unwrap_or(false), "{signer:?} {signature:?}");
        }
    }

    #[test]
    fn rotation_changes_ids_and_keys() {
        let (old, new) = (Keys { rotations: 0, replacements: 0 }, Keys { rotations: 1, replacements: 0 });
        for signer in Signer::GOOD {
            let parameter = if signer == Signer::Rsa { "n" } else { "x" };
            assert_ne!(old.id(signer), new.id(signer));
            assert_ne!(old.jwk(signer)[parameter], new.jwk(signer)[parameter]);
            let replaced = Keys { replacements: 1, ..old };
            assert_eq!(old.id(signer), replaced.id(signer));
            assert_ne!(old.jwk(signer)[parameter], replaced.jwk(signer)[parameter]);
        }
    }
}
