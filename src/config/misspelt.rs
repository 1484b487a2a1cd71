//! Finds environment variables whose names are similar to that of a setting: probably typing errors.

use super::{ResolvedVariable, Settings};
use std::collections::HashSet;

/// The most letters that may be wrong, missing, added or swapped.
const EDITS_MAX: usize = 2;

/// Shorter names, such as `PORT` and `HOST`, are similar to too many others.
const LENGTH_MIN: usize = 8;

/// The suffix of a variable that names the file of a secret.
const FILE_SUFFIX: &str = "_FILE";

/// A variable that is set but is not a setting, and the setting whose name is the most similar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misspelt {
    /// The variable that is set.
    pub name: String,
    /// The setting that was probably meant.
    pub meant: String,
}

impl Settings {
    /// The variables of the process's environment whose names are similar to that of a setting.
    #[must_use]
    pub fn misspelt() -> Vec<Misspelt> {
        let (_, variables) = Self::read(&|name| std::env::var_os(name));
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        misspelt(names, &variables)
    }
}

fn misspelt(names: impl Iterator<Item = String>, settings: &[ResolvedVariable]) -> Vec<Misspelt> {
    let known = settings.iter().flat_map(|setting| [setting.name.to_owned(), format!("{}{FILE_SUFFIX}", setting.name)]);
    let known: HashSet<String> = known.collect();
    let near = |name: &str| {
        let upper = name.to_uppercase();
        let distances = known.iter().map(|known| (strsim::damerau_levenshtein(&upper, known), known));
        distances.filter(|(edits, _)| *edits <= EDITS_MAX).min().map(|(_, known)| known.clone())
    };
    let mut found: Vec<Misspelt> = names
        .filter(|name| name.len() >= LENGTH_MIN && !known.contains(name))
        .filter_map(|name| near(&name).map(|meant| Misspelt { name, meant }))
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_similar_to_a_setting_are_found() {
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
