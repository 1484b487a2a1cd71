//! What each statement of a migration locks, measured on a PostgreSQL of the test's own.

use crate::database::target;
use crate::{Database, eventually};
use bulkhead_migrator::{LockMode, Migration, Migrations, Mode, Options, Runner};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, QueryResult, Statement, TransactionTrait};
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

/// What a migration was seen to lock.
#[derive(Debug)]
pub struct Locks {
    /// The migration's lines for [`Migrations::with_locks`].
    pub lines: Vec<String>,
    /// For each table: the strongest mode, and how long it was held.
    pub held: Vec<(String, LockMode, Duration)>,
}

/// Applies the migrations to an empty database, one by one, and looks at the locks of each. `rows` has SQL that fills tables,
/// after the migration of that name. `None` where there is no PostgreSQL.
///
/// # Panics
/// When a migration fails.
pub async fn measure_locks(migrations: &[Migration], rows: &[(&str, &str)]) -> Option<Vec<Locks>> {
    let database = Database::postgres().await?;
    let connection = database.connect().await;
    let mut all = Vec::new();
    for (index, migration) in migrations.iter().enumerate() {
        let tables = tables(&connection).await;
        let runner = Runner::new(Migrations::new(migrations[..=index].to_vec()), Options::default());
        let target = target(&database.url);
        let apply = async { drop(runner.up(&target, None).await.expect("the migration runs")) };
        let seen = if matches!(migration.mode, Mode::Transaction | Mode::Backfill(_)) {
            let seen = in_transaction(&connection, migration, &tables).await;
            apply.await;
            seen
        } else {
            outside_transaction(&connection, migration, &tables, apply).await
        };
        let mut lines: Vec<String> = seen.iter().map(|lock| lock.line(migration.name, &tables)).collect();
        if lines.is_empty() {
            lines.push(migration.name.to_owned());
        }
        let strongest: BTreeMap<i64, &Seen> = seen.iter().map(|lock| (lock.table, lock)).collect();
        let held = strongest.iter().map(|(table, lock)| (tables[table].clone(), lock.mode, lock.held)).collect();
        all.push(Locks { lines, held });
        for (_, sql) in rows.iter().filter(|(name, _)| *name == migration.name) {
            connection.execute_unprepared(sql).await.expect("the tables are filled");
        }
    }
    connection.close().await.expect("the connection closes");
    Some(all)
}

struct Seen {
    line: usize,
    table: i64,
    mode: LockMode,
    held: Duration,
}

impl Seen {
    fn line(&self, migration: &str, tables: &BTreeMap<i64, String>) -> String {
        format!("{migration} {} {} {}", self.line, tables[&self.table], self.mode.in_pg_locks())
    }
}

