//! Whoever holds an export can tell, without a database, whether it is whole and whose it is.

use super::{Service, files, sha256};
use crate::support::SIGNING;
use crate::{run, stderr, stdout};
use bulkhead::note::SigningKey;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(
    a_good_export_verifies_and_each_fault_is_found,
    an_export_without_a_signature_says_so,
    a_log_that_was_no_chain_when_it_was_signed_is_found
);

/// An export of the clinic, and the keys that its tenant has.
struct Export {
    service: Service,
    folder: PathBuf,
    keys: PathBuf,
}

impl Export {
    async fn new(database: Database) -> Self {
        let service = Service::new(database).await;
        let (folder, keys) = (service.output("clinic"), service.output("audit.keys"));
        service.export(&folder, &SIGNING).await;
        fs::write(&keys, service.signed(&["audit", "key", "--tenant", "clinic"]).await).unwrap();
        Self { service, folder, keys }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Verifies it with the tenant's keys, without a database and settings.
    async fn verify(&self) -> Output {
        verify(&self.folder, &self.keys).await
    }

    /// Verifies it: faults are found, each of them in this file.
    async fn assert_fault(&self, file: &str, fault: &str) {
        assert_faults(&self.verify().await, &[(file, fault)]);
    }

    /// Brings back what a file was.
    fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Brings back what all files were.
    fn put_all(&self, all: &BTreeMap<String, Vec<u8>>) {
        for (name, content) in all {
            self.put(name, content);
        }
    }

    /// Makes a manifest anew of what is there, and has the installation sign it.
    fn sign(&self) {
        let mut manifest: Value = serde_json::from_slice(&fs::read(self.path("manifest.json")).unwrap()).unwrap();
        for part in manifest["files"].as_array_mut().unwrap() {
            let content = fs::read(self.path(part["name"].as_str().unwrap())).unwrap();
            (part["bytes"], part["sha256"]) = (json!(content.len()), json!(sha256(&content)));
        }
        let (text, key) = (format!("{manifest:#}\n"), key());
        self.put("manifest.note", key.sign_text(&key.origin("export"), &text).as_bytes());
        self.put("manifest.json", text.as_bytes());
    }
}

/// The installation's.
fn key() -> SigningKey {
    SigningKey::new(SIGNING[1].1, SIGNING[0].1).unwrap()
}

async fn verify(folder: &Path, keys: &Path) -> Output {
    let arguments = ["tenant", "verify-export", folder.to_str().unwrap(), "--key", keys.to_str().unwrap()];
    run(&arguments, &[]).await
}

/// A line for each fault, of these files and no others; and each of these faults.
fn assert_faults(output: &Output, expected: &[(&str, &str)]) {
    let said = stdout(output);
    let faults: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("FAULT   ")).collect();
    assert_eq!((output.status.code(), stderr(output).lines().count()), (Some(1), 1), "{said}{}", stderr(output));
    for fault in &faults {
        let is_of = |(file, _): &(&str, &str)| fault.starts_with(&format!("{file}: "));
        assert!(expected.iter().any(is_of), "{fault}, expected {expected:?}");
    }
    for (file, what) in expected {
        let is_this = |fault: &&str| fault.starts_with(&format!("{file}: ")) && fault.contains(what);
        assert!(faults.iter().any(is_this), "{file}: {what}, found: {faults:#?}");
    }
    assert!(stderr(output).ends_with(&format!(
        ": {} fault{}\n",
        faults.len(),
        if faults.len() == 1 { "" } else { "s" }
    )));
}

