//! Lists stay quick however long they are: the plans of the API's real statements, on tables of 200,000 rows.
//!
//! `auto_explain` sends the plan of every statement, those inside functions too, to the session that ran it, and the
//! server logs it under the request's id. SQLite has no such thing; its indexes are the same.

use crate::support::{TestApp, TestClient};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use test_support::provider::Shape;
use test_support::{Database, Server, eventually};
use uuid::Uuid;

/// The rows of `users`, of `documents` and of `audit_logs`: most of them one tenant's.
const ROWS: [u32; 3] = [120_000, 40_000, 40_000];

/// What a page of 50 rows may touch, in pages of 8 KiB: each row on a page of its own, and the way down the index.
const MOST_BUFFERS: u64 = 200;

/// How often a session plans a statement for its values before it may settle for a plan for any (PostgreSQL: 5 times).
const PLANNED_ANEW: usize = 6;

/// A database with long tables. The app's tenant has most of the rows.
struct LongTables {
    app: TestApp,
}

impl LongTables {
    async fn new() -> Option<Self> {
        let app = TestApp::without_tenants(Shape::Plain, Database::migrated_postgres().await?).await;
        let mut long = Self { app };
        let mut tenants = Vec::new();
        for number in 0..ROWS.len() {
            tenants.push(long.app.make_tenant(&format!("tenant-{number}")).await);
        }
        long.fill(&tenants).await;
        long.explain().await;
        long.app.tenant = tenants[0];
        Some(long)
    }

    /// Somebody of that tenant.
    fn caller<'l>(&self, server: &'l Server<'l>, subject: &str) -> Caller<'l> {
        Caller { server, client: TestClient::new(&self.app, server, "tenant-0", subject, "admin") }
    }

