//! `bulkhead`, built with other migrations: FIXTURE names what its own are followed by, separated by commas.
//! Without FIXTURE it is `bulkhead` itself. `release-3` is the third release after it, with a migration for each.
//! FIXTURE_LOCKS has what they lock.

use bulkhead_migration::EACH_TENANT;
use bulkhead_migrator::{Migration, Migrations, Mode, Sql};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut migrations = bulkhead_migration::all();
    for name in std::env::var("FIXTURE").unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
        change(&mut migrations, name);
    }
    let locks = std::env::var("FIXTURE_LOCKS").unwrap_or_default();
    bulkhead::cli::run(Migrations::new(migrations).with_locks(leak(format!("{}{locks}", bulkhead_migration::LOCKS))))
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// By this name the first one goes, whatever it does: a later build may have mended it.
const FIRST: &str = "m20990101_000001_first";
const OWN: &str = "m20261101_000001_create_tenants";

fn sql(name: &'static str, min_compatible_version: &'static str, mode: Mode, sql: &'static str) -> Migration {
    let both = |sql| Sql { postgres: sql, sqlite: sql };
    Migration { name, min_compatible_version, mode, up: both(sql), down: both("SELECT 1") }
}

/// What a release adds that the build before can do without.
fn column_of_release(release: u32) -> Migration {
    let name = leak(format!("m20980101_{release:06}_release"));
    sql(name, OWN, Mode::Transaction, leak(format!("ALTER TABLE documents ADD COLUMN release_{release} text")))
}

/// Seeds, then never ends.
const HANG: Sql = Sql {
    postgres: "INSERT INTO seeds (n) VALUES (1); SELECT pg_sleep(600)",
    sqlite: "INSERT INTO seeds (n) VALUES (1);
             WITH RECURSIVE endless (n) AS (SELECT 1 UNION ALL SELECT n FROM endless) SELECT count(*) FROM endless",
};

/// Fills `done` of 500 rows. The lock in the query leaves out rows that another session fills at the same moment.
const FILL: Sql = Sql {
    postgres: "UPDATE seeds SET done = n * 2
        WHERE n IN (SELECT n FROM seeds WHERE done IS NULL ORDER BY n LIMIT 500 FOR UPDATE)",
    sqlite: "UPDATE seeds SET done = n * 2 WHERE n IN (SELECT n FROM seeds WHERE done IS NULL ORDER BY n LIMIT 500)",
};
const NAME_USERS: &str = "UPDATE users SET full_name = email
    WHERE id IN (SELECT id FROM users WHERE full_name IS NULL LIMIT 2)";

fn change(migrations: &mut Vec<Migration>, name: &str) {
    const SEED: &str = "INSERT INTO seeds (n) VALUES (1)";
    let transaction = Mode::Transaction;
    if let Some(release) = name.strip_prefix("release-") {
        let release: u32 = release.parse().expect("the number of a release");
        return migrations.extend((1..=release).map(column_of_release));
    }
    migrations.push(match name {
        "seed" => sql(FIRST, OWN, transaction, SEED),
        // A later build can do without the seed, an earlier one cannot.
        "breaking" => sql(FIRST, FIRST, transaction, SEED),
        "hang" => Migration { up: HANG, ..sql(FIRST, OWN, transaction, "") },
        "fail" => sql(FIRST, OWN, transaction, "INSERT INTO seeds (n) VALUES (1); SELECT nonsense FROM nowhere"),
        "alter" => sql(FIRST, OWN, transaction, "ALTER TABLE seeds ADD COLUMN added int"),
        "unlock" => sql(FIRST, OWN, transaction, "SELECT pg_advisory_unlock_all()"),
        "non-transactional-short" => sql(FIRST, OWN, Mode::NonTransactional, "SELECT pg_sleep(3)"),
        "non-transactional" => sql(FIRST, OWN, Mode::NonTransactional, "SELECT pg_sleep(600)"),
        "index" => sql(
            FIRST,
            OWN,
            Mode::ConcurrentIndex("seeds_n"),
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS seeds_n ON seeds (n)",
        ),
        "fill" => Migration { up: FILL, ..sql(FIRST, OWN, Mode::Backfill(None), "") },
        "fill-for-ever" => sql(
            FIRST,
            OWN,
            Mode::Backfill(None),
            "UPDATE seeds SET done = n * 2 WHERE n IN (SELECT n FROM seeds ORDER BY n LIMIT 5000)",
        ),
        "name-users" => sql(FIRST, OWN, Mode::Backfill(None), NAME_USERS),
        "name-users-of-each-tenant" => sql(FIRST, OWN, Mode::Backfill(Some(EACH_TENANT)), NAME_USERS),
        "second" => sql("m20990101_000002_second", OWN, transaction, SEED),
        "between" => return migrations.insert(1, sql("m20261101_000001_create_tenants_more", OWN, transaction, SEED)),
        "edited" => {
            migrations.remove(0);
            return migrations.insert(0, sql(OWN, OWN, transaction, "SELECT 'something else'"));
        }
        "older" => {
            migrations.pop();
            return;
        }
        _ => panic!("there is no fixture {name}"),
    });
}
