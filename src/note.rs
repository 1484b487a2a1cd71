//! Signed notes (c2sp.org/signed-note) of any text, and the checkpoints of logs that are written as such
//! (c2sp.org/tlog-checkpoint).

use crate::merkle::Hash;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The type of a key and its signatures: Ed25519.
const ED25519_TYPE: u8 = 1;

/// What a signature's line begins with.
const SIGNATURE: &str = "\u{2014} ";

/// The longest checkpoint that is read, in bytes.
const CHECKPOINT_BYTES_MAX: usize = 64 * 1024;

/// How many bytes a key is made of.
pub(crate) const SEED_BYTES: usize = 32;

/// Whether a key may have this name: not empty, no spaces, no `+`.
#[must_use]
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// The key that an instance signs with. Its name as a signer is the origin of what is signed, such as a log.
#[derive(Clone)]
pub struct SigningKey {
    instance: String,
    pair: Arc<Ed25519KeyPair>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Of 32 random bytes in base64, for the instance of this name; `None` where they are not that.
    #[must_use]
    pub fn new(instance: &str, seed: &str) -> Option<Self> {
        let seed = BASE64_STANDARD.decode(seed.trim()).ok().filter(|seed| seed.len() == SEED_BYTES)?;
        let pair = Arc::new(Ed25519KeyPair::from_seed_unchecked(&seed).ok()?);
        Some(Self { instance: instance.to_owned(), pair })
    }

    /// The origin of this log, or of other texts, of the instance.
    #[must_use]
    pub fn origin(&self, log: impl fmt::Display) -> String {
        format!("{}/{log}", self.instance)
    }

    /// What verifies signatures on checkpoints of this origin. The name of the key "SHOULD match the origin line"
    /// (c2sp.org/tlog-checkpoint).
    #[must_use]
    pub fn verifier(&self, origin: &str) -> Verifier {
        let mut key = [0; SEED_BYTES];
        key.copy_from_slice(self.pair.public_key().as_ref());
        Verifier::new(origin, key)
    }

    /// The checkpoint as a signed note.
    #[must_use]
    pub fn sign(&self, checkpoint: &Checkpoint) -> String {
        self.sign_text(&checkpoint.origin, &checkpoint.to_string())
    }

    /// A text, which ends with its last line's end, as a note that the key of this origin has signed.
    #[must_use]
    pub fn sign_text(&self, origin: &str, text: &str) -> String {
        let mut signature = self.verifier(origin).id.to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n{SIGNATURE}{origin} {}\n", BASE64_STANDARD.encode(signature))
    }
}

/// The size and the root of a log at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: `INSTANCE/TENANT`.
    pub origin: String,
    /// How many entries it had.
    pub size: u64,
    /// The root of the Merkle tree over them.
    pub root: Hash,
}

impl fmt::Display for Checkpoint {
    /// The text that is signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, BASE64_STANDARD.encode(self.root))
    }
}

impl Checkpoint {
    /// The log's name within its instance.
    #[must_use]
    pub fn log(&self) -> &str {
        self.origin.rsplit('/').next().unwrap_or_default()
    }

    fn of_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (origin, digits, root) = (lines.next()?.to_owned(), lines.next()?, lines.next()?);
        let size: u64 = digits.parse().ok()?;
        let root = BASE64_STANDARD.decode(root).ok()?.try_into().ok()?;
        // One notation for a number. Extension lines are left to those who know them.
        (!origin.is_empty() && size.to_string() == digits).then_some(Self { origin, size, root })
    }
}

/// Why a note is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is no signed checkpoint.
    #[error("it is no signed checkpoint")]
    Malformed,
    /// It is no note with a signature.
    #[error("it is not signed")]
    Unsigned,
    /// None of the keys has signed it.
    #[error("none of the keys that are given has signed it")]
    UnknownKey,
    /// A signature of a key that is known does not fit the text.
    #[error("its signature does not fit its text")]
    BadSignature,
}

/// A public key and its name, in the form of a note's verifier key: `NAME+ID+KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    id: [u8; 4],
    key: [u8; SEED_BYTES],
}

impl Verifier {
    fn new(name: &str, key: [u8; SEED_BYTES]) -> Self {
        let hash = digest(&SHA256, &[name.as_bytes(), b"\n", &[ED25519_TYPE], &key].concat());
        let mut id = [0; 4];
        id.copy_from_slice(&hash.as_ref()[..4]);
        Self { name: name.to_owned(), id, key }
    }

    /// Whose log it verifies.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Verifier {
    /// The form is that of golang.org/x/mod/sumdb/note.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[ED25519_TYPE][..], &self.key].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id), BASE64_STANDARD.encode(key))
    }
}