    /// Rows by the hundred thousand, without their triggers. What is rare is old: a walk from the newest finds it last.
    async fn fill(&self, tenants: &[Uuid]) {
        let tenants: Vec<String> =
            (0..).zip(tenants.iter().zip(ROWS)).map(|(n, (id, rows))| format!("({n}, '{id}'::uuid, {rows})")).collect();
        let sql = format!(
            "SET session_replication_role = replica;
             CREATE FUNCTION pg_temp.row_id(kind text, tenant int, place int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
                 $$ SELECT (left(encode(convert_to(kind, 'UTF8'), 'hex'), 8) || '-0000-7000-800' || tenant || '-' || lpad(place::text, 12, '0'))::uuid $$;
             CREATE TEMP TABLE t AS SELECT * FROM (VALUES {}) AS t (n, id, rows);
             INSERT INTO tenants (id, name, external_id)
                 SELECT gen_random_uuid(), 'A clinic', 'clinic-' || i FROM generate_series(1, 5000) AS i;
             INSERT INTO users (id, tenant_id, email, external_idp_id, role, created_at, deleted_at)
                 SELECT pg_temp.row_id('user', n, i), id, i || '@example.org', 'subject-' || i,
                     CASE WHEN i <= 5 THEN 'admin' WHEN i % 2 = 0 THEN 'member' ELSE 'viewer' END,
                     timestamptz '2026-01-01' + (i / 5) * interval '1 second',
                     CASE WHEN i % 10 = 0 THEN now() END
                 FROM t, generate_series(1, rows) AS i;
             INSERT INTO documents (id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes,
                     status, created_at, deleted_at)
                 SELECT pg_temp.row_id('document', n, i), id, pg_temp.row_id('user', n, 1 + i % 200),
                     id || '/' || i, 'clinic', 'scan.pdf', 'application/pdf', i,
                     CASE WHEN i <= 10 THEN 'failed' WHEN i % 3 = 0 THEN 'processing' ELSE 'completed' END,
                     timestamptz '2026-01-01' + (i / 5) * interval '1 second',
                     CASE WHEN i % 10 = 0 THEN now() END
                 FROM t, generate_series(1, rows) AS i;
             DELETE FROM audit_logs;
             INSERT INTO audit_logs (id, tenant_id, sequence, user_id, action, resource_type, resource_id, ip,
                     user_agent, created_at, prev_hash, hash)
                 SELECT pg_temp.row_id('entry', n, i), id, i, pg_temp.row_id('user', n, 1 + i % 200),
                     CASE WHEN i <= 3 THEN 'LOGIN' WHEN i % 10 = 0 THEN 'UPDATED' ELSE 'DATA_ACCESS' END,
                     CASE WHEN i <= 5 THEN 'tenants' WHEN i % 3 = 0 THEN 'users' ELSE 'documents' END,
                     pg_temp.row_id('document', n, 1 + i % 1000), '192.0.2.1', 'Mozilla/5.0',
                     timestamptz '2026-01-01' + (i / 5) * interval '1 second', repeat('0', 64), repeat('0', 64)
                 FROM t, generate_series(1, rows) AS i;
             UPDATE audit_heads SET sequence = rows FROM t WHERE tenant_id = t.id;
             ANALYZE users, documents, audit_logs, audit_heads, tenants;
             DROP TABLE t;
             DROP FUNCTION pg_temp.row_id;
             SET session_replication_role = origin",
            tenants.join(", ")
        );
        self.app.execute(&sql).await;
    }

    /// Has every session from now on say how it runs its statements.
    async fn explain(&self) {
        for setting in [
            "session_preload_libraries = 'auto_explain'",
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_level = notice",
            "auto_explain.log_analyze = on",
            "auto_explain.log_buffers = on",
            "auto_explain.log_timing = off",
            "auto_explain.log_nested_statements = on",
        ] {
            self.app.on_this_database(&format!("ALTER DATABASE %I SET {setting}")).await;
        }
    }

    /// One value that the database works out, as text.
    async fn value(&self, sql: &str) -> String {
        self.app.value(&format!("SELECT ({sql})::text")).await
    }

    /// The cursor behind the row at `offset` of the tenant's rows for which `condition` is true; and how many rows
    /// stand behind it.
    async fn cursor(&self, table: &str, condition: &str, offset: usize) -> String {
        let ours = format!("FROM {table} WHERE tenant_id = '{}' AND {condition}", self.app.tenant);
        if table == "audit_logs" {
            return self.value(&format!("SELECT sequence {ours} ORDER BY sequence DESC OFFSET {offset} LIMIT 1")).await;
        }
        let place = "(extract(epoch FROM created_at) * 1000000)::bigint || ' ' || id";
        let ours = format!("{ours} AND deleted_at IS NULL ORDER BY created_at DESC, id DESC OFFSET {offset} LIMIT 1");
        let place = self.value(&format!("SELECT {place} {ours}")).await;
        let (micros, id) = place.split_once(' ').unwrap();
        let mut bytes = micros.parse::<i64>().unwrap().to_be_bytes().to_vec();
        bytes.extend(id.parse::<Uuid>().unwrap().as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }
}

/// How the server has run one statement.
#[derive(Debug, Clone)]
struct Plan {
    text: String,
    /// The pages of 8 KiB that it has touched.
    buffers: u64,
}

impl Plan {
    fn of(message: &str) -> Option<Self> {
        let (_, text) = message.split_once("Query Text: ")?;
        let buffers = text.lines().find_map(|line| line.trim().strip_prefix("Buffers: shared "));
        let count = |part: &str| part.split_once('=').and_then(|(_, count)| count.parse::<u64>().ok());
        let buffers = buffers.unwrap_or_default().split(' ').take_while(|part| part.contains('='));
        let buffers =
            buffers.filter(|part| part.starts_with("hit") || part.starts_with("read")).filter_map(count).sum();
        Some(Self { text: text.to_owned(), buffers })
    }

    /// Whether it looks at one of the long tables.
    fn is_of_a_long_table(&self) -> bool {
        ["users", "documents", "audit_logs"].iter().any(|table| self.text.contains(&format!(" on {table}")))
    }

    fn must_use_an_index(&self, what: &str) {
        assert!(!self.text.contains("Seq Scan"), "{what}: {}", self.text);
        assert!(self.text.contains("Index Scan") || self.text.contains("Index Only Scan"), "{what}: {}", self.text);
    }

    /// In the index's own order, from where the page begins: nothing is gathered first and then sorted.
    fn must_walk_an_index(&self, what: &str) {
        self.must_use_an_index(what);
        let sorts = self.text.contains("Sort Key") || self.text.contains("Bitmap");
        assert!(!sorts, "{what}: {}", self.text);
        assert!(self.buffers > 0 && self.buffers <= MOST_BUFFERS, "{what}: {} buffers: {}", self.buffers, self.text);
    }
}

/// A session on a server, and a caller.
struct Caller<'l> {
    server: &'l Server<'l>,
    client: TestClient,
}

impl Caller<'_> {
    /// GETs a page: how many rows it has, and the plans of the statements on long tables that made it.
    async fn page(&self, path: &str) -> (usize, Vec<Plan>) {
        let before = self.server.log().len();
        let answer = self.client.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let lines = eventually("the request is logged, after its plans", async || {
            let lines = self.server.log_after(before);
            let lines = lines.iter().filter(|line| line.contains(answer.header("x-request-id")));
            let lines: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
            lines.iter().any(|line| line["message"] == "request").then_some(lines)
        })
        .await;
        let plans = lines.iter().filter_map(|line| Plan::of(line["message"].as_str()?));
        (answer.items().len(), plans.filter(Plan::is_of_a_long_table).collect())
    }

