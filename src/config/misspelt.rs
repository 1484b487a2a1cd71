//! Environment variables whose names are nearly a setting's: a typo would otherwise go unnoticed.

use super::{ResolvedVariable, Settings};
use std::collections::HashSet;

/// How many letters may be wrong, missing, too many or swapped.
const MOST_EDITS: usize = 2;

/// Shorter names are near too many others, such as `PORT` and `HOST`.
const SHORTEST: usize = 8;

/// What stands behind the name of a secret whose value is in a file.
const FILE: &str = "_FILE";

/// A variable that is set and is no setting, and the setting whose name is nearest to its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misspelt {
    /// The variable that is set.
    pub name: String,
    /// What it may have been meant to be.
    pub meant: String,
}

impl Settings {
    /// The variables of the process's own environment whose names are nearly a setting's.
    #[must_use]
    pub fn misspelt() -> Vec<Misspelt> {
        let (_, variables) = Self::read(&|name| std::env::var_os(name));
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        misspelt(names, &variables)
    }
}

fn misspelt(names: impl Iterator<Item = String>, settings: &[ResolvedVariable]) -> Vec<Misspelt> {
    let known = settings.iter().flat_map(|setting| [setting.name.to_owned(), format!("{}{FILE}", setting.name)]);
    let known: HashSet<String> = known.collect();
    let near = |name: &str| {
        let upper = name.to_uppercase();
        let distances = known.iter().map(|known| (strsim::damerau_levenshtein(&upper, known), known));
        distances.filter(|(edits, _)| *edits <= MOST_EDITS).min().map(|(_, known)| known.clone())
    };
    let mut found: Vec<Misspelt> = names
        .filter(|name| name.len() >= SHORTEST && !known.contains(name))
        .filter_map(|name| near(&name).map(|meant| Misspelt { name, meant }))
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_nearly_a_settings_is_told_and_no_other() {
        let (_, settings) = Settings::read(&|_| None);
        let names = [
            "DATABSE_URL",
            "database_url",
            "DATABASE_URL",
            "DATABASE_URL_FILE",
            "MAX_CONNECTION",
            "PORTS",
            "HOSTNAME",
            "RAILWAY_ENVIRONMENT",
            "DATABASE_PUBLIC_URL",
            "RUST_LOG",
        ];
        let found = misspelt(names.map(str::to_owned).into_iter(), &settings);
        let found: Vec<(&str, &str)> = found.iter().map(|one| (one.name.as_str(), one.meant.as_str())).collect();
        assert_eq!(
            found,
            [("DATABSE_URL", "DATABASE_URL"), ("MAX_CONNECTION", "MAX_CONNECTIONS"), ("database_url", "DATABASE_URL")]
        );
    }
}