impl FromStr for Verifier {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const REFUSED: &str = "must be a verifier key as `bulkhead audit key` prints it";
        // Base64 has `+`, too.
        let mut parts = text.trim().splitn(3, '+');
        let (name, id, key) = (parts.next(), parts.next(), parts.next());
        let (Some(name), Some(id), Some(key)) = (name, id, key) else { return Err(REFUSED) };
        let key = BASE64_STANDARD.decode(key).ok().filter(|key| key.first() == Some(&ED25519_TYPE));
        let key = key.and_then(|key| key[1..].try_into().ok()).ok_or(REFUSED)?;
        let verifier = Self::new(name, key);
        (is_name(name) && hex::encode(verifier.id) == id).then_some(verifier).ok_or(REFUSED)
    }
}

/// The text of a note, which one of these keys has signed. Signatures of other keys do not count.
fn text_of<'n>(note: &'n str, verifiers: &[Verifier]) -> Result<(&'n str, Vec<&'n str>), NoteError> {
    let is_control = |c: char| c < ' ' && c != '\n';
    if !note.ends_with('\n') || note.contains(is_control) {
        return Err(NoteError::Unsigned);
    }
    let end = note.rfind("\n\n").ok_or(NoteError::Unsigned)? + 1;
    let (text, signatures) = (&note[..end], &note[end + 1..]);
    let mut signers = Vec::new();
    for line in signatures.lines() {
        let line = line.strip_prefix(SIGNATURE).and_then(|line| line.split_once(' '));
        let (name, signature) = line.filter(|(name, _)| is_name(name)).ok_or(NoteError::Unsigned)?;
        let signature = BASE64_STANDARD.decode(signature).map_err(|_| NoteError::Unsigned)?;
        let (id, signature) = signature.split_at_checked(4).ok_or(NoteError::Unsigned)?;
        if let Some(verifier) = verifiers.iter().find(|verifier| verifier.name == name && verifier.id == id) {
            let key = UnparsedPublicKey::new(&ED25519, &verifier.key);
            key.verify(text.as_bytes(), signature).map_err(|_| NoteError::BadSignature)?;
            signers.push(name);
        }
    }
    if signers.is_empty() { Err(NoteError::UnknownKey) } else { Ok((text, signers)) }
}

/// The checkpoint that a note holds, where a key whose name is its origin has signed it.
pub fn open(note: &str, verifiers: &[Verifier]) -> Result<Checkpoint, NoteError> {
    if note.len() > CHECKPOINT_BYTES_MAX {
        return Err(NoteError::Malformed);
    }
    let (text, signers) = text_of(note, verifiers)?;
    let checkpoint = Checkpoint::of_text(text).ok_or(NoteError::Malformed)?;
    // A key of one log says nothing of another.
    if signers.contains(&checkpoint.origin.as_str()) { Ok(checkpoint) } else { Err(NoteError::UnknownKey) }
}

/// The text of a note that one of these keys has signed, where it is the instance's key for texts of this name: `INSTANCE/NAME`.
pub fn open_text<'n>(note: &'n str, name: &str, verifiers: &[Verifier]) -> Result<&'n str, NoteError> {
    let (text, signers) = text_of(note, verifiers)?;
    // A key of one log has signed no such text.
    let is_named = |signer: &&str| signer.rsplit_once('/').is_some_and(|(_, last)| last == name);
    if signers.iter().any(is_named) { Ok(text) } else { Err(NoteError::UnknownKey) }
}

/// The text of a note, whoever has signed it; all of it, where nobody has.
#[must_use]
pub fn text_unverified(note: &str) -> &str {
    let end = note.rfind("\n\n").filter(|end| note[end + 2..].starts_with(SIGNATURE));
    end.map_or(note, |end| &note[..=end])
}

/// The checkpoint that a note holds, whoever has signed it.
#[must_use]
pub fn read_unverified(note: &str) -> Option<Checkpoint> {
    Checkpoint::of_text(&note[..=note.rfind("\n\n")?])
}

