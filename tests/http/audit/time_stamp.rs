//! The commands of docs/audit.md that have a time-stamping authority (RFC 3161) confirm checkpoints, against one of openssl's.

use crate::bulkhead;
use crate::support::{AuditedTenant, SIGNING};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use tempfile::TempDir;
use test_support::{Database, skip};
use tokio::net::TcpListener;
use tokio::process::Command;

/// An authority's certificates, and what `openssl ts -reply` reads (openssl-ts(1)). RFC 3161, section 2.3: its certificate is for
/// time stamps alone, which a critical extension says.
const AUTHORITY: &str = "
[req]
distinguished_name = name
[name]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[stamps]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[tsa]
default_tsa = here
[here]
serial = serial
signer_cert = stamps.pem
signer_key = stamps.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.99999.1
digests = sha256
ess_cert_id_alg = sha256
";

async fn shell(script: &str, folder: &Path, environment: &[(&str, &str)]) -> Output {
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", bulkhead().parent().unwrap().display());
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(folder).env_clear().env("PATH", path);
    command.envs(environment.iter().copied()).kill_on_drop(true).output().await.unwrap()
}

async fn must(script: &str, folder: &Path) {
    let output = shell(script, folder, &[]).await;
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Serves an authority, whose files are in a folder: its URL.
async fn authority(folder: PathBuf) -> String {
    fs::write(folder.join("tsa.cnf"), AUTHORITY).unwrap();
    let key = "-config tsa.cnf -newkey rsa:2048 -nodes -keyout";
    must(&format!("openssl req -x509 {key} root.key -extensions root -subj /CN=root -out root.pem"), &folder).await;
    must(&format!("openssl req -new {key} stamps.key -subj /CN=stamps -out stamps.csr"), &folder).await;
    let of_root = "-CA root.pem -CAkey root.key -CAcreateserial -extfile tsa.cnf -extensions stamps";
    must(&format!("openssl x509 -req -in stamps.csr {of_root} -out stamps.pem"), &folder).await;

    let reply = async |State(folder): State<Arc<PathBuf>>, headers: HeaderMap, query: Bytes| {
        assert_eq!(headers["content-type"], "application/timestamp-query");
        fs::write(folder.join("query"), query).unwrap();
        must("openssl ts -reply -config tsa.cnf -queryfile query -out reply", &folder).await;
        ([("content-type", "application/timestamp-reply")], fs::read(folder.join("reply")).unwrap())
    };
    let router = Router::new().route("/", post(reply)).with_state(Arc::new(folder));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    url
}

/// The commands as the page has them.
fn commands() -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit.md")).unwrap();
    let (_, section) = page.split_once("\n### With a time stamp\n").unwrap();
    let (section, _) = section.split_once("\n##").unwrap();
    section.lines().filter_map(|line| line.strip_prefix("    ")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_time_stamping_authority_confirms_checkpoints_by_the_pages_commands() {
    for (program, argument) in [("openssl", "version"), ("curl", "--version")] {
        if Command::new(program).arg(argument).output().await.is_err() {
            return skip(program);
        }
    }
    let clinic = AuditedTenant::new(Database::migrated_sqlite().await).await;
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let url = authority(there.path().to_owned()).await;
    fs::copy(there.path().join("root.pem"), here.path().join("tsa.pem")).unwrap();

    let commands = commands();
    assert_eq!(commands.matches("https://TSA").count(), 1, "{commands}");
    let script = commands.replace("https://TSA", &url);
    let settings = [&[("DATABASE_URL", clinic.database.url.as_str())][..], &SIGNING].concat();
    let output = shell(&script, here.path(), &settings).await;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("Verification: OK"), "{script}{said}");
    let now = fs::read_to_string(here.path().join("now")).unwrap();
    assert!(now.starts_with(&format!("api.example.org/{}\n", clinic.tenant)), "{now}");

    // Not of another checkpoint, and not by another authority.
    let verify = commands.lines().find(|line| line.starts_with("openssl ts -verify ")).unwrap();
    fs::write(here.path().join("now"), now.replacen("\n2\n", "\n1\n", 1)).unwrap();
    assert!(!shell(verify, here.path(), &[]).await.status.success());
    fs::write(here.path().join("now"), now).unwrap();
    assert!(shell(verify, here.path(), &[]).await.status.success());
    let other = TempDir::new().unwrap();
    authority(other.path().to_owned()).await;
    fs::copy(other.path().join("root.pem"), here.path().join("tsa.pem")).unwrap();
    assert!(!shell(verify, here.path(), &[]).await.status.success());
}
