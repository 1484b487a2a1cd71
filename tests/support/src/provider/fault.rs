//! What can go wrong with a provider.

/// A way in which the provider misbehaves, from [`super::Provider::fail`] to [`super::Provider::heal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Everything answers 503.
    Unavailable,
    /// Nothing is answered until it heals.
    Slow,
    /// The metadata is not there.
    NoMetadata,
    /// The metadata is not answered until it heals.
    SlowMetadata,
    /// The key set is no JSON.
    GarbageKeys,
    /// The key set holds no key.
    NoKeys,
    /// The metadata names another issuer.
    OtherIssuer,
    /// Optional fields of the metadata are there but of no use: the end-session
    /// endpoint, the ways to authenticate.
    OddMetadata,
    /// The metadata has no endpoints for a login.
    NoLogin,
    /// The token endpoint refuses the client, right secret or not.
    ClientRejected,
    /// The token endpoint takes a client's secret in the body only, and the metadata says so.
    SecretInBodyOnly,
    /// ID tokens have the nonce of another login.
    WrongNonce,
    /// ID tokens have no nonce.
    NoNonce,
    /// ID tokens are for another client.
    WrongAudience,
    /// ID tokens are for this client and another, and were asked for by the other (`azp`).
    WrongParty,
    /// ID tokens expired an hour ago.
    ExpiredIdToken,
    /// ID tokens say in their header that they are access tokens.
    TypedIdToken,
    /// ID tokens are signed with a key that is not the provider's.
    ForgedIdToken,
    /// The token endpoint writes the type of tokens in small letters.
    LowercaseType,
    /// The Ed25519 key names its algorithm as RFC 9864 does, and so do ID tokens, which it signs.
    FullySpecified,
    /// All keys have the id `one`.
    OneKeyId,
    /// Tokens are of a type that its bearer alone may not use (RFC 9449).
    BoundTokens,
    /// The token endpoint answers with something that is not JSON.
    GarbageTokens,
}

/// What of the provider is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The metadata.
    Discovery,
    /// The key set.
    Keys,
    /// The page that asks whether to log in.
    Authorize,
    /// Where a code becomes tokens.
    Token,
    /// Where a logout leads.
    EndSession,
}

impl Endpoint {
    pub(super) const COUNT: usize = 5;
}
