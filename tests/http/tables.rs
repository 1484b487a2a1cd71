//! docs/hipaa.md, docs/asvs.md and docs/security.md name tests, settings, commands and files that there are, and leave no paragraph
//! and no requirement out.

use crate::run;
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What 45 CFR 164 asks for, by section: its standards and implementation specifications.
const RULE: [(&str, &str); 4] = [
    (
        "164.308",
        "(a)(1)(i) (a)(1)(ii)(A) (a)(1)(ii)(B) (a)(1)(ii)(C) (a)(1)(ii)(D) (a)(2) (a)(3)(i) (a)(3)(ii)(A) (a)(3)(ii)(B) \
         (a)(3)(ii)(C) (a)(4)(i) (a)(4)(ii)(A) (a)(4)(ii)(B) (a)(4)(ii)(C) (a)(5)(i) (a)(5)(ii)(A) (a)(5)(ii)(B) (a)(5)(ii)(C) \
         (a)(5)(ii)(D) (a)(6)(i) (a)(6)(ii) (a)(7)(i) (a)(7)(ii)(A) (a)(7)(ii)(B) (a)(7)(ii)(C) (a)(7)(ii)(D) (a)(7)(ii)(E) \
         (a)(8) (b)(1) (b)(2) (b)(3)",
    ),
    (
        "164.310",
        "(a)(1) (a)(2)(i) (a)(2)(ii) (a)(2)(iii) (a)(2)(iv) (b) (c) (d)(1) (d)(2)(i) (d)(2)(ii) (d)(2)(iii) (d)(2)(iv)",
    ),
    ("164.312", "(a)(1) (a)(2)(i) (a)(2)(ii) (a)(2)(iii) (a)(2)(iv) (b) (c)(1) (c)(2) (d) (e)(1) (e)(2)(i) (e)(2)(ii)"),
    ("164.316", "(a) (b)(1) (b)(2)(i) (b)(2)(ii) (b)(2)(iii)"),
];

/// The numbers and levels of OWASP's ASVS.
const ASVS: &str = include_str!("asvs.txt");

/// What the state of a requirement can be.
const STATES: [&str; 5] = ["test", "design", "yours", "not met", "n/a"];

