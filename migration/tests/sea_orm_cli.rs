//! What is handed on where `sea-orm-cli migrate` runs this package. `echo` takes cargo's place.

use std::process::{Command, Output};

fn handed_on(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-migration"));
    command.args(arguments).env("CARGO", "echo").env_remove("DATABASE_URL");
    command.output().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_verb_and_its_number_are_handed_on_to_bulkhead_migrate() {
    for (arguments, expected) in [
        (&[][..], "migrate up"),
        (&["status"], "migrate status"),
        (&["down", "-n", "2", "-u", "sqlite://x.db", "-s", "public", "-v"], "migrate down -n 2"),
    ] {
        let output = handed_on(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.trim().ends_with(&format!("--bin bulkhead -- {expected}")), "{text}");
    }
}

#[test]
fn a_schema_is_refused_with_the_way_to_name_it() {
    let output = handed_on(&["up", "-s", "clinic"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("search_path%3Dclinic"));
}
