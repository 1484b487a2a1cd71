//! What a machine lacks is skipped by name, loudly; never silently.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that what follows is not tested here because `missing` is not to be had. The line goes to the file that
/// `TEST_SKIPS` names, too, from which scripts/test repeats it at the end.
///
/// # Panics
/// When `TEST_FORBID_SKIPS` is set: where everything is known to be there, a skip is a failure.
// A test harness speaks on standard error.
#[allow(clippy::print_stderr)]
pub fn skip(missing: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED {test}: {missing}");
    assert!(std::env::var_os("TEST_FORBID_SKIPS").is_none(), "{line}, and TEST_FORBID_SKIPS is set");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("TEST_SKIPS") {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        assert!(written.is_ok(), "cannot write to {}: {written:?}", path.display());
    }
}
