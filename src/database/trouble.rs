//! What a failure says of the database, where it is not the request's and not ours.

use super::code;
use sea_orm::{DbErr, RuntimeErr, sqlx};

/// Why the database could not do what it was asked, though it may another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It is not there, or the session with it has ended.
    Unreachable,
    /// It is there and takes no changes: it is read-only, or its disk is full or fails.
    NoWrites,
    /// Something held the statement up for too long, such as another one's lock.
    Busy,
}

impl Trouble {
    /// `None` where the failure is of another kind: a fault of ours, or something that the request asked for.
    #[must_use]
    pub fn of(error: &DbErr) -> Option<Self> {
        if let Some(code) = code(error) {
            // SQLSTATE has five characters, a result code of SQLite four at most.
            let told = if code.len() == 5 { Self::of_sqlstate(&code) } else { Self::of_sqlite(code.parse().ok()?) };
            if told.is_some() {
                return told;
            }
        }
        match error {
            DbErr::Conn(_) | DbErr::ConnectionAcquire(_) => Some(Self::Unreachable),
            DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => {
                Self::of_driver(cause)
            }
            _ => None,
        }
    }

    /// Whether a statement failed because its session has ended. What it was to do may be done or not.
    #[must_use]
    pub fn session_ended(error: &DbErr) -> bool {
        let (DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause))) = error else {
            return false;
        };
        // admin_shutdown, crash_shutdown, idle_session_timeout, idle_in_transaction_session_timeout; class 08: connection
        // exception, which PgBouncer uses, too.
        let code = code(error);
        matches!(&**cause, sqlx::Error::Io(_))
            || code
                .is_some_and(|code| matches!(&*code, "57P01" | "57P02" | "57P05" | "25P03") || code.starts_with("08"))
    }

    fn of_driver(error: &sqlx::Error) -> Option<Self> {
        use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
        matches!(error, Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed).then_some(Self::Unreachable)
    }

    /// postgresql.org/docs/current/errcodes-appendix.html
    fn of_sqlstate(code: &str) -> Option<Self> {
        match code {
            // too_many_connections; what ends a session that idles. Class 57 holds query_canceled, too, which is below.
            "53300" | "25P03" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => Some(Self::Unreachable),
            // read_only_sql_transaction
            "25006" => Some(Self::NoWrites),
            // query_canceled (statement_timeout), lock_not_available, deadlock_detected, serialization_failure.
            "57014" | "55P03" | "40P01" | "40001" => Some(Self::Busy),
            // Class 08: connection exception. 53: insufficient resources. 58: system error, such as of the disk.
            _ => match code.get(..2) {
                Some("08") => Some(Self::Unreachable),
                Some("53" | "58") => Some(Self::NoWrites),
                _ => None,
            },
        }
    }

    /// sqlite.org/rescode.html: an extended result code has the primary one in its low byte.
    fn of_sqlite(code: u32) -> Option<Self> {
        match code & 0xff {
            // SQLITE_CANTOPEN
            14 => Some(Self::Unreachable),
            // SQLITE_NOMEM, SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL
            7 | 8 | 10 | 13 => Some(Self::NoWrites),
            // SQLITE_BUSY, SQLITE_LOCKED
            5 | 6 => Some(Self::Busy),
            _ => None,
        }
    }
}
