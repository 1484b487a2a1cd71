//! Whether the database keeps tenants apart, and where it does not.

use crate::audit;
use crate::database::{self, Access};
use aws_lc_rs::digest::{SHA256, digest};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, FromQueryResult, Statement};

/// Who keeps tenants apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    /// The database, whatever a query says, and the application besides.
    Database,
    /// The application alone: the database has no means for it (SQLite).
    Application,
    /// The database could, but these faults keep it from doing so.
    NotEnforced(Vec<String>),
}

impl Isolation {
    /// Asks the catalogue for every table, policy, key, trigger, function and right of the schema; `isolation.sql` holds
    /// the rules. With [`Access::Read`] it asks as the role that requests have, and whether that role can be had is a
    /// part of the question.
    pub async fn look(pool: &DatabaseConnection, access: Access) -> Result<Self, DbErr> {
        if pool.get_database_backend() != DbBackend::Postgres {
            return Ok(Self::Application);
        }
        let transaction = match database::begin(pool, audit::SYSTEM_TENANT, access).await {
            Err(error) if database::may_not_take_role(&error) => {
                let fault = format!("DATABASE_URL: its role may not take on {0}: GRANT {0} TO it", database::APP_ROLE);
                return Ok(Self::NotEnforced(vec![fault]));
            }
            begun => begun?,
        };
        let rules = Statement::from_string(DbBackend::Postgres, include_str!("isolation.sql"));
        let rows = transaction.query_all_raw(rules).await?;
        let faults = rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<Vec<String>, _>>()?;
        Ok(if faults.is_empty() { Self::Database } else { Self::NotEnforced(faults) })
    }
}

/// Rows of tenants that a policy or a right opens, besides those that [`Isolation`] is about.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Opening {
    /// Whether they are open to the API's role.
    pub to_the_api: bool,
    /// What is open.
    pub text: String,
    /// What closes it.
    pub mend: String,
}

/// What is open to other roles, and to the API's outside of the schema; `None` with SQLite, which has neither.
pub async fn openings(pool: &DatabaseConnection) -> Result<Option<Vec<Opening>>, DbErr> {
    if pool.get_database_backend() != DbBackend::Postgres {
        return Ok(None);
    }
    let transaction = database::begin(pool, audit::SYSTEM_TENANT, Access::Read).await?;
    let rules = Statement::from_string(DbBackend::Postgres, include_str!("openings.sql"));
    Opening::find_by_statement(rules).all(&transaction).await.map(Some)
}

/// The triggers that guard the audit log on SQLite, each with SHA-256 of what SQLite keeps of its statement, in hexadecimal. On
/// PostgreSQL, `isolation.sql` knows what guards it.
const SQLITE_GUARDS: [(&str, &str); 15] = [
    ("audit_checkpoints_no_delete", "d18c52eae8c5bea5de80b8c180e738214dbceac31cb1ab0444ba69554903074b"),
    ("audit_checkpoints_no_replace", "c05a47beb0e8241bb7f143cd7a215a91d627b0ac683378c03c6b0587d96c1df9"),
    ("audit_checkpoints_no_update", "375900d9493d9602e0213568192c2887cdbce45b02ffdfdc905093c53a9cd713"),
    ("audit_heads_advance", "d31250e322462898ea07f65322ef512c4fe6b05ff4d80cf62b6b3a2629c59462"),
    ("audit_heads_no_replace", "6d77f4cf59a3c335d5c4531a531c58a25a3ae9e63a428794617136aa237375f3"),
    ("audit_heads_stay", "6795b3ca86dd492777d51551eb38fb5640d6cb2a566cc704d69740d8f1d5d2f6"),
    ("audit_logs_chain", "c1c53292535c6ae4d83eefc3b18317c24e837355ca4a15de9fcfb54e2b93fecd"),
    ("audit_logs_head", "c722c58255ba54b5c2811bcf3ace6b4049d4d168431d0f494f841809b8908a6a"),
    ("audit_logs_no_delete", "10479353768dd7f361499b828841bda8f4b1a15a7613b085c743b283db3a19ae"),
    ("audit_logs_no_replace", "95c7db0c741698331cd4a2c66e3cbfd494a5593fca76a5c4f54c45cbf8b616d2"),
    ("audit_logs_no_update", "19564d22bf35722bc7dc5d7beac2f0fc9b0c09a987a8d161e822eb24b8919777"),
    ("audit_nodes_no_delete", "a5e99d021579746e9b7c74179e6149fcaac095da5a3bdb8aef8b7744b51eeb6f"),
    ("audit_nodes_no_replace", "70d875979a1920a7ebba73df294e2215484a4474cda00cdd9bad141f1e2d3687"),
    ("audit_nodes_no_update", "5e79e4d576b002587e958371412b44acb1bba1a3299128bb80e05f317a61f6be"),
    ("tenants_audit_chain", "2943926ba94eaf5351ef4bbd96a24b9edffd609ba68d201acd629aefba7259ca"),
];

