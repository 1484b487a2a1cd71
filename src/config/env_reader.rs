//! Reads environment variables and collects all errors, instead of stopping at the first.

use super::choices::Choice;
use super::database_url::DatabaseUrl;
use super::form::Form;
use clap::ValueEnum;
use secrecy::SecretString;
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// One variable as `config show` lists it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ResolvedVariable {
    /// The variable's name.
    pub name: &'static str,
    /// Its value, with `***` for a secret, or `(not set)`.
    pub value: String,
    /// Where the value comes from: `environment`, `file` or `default`.
    pub source: &'static str,
    /// The value that it has where it is not set.
    #[serde(skip)]
    pub(super) default: Option<String>,
    /// What its text may be.
    #[serde(skip)]
    pub(super) form: Form,
    /// Whether `NAME_FILE` may name a file that holds the value.
    #[serde(skip)]
    pub(super) or_file: bool,
}

/// Reads variables through `lookup`. A variable with an error gets its default; the errors are returned in its place.
pub(super) struct EnvReader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
    /// One line for each error, which starts with the variable's name.
    pub(super) errors: Vec<String>,
    pub(super) variables: Vec<ResolvedVariable>,
}

impl<'a> EnvReader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self { lookup, errors: Vec::new(), variables: Vec::new() }
    }

    /// The value of `name`, which must be `expected`.
    pub(super) fn value<T: FromStr + fmt::Display>(
        &mut self,
        name: &'static str,
        default: T,
        expected: &str,
        form: Form,
    ) -> T {
        self.read(name, default, form, |text, _| (format!("must be {expected}, not {text:?}"), text))
    }

    /// The value of `name`, if its type has an error text of its own.
    pub(super) fn parsed<T: FromStr<Err = String> + fmt::Display>(
        &mut self,
        name: &'static str,
        default: T,
        form: Form,
    ) -> T {
        self.read(name, default, form, |_, error| (error, "***".to_owned()))
    }

    /// The value of `name`. `refuse` makes of a wrong text and its error what the error says, and what `config show` does.
    fn read<T: FromStr + fmt::Display>(
        &mut self,
        name: &'static str,
        default: T,
        form: Form,
        refuse: impl FnOnce(String, T::Err) -> (String, String),
    ) -> T {
        let Some(text) = self.text(name) else {
            self.resolved(name, default.to_string(), "default", form);
            return default;
        };
        let (value, shown) = match text.parse::<T>() {
            Ok(value) => {
                let shown = value.to_string();
                (value, shown)
            }
            Err(error) => {
                let (error, shown) = refuse(text, error);
                self.error(name, &error);
                (default, shown)
            }
        };
        self.resolved(name, shown, "environment", form);
        value
    }

    /// The value of `name`, which must be one of the words of `T`.
    pub(super) fn choice<T: ValueEnum>(&mut self, name: &'static str, default: T) -> T {
        self.value(name, Choice(default), &Choice::<T>::words(), Form::words::<T>()).0
    }

    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.value(name, default, "true or false", Form::Flag)
    }

    pub(super) fn at_least(&mut self, name: &'static str, default: u32, min: u32) -> u32 {
        let value = self.value(name, default, &format!("a whole number of {min} or more"), Form::number(min, u32::MAX));
        if value < min {
            self.error(name, &format!("must be {min} or more, not {value}"));
        }
        value
    }

    pub(super) fn within(&mut self, name: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let (min, max) = range.into_inner();
        let value = self.value(name, default, &format!("a whole number from {min} to {max}"), Form::number(min, max));
        if !(min..=max).contains(&value) {
            self.error(name, &format!("must be {min} to {max}, not {value}"));
        }
        value
    }

    pub(super) fn seconds(&mut self, name: &'static str, default: u32, min: u32) -> Duration {
        Duration::from_secs(self.at_least(name, default, min).into())
    }

    pub(super) fn optional(&mut self, name: &'static str, form: Form) -> Option<String> {
        let text = self.text(name);
        let (value, source) = text.clone().map_or(("(not set)".to_owned(), "default"), |text| (text, "environment"));
        self.resolved(name, value, source, form);
        text
    }

    pub(super) fn database(&mut self, name: &'static str, default: Option<&str>) -> Option<DatabaseUrl> {
        const FORM: Form = Form::Secret(Some("(postgres|postgresql|sqlite):[^\\n]+"));
        let (text, source) = match (self.text_or_file(name), default) {
            (Some((text, source)), _) => (text, source),
            (None, Some(default)) => (default.to_owned(), "default"),
            (None, None) => {
                self.resolved_or_file(name, "(not set)".to_owned(), "default", FORM, None);
                return None;
            }
        };
        let default = default.map(str::to_owned);
        match text.parse::<DatabaseUrl>() {
            Ok(url) => {
                self.resolved_or_file(name, url.to_string(), source, FORM, default);
                Some(url)
            }
            Err(error) => {
                self.error(name, &error);
                self.resolved_or_file(name, "***".to_owned(), source, FORM, default);
                None
            }
        }
    }

    /// Certificates in PEM, or the file that `name_FILE` names.
    /// Returns also which of the two it is.
    pub(super) fn certificates(&mut self, name: &'static str) -> Option<(String, &'static str)> {
        let text = self.text_or_file(name);
        let (value, source) = text.as_ref().map_or(("(not set)", "default"), |(_, source)| ("(certificates)", source));
        self.resolved_or_file(
            name,
            value.to_owned(),
            source,
            Form::Like("[\\s\\S]*-----BEGIN CERTIFICATE-----[\\s\\S]*"),
            None,
        );
        text
    }

    pub(super) fn secret(&mut self, name: &'static str, pattern: Option<&'static str>) -> Option<SecretString> {
        let secret = self.text_or_file(name);
        let (value, source) = secret.as_ref().map_or(("(not set)", "default"), |(_, source)| ("***", source));
        self.resolved_or_file(name, value.to_owned(), source, Form::Secret(pattern), None);
        secret.map(|(text, _)| text.into())
    }

    /// The value of `name`, or the content of the file that `name_FILE` names, and which of the two it is.
    fn text_or_file(&mut self, name: &'static str) -> Option<(String, &'static str)> {
        let file = format!("{name}_FILE");
        let path = (self.lookup)(&file).filter(|path| !path.is_empty()).map(PathBuf::from);
        let direct = self.text(name);
        match (direct, path) {
            (Some(_), Some(_)) => {
                self.error(name, &format!("is set and {file} too: unset one of them"));
                None
            }
            (Some(text), None) => Some((text, "environment")),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let text = text.trim_end_matches(['\r', '\n']);
                    if text.is_empty() {
                        // Not as if it were not set: whoever names a file wants what it should hold.
                        self.errors.push(format!("{file}: {} is empty", path.display()));
                        return None;
                    }
                    Some((text.to_owned(), "file"))
                }
                Err(error) => {
                    self.errors.push(format!("{file}: cannot read {}: {error}", path.display()));
                    None
                }
            },
            (None, None) => None,
        }
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let value = (self.lookup)(name).filter(|value| !value.is_empty())?;
        let text = value.into_string().ok();
        if text.is_none() {
            self.error(name, "is not valid UTF-8");
        }
        text
    }

    /// Whether `name` or `name_FILE` is set.
    pub(super) fn is_set(&self, name: &str) -> bool {
        let set = |name: &str| (self.lookup)(name).is_some_and(|value| !value.is_empty());
        set(name) || set(&format!("{name}_FILE"))
    }

    pub(super) fn error(&mut self, name: &'static str, text: &str) {
        self.errors.push(format!("{name}: {text}"));
    }

    /// Records how `config show` lists the variable.
    pub(super) fn resolved(&mut self, name: &'static str, value: String, source: &'static str, form: Form) {
        let default = (source == "default" && !value.starts_with('(')).then(|| value.clone());
        self.variables.push(ResolvedVariable { name, value, source, default, form, or_file: false });
    }

    /// Records it of a variable that may come from a file.
    fn resolved_or_file(
        &mut self,
        name: &'static str,
        value: String,
        source: &'static str,
        form: Form,
        default: Option<String>,
    ) {
        self.variables.push(ResolvedVariable { name, value, source, default, form, or_file: true });
    }
}
