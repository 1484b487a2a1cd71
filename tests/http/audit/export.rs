//! What leaves by `audit export` and `tenant export`: whole, checkable by others, in bounded memory.

use super::operations::{make, operation, secured};
use crate::stdout;
use crate::support::{AuditedTenant, SIGNING, chain};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use test_support::{Database, on_migrated_databases, skip};
use tokio::process::Command;
use tokio::sync::OnceCell;
use uuid::Uuid;

on_migrated_databases!(
    export_is_verified_by_another_implementation,
    an_export_names_tenants_and_entries_in_order,
    long_log_takes_bounded_memory
);

/// What anyone may write who reads docs/audit.md, with somebody else's JCS (RFC 8785).
const CHECK: &str = r#"
import hashlib, json, sys
import rfc8785

last, count = {}, 0
for line in sys.stdin:
    entry = json.loads(line)
    stored = entry.pop("hash")
    sequence, before = last.get(entry["tenant_id"], (0, "0" * 64))
    if entry["sequence"] != sequence + 1 or entry["prev_hash"] != before:
        sys.exit(f"entry {entry['sequence']} does not continue entry {sequence}")
    if hashlib.sha256(rfc8785.dumps(entry)).hexdigest() != stored:
        sys.exit(f"entry {entry['sequence']} is not what its hash was made of")
    last[entry["tenant_id"]] = (entry["sequence"], stored)
    count += 1
for tenant, (sequence, stored) in sorted(last.items()):
    print(tenant, sequence, stored)
"#;

/// Python with the packages `rfc8785` and `cryptography`, in an environment of its own, which is made once.
pub(super) async fn python() -> Option<&'static Path> {
    static PYTHON: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let python = PYTHON.get_or_init(|| async {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rfc8785-0.1.4-cryptography-50.0.2");
        let python = folder.join("bin/python");
        let works = async || {
            let import =
                Command::new(&python).args(["-c", "import cryptography, rfc8785"]).stderr(Stdio::null()).status().await;
            import.is_ok_and(|status| status.success())
        };
        if works().await {
            return Some(python);
        }
        let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).output().await.ok()?;
        let install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "rfc8785==0.1.4",
            "cryptography==50.0.2",
        ];
        if !made.status.success() || !Command::new(&python).args(install).output().await.ok()?.status.success() {
            return None;
        }
        works().await.then_some(python)
    });
    python.await.as_deref()
}

/// What [`CHECK`] says of an export.
async fn check(python: &Path, export: &str) -> Result<String, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), export).unwrap();
    let input = std::fs::File::open(file.path()).unwrap();
    let output = Command::new(python).args(["-c", CHECK]).stdin(input).output().await.unwrap();
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    if output.status.success() { Ok(stdout(&output)) } else { Err(error) }
}

async fn export_is_verified_by_another_implementation(database: Database) {
    let Some(python) = python().await else {
        skip("no python3 with venv, or no rfc8785 from PyPI: an export checked by others");
        return;
    };
    let (clinic, admin) = AuditedTenant::start(database).await;
    for name in secured() {
        let operation = operation(&clinic, &admin, &name).await;
        assert_eq!(operation.request.by(&admin).await.status, operation.status);
    }
    // Names at which implementations of JCS differ: quotes, beyond the first plane, combining, what is special in HTML.
    for subject in ["Zoë|\u{1f600}\u{fb33}", "a\"b\\c/d&", "e\u{301} \u{e9} </script>"] {
        let stranger = clinic.caller(clinic.own(), subject, "admin");
        stranger.get("tenant").await.assert_status(200);
        let viewer = clinic.caller(clinic.own(), subject, "viewer");
        viewer.get("audit-logs").await.assert_status(403);
    }
    // From another kind of address.
    let send = admin.request("GET", "tenant").header("x-forwarded-for", "2001:db8:0:0::7").send();
    assert_eq!(send.await.unwrap().status(), 200);

    let export = clinic.must(&["audit", "export"]).await;
    let log = clinic.log().await;
    let last = log.last().unwrap();
    assert!(last.ip.as_deref().unwrap().starts_with("2001:db8::7"), "{last:?}");
    let expected = format!("{} {} {}\n", clinic.tenant, last.sequence, last.hash);
    assert_eq!(check(python, &export).await.unwrap(), expected);
    // It does look: whatever is changed in any line shows.
    let lines: Vec<&str> = export.lines().collect();
    for (from, to) in
        [("DATA_ACCESS", "CREATED"), ("203.0.113.7", "203.0.113.8"), ("\"found\":true", "\"found\":false")]
    {
        assert!(
            check(python, &export.replacen(from, to, 1)).await.unwrap_err().contains("is not what its hash"),
            "{from}"
        );
    }
    let without = [&lines[..3], &lines[4..]].concat().join("\n");
    assert!(check(python, &without).await.unwrap_err().contains("entry 5 does not continue entry 3"));
}