/// The functions that make entries, guard them, and tell who a caller is, each with SHA-256 of the body that it has in the schema
/// `public`, in hexadecimal: `SELECT proname, encode(sha256(convert_to(prosrc, 'UTF8')), 'hex') FROM pg_proc`. A migration that replaces one changes
/// its line here.
const POSTGRES_FUNCTIONS: [(&str, &str); 7] = [
    ("append_entries", "e3b103852e6a76bd289536bca2af059792c7afaeebc2c2ce1ea4fae268938edd"),
    ("begin_audit_chain", "3fbfb9263b930361f43aa6aa2c3321dc95a4aa42e7e6ddbecae49078fe320fd6"),
    ("canonical_json", "d19b64549c68373864d38e8291009d959ba210aeba09dbfc65c19194847702c9"),
    ("continue_audit_chain", "03471b8e5a0fb35b4c2db2df1b8e1877cf1537b31b3d15d7cae15fd2b30976ef"),
    ("find_caller", "607a50b81d77c45874f7ae7c6319fad717c657f8f74fe43c5333b60cf4359c98"),
    ("record_entries", "43ebe4afe15e80d85128b3dff89c00f14d58fb3f1febb0b8fd19690c2744b180"),
    ("refuse_change", "c7661d72c517eb805a6ea26cf53cc5aa6c2121300388533bb98b37a1d281e488"),
];

/// What their bodies name together with their schema.
const OF_THE_SCHEMA: [&str; 6] = ["append_entries", "audit_heads", "audit_logs", "canonical_json", "tenants", "users"];

/// What of the triggers, functions, rights and policies that guard the audit log is not as the migrations of this build made it.
pub async fn audit_guard_faults(connection: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    let rows = async |sql: &str| {
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        connection.query_all_raw(statement).await
    };
    if connection.get_database_backend() != DbBackend::Postgres {
        let triggers = rows("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").await?;
        let triggers = triggers.iter().map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?)));
        return Ok(unlike("trigger", &SQLITE_GUARDS, &triggers.collect::<Result<Vec<_>, DbErr>>()?));
    }
    let mut faults = match Isolation::look(connection, Access::Operate).await? {
        Isolation::NotEnforced(faults) => faults,
        Isolation::Database | Isolation::Application => Vec::new(),
    };
    // What concerns other tables alone is for `migrate verify`.
    faults.retain(|fault| fault.contains("audit_") || !(fault.starts_with("table ") || fault.starts_with("policy ")));
    let functions = rows(
        "SELECT proname::text, prosrc, quote_ident(current_schema()) FROM pg_proc
        WHERE pronamespace = quote_ident(current_schema())::regnamespace",
    )
    .await?;
    let functions = functions.iter().map(|row| {
        let (name, body, schema): (String, String, String) =
            (row.try_get_by_index(0)?, row.try_get_by_index(1)?, row.try_get_by_index(2)?);
        let body = OF_THE_SCHEMA
            .iter()
            .fold(body, |body, name| body.replace(&format!("{schema}.{name}"), &format!("public.{name}")));
        Ok((name, body))
    });
    faults.extend(unlike("function", &POSTGRES_FUNCTIONS, &functions.collect::<Result<Vec<_>, DbErr>>()?));
    Ok(faults)
}

/// Says which of `made`, names with their texts' hashes, are not `there`, or not with that text.
fn unlike(kind: &str, made: &[(&str, &str)], there: &[(String, String)]) -> Vec<String> {
    let fault = |(made, sha256): &(&str, &str)| {
        let mut found = there.iter().filter(|(name, _)| name == made).peekable();
        if found.peek().is_none() {
            return Some(format!("{kind} {made} is missing"));
        }
        let is_other = found.any(|(_, text)| hex::encode(digest(&SHA256, text.as_bytes())) != *sha256);
        is_other.then(|| format!("{kind} {made} is not the one that the migrations made"))
    };
    made.iter().filter_map(fault).collect()
}
