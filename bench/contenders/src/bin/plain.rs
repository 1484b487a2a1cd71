//! axum and sqlx as teams write it: a pool with sqlx's defaults, each statement a round trip, and the audit entry in the
//! request's own transaction. No log, no middleware.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use contenders::{
    COLUMNS, CONNECTIONS, Caller, CallerRow, Client, Document, Fail, NewDocument, PAGE, Page, Ready, Verifier,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};
use std::sync::Arc;
use uuid::Uuid;

struct App {
    verifier: Verifier,
    pool: PgPool,
}

impl App {
    /// The caller, and a transaction of its tenant.
    async fn begin(&self, headers: &HeaderMap, writes: bool) -> Result<(Caller, Transaction<'static, Postgres>), Fail> {
        let claims = self.verifier.check(headers)?;
        let sql = "SELECT * FROM find_caller($1, $2)";
        let row: Option<CallerRow> =
            sqlx::query_as(sql).bind(&claims.tenant_id).bind(&claims.sub).fetch_optional(&self.pool).await?;
        let caller = row.ok_or_else(|| Fail::caller(StatusCode::FORBIDDEN))?.authorize(&claims, writes)?;
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SELECT set_config('role', 'bulkhead_app', true), set_config('app.current_tenant_id', $1, true)")
            .bind(caller.tenant.to_string())
            .execute(&mut *transaction)
            .await?;
        Ok((caller, transaction))
    }
}

/// Appends the entry and commits.
async fn end(
    mut transaction: Transaction<'static, Postgres>,
    caller: Caller,
    client: Client,
    (action, resource, metadata): (&str, Option<Uuid>, String),
) -> Result<(), Fail> {
    sqlx::query(
        "INSERT INTO audit_logs (id, tenant_id, user_id, action, resource_type, resource_id, ip, user_agent, metadata)
         VALUES ($1, $2, $3, $4, 'documents', $5, $6::inet, $7, $8::jsonb)",
    )
    .bind(Uuid::now_v7())
    .bind(caller.tenant)
    .bind(caller.user)
    .bind(action)
    .bind(resource)
    .bind(client.ip.to_string())
    .bind(client.agent)
    .bind(metadata)
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

type Shared = State<Arc<App>>;

async fn read(
    State(app): Shared,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    client: Client,
) -> Result<Json<Document>, Fail> {
    let (caller, mut transaction) = app.begin(&headers, false).await?;
    let sql = format!("SELECT {COLUMNS} FROM documents WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL");
    let found: Option<Document> =
        sqlx::query_as(AssertSqlSafe(sql)).bind(caller.tenant).bind(id).fetch_optional(&mut *transaction).await?;
    let said = format!("{{\"found\":{}}}", found.is_some());
    end(transaction, caller, client, ("DATA_ACCESS", Some(id), said)).await?;
    found.map(Json).ok_or_else(|| Fail::caller(StatusCode::NOT_FOUND))
}

async fn list(State(app): Shared, headers: HeaderMap, client: Client) -> Result<Json<Page>, Fail> {
    let (caller, mut transaction) = app.begin(&headers, false).await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM documents WHERE tenant_id = $1 AND deleted_at IS NULL
         ORDER BY created_at DESC, id DESC LIMIT {}",
        PAGE + 1
    );
    let rows = sqlx::query_as(AssertSqlSafe(sql)).bind(caller.tenant).fetch_all(&mut *transaction).await?;
    let page = Page::new(rows);
    end(transaction, caller, client, ("DATA_ACCESS", None, page.shown())).await?;
    Ok(Json(page))
}

async fn create(
    State(app): Shared,
    headers: HeaderMap,
    client: Client,
    Json(new): Json<NewDocument>,
) -> Result<(StatusCode, Json<Document>), Fail> {
    let (caller, mut transaction) = app.begin(&headers, true).await?;
    let row = new.row(caller)?;
    let sql = format!(
        "INSERT INTO documents
             (id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes, status, metadata)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb) RETURNING {COLUMNS}"
    );
    let document: Document = sqlx::query_as(AssertSqlSafe(sql))
        .bind(row.id)
        .bind(caller.tenant)
        .bind(row.user_id)
        .bind(row.storage_key)
        .bind(row.bucket)
        .bind(row.filename)
        .bind(row.content_type)
        .bind(row.size_bytes)
        .bind(row.status)
        .bind(row.metadata.get().to_owned())
        .fetch_one(&mut *transaction)
        .await?;
    end(transaction, caller, client, ("CREATED", Some(document.id), "{}".to_owned())).await?;
    Ok((StatusCode::CREATED, Json(document)))
}

async fn ready(State(app): Shared) -> Result<Json<Ready>, Fail> {
    Ok(Json(Ready::new(sqlx::query_scalar(Ready::SQL).fetch_one(&app.pool).await?)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(&contenders::setting("DATABASE_URL")?).await?;
    let api = Router::new()
        .route("/health/live", get(contenders::live))
        .route("/health/ready", get(ready))
        .route("/documents", get(list).post(create))
        .route("/documents/{id}", get(read));
    let app = App { verifier: Verifier::new()?, pool };
    contenders::serve(Router::new().nest("/api/v1", api).with_state(Arc::new(app))).await
}
