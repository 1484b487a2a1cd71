//! A disk that is full, and then not: what was answered as done is there, and so is its entry; writing goes on as soon
//! as there is space.

#[cfg(not(target_os = "linux"))]
#[test]
fn confirmed_writes_survive_a_full_disk() {
    test_support::skip("no prlimit(2): the size of a running process's files cannot be limited");
}

#[cfg(target_os = "linux")]
mod on_linux {
    use crate::audit::operations::{a_document, make};
    use crate::bulkhead;
    use crate::support::{AuditedTenant, TestClient, borrowed};
    use bulkhead::resources::documents as document;
    use sea_orm::{EntityTrait, QuerySelect};
    use serde_json::json;
    use std::collections::HashSet;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use test_support::{Database, Server, Signal};
    use uuid::Uuid;

    const WRITERS: usize = 8;

    /// How many requests fail before there is space again.
    const FAILURES: usize = 60;

    /// What each writer writes once there is.
    const AFTERWARDS: usize = 20;

    /// Starts the server so that a write beyond the limit on a file's size is an error, as on a full disk, and no signal.
    async fn start(clinic: &AuditedTenant) -> Server<'_> {
        let environment = clinic.environment(&[]);
        let arguments = ["-c", "trap '' XFSZ; exec \"$0\"", bulkhead().to_str().unwrap()];
        let server =
            Server::listening(Path::new("/bin/sh"), &arguments, &clinic.database, &borrowed(&environment)).await;
        server.wait_until_ready().await;
        server
    }

    /// Makes a document of some 8 KB: its id, or the status of the refusal.
    async fn write(admin: &TestClient) -> Result<Uuid, u16> {
        let mut body = a_document();
        body["metadata"] = json!({"note": "x".repeat(8000)});
        let answer = admin.post("documents", &body).await;
        if answer.status == 201 { Ok(answer.body["id"].as_str().unwrap().parse().unwrap()) } else { Err(answer.status) }
    }

    /// The size of the largest of the database's files.
    fn largest(clinic: &AuditedTenant) -> u64 {
        let file = clinic.database.url.trim_start_matches("sqlite://").split('?').next().unwrap().to_owned();
        let sizes =
            ["", "-wal", "-shm"].map(|end| std::fs::metadata(format!("{file}{end}")).map_or(0, |file| file.len()));
        sizes.into_iter().max().unwrap()
    }

    /// The ids that are missing among the rows, and among the entries of the audit log, as another process sees them.
    async fn missing(clinic: &AuditedTenant, acknowledged: &[Uuid]) -> (usize, usize) {
        let rows: Vec<Uuid> = document::Entity::find()
            .select_only()
            .column(document::Column::Id)
            .into_tuple()
            .all(&clinic.owner)
            .await
            .unwrap();
        let rows = HashSet::<Uuid>::from_iter(rows);
        let log = clinic.log().await;
        let entries: HashSet<Uuid> =
            log.iter().filter(|entry| entry.action == "CREATED").filter_map(|entry| entry.resource_id).collect();
        let without = |there: &HashSet<Uuid>| acknowledged.iter().filter(|id| !there.contains(id)).count();
        (without(&rows), without(&entries))
    }

    #[tokio::test]
    async fn confirmed_writes_survive_a_full_disk() {
        let clinic = AuditedTenant::new(Database::sqlite()).await;
        let mut server = start(&clinic).await;
        let admin = clinic.caller(&server, "ada", "admin");
        make(&clinic, &admin, "documents").await;

        server.limit_file_size(Some(largest(&clinic) + 256 * 1024));
        let failures = AtomicUsize::new(0);
        let until_full = async |_| {
            let mut acknowledged = Vec::new();
            while failures.load(Ordering::Relaxed) < FAILURES {
                match write(&admin).await {
                    Ok(id) => acknowledged.push(id),
                    Err(status) => {
                        assert_eq!(status, 503);
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // What reads begins a transaction and rolls it back.
                admin.get("documents?limit=1").await;
            }
            acknowledged
        };
        let before = futures_util::future::join_all((0..WRITERS).map(until_full)).await.concat();
        assert!(!before.is_empty(), "it was full from the beginning");

        // Not even what changes nothing can be written.
        server.limit_file_size(Some(0));
        assert_eq!(write(&admin).await, Err(503));
        let (status, body) = server.get_json("/api/v1/health/ready").await;
        assert_eq!((status.as_u16(), &body["checks"]["database"]["error"]), (503, &"SYS_008".into()), "{body}");
        server.limit_file_size(None);
        let (status, body) = server.get_json("/api/v1/health/ready").await;
        assert_eq!(status, 200, "there is space again: {body}");
        let afterwards = async |_| {
            let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
            for _ in 0..AFTERWARDS {
                match write(&admin).await {
                    Ok(id) => acknowledged.push(id),
                    Err(status) => refused.push(status),
                }
            }
            (acknowledged, refused)
        };
        let after = futures_util::future::join_all((0..WRITERS).map(afterwards)).await;
        let (after, refused): (Vec<_>, Vec<_>) = after.into_iter().unzip();
        let (after, refused) = (after.concat(), refused.concat());
        let acknowledged = [before, after].concat();
        let lost = missing(&clinic, &acknowledged).await;
        assert_eq!(lost, (0, 0), "rows and entries lost of {} acknowledged; refused: {refused:?}", acknowledged.len());
        assert!(refused.is_empty(), "there was space again: {refused:?}");

        server.signal(Signal::TERM);
        assert!(server.ended().await.success());
        let server = start(&clinic).await;
        let admin = clinic.caller(&server, "ada", "admin");
        assert_eq!(missing(&clinic, &acknowledged).await, (0, 0), "lost by the restart");
        for id in acknowledged {
            let answer = admin.get(&format!("documents/{id}")).await;
            assert_eq!(answer.status, 200, "{id}: {}", answer.body);
        }
        clinic.must(&["audit", "verify"]).await;
    }
}
