//! The ceiling: axum and tokio-postgres by hand, without log and middleware. The messages of a transaction are sent at once,
//! and one transaction commits the changes and audit entries of all requests that wait. Where one of them fails, all do: this
//! is no product.

use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use contenders::{
    COLUMNS, CONNECTIONS, Caller, CallerRow, Claims, Client, Document, Fail, NewDocument, PAGE, Page, Ready, Verifier,
};
use futures_util::future::{MaybeDone, maybe_done};
use futures_util::{FutureExt, join, poll};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_postgres::types::{Json as PgJson, ToSql};
use tokio_postgres::{NoTls, Row, Statement};
use uuid::Uuid;

/// How many of the connections write. Each has its share of the tenants, so that no two wait for one chain.
const WRITERS: u32 = 4;

/// How many requests a transaction commits at most.
const BATCH: usize = 256;

/// A connection with its prepared statements.
struct Connection {
    client: tokio_postgres::Client,
    caller: Statement,
    read: Statement,
    list: Statement,
    tenant: Statement,
    insert: Statement,
    record: Statement,
}

impl Connection {
    async fn open(url: &str) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("{error}");
            }
        });
        let (live, page) = ("deleted_at IS NULL", PAGE + 1);
        let caller =
            "SELECT c.*, set_config('app.current_tenant_id', c.tenant_id::text, true) FROM find_caller($1, $2) c";
        let read = format!("SELECT {COLUMNS} FROM documents WHERE id = $1 AND {live}");
        let list =
            format!("SELECT {COLUMNS} FROM documents WHERE {live} ORDER BY created_at DESC, id DESC LIMIT {page}");
        let insert = "INSERT INTO documents
                (id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes, status, metadata)
            SELECT d.id, $1, d.owner, d.key, d.bucket, d.name, d.kind, d.size, d.status, d.metadata::jsonb
            FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::text[],
                $10::text[]) AS d (id, owner, key, bucket, name, kind, size, status, metadata)
            RETURNING created_at";
        let record = "INSERT INTO audit_logs
                (id, tenant_id, user_id, action, resource_type, resource_id, ip, user_agent, metadata)
            SELECT e.id, $1, e.actor, e.action, 'documents', e.resource, e.ip, e.agent, e.metadata::jsonb
            FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::inet[], $7::text[], $8::text[])
                AS e (id, actor, action, resource, ip, agent, metadata)";
        Ok(Self {
            caller: client.prepare(caller).await?,
            read: client.prepare(&read).await?,
            list: client.prepare(&list).await?,
            tenant: client.prepare("SELECT set_config('app.current_tenant_id', $1, true)").await?,
            insert: client.prepare(insert).await?,
            record: client.prepare(record).await?,
            client,
        })
    }
}

/// An entry of the audit log, and the change that it is of.
struct Job {
    caller: Caller,
    action: &'static str,
    resource: Option<Uuid>,
    ip: IpAddr,
    agent: Option<String>,
    metadata: String,
    document: Option<Document>,
    done: oneshot::Sender<Answer>,
}

/// The time of the commit, and the document that was inserted.
type Answer = Option<(OffsetDateTime, Option<Document>)>;

/// Commits what waits, all at once.
async fn write(connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        batch.sort_by_key(|job: &Job| job.caller.tenant);
        let committed = commit(&connection, &batch).await.inspect_err(|error| eprintln!("{error}")).ok();
        if committed.is_none() {
            // Whatever it had begun.
            let _ = connection.client.batch_execute("ROLLBACK").await;
        }
        for job in batch.drain(..) {
            let _ = job.done.send(committed.map(|at| (at, job.document)));
        }
    }
}

async fn commit(connection: &Connection, batch: &[Job]) -> Result<OffsetDateTime, tokio_postgres::Error> {
    let client = &connection.client;
    let mut at = OffsetDateTime::UNIX_EPOCH;
    let mut sent: Vec<Pin<Box<MaybeDone<Messages<'_>>>>> = Vec::new();
    send(&mut sent, async { client.batch_execute("BEGIN; SET LOCAL ROLE bulkhead_app").await.map(|()| None) }).await;
    for chain in batch.chunk_by(|one, next| one.caller.tenant == next.caller.tenant) {
        let tenant = chain[0].caller.tenant;
        send(&mut sent, async move { client.query(&connection.tenant, &[&tenant.to_string()]).await.map(|_| None) })
            .await;
        let new: Vec<&Document> = chain.iter().filter_map(|job| job.document.as_ref()).collect();
        if !new.is_empty() {
            send(&mut sent, async move { insert(connection, tenant, &new).await }).await;
        }
        send(&mut sent, record(connection, tenant, chain)).await;
    }
    send(&mut sent, async { client.batch_execute("COMMIT").await.map(|()| None) }).await;
    for mut message in sent {
        message.as_mut().await;
        if let Some(outcome) = message.as_mut().take_output() {
            at = outcome?.unwrap_or(at);
        }
    }
    Ok(at)
}

