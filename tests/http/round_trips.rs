//! How often a request waits for PostgreSQL: a proxy between the API and the database reads the protocol
//! (postgresql.org/docs/current/protocol-message-formats.html) and keeps each answer back for a while, so that what is sent
//! without waiting for the answer before overlaps with it.

use crate::support::{SAMPLES, TestApp, TestClient, TestTenant, at};
use futures_util::future::join_all;
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use test_support::{Database, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;
use uuid::Uuid;

/// How long an answer is kept back.
const DELAY: Duration = Duration::from_millis(20);

/// A round trip: from the first message to the end of the answer.
#[derive(Debug, Clone)]
pub(crate) struct Trip {
    begun: Instant,
    ended: Instant,
    /// What it asked for: the text of statements, where it was in a message; else the kinds of its messages.
    messages: Vec<String>,
    /// How many statements it executed.
    pub(crate) statements: usize,
}

pub(crate) type Trips = Arc<Mutex<Vec<Trip>>>;

/// Reads a message of either side: its kind and its content.
async fn message(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await.ok()?;
    let length = usize::try_from(stream.read_u32().await.ok()?).unwrap() - 4;
    let mut content = vec![0; length];
    stream.read_exact(&mut content).await.ok()?;
    Some((kind, content))
}

fn bytes_of(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), content].concat()
}

/// Passes a session on, and writes down its round trips.
async fn pass(mut client: TcpStream, mut server: TcpStream, delay: Duration, trips: Trips) -> Option<()> {
    client.set_nodelay(true).ok()?;
    server.set_nodelay(true).ok()?;
    // The start-up message has no kind.
    let length = client.read_u32().await.ok()?;
    let mut content = vec![0; usize::try_from(length).unwrap() - 4];
    client.read_exact(&mut content).await.ok()?;
    server.write_all(&[&length.to_be_bytes()[..], &content].concat()).await.ok()?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let now = Instant::now();
    let start = Trip { begun: now, ended: now, messages: vec!["a new session".to_owned()], statements: 0 };
    let open = Arc::new(Mutex::new(Some(start)));
    let asked = Arc::clone(&open);
    tokio::spawn(async move {
        while let Some((kind, content)) = message(&mut from_client).await {
            {
                let mut open = asked.lock().unwrap();
                let now = Instant::now();
                let trip = open.get_or_insert(Trip { begun: now, ended: now, messages: Vec::new(), statements: 0 });
                // Query and Parse have a statement's text, Execute runs one that is prepared.
                let text = String::from_utf8_lossy(&content).replace('\0', " ").trim().to_owned();
                match kind {
                    b'Q' => trip.statements += text.split(';').filter(|part| !part.trim().is_empty()).count(),
                    b'E' => trip.statements += 1,
                    _ => {}
                }
                trip.messages.push(if matches!(kind, b'Q' | b'P') { text } else { char::from(kind).to_string() });
            }
            to_server.write_all(&bytes_of(kind, &content)).await.ok()?;
        }
        to_server.shutdown().await.ok()
    });
    while let Some((kind, content)) = message(&mut from_server).await {
        // ReadyForQuery ends the answer.
        if kind == b'Z' {
            let trip = open.lock().unwrap().take();
            tokio::time::sleep(delay).await;
            if let Some(trip) = trip {
                trips.lock().unwrap().push(Trip { ended: Instant::now(), ..trip });
            }
        }
        to_client.write_all(&bytes_of(kind, &content)).await.ok()?;
    }
    Some(())
}

/// Listens in front of the database; the URL that leads through it.
pub(crate) async fn listen(database: &Database, delay: Duration, trips: Trips) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut url = Url::parse(&database.url).unwrap();
    let server = (url.host_str().unwrap().to_owned(), url.port().unwrap());
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    url.query_pairs_mut().append_pair("sslmode", "disable");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(pass(client, server, delay, Arc::clone(&trips)));
        }
    });
    url.into()
}

/// The most trips of which each began when the one before had ended.
fn in_a_row(mut trips: Vec<Trip>) -> Vec<Trip> {
    trips.sort_by_key(|trip| trip.ended);
    let mut row: Vec<Trip> = Vec::new();
    for trip in trips {
        if row.last().is_none_or(|last| last.ended <= trip.begun) {
            row.push(trip);
        }
    }
    row
}

/// The fewest round trips in a row, of a few times, that `request` takes until its answer is there; and its statements.
async fn measure(trips: &Trips, mut request: impl AsyncFnMut() -> u16) -> (usize, usize, Vec<Trip>) {
    let mut fewest: Option<(usize, usize, Vec<Trip>)> = None;
    for _ in 0..8 {
        // What sessions do on their way back into the pool is over.
        tokio::time::sleep(4 * DELAY).await;
        trips.lock().unwrap().clear();
        let status = request().await;
        let answered = Instant::now();
        assert!(status < 300, "{status}");
        let mut seen = trips.lock().unwrap().clone();
        seen.retain(|trip| trip.ended <= answered);
        let row = in_a_row(seen.clone());
        let statements: usize = seen.iter().map(|trip| trip.statements).sum();
        // A ROLLBACK of before may have come late, and stands in a row that is no longer.
        if fewest.as_ref().is_none_or(|(least, fewer, _)| (row.len(), statements) < (*least, *fewer)) {
            fewest = Some((row.len(), statements, row));
        }
    }
    fewest.unwrap()
}