async fn a_good_export_verifies_and_each_fault_is_found(database: Database) {
    let export = Export::new(database).await;
    let all = files(&export.folder);
    let names: Vec<&str> = all.keys().map(String::as_str).collect();
    let tables = ["audit_checkpoints.jsonl", "audit_logs.jsonl", "checkpoint", "documents.jsonl"];
    let others = ["manifest.json", "manifest.note", "tenants.jsonl", "users.jsonl"];
    assert_eq!(names, [tables, others].concat());

    let good = export.verify().await;
    let said = stdout(&good);
    assert!(good.status.success() && stderr(&good).is_empty(), "{said}{}", stderr(&good));
    assert!(said.lines().all(|line| line.starts_with("good    ")), "{said}");
    let signed = format!("good    manifest.note: signed: clinic ({}) at 20", export.service.tenant);
    let entries = str::from_utf8(&all["audit_logs.jsonl"]).unwrap().lines().count();
    for line in [
        signed,
        format!("good    audit_logs.jsonl: {entries} entries in a chain"),
        format!("good    checkpoint: of {entries} entries: the entries are those that were signed"),
        format!("good    users.jsonl: 2 rows, {} bytes", all["users.jsonl"].len()),
    ] {
        assert!(said.lines().any(|said| said.starts_with(&line)), "{line}: {said}");
    }

    for (name, content) in &all {
        let (changed, longer) = match name.as_str() {
            "manifest.json" => ("is not the one that was signed", "is not the one that was signed"),
            "manifest.note" => ("sign", "it is not signed"),
            _ => ("its SHA-256 is another", "bytes in place of"),
        };
        let mut other = content.clone();
        other[content.len() / 2] ^= 1;
        export.put(name, &other);
        export.assert_fault(name, changed).await;
        export.put(name, &[content, &b" "[..]].concat());
        export.assert_fault(name, longer).await;
        fs::remove_file(export.path(name)).unwrap();
        export.assert_fault(name, "is missing").await;
        // A pipe may never end, and a link leads elsewhere.
        symlink(&export.keys, export.path(name)).unwrap();
        export.assert_fault(name, "is not a file").await;
        fs::remove_file(export.path(name)).unwrap();
        export.put(name, content);
    }
    let mut edited = all["audit_logs.jsonl"].clone();
    let at = edited.windows(9).position(|part| part == b"documents").unwrap();
    edited[at] = b'D';
    export.put("audit_logs.jsonl", &edited);
    export.assert_fault("audit_logs.jsonl", "is not what its hash was made of").await;
    export.put("audit_logs.jsonl", &all["audit_logs.jsonl"]);

    // Whatever its name.
    for (name, shown) in
        [("letter", "letter"), ("manifest.json.unfinished", "manifest.json.unfinished"), ("a\nb", "a\\nb")]
    {
        export.put(name, b"");
        export.assert_fault(shown, "is not in the manifest").await;
        fs::remove_file(export.path(name)).unwrap();
    }

    // What was changed together with the manifest is held to the one that was signed.
    let changed = [&all["users.jsonl"][..], b"{}\n"].concat();
    let (bytes, hash) = (all["users.jsonl"].len(), sha256(&all["users.jsonl"]));
    let manifest = str::from_utf8(&all["manifest.json"]).unwrap().replace(&hash, &sha256(&changed));
    let manifest = manifest.replace(&format!("\"bytes\": {bytes}"), &format!("\"bytes\": {}", changed.len()));
    export.put("users.jsonl", &changed);
    export.put("manifest.json", manifest.as_bytes());
    let not_signed = ("manifest.json", "is not the one that was signed");
    assert_faults(&export.verify().await, &[not_signed, ("users.jsonl", "bytes in place of")]);
    fs::remove_file(export.path("manifest.note")).unwrap();
    export.assert_fault("manifest.note", "is missing: nobody has signed this export").await;
    export.put_all(&all);
    assert!(export.verify().await.status.success(), "all is as it was");

    // Keys of others: of another installation, and of other texts.
    let other = SigningKey::new(SIGNING[1].1, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh4=").unwrap();
    let of_other =
        ["export".to_owned(), export.service.tenant.to_string()].map(|name| other.verifier(&other.origin(name)));
    let unknown = "none of the keys that are given has signed it";
    let keys = export.service.output("other.keys");
    fs::write(&keys, of_other.map(|key| format!("{key}\n")).concat()).unwrap();
    assert_faults(&verify(&export.folder, &keys).await, &[("manifest.note", unknown), ("checkpoint", unknown)]);
    let of_tenant = fs::read_to_string(&export.keys).unwrap();
    let of_log = of_tenant.lines().next().unwrap();
    fs::write(&keys, format!("{of_log}\n{}\n", key().verifier(&key().origin("backup")))).unwrap();
    assert_faults(&verify(&export.folder, &keys).await, &[("manifest.note", unknown)]);

    let nowhere = export.service.output("nowhere");
    let output = verify(&nowhere, &export.keys).await;
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
    assert!(stderr(&output).starts_with("FOLDER: cannot read "), "{}", stderr(&output));
}

async fn an_export_without_a_signature_says_so(database: Database) {
    let export = Export::new(database).await;
    let folder = export.service.output("unsigned");
    let path = folder.to_str().unwrap();
    let arguments = ["tenant", "export", "--external-id", "clinic", "--output", path];
    let output = export.service.run(&arguments).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "warning: the export is not signed: set AUDIT_SIGNING_KEY to sign it\n");
    assert!(folder.join("manifest.json").exists() && !folder.join("manifest.note").exists());
    // It has the checkpoint of the one before.
    assert_faults(&verify(&folder, &export.keys).await, &[("manifest.note", "nobody has signed this export")]);

    let signed = ["tenant", "export", "--external-id", "clinic", "--output", export.folder.to_str().unwrap()];
    fs::remove_dir_all(&export.folder).unwrap();
    let settings = [&[("DATABASE_URL", export.service.database.url.as_str())], &SIGNING[..]].concat();
    let output = run(&signed, &settings).await;
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

/// The signature says whose export it is, and not that the log was whole.
async fn a_log_that_was_no_chain_when_it_was_signed_is_found(database: Database) {
    let export = Export::new(database).await;
    let all = files(&export.folder);
    let log = String::from_utf8(all["audit_logs.jsonl"].clone()).unwrap();
    let lines: Vec<&str> = log.split_inclusive('\n').collect();
    let count = lines.len();
    let other = export.service.signed(&["audit", "checkpoint", "--tenant", "other"]).await;
    let keys = export.service.signed(&["audit", "key"]).await;
    fs::write(&export.keys, keys).unwrap();
    let line = |number: i64| {
        let mut entry: Value = serde_json::from_str(lines[0]).unwrap();
        entry["sequence"] = json!(number);
        format!("{entry}\n")
    };
    for (name, content, fault) in [
        ("audit_logs.jsonl", lines[..count - 1].concat(), format!("entries {count} to {count} were cut off")),
        ("audit_logs.jsonl", [&lines[..1], &lines[2..]].concat().concat(), "entry 2 is missing".to_owned()),
        ("audit_logs.jsonl", log.replacen("CREATED", "UPDATED", 1), "is not what its hash was made of".to_owned()),
        ("audit_logs.jsonl", "x".repeat(4 << 20), "line 1 is no entry of an audit log".to_owned()),
        ("audit_logs.jsonl", [line(i64::MAX), line(i64::MIN)].concat(), "entries 1 to ".to_owned()),
        (
            "audit_logs.jsonl",
            log.replace(&export.service.tenant.to_string(), &export.service.other.to_string()),
            "line 1 is of another tenant's log".to_owned(),
        ),
        ("checkpoint", other, "is of another tenant's log".to_owned()),
    ] {
        export.put_all(&all);
        export.put(name, content.as_bytes());
        export.sign();
        export.assert_fault(name, &fault).await;
    }
    // A file that is none of the folder's.
    export.put_all(&all);
    let manifest = str::from_utf8(&all["manifest.json"]).unwrap().replace("users.jsonl", "../audit.keys");
    export.put("manifest.json", manifest.as_bytes());
    export.sign();
    let faults = [("../audit.keys", "would not be in this folder"), ("users.jsonl", "is not in the manifest")];
    assert_faults(&export.verify().await, &faults);
    export.put("manifest.json", "{}".as_bytes());
    export.put("manifest.note", key().sign_text(&key().origin("export"), "{}\n").as_bytes());
    assert_faults(&export.verify().await, &[("manifest.json", "is no")]);
    // Breaks without end are not kept.
    let edited = line(1).replacen("CREATED", "UPDATED", 1).repeat(100_001);
    export.put_all(&all);
    export.put("audit_logs.jsonl", edited.as_bytes());
    export.sign();
    export.assert_fault("audit_logs.jsonl", "broken or repaired in more than 100000 places").await;
}
