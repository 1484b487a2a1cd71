//! docs/operations.md and deploy/observability name what there is: every alert, every warning of the log, no metric that is not served.

use regex::Regex;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// What is in the parentheses that `source` begins within.
fn arguments(source: &str) -> &str {
    let (mut depth, mut in_text, mut escaped) = (1, false, false);
    for (index, character) in source.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            '(' if !in_text => depth += 1,
            ')' if !in_text => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &source[..index];
        }
    }
    panic!("not closed: {source}")
}

/// The level and the text of each warning and error that the source logs.
fn logged() -> BTreeSet<(String, String)> {
    let event = Regex::new(r"tracing::(warn|error)!\(").unwrap();
    let text = Regex::new(r#""((?:[^"\\]|\\.|\\\n)*)""#).unwrap();
    let (broken, value) = (Regex::new(r"\\\n *").unwrap(), Regex::new(r"\{[^}]*\}").unwrap());
    let mut found = BTreeSet::new();
    for file in ["src", "migrator/src"].iter().flat_map(|folder| rust_files(&root().join(folder))) {
        let source = fs::read_to_string(&file).unwrap();
        for event in event.captures_iter(&source) {
            let arguments = arguments(&source[event.get(0).unwrap().end()..]);
            // The text is the last one.
            let message =
                text.captures_iter(arguments).last().unwrap_or_else(|| panic!("{}: {arguments}", file.display()));
            let message = broken.replace_all(message.get(1).unwrap().as_str(), "");
            found.insert((event[1].to_uppercase(), value.replace_all(&message, "…").into_owned()));
        }
    }
    found
}

#[test]
fn the_runbook_has_each_warning_of_the_log() {
    let page = read("docs/operations.md");
    let row = Regex::new(r"(?m)^\| (WARN|ERROR) \| (?:`` (.+?) ``|`(.+?)`) \| \S.+ \|$").unwrap();
    let listed: BTreeSet<_> = row
        .captures_iter(&page)
        .map(|row| (row[1].to_owned(), row.get(2).or(row.get(3)).unwrap().as_str().to_owned()))
        .collect();
    let logged = logged();
    assert!(logged.len() > 30, "{logged:#?}");
    let (missing, gone): (Vec<_>, Vec<_>) =
        (logged.difference(&listed).collect(), listed.difference(&logged).collect());
    assert!(missing.is_empty() && gone.is_empty(), "not in docs/operations.md: {missing:#?}, only there: {gone:#?}");
}

#[test]
fn the_runbook_has_each_alert() {
    let (page, rules) = (read("docs/operations.md"), read("deploy/observability/rules.yaml"));
    let names = |pattern: &str, text: &str| -> Vec<String> {
        Regex::new(pattern).unwrap().captures_iter(text).map(|found| found[1].to_owned()).collect()
    };
    let alerts = names(r"(?m)^ +- alert: (\w+)$", &rules);
    assert!(alerts.len() > 10, "{alerts:?}");
    assert_eq!(
        names(r"(?m)^### (\w+)\n\n\S", &page),
        alerts,
        "the sections of docs/operations.md, in the rules' order"
    );
    let tests = read("tests/observability/rules_test.yaml") + &read("tests/observability/rules_test_days.yaml");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")), "{alert} fires in no test");
    }
}

#[test]
fn dashboard_and_rules_name_metrics_that_are_served() {
    let page = read("docs/metrics.md");
    let names = Regex::new(r"`([a-z_]+)`").unwrap();
    let table = page.lines().filter(|line| line.starts_with("| `"));
    let mut known: BTreeSet<String> = BTreeSet::new();
    for name in table.flat_map(|row| names.captures_iter(row)) {
        known.extend(["", "_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", &name[1])));
    }
    let used = Regex::new(r"(?-u:\b)(?:bulkhead|http|db_client)_[a-z_]+(?-u:\b)").unwrap();
    for file in ["rules.yaml", "dashboard.json"] {
        let text = read(&format!("deploy/observability/{file}"));
        let all: BTreeSet<_> = used.find_iter(&text).map(|name| name.as_str()).collect();
        assert!(all.len() > 8, "{file}: {all:?}");
        // The rules' own are named level:metric:operation.
        let unknown: Vec<_> =
            all.iter().filter(|name| !known.contains(**name) && !text.contains(&format!("bulkhead:{name}:"))).collect();
        assert!(unknown.is_empty(), "{file} names what no process serves: {unknown:?}");
    }
}