    /// As [`Caller::page`], until the session may have settled for a plan: the list's own plans, each time.
    async fn pages(&self, path: &str, rows: usize) -> Vec<Plan> {
        let mut all = Vec::new();
        for _ in 0..=PLANNED_ANEW {
            let (found, plans) = self.page(path).await;
            // A page that looks through a window of the log may be short.
            assert!(found == rows || path.contains("resource_id=") && found < rows, "{path}: {found}");
            let mut own: Vec<Plan> =
                plans.into_iter().filter(|plan| !plan.text.contains("LEFT JOIN public.users u")).collect();
            let one = !["resource_id=", "since=", "until="].iter().any(|name| path.contains(name));
            assert!(own.len() == 1 || !one, "{path}: one statement makes a page: {own:#?}");
            all.append(&mut own);
        }
        all
    }
}

/// The id of a row of the tenant with most of them.
fn row_id(kind: &str, row: u32) -> String {
    let kind = hex::encode(&kind[..4]);
    format!("{kind}-0000-7000-8000-{row:012}")
}

/// A list with filters.
struct List {
    table: &'static str,
    path: String,
    /// Which of the tenant's rows it shows, in SQL.
    condition: String,
    /// Whether an index is made for it; where there is none, another will do.
    indexed: bool,
}

impl List {
    fn new(path: &str, filters: &[(&str, &str)]) -> Self {
        let table = if path == "audit-logs" {
            "audit_logs"
        } else if path == "users" {
            "users"
        } else {
            "documents"
        };
        let query: String = filters.iter().flat_map(|(name, value)| ["&", name, "=", value]).collect();
        let live = if table == "audit_logs" { "true" } else { "deleted_at IS NULL" };
        let compare = |name| match name {
            "since" => "created_at >=",
            "until" => "created_at <",
            "user_id" => "user_id =",
            "resource_type" => "resource_type =",
            "resource_id" => "resource_id =",
            "role" => "role =",
            "status" => "status =",
            _ => "action =",
        };
        let condition: String =
            filters.iter().flat_map(|(name, value)| [" AND ", compare(name), " '", value, "'"]).collect();
        // By which lists a thing was seen, a window of the log is looked through for.
        let indexed = filters.len() < 2 || filters[0].0 == "since";
        Self { table, path: format!("{path}?limit=50{query}"), condition: format!("{live}{condition}"), indexed }
    }

    fn check(&self, plan: &Plan) {
        if self.indexed { plan.must_walk_an_index(&self.path) } else { plan.must_use_an_index(&self.path) }
    }
}