/// The pages whose names are looked up.
const PAGES: [&str; 3] = ["hipaa.md", "asvs.md", "security.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// Whether `module::function` is a test of this suite.
fn is_test(name: &str) -> bool {
    let (module, function) = name.rsplit_once("::").unwrap();
    let file = root().join("tests/http").join(module.replace("::", "/")).with_extension("rs");
    let Ok(source) = fs::read_to_string(file) else { return false };
    // A test by its attribute, or one of a list that runs on both databases.
    let own = Regex::new(&format!(r"#\[(?:tokio::)?test[^\]]*\]\n(?:#\[[^\n]*\n)*(?:async )?fn {function}\(")).unwrap();
    let listed = Regex::new(&format!(r"on_[a-z_]+!\([^)]*\b{function}\b[^)]*\)").replace(r"\b", r"(?-u:\b)")).unwrap();
    own.is_match(&source) || listed.is_match(&source)
}

#[test]
fn every_paragraph_has_its_row() {
    let page = page("hipaa.md");
    let row = Regex::new(r"(?m)^\| ((?:\([a-zA-Z0-9]+\))+) \| [^|]+ \| ([^|]+) \|$").unwrap();
    let (mut all, mut met, mut yours, mut neither) = (0, 0, 0, 0);
    for (section, paragraphs) in RULE {
        let begin = page.find(&format!("({section})\n")).unwrap();
        let end = page[begin..].find("\n## ").map_or(page.len(), |length| begin + length);
        let rows: Vec<_> = row.captures_iter(&page[begin..end]).collect();
        let named: Vec<&str> = rows.iter().map(|row| row.get(1).unwrap().as_str()).collect();
        assert_eq!(named, paragraphs.split_whitespace().collect::<Vec<_>>(), "{section}");
        for row in rows {
            let how = &row[2];
            assert!(
                how.contains('`')
                    || how.contains("](")
                    || how.to_lowercase().contains("yours")
                    || &row[1] == "(e)(1)"
                    || how == "TLS has them",
                "{section}{}: {how}",
                &row[1]
            );
            all += 1;
            if how.contains("::") {
                met += 1;
            } else if how.starts_with("yours") {
                yours += 1;
            } else {
                neither += 1;
            }
        }
    }
    let counts = format!(
        "Of the {all} rows of the rule, {met} name a test, {yours} are yours, alone or with your host, and {neither} have neither."
    );
    assert!(page.split_whitespace().collect::<Vec<_>>().join(" ").contains(&counts), "{counts}");
}

#[test]
fn every_requirement_of_the_asvs_has_its_row() {
    let page = page("asvs.md");
    let row = Regex::new(r"(?m)^\| (V[0-9.]+) \| ([0-9]) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$").unwrap();
    let rows: Vec<[&str; 5]> = row.captures_iter(&page).map(|row| row.extract().1).collect();

    let mut required = Vec::new();
    for line in ASVS.lines().filter(|line| !line.starts_with('#')) {
        let (section, levels) = line.split_once(' ').unwrap();
        let numbered = levels.split("").filter(|level| !level.is_empty()).zip(1..);
        required.extend(numbered.map(|(level, number)| (format!("{section}.{number}"), level)));
    }
    required.retain(|(_, level)| *level != "3");
    let named: Vec<_> = rows.iter().map(|[number, level, ..]| ((*number).to_owned(), *level)).collect();
    assert_eq!(named, required, "each requirement of level 1 and 2 once, in order, with its level");

    let test = Regex::new("`[a-z_:]+::[a-z_]+`").unwrap();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for [number, level, _, state, how] in rows {
        let fits = match state {
            "test" => test.is_match(how),
            "design" => (how.contains('`') || how.contains("](")) && !how.contains("::"),
            "yours" => how.starts_with("yours: "),
            "not met" => !how.contains("::"),
            "n/a" => how.starts_with("there is ") || how.starts_with("there are "),
            _ => false,
        };
        assert!(fits, "{number} is {state}: {how}");
        *counts.entry((state, level)).or_default() += 1;
    }

    let row = Regex::new(r"(?m)^\| ([a-z/ ]+) \| ([0-9]+) \| ([0-9]+) \| [^|]+ \|$").unwrap();
    let told: Vec<[&str; 3]> = row.captures_iter(&page).map(|row| row.extract().1).collect();
    assert_eq!(told.iter().map(|[state, ..]| *state).collect::<Vec<_>>(), STATES);
    for [state, first, second] in told {
        let count = |level| counts.get(&(state, level)).copied().unwrap_or_default().to_string();
        assert_eq!((first, second), (count("1").as_str(), count("2").as_str()), "{state}");
    }
}

#[test]
fn every_risk_of_the_top_ten_has_its_row() {
    let row = Regex::new(r"(?m)^\| \[(API[0-9]+)\]\(https://owasp\.org/API-Security/editions/2023/[^)]+\)[^|]+\| [^|]*`[a-z_:]+::[a-z_]+`[^|]*\|$").unwrap();
    let page = page("security.md");
    let rows: Vec<_> = row.captures_iter(&page).map(|row| row.get(1).unwrap().as_str()).collect();
    let risks: Vec<_> = (1..=10).map(|number| format!("API{number}")).collect();
    assert_eq!(rows, risks, "each with a test");
}

#[tokio::test]
async fn what_the_pages_name_is_there() {
    let settings = crate::stdout(&run(&["config", "show"], &[]).await);
    let settings: BTreeSet<&str> = settings.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let (mut missing, pages) = (Vec::new(), PAGES.map(page));
    let spans = Regex::new("`([^`]+)`").unwrap();
    for span in pages.iter().flat_map(|page| spans.captures_iter(page)).map(|span| span.get(1).unwrap().as_str()) {
        let there = match span {
            // How to run the tests themselves, and a claim of tokens.
            "cargo test --test http roles::" | "sub" => true,
            _ if span.starts_with("bulkhead ") => {
                let arguments: Vec<&str> = span.split(' ').skip(1).chain(["--help"]).collect();
                run(&arguments, &[]).await.status.success()
            }
            _ if span.contains("::") => is_test(span),
            _ if span.contains('/') => root().join(span).exists(),
            _ => settings.contains(span),
        };
        if !there {
            missing.push(span);
        }
    }
    let links = Regex::new(r"\]\(([^)#]+)").unwrap();
    for link in pages.iter().flat_map(|page| links.captures_iter(page)).map(|link| link.get(1).unwrap().as_str()) {
        if !link.starts_with("https://") && !root().join("docs").join(link).exists() {
            missing.push(link);
        }
    }
    assert!(missing.is_empty(), "these pages name what is not there: {missing:#?}");
}