/// Runs the statements one by one and undoes them. A lock is held to the end, so it is seen once, at the statement that takes
/// it, and again where a later one takes a stronger one.
async fn in_transaction(
    connection: &DatabaseConnection,
    migration: &Migration,
    tables: &BTreeMap<i64, String>,
) -> Vec<Seen> {
    let transaction = connection.begin().await.expect("a transaction");
    let mut seen: Vec<(Seen, Instant)> = Vec::new();
    for (line, statement) in statements(migration.up.postgres) {
        transaction.execute_unprepared(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        let now = Instant::now();
        let locks = locks(&transaction, "pid = pg_backend_pid()", tables).await;
        for (table, mode) in locks {
            if seen.iter().all(|(lock, _)| lock.table != table || lock.mode < mode) {
                seen.push((Seen { line, table, mode, held: Duration::ZERO }, now));
            }
        }
    }
    transaction.rollback().await.expect("it is undone");
    seen.into_iter().map(|(lock, since)| Seen { held: since.elapsed(), ..lock }).collect()
}

/// Its own session cannot look at the locks of a statement that ends its transaction itself. So another one locks all tables:
/// the statement has to wait, and what it waits for is seen. It is the lock on the first table that it asks for.
async fn outside_transaction(
    connection: &DatabaseConnection,
    migration: &Migration,
    tables: &BTreeMap<i64, String>,
    apply: impl Future<Output = ()>,
) -> Vec<Seen> {
    let in_the_way = connection.begin().await.expect("a transaction");
    for table in tables.values() {
        let lock = format!("LOCK TABLE \"{table}\" IN ACCESS EXCLUSIVE MODE");
        in_the_way.execute_unprepared(&lock).await.expect("the table is locked");
    }
    let mut apply = pin!(apply);
    let waits = eventually("the statement waits for a table", async || {
        let waiting = locks(connection, "NOT granted", tables).await;
        (!waiting.is_empty()).then_some(waiting)
    });
    let waiting = tokio::select! {
        () = &mut apply => return Vec::new(),
        waiting = waits => waiting,
    };
    in_the_way.rollback().await.expect("it is out of the way");
    let since = Instant::now();
    apply.await;
    let line = statements(migration.up.postgres).first().map_or(1, |(line, _)| *line);
    waiting.into_iter().map(|(table, mode)| Seen { line, table, mode, held: since.elapsed() }).collect()
}

/// The strongest lock on each of the tables.
async fn locks(connection: &impl ConnectionTrait, of: &str, tables: &BTreeMap<i64, String>) -> BTreeMap<i64, LockMode> {
    let sql = format!(
        "SELECT relation::bigint AS id, mode AS text FROM pg_locks
         WHERE {of} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    let mut strongest = BTreeMap::new();
    for (table, mode) in pairs(connection, &sql).await {
        let Some(mode) = LockMode::from_pg_locks(&mode).filter(|_| tables.contains_key(&table)) else { continue };
        strongest.entry(table).and_modify(|strong: &mut LockMode| *strong = mode.max(*strong)).or_insert(mode);
    }
    strongest
}

/// The tables that exist, but for the history's.
async fn tables(connection: &DatabaseConnection) -> BTreeMap<i64, String> {
    let sql = "SELECT oid::bigint AS id, relname::text AS text FROM pg_class
        WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace AND relname NOT LIKE 'seaql%'";
    pairs(connection, sql).await.into_iter().collect()
}

async fn pairs(connection: &impl ConnectionTrait, sql: &str) -> Vec<(i64, String)> {
    let rows = connection.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await.expect("the catalogue");
    let pair = |row: &QueryResult| Some((row.try_get("", "id").ok()?, row.try_get("", "text").ok()?));
    rows.iter().filter_map(pair).collect()
}

/// The statements of `sql`, each with the line on which it begins. Knows comments, quotes and dollar quotes; neither `E'\''` nor
/// a body that begins with BEGIN ATOMIC, on which PostgreSQL would report a syntax error.
fn statements(sql: &str) -> Vec<(usize, &str)> {
    let (mut found, mut begin, mut at) = (Vec::new(), None, 0);
    while let Some(first) = sql[at..].chars().next() {
        let rest = &sql[at..];
        // Up to and with the next `end`, which may not be in the first `after` bytes.
        let past =
            |end: &str, after: usize| rest[after..].find(end).map_or(rest.len(), |length| after + length + end.len());
        let comment = rest.starts_with("--") || rest.starts_with("/*");
        let length = match first {
            '-' if comment => past("\n", 2),
            '/' if comment => past("*/", 2),
            '\'' => past("'", 1),
            '"' => past("\"", 1),
            '$' => dollar_quote(rest).map_or(1, |quote| past(quote, quote.len())),
            _ => first.len_utf8(),
        };
        if first == ';' {
            found.extend(begin.take().map(|begin| (begin, at)));
        } else if !comment && !first.is_whitespace() {
            begin.get_or_insert(at);
        }
        at += length;
    }
    found.extend(begin.map(|begin| (begin, at)));
    found.into_iter().map(|(begin, end)| (sql[..begin].matches('\n').count() + 1, &sql[begin..end])).collect()
}

/// `$$` or `$name$` at the beginning of `text`.
fn dollar_quote(text: &str) -> Option<&str> {
    let name = text[1..].find('$')?;
    text[1..=name].chars().all(|letter| letter.is_alphanumeric() || letter == '_').then(|| &text[..name + 2])
}

#[cfg(test)]
mod tests {
    use super::statements;

    #[test]
    fn statements_end_where_postgresql_ends_them() {
        let sql = "-- first; not\n\nSELECT 'a;''b' AS \"c;d\";\n\
            /* no; */ DO $do$ BEGIN; $x$;$x$ END $do$;\nSELECT $$;$$ -- end\n";
        let found = statements(sql);
        assert_eq!(found[0], (3, "SELECT 'a;''b' AS \"c;d\""));
        assert_eq!(found[1], (4, "DO $do$ BEGIN; $x$;$x$ END $do$"));
        assert_eq!(found[2], (5, "SELECT $$;$$ -- end\n"));
        assert_eq!(found.len(), 3);
    }
}
