//! Checkpoints and proofs are verified by a program that was written from docs/audit.md alone.

use super::export::python;
use super::operations::make;
use crate::stdout;
use crate::support::AuditedTenant;
use serde_json::{Value, json};
use std::path::Path;
use test_support::{Database, on_migrated_databases, skip};
use tokio::process::Command;

on_migrated_databases!(checkpoints_and_proofs_are_verified_by_another_implementation);

/// It reads an export, checkpoints, keys and answers of `GET /api/v1/audit-logs/proof`, and prints what holds.
const VERIFY: &str = r#"
import base64, hashlib, json, sys
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

folder = sys.argv[1]

def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()

def node(left, right):
    return sha256(b"\x01", left, right)

def root(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return node(root(leaves[:half]), root(leaves[half:]))

keys = {}
for line in open(folder + "/keys"):
    name, key_id, key = line.strip().split("+", 2)
    key = base64.b64decode(key)
    assert key[0] == 1 and sha256(name.encode(), b"\n", key)[:4].hex() == key_id, line
    keys[name, key_id] = Ed25519PublicKey.from_public_bytes(key[1:])

def opened(note):
    text, signatures = note.rsplit("\n\n", 1)
    text += "\n"
    origin, size, tree_root = text.split("\n")[:3]
    for line in signatures.splitlines():
        dash, name, signature = line.split(" ")
        signature = base64.b64decode(signature)
        if dash == "\u2014" and name == origin and (name, signature[:4].hex()) in keys:
            keys[name, signature[:4].hex()].verify(signature[4:], text.encode())
            return origin.rsplit("/", 1)[1], int(size), base64.b64decode(tree_root)
    sys.exit("nobody known has signed it")

leaves, last = {}, {}
for line in open(folder + "/export"):
    entry = json.loads(line)
    stored, log = entry.pop("hash"), entry["tenant_id"]
    if hashlib.sha256(rfc8785.dumps(entry)).hexdigest() != stored or entry["prev_hash"] != last.get(log, "0" * 64):
        sys.exit(f"entry {entry['sequence']} does not hold")
    last[log] = stored
    leaves.setdefault(log, []).append(sha256(b"\0", bytes.fromhex(stored)))

roots = {}
for name in ("old", "new"):
    try:
        log, size, tree_root = opened(open(f"{folder}/{name}").read())
    except InvalidSignature:
        sys.exit("the signature does not fit")
    if len(leaves.get(log, [])) < size:
        sys.exit("entries were cut off")
    if root(leaves[log][:size]) != tree_root:
        sys.exit("entries were rewritten")
    roots[size] = tree_root
    print(name, "fits")

def included(proof):
    hash, index, last = sha256(b"\0", bytes.fromhex(proof["hash"])), proof["sequence"] - 1, proof["size"] - 1
    for other in map(base64.b64decode, proof["hashes"]):
        if index % 2 or index == last:
            hash = node(other, hash)
            while not index % 2 and index:
                index, last = index >> 1, last >> 1
        else:
            hash = node(hash, other)
        index, last = index >> 1, last >> 1
    return last == 0 and hash == roots[proof["size"]]

def continued(proof):
    hashes = [base64.b64decode(hash) for hash in proof["hashes"]]
    old, new = proof["from"], proof["size"]
    if old == new:
        return not hashes
    if old & (old - 1) == 0:
        hashes.insert(0, roots[old])
    index, last = old - 1, new - 1
    while index % 2:
        index, last = index >> 1, last >> 1
    before = after = hashes[0]
    for other in hashes[1:]:
        if index % 2 or index == last:
            before, after = node(other, before), node(other, after)
            while not index % 2 and index:
                index, last = index >> 1, last >> 1
        else:
            after = node(after, other)
        index, last = index >> 1, last >> 1
    return last == 0 and before == roots[old] and after == roots[new]

for line in open(folder + "/proofs"):
    proof = json.loads(line)
    if not (included(proof) if proof["from"] is None else continued(proof)):
        sys.exit(f"a proof does not lead to the root: {line}")
    print("a proof holds")
"#;

struct Files(tempfile::TempDir);

impl Files {
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    async fn verify(&self, python: &Path) -> Result<String, String> {
        let output = Command::new(python).args(["-c", VERIFY]).arg(self.0.path()).output().await.unwrap();
        let error = String::from_utf8(output.stderr.clone()).unwrap();
        if output.status.success() { Ok(stdout(&output)) } else { Err(error) }
    }
}

async fn checkpoints_and_proofs_are_verified_by_another_implementation(database: Database) {
    let Some(python) = python().await else {
        skip("no python3 with venv, or no rfc8785 and cryptography from PyPI: checkpoints verified by others");
        return;
    };
    let (clinic, admin) = AuditedTenant::start(database).await;
    make(&clinic, &admin, "documents").await;
    let checkpoint = ["audit", "checkpoint", "--tenant", "clinic"];
    let old = clinic.signed(&checkpoint).await;
    let end = clinic.log_end().await;
    clinic.fill(clinic.tenant, end, 700, |_| ()).await;
    make(&clinic, &admin, "users").await;
    let new = clinic.signed(&checkpoint).await;
    let size = |note: &str| note.lines().nth(1).unwrap().parse::<i64>().unwrap();
    let (small, large) = (size(&old), size(&new));
    let mut proofs: Vec<Value> = Vec::new();
    for (number, in_all) in [
        (1, large),
        (small, large),
        (256, large),
        (257, large),
        (700, large),
        (large, large),
        (1, small),
        (small, small),
    ] {
        let proof = admin.get(&format!("audit-logs/proof?sequence={number}&size={in_all}")).await;
        assert_eq!(proof.status, 200, "{}", proof.body);
        proofs.push(proof.body);
    }
    for (from, to) in [(small, large), (small, small), (large, large)] {
        let proof = admin.get(&format!("audit-logs/proof?from={from}&size={to}")).await;
        assert_eq!(proof.status, 200, "{}", proof.body);
        proofs.push(proof.body);
    }
    assert_eq!(proofs[0]["checkpoint"], json!(new), "the one of this size is there");
    assert_eq!(proofs[6]["checkpoint"], json!(old));

    let files = Files(tempfile::tempdir().unwrap());
    let lines =
        |proofs: &[Value]| proofs.iter().flat_map(|proof| [proof.to_string(), "\n".to_owned()]).collect::<String>();
    let export = clinic.must(&["audit", "export", "--tenant", "clinic"]).await;
    let good = [
        ("keys", clinic.signed(&["audit", "key"]).await),
        ("old", old.clone()),
        ("new", new.clone()),
        ("export", export.clone()),
        ("proofs", lines(&proofs)),
    ];
    let all_good = || good.iter().for_each(|(name, text)| files.write(name, text));
    all_good();
    let expected = format!("old fits\nnew fits\n{}", "a proof holds\n".repeat(proofs.len()));
    assert_eq!(files.verify(python).await, Ok(expected));

    // It does look.
    let cut: String = export.lines().take(usize::try_from(large).unwrap() - 1).flat_map(|line| [line, "\n"]).collect();
    let mut other_proof = proofs.clone();
    other_proof[2]["hashes"][3] = proofs[2]["hashes"][4].clone();
    let mut other_entry = proofs.clone();
    other_entry[3]["sequence"] = json!(258);
    let mut no_continuation = proofs.clone();
    no_continuation[8]["hashes"][0] = proofs[8]["hashes"][1].clone();
    for (name, text, error) in [
        ("new", new.replacen(&format!("\n{large}\n"), &format!("\n{}\n", large - 1), 1), "the signature does not fit"),
        ("keys", String::new(), "nobody known has signed it"),
        ("export", cut, "entries were cut off"),
        ("proofs", lines(&other_proof), "a proof does not lead to the root"),
        ("proofs", lines(&other_entry), "a proof does not lead to the root"),
        ("proofs", lines(&no_continuation), "a proof does not lead to the root"),
    ] {
        files.write(name, &text);
        let said = files.verify(python).await.expect_err(error);
        assert!(said.contains(error), "{error}: {said}");
        all_good();
    }
}