/// The notes of a text that has one behind the other.
#[must_use]
pub fn split(text: &str) -> Vec<String> {
    let (mut notes, mut note, mut signed) = (Vec::new(), String::new(), false);
    for line in text.lines() {
        let is_signature = line.starts_with(SIGNATURE);
        if signed && !is_signature {
            notes.push(std::mem::take(&mut note));
            signed = false;
        }
        // Nothing but a note's own lines.
        if !(note.is_empty() && line.is_empty()) {
            signed |= is_signature;
            note.push_str(line);
            note.push('\n');
        }
    }
    notes.extend((!note.is_empty()).then_some(note));
    notes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SEED: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn checkpoint(origin: &str) -> Checkpoint {
        Checkpoint { origin: origin.to_owned(), size: 42, root: [7; 32] }
    }

    #[test]
    fn keys_and_notes_are_those_of_other_programs() {
        // The example of pkg.go.dev/golang.org/x/mod/sumdb/note.
        let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
                    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let verifier: Verifier = key.parse().unwrap();
        assert_eq!(verifier.to_string(), key);
        let (text, signers) = text_of(note, std::slice::from_ref(&verifier)).unwrap();
        assert_eq!((text.lines().count(), signers), (2, vec!["PeterNeumann"]));
        let changed = note.replace("answer", "question");
        assert_eq!(text_of(&changed, std::slice::from_ref(&verifier)), Err(NoteError::BadSignature));
        assert_eq!(open(note, &[verifier]), Err(NoteError::Malformed), "it is no checkpoint");
    }

    #[test]
    fn a_checkpoint_is_taken_from_its_log_alone() {
        let key = SigningKey::new("api.example.org", SEED).unwrap();
        let (ours, other) = (key.origin("a"), key.origin("b"));
        let note = key.sign(&checkpoint(&ours));
        assert_eq!(open(&note, &[key.verifier(&other), key.verifier(&ours)]), Ok(checkpoint(&ours)));
        assert_eq!(open(&note, &[key.verifier(&other)]), Err(NoteError::UnknownKey));
        assert_eq!(open(&note.replacen("42", "41", 1), &[key.verifier(&ours)]), Err(NoteError::BadSignature));
        // What the key of one log has signed, and says to be another's.
        let text = checkpoint(&ours).to_string();
        let mut signature = key.verifier(&other).id.to_vec();
        signature.extend_from_slice(key.pair.sign(text.as_bytes()).as_ref());
        let foreign = format!("{text}\n{SIGNATURE}{other} {}\n", BASE64_STANDARD.encode(signature));
        assert_eq!(open(&foreign, &[key.verifier(&other), key.verifier(&ours)]), Err(NoteError::UnknownKey));
        for broken in ["", "\n\n", "a\n1\nb\n", &note.replacen("42", "042", 1)[..], note.trim_end()] {
            assert!(open(broken, &[key.verifier(&ours)]).is_err(), "{broken:?}");
        }
        assert_eq!(read_unverified(&note), Some(checkpoint(&ours)));
    }

    #[test]
    fn a_text_is_signed_as_a_checkpoint_is() {
        let key = SigningKey::new("api.example.org", SEED).unwrap();
        let (name, log) = (key.origin("backup"), key.origin("a"));
        // Longer than a checkpoint may be, with an empty line in it.
        let text = format!("{{}}\n\n{}\n", "long ".repeat(CHECKPOINT_BYTES_MAX));
        let note = key.sign_text(&name, &text);
        let keys = [key.verifier(&log), key.verifier(&name)];
        assert_eq!(open_text(&note, "backup", &keys), Ok(text.as_str()));
        assert_eq!(text_unverified(&note), text);
        assert_eq!(text_unverified(&text), text, "nobody has signed it");
        assert_eq!(open_text(&text, "backup", &keys), Err(NoteError::Unsigned));
        assert_eq!(open_text(&note, "backup", &keys[..1]), Err(NoteError::UnknownKey));
        assert_eq!(open_text(&note, "other", &keys), Err(NoteError::UnknownKey));
        assert_eq!(open_text(&note.replacen("{}", "[]", 1), "backup", &keys), Err(NoteError::BadSignature));
        let of_log = key.sign_text(&log, &text);
        assert_eq!(open_text(&of_log, "backup", &keys), Err(NoteError::UnknownKey), "the key of a log");
        assert_eq!(open(&key.sign_text(&name, &text), &keys), Err(NoteError::Malformed), "it is no checkpoint");
        let checkpoint = key.sign(&checkpoint(&log));
        assert_eq!(key.sign_text(&log, text_unverified(&checkpoint)), checkpoint);
    }

    #[test]
    fn notes_come_one_behind_the_other() {
        let key = SigningKey::new("api.example.org", SEED).unwrap();
        let notes = ["a", "b", "c"].map(|log| key.sign(&checkpoint(&key.origin(log))));
        assert_eq!(split(&notes.concat()), notes);
        assert_eq!(split(&format!("\n{}", notes.join("\n"))), notes);
        assert!(split("\n").is_empty());
    }

    #[test]
    fn keys_are_checked() {
        assert!(SigningKey::new("x", "AAEC").is_none() && SigningKey::new("x", "no").is_none());
        let key = SigningKey::new("api.example.org", SEED).unwrap().verifier("api.example.org/a").to_string();
        assert_eq!(key.parse::<Verifier>().unwrap().to_string(), key);
        for broken in ["", "a+b", &key.replacen("api", "apo", 1), &key[..key.len() - 4]] {
            assert!(broken.parse::<Verifier>().is_err(), "{broken}");
        }
        assert!(!is_name("") && !is_name("a b") && !is_name("a+b") && is_name("api.example.org/a"));
    }
}
