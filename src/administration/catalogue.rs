//! What tables there are with rows of tenants, as the database says: a table that somebody adds is found, too.

use crate::ids::TenantId;
use sea_orm::sea_query::{Alias, Expr, ExprTrait};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, Statement};
use std::collections::BTreeMap;

/// The table of the tenants themselves.
const TENANTS: &str = "tenants";

/// A table with rows of tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TenantTable {
    /// Its name.
    pub(super) name: String,
    /// Its columns, in their order.
    pub(super) columns: Vec<Column>,
    /// The tables with rows of tenants that its foreign keys refer to.
    pub(super) refers_to: Vec<String>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// Its name.
    pub(super) name: String,
    /// Whether it may hold nothing.
    pub(super) nullable: bool,
}

#[derive(FromQueryResult)]
struct ColumnRow {
    relation: String,
    name: String,
    nullable: bool,
}

#[derive(FromQueryResult)]
struct KeyRow {
    relation: String,
    other: String,
}

impl TenantTable {
    /// The column that has the tenant's id.
    fn tenant_column(&self) -> &'static str {
        if self.name == TENANTS { "id" } else { "tenant_id" }
    }

    /// Is true of the tenant's rows.
    pub(super) fn of(&self, tenant: TenantId) -> Expr {
        Expr::col(Alias::new(self.tenant_column())).eq(tenant)
    }

    /// Selects each of the tenant's rows as a JSON object, its columns as the database has them: by id, or else in the order of the
    /// first columns.
    pub(super) fn rows_as_json(&self, backend: DbBackend, tenant: TenantId) -> Statement {
        let id = self.columns.iter().filter(|column| column.name == "id");
        let order = id.chain(&self.columns).take(2).map(|column| quoted(&column.name));
        let object = match backend {
            DbBackend::Postgres => "row_to_json(t.*)::text".to_owned(),
            _ => sqlite_object(&self.columns),
        };
        let (name, tenant_column) = (quoted(&self.name), self.tenant_column());
        let order = order.collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {object} FROM {name} AS t WHERE {tenant_column} = $1 ORDER BY {order}");
        Statement::from_sql_and_values(backend, sql, [tenant.into()])
    }
}

/// Every table with rows of tenants, by name. Partitions are parts of their tables.
pub(super) async fn tenant_tables(connection: &impl ConnectionTrait) -> Result<Vec<TenantTable>, DbErr> {
    let backend = connection.get_database_backend();
    let (columns, keys) = match backend {
        DbBackend::Postgres => (
            "SELECT c.relname::text AS relation, a.attname::text AS name, NOT a.attnotnull AS nullable
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.relnamespace = quote_ident(current_schema())::regnamespace
                 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
             ORDER BY c.relname, a.attnum",
            "SELECT DISTINCT c.relname::text AS relation, o.relname::text AS other
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class o ON o.oid = k.confrelid
             WHERE k.contype = 'f' AND c.relnamespace = quote_ident(current_schema())::regnamespace
             ORDER BY 1, 2",
        ),
        _ => (
            r#"SELECT m.name AS relation, c.name AS name, c."notnull" = 0 AS nullable
               FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY m.name, c.cid"#,
            r#"SELECT DISTINCT m.name AS relation, k."table" AS other
               FROM sqlite_master m, pragma_foreign_key_list(m.name) k WHERE m.type = 'table' ORDER BY 1, 2"#,
        ),
    };
    let columns = ColumnRow::find_by_statement(Statement::from_string(backend, columns)).all(connection).await?;
    let keys = KeyRow::find_by_statement(Statement::from_string(backend, keys)).all(connection).await?;
    let mut tables: BTreeMap<String, TenantTable> = BTreeMap::new();
    for ColumnRow { relation, name, nullable } in columns {
        let table = tables.entry(relation).or_insert_with_key(|relation| TenantTable {
            name: relation.clone(),
            columns: Vec::new(),
            refers_to: Vec::new(),
        });
        table.columns.push(Column { name, nullable });
    }
    // SQLite takes names in upper or lower case for the same.
    let is_tenant =
        |name: &str| name == "tenant_id" || backend != DbBackend::Postgres && name.eq_ignore_ascii_case("tenant_id");
    tables.retain(|name, table| name == TENANTS || table.columns.iter().any(|column| is_tenant(&column.name)));
    for KeyRow { relation, other } in keys {
        if tables.contains_key(&other)
            && let Some(table) = tables.get_mut(&relation)
        {
            table.refers_to.push(other);
        }
    }
    Ok(tables.into_values().collect())
}

/// A name as SQL takes any.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A row of SQLite's as JSON, which has no bytes: 16 of them are an id, and others hexadecimal. Not by `json_object`, whose
/// arguments are limited in number (sqlite.org/limits.html, SQLITE_MAX_FUNCTION_ARG).
fn sqlite_object(columns: &[Column]) -> String {
    let member = |column: &Column| {
        let (value, name) = (quoted(&column.name), serde_json::Value::from(column.name.as_str()).to_string());
        let part = |from: u8, length: u8| format!("substr(hex({value}), {from}, {length})");
        let id = [part(1, 8), part(9, 4), part(13, 4), part(17, 4), part(21, 12)].join(" || '-' || ");
        format!(
            "'{}:' || json_quote(CASE WHEN typeof({value}) <> 'blob' THEN {value}
                WHEN length({value}) = 16 THEN lower({id}) ELSE lower(hex({value})) END)",
            name.replace('\'', "''")
        )
    };
    let members: Vec<String> = columns.iter().map(member).collect();
    format!("'{{' || {} || '}}'", members.join(" || ',' || "))
}