async fn an_export_names_tenants_and_entries_in_order(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    let other = clinic.make_tenant("other").await;
    make(&clinic, &admin, "users").await;
    let lines = async |arguments: &[&str]| {
        let text = clinic.must(&[&["audit", "export"], arguments].concat()).await;
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines
    };
    let place = |line: &Value| (line["tenant_id"].as_str().unwrap().to_owned(), line["sequence"].as_i64().unwrap());
    let all = lines(&[]).await;
    let of = |tenant: Uuid, entries: i64| (1..=entries).map(move |sequence| (tenant.to_string(), sequence));
    assert!(all.iter().map(place).eq(of(clinic.tenant, 3).chain(of(other, 2))), "{all:#?}");
    let members: Vec<&String> = all[0].as_object().unwrap().keys().collect();
    let mut expected = vec!["tenant_id", "sequence", "id", "user_id", "action", "resource_type", "resource_id", "ip"];
    expected.extend(["user_agent", "metadata", "created_at", "prev_hash", "hash"]);
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(
        sorted(members.into_iter().cloned().collect()),
        sorted(expected.into_iter().map(str::to_owned).collect())
    );
    let one = lines(&["--tenant", "other"]).await;
    assert!(one.iter().map(place).eq(of(other, 2)), "{one:#?}");
    assert_eq!(lines(&["--tenant", "system"]).await, Vec::<Value>::new());
    let stored = chain(&clinic.owner, other).await;
    assert_eq!(one[1]["hash"], stored[1].hash);
    assert_eq!(clinic.run(&["audit", "export", "--tenant", "nobody"]).await.status.code(), Some(2));
}

/// The lengths of a short log and of a long one: whoever held the long one all in memory would need some 25 MB more.
const SHORT: i64 = 4_000;
const LONG: i64 = 27_000;

/// How much more memory the long one may take, in KiB.
const MORE: u64 = 8 * 1024;

async fn long_log_takes_bounded_memory(database: Database) {
    if !Path::new("/proc/self/status").exists() {
        skip("no /proc: how much memory verify and export take");
        return;
    }
    let clinic = AuditedTenant::new(database).await;
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys").into_os_string().into_string().unwrap();
    std::fs::write(&keys, clinic.signed(&["audit", "key"]).await).unwrap();
    let mut peaks = Vec::new();
    for length in [SHORT, LONG] {
        let end = clinic.log_end().await;
        let (_, head) = clinic.fill(clinic.tenant, end.clone(), length - end.0, |_| ()).await;
        let (verify, said) = peak_of(&clinic, &["audit", "verify", "--tenant", "clinic"]).await;
        assert!(said.contains(&format!(": {length} entries, head {head}")), "{said}");
        let (export, said) = peak_of(&clinic, &["audit", "export", "--tenant", "clinic"]).await;
        assert_eq!(said.lines().count(), usize::try_from(length).unwrap());
        assert!(said.trim_end().ends_with(&format!("\"hash\":\"{head}\"}}")));
        let output = folder.path().join(length.to_string()).into_os_string().into_string().unwrap();
        let all = ["tenant", "export", "--external-id", "clinic", "--output", &output];
        let (tenant_export, _) = peak_of(&clinic, &all).await;
        let (verify_export, said) = peak_of(&clinic, &["tenant", "verify-export", &output, "--key", &keys]).await;
        assert!(said.contains(&format!("audit_logs.jsonl: {} entries in a chain", length + 1)), "{said}");
        peaks.push([verify, export, tenant_export, verify_export]);
    }
    for (at, command) in ["verify", "export", "tenant export", "tenant verify-export"].into_iter().enumerate() {
        let (short, long) = (peaks[0][at], peaks[1][at]);
        assert!(long < short + MORE, "{command}: {short} KiB for {SHORT} entries, {long} KiB for {LONG}");
    }
}

/// Runs a command to its end: the most memory that it had, in KiB, and what it printed.
async fn peak_of(clinic: &AuditedTenant, arguments: &[&str]) -> (u64, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(crate::bulkhead());
    command.env_clear().envs(SIGNING).env("DATABASE_URL", &clinic.database.url).args(arguments).kill_on_drop(true);
    let mut child = command.stdout(file.reopen().unwrap()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id().unwrap());
    let mut peak = 0;
    // The kernel keeps the highest: it is enough to look now and then.
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let most = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = most.unwrap_or(peak);
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(20), child.wait()).await {
            break ended.unwrap();
        }
    };
    let said = std::fs::read_to_string(file.path()).unwrap();
    assert!(ended.success() && peak > 0, "{arguments:?}: {ended}, {peak} KiB, {said}");
    (peak, said)
}