/// What a message brings back: the time of the transaction, where it has asked for it.
type Messages<'a> = futures_util::future::BoxFuture<'a, Result<Option<OffsetDateTime>, tokio_postgres::Error>>;

/// Sends a message, which its first poll does, without waiting for what comes back.
async fn send<'a>(
    sent: &mut Vec<Pin<Box<MaybeDone<Messages<'a>>>>>,
    message: impl Future<Output = Result<Option<OffsetDateTime>, tokio_postgres::Error>> + Send + 'a,
) {
    let mut message = Box::pin(maybe_done(message.boxed()));
    let _ = poll!(message.as_mut());
    sent.push(message);
}

async fn insert(
    connection: &Connection,
    tenant: Uuid,
    new: &[&Document],
) -> Result<Option<OffsetDateTime>, tokio_postgres::Error> {
    let text = |field: fn(&Document) -> &str| new.iter().map(|row| field(row)).collect::<Vec<&str>>();
    let id = |field: fn(&Document) -> Uuid| new.iter().map(|row| field(row)).collect::<Vec<Uuid>>();
    let sizes: Vec<i64> = new.iter().map(|row| row.size_bytes).collect();
    let values: [&(dyn ToSql + Sync); 10] = [
        &tenant,
        &id(|row| row.id),
        &id(|row| row.user_id),
        &text(|row| &row.storage_key),
        &text(|row| &row.bucket),
        &text(|row| &row.filename),
        &text(|row| &row.content_type),
        &sizes,
        &text(|row| &row.status),
        &text(|row| row.metadata.get()),
    ];
    let rows = connection.client.query(&connection.insert, &values).await?;
    rows.first().map(|row| row.try_get(0)).transpose()
}

async fn record(
    connection: &Connection,
    tenant: Uuid,
    chain: &[Job],
) -> Result<Option<OffsetDateTime>, tokio_postgres::Error> {
    let ids: Vec<Uuid> = chain.iter().map(|_| Uuid::now_v7()).collect();
    let actors: Vec<Option<Uuid>> = chain.iter().map(|job| job.caller.user).collect();
    let actions: Vec<&str> = chain.iter().map(|job| job.action).collect();
    let resources: Vec<Option<Uuid>> = chain.iter().map(|job| job.resource).collect();
    let addresses: Vec<IpAddr> = chain.iter().map(|job| job.ip).collect();
    let agents: Vec<Option<&str>> = chain.iter().map(|job| job.agent.as_deref()).collect();
    let metadata: Vec<&str> = chain.iter().map(|job| job.metadata.as_str()).collect();
    let values: [&(dyn ToSql + Sync); 8] =
        [&tenant, &ids, &actors, &actions, &resources, &addresses, &agents, &metadata];
    connection.client.execute(&connection.record, &values).await.map(|_| None)
}

struct App {
    verifier: Verifier,
    readers: Mutex<Vec<Arc<Connection>>>,
    free: Semaphore,
    writers: Vec<mpsc::Sender<Job>>,
}

/// A connection that goes back when it is no longer used, also where the client has hung up.
struct Lease<'a> {
    app: &'a App,
    connection: Arc<Connection>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Ok(mut readers) = self.app.readers.lock() {
            readers.push(Arc::clone(&self.connection));
        }
    }
}

/// Which of a connection's statements is run.
type Choice = fn(&Connection) -> &Statement;

