//! Who logs in.

use super::shape::{ENTRA_DIRECTORY, Shape};

/// Who presses the button of the consent page, and what the provider knows of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The provider's name for them: `sub`.
    pub subject: String,
    /// The external id of their tenant.
    pub tenant: String,
    /// Their role within it.
    pub role: String,
    /// Their e-mail address.
    pub email: String,
    /// Their name.
    pub name: String,
}

impl Person {
    /// Ada, a member of the tenant `clinic-1`, or of the directory that Entra is made for.
    #[must_use]
    pub fn ada(shape: Shape) -> Self {
        let tenant = if shape == Shape::Entra { ENTRA_DIRECTORY } else { "clinic-1" };
        Self {
            subject: "provider|ada".to_owned(),
            tenant: tenant.to_owned(),
            role: "member".to_owned(),
            email: "ada@example.org".to_owned(),
            name: "Ada Lovelace".to_owned(),
        }
    }
}
