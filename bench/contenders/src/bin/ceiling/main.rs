//! The ceiling: axum and tokio-postgres by hand, without log and middleware. The messages of a transaction are sent at once,
//! and one transaction commits the changes and audit entries of all requests that wait. Where one of them fails, all do: this
//! is no product.

mod database;

use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use contenders::{CONNECTIONS, Caller, CallerRow, Claims, Client, Document, Fail, NewDocument, Page, Ready, Verifier};
use database::{Connection, Job, write};
use futures_util::join;
use serde_json::value::RawValue;
use std::sync::{Arc, Mutex};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_postgres::types::{Json as PgJson, ToSql};
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

/// How many of the connections write. Each has its share of the tenants, so that no two wait for one chain.
const WRITERS: u32 = 4;

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
        let metadata = RawValue::from_string(metadata)?;
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