/// The most round trips in a row of each operation, on any resource, and the most statements. The beginning of a transaction is
/// two statements in one trip (its role and tenant, and BEGIN); nobody waits for ROLLBACK.
const MOST: [(&str, usize, usize); 7] = [
    ("get", 4, 6),
    ("list", 4, 6),
    ("create", 5, 6),
    // The key is taken first: else the row's own conflicts would hide that it is there already.
    ("create with a key", 6, 7),
    ("update", 5, 6),
    ("delete", 5, 6),
    ("restore", 5, 6),
];

/// A new session is one, and what it is asked another one.
const MOST_FOR_READINESS: usize = 2;

/// Before a user is deleted, the tenant is locked, and its admins are looked at.
const MORE_TO_DELETE_A_USER: usize = 2;

#[tokio::test]
async fn requests_wait_for_few_round_trips() {
    let Some(mut database) = Database::migrated_postgres().await else { return };
    let trips = Trips::default();
    database.url = listen(&database, DELAY, Arc::clone(&trips)).await;
    let app = TestApp::start(database).await;
    let clinic = app.new_tenant().await;
    let admin: &TestClient = &clinic.admin;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let mut table = Vec::new();
    for sample in SAMPLES {
        let list = sample.path();
        let path = at(&list, &admin.make(&list, &(sample.new)(&owner)).await);
        for (operation, mut most, mut most_statements) in MOST {
            if (operation, &*list) == ("delete", "users") {
                most += MORE_TO_DELETE_A_USER;
                most_statements += MORE_TO_DELETE_A_USER;
            }
            let (count, statements, row) = measure(&trips, async || match operation {
                "get" => admin.get(&path).await.status,
                "list" => admin.get(&list).await.status,
                "create" => admin.post(&list, &(sample.new)(&owner)).await.status,
                "create with a key" => {
                    // One in 16 takes a statement more; the fewest of several count.
                    let key = format!("\"{}\"", Uuid::now_v7());
                    let request = admin.request("POST", &list).header("idempotency-key", key);
                    let request = request.header("content-type", "application/json");
                    request.body((sample.new)(&owner).to_string()).send().await.unwrap().status().as_u16()
                }
                "update" => admin.patch(&path, &(sample.changes)()).await.status,
                _ => {
                    let row = at(&list, &admin.make(&list, &(sample.new)(&owner)).await);
                    if operation == "restore" {
                        admin.delete(&row).await.assert_status(204);
                    }
                    tokio::time::sleep(4 * DELAY).await;
                    trips.lock().unwrap().clear();
                    if operation == "delete" {
                        admin.delete(&row).await.status
                    } else {
                        admin.restore(&row).await.status
                    }
                }
            })
            .await;
            let messages: Vec<Vec<String>> = row.into_iter().map(|trip| trip.messages).collect();
            table.push((
                count <= most && statements <= most_statements,
                format!(
                    "{operation} {list}: {count} of {most}, {statements} of {most_statements} statements: {messages:?}"
                ),
            ));
        }
    }
    let (count, statements, row) = measure(&trips, async || admin.get("health/ready").await.status).await;
    table.push((count <= MOST_FOR_READINESS, format!("readiness: {count}, {statements} statements: {row:?}")));
    assert!(table.iter().all(|(few, _)| *few), "{table:#?}");
}

/// A caller that goes away while its transaction begins leaves none open: the next user of the session would not commit.
#[tokio::test]
async fn requests_given_up_leave_no_transaction_open() {
    let Some(mut database) = Database::migrated_postgres().await else { return };
    let direct = database.url.clone();
    database.url = listen(&database, DELAY, Trips::default()).await;
    let app = TestApp::start(database).await;
    let clinic = app.new_tenant().await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let path = at("documents", &clinic.document(&owner).await);
    // Two round trips, of the look for the caller and of the beginning, and a part of each.
    for share in 1..=24 {
        let patience = DELAY * share / 8;
        let requests = (0..4).map(|_| tokio::time::timeout(patience, clinic.viewer.get(&path)));
        join_all(requests).await;
    }
    let server = sea_orm::Database::connect(direct).await.unwrap();
    let open = "SELECT count(*) AS open FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    let none_open = async || {
        let row = server.query_one_raw(Statement::from_string(DbBackend::Postgres, open)).await.unwrap().unwrap();
        (row.try_get::<i64>("", "open").unwrap() == 0).then_some(())
    };
    eventually("no transaction is open", none_open).await;
}

#[tokio::test]
async fn reads_that_wait_share_transactions() {
    /// More than a tenant's share of the pool.
    const READS: usize = 64;
    let Some(mut database) = Database::migrated_postgres().await else { return };
    let trips = Trips::default();
    database.url = listen(&database, Duration::ZERO, Arc::clone(&trips)).await;
    let (_app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let path = at("documents", &clinic.document(&owner).await);
    trips.lock().unwrap().clear();
    for answer in join_all((0..READS).map(|_| clinic.viewer.get(&path))).await {
        answer.assert_status(200);
    }
    let begins = |trip: &&Trip| trip.messages.iter().any(|text| text.ends_with("BEGIN"));
    // Those that record the reads, too.
    let begun = trips.lock().unwrap().iter().filter(begins).count();
    assert!((1..READS).contains(&begun), "{begun} transactions for {READS} reads");
}
