//! The ceiling's connections, and how it commits what waits.

use contenders::{COLUMNS, Caller, Document, PAGE};
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use futures_util::{FutureExt, poll};
use serde::Serialize;
use serde_json::value::RawValue;
use std::net::IpAddr;
use std::pin::Pin;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{NoTls, Statement};
use uuid::Uuid;

/// How many requests a transaction commits at most.
const BATCH: usize = 256;

/// A connection with its prepared statements.
pub(crate) struct Connection {
    pub(crate) client: tokio_postgres::Client,
    pub(crate) caller: Statement,
    pub(crate) read: Statement,
    pub(crate) list: Statement,
    insert: Statement,
    record: Statement,
}

impl Connection {
    /// Opens a connection and prepares its statements.
    pub(crate) async fn open(url: &str) -> anyhow::Result<Self> {
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
        Ok(Self {
            caller: client.prepare(caller).await?,
            read: client.prepare(&read).await?,
            list: client.prepare(&list).await?,
            insert: client.prepare(insert).await?,
            record: client.prepare("SELECT append_entries($1)").await?,
            client,
        })
    }
}

/// An entry of the audit log, and the change that it is of.
pub(crate) struct Job {
    pub(crate) caller: Caller,
    pub(crate) action: &'static str,
    pub(crate) resource: Option<Uuid>,
    pub(crate) ip: IpAddr,
    pub(crate) agent: Option<String>,
    pub(crate) metadata: Box<RawValue>,
    pub(crate) document: Option<Document>,
    pub(crate) done: oneshot::Sender<Answer>,
}

/// The time of the commit, and the document that was inserted.
pub(crate) type Answer = Option<(OffsetDateTime, Option<Document>)>;

/// Commits what waits, all at once.
pub(crate) async fn write(connection: Connection, mut jobs: mpsc::Receiver<Job>) {
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
    let mut at = OffsetDateTime::UNIX_EPOCH;
    let mut sent = Vec::new();
    let mut begin = "BEGIN; SET LOCAL ROLE bulkhead_app; ";
    for chain in batch.chunk_by(|one, next| one.caller.tenant == next.caller.tenant) {
        let tenant = chain[0].caller.tenant;
        let scope = format!("{begin}SET LOCAL app.current_tenant_id = '{tenant}'");
        send(&mut sent, async move { connection.client.batch_execute(&scope).await.map(|()| None) }).await;
        let new: Vec<&Document> = chain.iter().filter_map(|job| job.document.as_ref()).collect();
        if !new.is_empty() {
            send(&mut sent, async move { insert(connection, tenant, &new).await }).await;
        }
        send(&mut sent, record(connection, chain)).await;
        begin = "";
    }
    send(&mut sent, async { connection.client.batch_execute("COMMIT").await.map(|()| None) }).await;
    for mut message in sent {
        message.as_mut().await;
        if let Some(outcome) = message.as_mut().take_output() {
            at = outcome?.unwrap_or(at);
        }
    }
    Ok(at)
}

/// What a message brings back: the time of the transaction, where it has asked for it.
type Outcome = Result<Option<OffsetDateTime>, tokio_postgres::Error>;

/// A message that was sent.
type Sent<'a> = Pin<Box<MaybeDone<BoxFuture<'a, Outcome>>>>;

/// Sends a message, which its first poll does, without waiting for what comes back.
async fn send<'a>(sent: &mut Vec<Sent<'a>>, message: impl Future<Output = Outcome> + Send + 'a) {
    let mut message = Box::pin(maybe_done(message.boxed()));
    let _ = poll!(message.as_mut());
    sent.push(message);
}

async fn insert(connection: &Connection, tenant: Uuid, new: &[&Document]) -> Outcome {
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

/// An entry as the database's function takes it.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    id: Uuid,
    tenant_id: Uuid,
    user_id: Option<Uuid>,
    action: &'a str,
    resource_type: &'a str,
    resource_id: Option<Uuid>,
    ip: IpAddr,
    user_agent: Option<&'a str>,
    metadata: &'a RawValue,
}

async fn record(connection: &Connection, chain: &[Job]) -> Outcome {
    let entries: Vec<Entry<'_>> = chain
        .iter()
        .map(|job| Entry {
            id: Uuid::now_v7(),
            tenant_id: job.caller.tenant,
            user_id: job.caller.user,
            action: job.action,
            resource_type: "documents",
            resource_id: job.resource,
            ip: job.ip,
            user_agent: job.agent.as_deref(),
            metadata: &job.metadata,
        })
        .collect();
    connection.client.execute(&connection.record, &[&Json(entries)]).await.map(|_| None)
}