/// Every list with every filter: by values of which there are many, few and none.
fn lists() -> Vec<List> {
    let (user, document, nobody) = (row_id("user", 7), row_id("document", 7), Uuid::max().to_string());
    let (user, document, nobody) = (user.as_str(), document.as_str(), nobody.as_str());
    let mut lists = vec![List::new("users", &[]), List::new("documents", &[]), List::new("audit-logs", &[])];
    for (path, name, values) in [
        ("users", "role", &["member", "viewer", "admin"][..]),
        ("documents", "status", &["completed", "processing", "failed"]),
        ("documents", "user_id", &[user, nobody]),
        ("audit-logs", "action", &["DATA_ACCESS", "UPDATED", "LOGIN", "RESTORED"]),
        ("audit-logs", "user_id", &[user, nobody]),
        ("audit-logs", "resource_type", &["documents", "users", "tenants", "patients"]),
    ] {
        lists.extend(values.iter().map(|value| List::new(path, &[(name, value)])));
    }
    for status in ["completed", "failed"] {
        lists.push(List::new("documents", &[("status", status), ("user_id", user)]));
    }
    for (kind, id) in [("documents", document), ("users", document), ("patients", document), ("documents", nobody)] {
        lists.push(List::new("audit-logs", &[("resource_type", kind), ("resource_id", id)]));
    }
    lists.push(List::new("audit-logs", &[("action", "UPDATED"), ("user_id", user)]));
    lists.push(List::new("audit-logs", &[("since", "2026-01-01T05:00:00Z")]));
    lists.push(List::new("audit-logs", &[("until", "2026-01-01T01:00:00Z")]));
    lists.push(List::new("audit-logs", &[("since", "2026-01-01T01:00:00Z"), ("until", "2026-01-01T02:00:00Z")]));
    lists
}

#[tokio::test]
async fn lists_and_rows_are_read_by_an_index() {
    // Filled once for both.
    let Some(long) = LongTables::new().await else { return };
    // One session, so that it settles for a plan.
    let server = long.app.server(&[("DATABASE_MAX_CONNECTIONS", "1"), ("LOG_LEVEL", "info")]).await;
    every_list_walks_an_index_from_where_its_page_begins(&long, &server).await;
    a_caller_and_a_row_are_found_by_an_index(&long, &server).await;
}

async fn every_list_walks_an_index_from_where_its_page_begins(long: &LongTables, server: &Server<'_>) {
    // Not the user whose entries are looked for: to look makes more of them.
    let caller = long.caller(server, "subject-9");
    for list in lists() {
        let List { table, path, condition, .. } = &list;
        let count = format!("SELECT count(*) FROM {table} WHERE tenant_id = '{}' AND {condition}", long.app.tenant);
        let count: usize = long.value(&count).await.parse().unwrap();
        let first = caller.pages(path, count.min(50)).await;
        for plan in &first {
            list.check(plan);
        }
        if count < 150 {
            continue;
        }
        // Page 1,000, or the last full one.
        let offset = (999 * 50).min(count - 51);
        let cursor = long.cursor(table, condition, offset - 1).await;
        let deep = caller.pages(&format!("{path}&cursor={cursor}"), 50).await;
        for plan in &deep {
            list.check(plan);
        }
        let most = |plans: &[Plan]| plans.iter().map(|plan| plan.buffers).max().unwrap();
        let (first, deep) = (most(&first), most(&deep));
        assert!(deep <= 3 * first, "{path}: {first} buffers for page 1, {deep} behind {offset} rows");
    }
}

async fn a_caller_and_a_row_are_found_by_an_index(long: &LongTables, server: &Server<'_>) {
    for subject in ["subject-7", "subject-119999", "nobody"] {
        let caller = long.caller(server, subject);
        for _ in 0..=PLANNED_ANEW {
            let (_, plans) = caller.page("auth/validate").await;
            assert_eq!(plans.len(), 1, "{plans:#?}");
            plans[0].must_use_an_index(subject);
            assert!(plans[0].text.contains("Index Scan using users_subject"), "{}", plans[0].text);
            assert!(plans[0].buffers <= 10, "{}", plans[0].text);
            for kind in ["user", "document"] {
                let path = format!("{kind}s/{}", row_id(kind, 7));
                let (_, plans) = caller.page(&path).await;
                assert_eq!(plans.len(), 2, "{plans:#?}");
                plans[1].must_walk_an_index(&path);
                assert!(plans[1].buffers <= 10, "{path}: {}", plans[1].text);
            }
        }
    }
}
