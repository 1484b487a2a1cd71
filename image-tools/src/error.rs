use std::io;

/// Why it cannot be told what an image holds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be opened, or a part of it not be read: it is cut off, or badly compressed.
    #[error("cannot read {what}: {source}")]
    Unreadable {
        /// The file, or the part of the archive.
        what: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A JSON document of the archive is none, or names a field twice, which readers understand differently.
    #[error("{name} is not valid JSON: {source}")]
    Document {
        /// The document's name in the archive.
        name: String,
        /// Where and what.
        source: serde_json::Error,
    },
    /// The file is no archive of exactly one image, or contradicts itself.
    #[error("{0}")]
    NotAnImage(String),
    /// More than [`crate::Limits`] allows.
    #[error("{what} is refused: it holds more than {bound}")]
    TooLarge {
        /// The part of the archive.
        what: String,
        /// The bound, with its unit.
        bound: String,
    },
}

/// What a reader gives that has come to its bound.
#[derive(Debug, thiserror::Error)]
#[error("more than {0}")]
pub(crate) struct Exceeded(pub(crate) String);

impl Error {
    /// An error of reading `what`.
    pub(crate) fn reading(what: &str, source: io::Error) -> Self {
        let what = what.to_owned();
        match source.get_ref().and_then(|inner| inner.downcast_ref::<Exceeded>()) {
            Some(Exceeded(bound)) => Self::TooLarge { what, bound: bound.clone() },
            None => Self::Unreadable { what, source },
        }
    }
}