impl App {
    async fn open() -> anyhow::Result<Self> {
        let url = contenders::setting("DATABASE_URL")?;
        let mut readers = Vec::new();
        for _ in WRITERS..CONNECTIONS {
            readers.push(Arc::new(Connection::open(&url).await.context("DATABASE_URL")?));
        }
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            let (sender, receiver) = mpsc::channel(1024);
            tokio::spawn(write(Connection::open(&url).await?, receiver));
            writers.push(sender);
        }
        let free = Semaphore::new(readers.len());
        Ok(Self { verifier: Verifier::new()?, readers: Mutex::new(readers), free, writers })
    }

    /// Runs `work` on a connection of its own. What `work` has sent by its first poll runs to its end even if nobody waits.
    async fn on_connection<T>(&self, work: impl AsyncFnOnce(&Connection) -> T) -> Result<T, Fail> {
        let _turn = self.free.acquire().await?;
        let connection = self.readers.lock()?.pop().ok_or("no connection is free")?;
        let lease = Lease { app: self, connection };
        Ok(work(&lease.connection).await)
    }

    /// The caller, and the rows of a statement that its tenant may see.
    async fn ask(
        &self,
        claims: &Claims,
        question: Option<(Choice, &[&(dyn ToSql + Sync)])>,
    ) -> Result<(Caller, Vec<Row>), Fail> {
        let (begun, caller, rows, ended) = self
            .on_connection(async |connection| {
                let client = &connection.client;
                let who: [&(dyn ToSql + Sync); 2] = [&claims.tenant_id, &claims.sub];
                let rows = async {
                    match question {
                        Some((choice, values)) => client.query(choice(connection), values).await,
                        None => Ok(Vec::new()),
                    }
                };
                // Polled in this order, and so sent in this order.
                join!(
                    client.batch_execute("BEGIN READ ONLY; SET LOCAL ROLE bulkhead_app"),
                    client.query_opt(&connection.caller, &who),
                    rows,
                    client.batch_execute("COMMIT"),
                )
            })
            .await?;
        begun?;
        let caller = caller?.ok_or_else(|| Fail::caller(StatusCode::FORBIDDEN))?;
        let caller = CallerRow {
            tenant_id: caller.try_get(0)?,
            status: caller.try_get(1)?,
            tenant_deleted: caller.try_get(2)?,
            user_id: caller.try_get(3)?,
            role: caller.try_get(4)?,
            user_deleted: caller.try_get(5)?,
        };
        let caller = caller.authorize(claims, question.is_none())?;
        let rows = rows?;
        ended?;
        Ok((caller, rows))
    }

    /// Returns once the entry, and its change, are committed.
    async fn record(
        &self,
        caller: Caller,
        client: Client,
        (action, resource, metadata): (&'static str, Option<Uuid>, String),
        document: Option<Document>,
    ) -> Result<(OffsetDateTime, Option<Document>), Fail> {
        let (done, outcome) = oneshot::channel();
        let Client { ip, agent } = client;
        let writer = &self.writers[usize::from(caller.tenant.as_bytes()[15]) % self.writers.len()];
        writer.send(Job { caller, action, resource, ip, agent, metadata, document, done }).await?;
        Ok(outcome.await?.ok_or("the transaction has failed")?)
    }
}

fn document(row: &Row) -> Result<Document, tokio_postgres::Error> {
    Ok(Document {
        id: row.try_get(0)?,
        user_id: row.try_get(1)?,
        storage_key: row.try_get(2)?,
        bucket: row.try_get(3)?,
        filename: row.try_get(4)?,
        content_type: row.try_get(5)?,
        size_bytes: row.try_get(6)?,
        status: row.try_get(7)?,
        metadata: row.try_get::<_, PgJson<_>>(8)?.0,
        created_at: row.try_get(9)?,
        updated_at: row.try_get(10)?,
    })
}

type Shared = State<Arc<App>>;

async fn read(
    State(app): Shared,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    client: Client,
) -> Result<Json<Document>, Fail> {
    let claims = app.verifier.check(&headers)?;
    let (caller, rows) = app.ask(&claims, Some((|connection| &connection.read, &[&id]))).await?;
    let found = rows.first().map(document).transpose()?;
    let said = format!("{{\"found\":{}}}", found.is_some());
    app.record(caller, client, ("DATA_ACCESS", Some(id), said), None).await?;
    found.map(Json).ok_or_else(|| Fail::caller(StatusCode::NOT_FOUND))
}

async fn list(State(app): Shared, headers: HeaderMap, client: Client) -> Result<Json<Page>, Fail> {
    let claims = app.verifier.check(&headers)?;
    let (caller, rows) = app.ask(&claims, Some((|connection| &connection.list, &[]))).await?;
    let page = Page::new(rows.iter().map(document).collect::<Result<_, _>>()?);
    app.record(caller, client, ("DATA_ACCESS", None, page.shown()), None).await?;
    Ok(Json(page))
}

async fn create(
    State(app): Shared,
    headers: HeaderMap,
    client: Client,
    Json(new): Json<NewDocument>,
) -> Result<(StatusCode, Json<Document>), Fail> {
    let claims = app.verifier.check(&headers)?;
    let (caller, _) = app.ask(&claims, None).await?;
    let row = new.row(caller)?;
    let event = ("CREATED", Some(row.id), "{}".to_owned());
    let (at, document) = app.record(caller, client, event, Some(row)).await?;
    let document = document.ok_or("the document is gone")?;
    Ok((StatusCode::CREATED, Json(Document { created_at: at, updated_at: at, ..document })))
}

async fn ready(State(app): Shared) -> Result<Json<Ready>, Fail> {
    let row = app.on_connection(async |connection| connection.client.query_one(Ready::SQL, &[]).await).await??;
    Ok(Json(Ready::new(row.try_get(0)?)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let api = Router::new()
        .route("/health/live", get(contenders::live))
        .route("/health/ready", get(ready))
        .route("/documents", get(list).post(create))
        .route("/documents/{id}", get(read));
    contenders::serve(Router::new().nest("/api/v1", api).with_state(Arc::new(App::open().await?))).await
}
