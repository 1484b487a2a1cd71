//! Two tenants at work at once, with ids, cursors, versions and owners of both in their hands: each sees what a model
//! says that it must see, and the other's rows stay as they are.

use crate::isolation::rows_of;
use crate::support::{Answer, TestApp, TestTenant, new_document, page};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use sea_orm::DatabaseConnection;
use serde_json::{Value, json};
use test_support::Database;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// How many cases each database gets, unless PROPTEST_CASES says otherwise.
const CASES: u32 = 24;

/// Something of one of both tenants.
#[derive(Debug, Clone)]
struct Pick {
    of: usize,
    index: Index,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Users,
    Documents,
}

use Kind::{Documents, Users};

/// What somebody asks for.
#[derive(Debug, Clone)]
enum Ask {
    MakeUser { name: u8, shout: bool },
    MakeDocument { owner: Pick, under: Option<usize>, status: usize },
    Read { kind: Kind, row: Pick },
    List { kind: Kind, narrow: Option<usize>, owner: Option<Pick>, limit: usize, cursor: Option<Pick> },
    Log { owner: Option<Pick> },
    Change { kind: Kind, row: Pick, version: Option<Pick>, change: Change },
    Delete { kind: Kind, row: Pick, version: Option<Pick> },
    Restore { kind: Kind, row: Pick },
    Rename { version: Option<Pick>, name: u8 },
}

#[derive(Debug, Clone)]
enum Change {
    /// The e-mail address, or the owner.
    Other {
        name: u8,
        owner: Pick,
    },
    /// The role, or the status.
    State(usize),
    Nothing,
}

const ROLES: [&str; 3] = ["viewer", "member", "admin"];
const STATUSES: [&str; 3] = ["processing", "completed", "failed"];

fn pick() -> impl Strategy<Value = Pick> {
    (0..2_usize, any::<Index>()).prop_map(|(of, index)| Pick { of, index })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Users), Just(Documents)]
}

fn ask() -> impl Strategy<Value = Ask> {
    let maybe = || prop::option::of(pick());
    let seldom = prop::option::weighted(0.2, pick());
    let change = prop_oneof![
        (0..4_u8, pick()).prop_map(|(name, owner)| Change::Other { name, owner }),
        (0..3_usize).prop_map(Change::State),
        Just(Change::Nothing),
    ];
    prop_oneof![
        3 => (0..4_u8, any::<bool>()).prop_map(|(name, shout)| Ask::MakeUser { name, shout }),
        4 => (pick(), prop::option::of(0..2_usize), 0..3_usize)
            .prop_map(|(owner, under, status)| Ask::MakeDocument { owner, under, status }),
        3 => (kind(), pick()).prop_map(|(kind, row)| Ask::Read { kind, row }),
        6 => (kind(), prop::option::weighted(0.2, 0..3_usize), seldom, 1..4_usize, maybe())
            .prop_map(|(kind, narrow, owner, limit, cursor)| Ask::List { kind, narrow, owner, limit, cursor }),
        1 => maybe().prop_map(|owner| Ask::Log { owner }),
        4 => (kind(), pick(), maybe(), change)
            .prop_map(|(kind, row, version, change)| Ask::Change { kind, row, version, change }),
        3 => (kind(), pick(), maybe()).prop_map(|(kind, row, version)| Ask::Delete { kind, row, version }),
        3 => (kind(), pick()).prop_map(|(kind, row)| Ask::Restore { kind, row }),
        1 => (maybe(), 0..4_u8).prop_map(|(version, name)| Ask::Rename { version, name }),
    ]
}

/// What a row is known to be.
#[derive(Debug, Clone)]
struct Row {
    body: Value,
    etag: String,
    deleted: bool,
}

impl Row {
    fn of(answer: &Answer) -> Self {
        Self { body: answer.body.clone(), etag: answer.etag().to_owned(), deleted: false }
    }

    fn id(&self) -> &str {
        self.body["id"].as_str().unwrap()
    }

    /// Where it stands in a list.
    fn place(&self) -> (OffsetDateTime, Uuid) {
        let at = OffsetDateTime::parse(self.body["created_at"].as_str().unwrap(), &Rfc3339).unwrap();
        (at, self.id().parse().unwrap())
    }
}

/// A cursor, and the place that it was given for.
type Cursor = (String, (OffsetDateTime, Uuid));

/// What one tenant has, and what it has in its hands.
struct Side {
    clinic: TestTenant,
    tenant: Row,
    users: Vec<Row>,
    documents: Vec<Row>,
    cursors: Vec<Cursor>,
    /// Every version that any of its rows has had.
    versions: Vec<String>,
}

impl Side {
    fn rows(&self, kind: Kind) -> &Vec<Row> {
        if kind == Users { &self.users } else { &self.documents }
    }

    fn rows_mut(&mut self, kind: Kind) -> &mut Vec<Row> {
        if kind == Users { &mut self.users } else { &mut self.documents }
    }

    fn find(&self, kind: Kind, id: &str) -> Option<&Row> {
        self.rows(kind).iter().find(|row| row.id() == id)
    }

    fn live(&self, kind: Kind, id: &str) -> Option<&Row> {
        self.find(kind, id).filter(|row| !row.deleted)
    }

    /// Whether another live user has this address.
    fn has_email(&self, email: &str, but: Option<&str>) -> bool {
        let same = |row: &&Row| row.body["email"].as_str().unwrap().eq_ignore_ascii_case(email);
        self.users.iter().filter(same).any(|row| !row.deleted && Some(row.id()) != but)
    }
}

/// Both tenants, and the database as it stands.
struct Game<'w> {
    connection: &'w DatabaseConnection,
    sides: [Side; 2],
    seen: [Vec<String>; 2],
}

fn name_of(kind: Kind) -> &'static str {
    if kind == Users { "users" } else { "documents" }
}

impl<'w> Game<'w> {
    async fn new(app: &'w TestApp) -> Self {
        let connection = &app.owner;
        // Not from nothing: who has nothing has nothing that the other could reach for.
        let side = async || {
            let clinic = app.new_tenant().await;
            let tenant = Row::of(&clinic.admin.get("tenant").await);
            let (mut users, mut documents) = (Vec::new(), Vec::new());
            for name in 0..2 {
                users.push(Row::of(&clinic.admin.post("users", &json!({"email": email(name, false)})).await));
                documents.push(Row::of(&clinic.member.post("documents", &new_document(&users[0].body["id"])).await));
            }
            let versions = [&tenant].into_iter().chain(&users).chain(&documents).map(|row| row.etag.clone()).collect();
            Side { clinic, tenant, users, documents, cursors: vec![], versions }
        };
        let sides = [side().await, side().await];
        let seen = [rows_of(connection, sides[0].clinic.id).await, rows_of(connection, sides[1].clinic.id).await];
        Self { connection, sides, seen }
    }

    /// The id of a row of either tenant.
    fn id(&self, kind: Kind, pick: &Pick) -> String {
        pick.index.get(self.sides[pick.of].rows(kind)).id().to_owned()
    }

    fn version(&self, pick: Option<&Pick>) -> Option<String> {
        pick.map(|pick| pick.index.get(&self.sides[pick.of].versions).clone())
    }

    /// Lets `who` ask, and holds the answer against what this tenant must see, and the rows of the other against what
    /// they were.
    async fn play(&mut self, who: usize, ask: &Ask) -> Result<(), TestCaseError> {
        match ask {
            Ask::MakeUser { name, shout } => self.make_user(who, *name, *shout).await?,
            Ask::MakeDocument { owner, under, status } => self.make_document(who, owner, *under, *status).await?,
            Ask::Read { kind, row } => {
                let id = self.id(*kind, row);
                let answer = self.sides[who].clinic.viewer.get(&format!("{}/{id}", name_of(*kind))).await;
                match self.sides[who].live(*kind, &id) {
                    Some(row) => is(&answer, row)?,
                    None => refused(&answer, (404, "RES_001", "-"))?,
                }
            }
            Ask::List { kind, narrow, owner, limit, cursor } => {
                self.list(who, *kind, *narrow, owner.as_ref(), *limit, cursor.as_ref()).await?;
            }
            Ask::Log { owner } => self.log(who, owner.as_ref()).await?,
            Ask::Change { kind, row, version, change } => {
                self.change(who, *kind, row, version.as_ref(), change).await?;
            }
            Ask::Delete { kind, row, version } => self.delete(who, *kind, row, version.as_ref()).await?,
            Ask::Restore { kind, row } => self.restore(who, *kind, row).await?,
            Ask::Rename { version, name } => self.rename(who, version.as_ref(), *name).await?,
        }
        let other = 1 - who;
        let now = rows_of(self.connection, self.sides[other].clinic.id).await;
        prop_assert_eq!(&now, &self.seen[other], "the other tenant's rows have changed");
        self.seen[who] = rows_of(self.connection, self.sides[who].clinic.id).await;
        Ok(())
    }

    async fn make_user(&mut self, who: usize, name: u8, shout: bool) -> Result<(), TestCaseError> {
        let side = &mut self.sides[who];
        let email = email(name, shout);
        let answer = side.clinic.admin.post("users", &json!({"email": email})).await;
        if side.has_email(&email, None) {
            return refused(&answer, (409, "RES_002", "email"));
        }
        prop_assert_eq!((answer.status, &answer.body["email"]), (201, &json!(email)), "{}", answer.body);
        side.versions.push(answer.etag().to_owned());
        side.users.push(Row::of(&answer));
        Ok(())
    }

    async fn make_document(
        &mut self,
        who: usize,
        owner: &Pick,
        under: Option<usize>,
        status: usize,
    ) -> Result<(), TestCaseError> {
        let owner = self.id(Users, owner);
        let mut body = new_document(&json!(owner));
        body["status"] = json!(STATUSES[status]);
        if let Some(under) = under {
            body["storage_key"] = json!(format!("{}/{}", self.sides[under].clinic.id, Uuid::now_v7()));
        }
        let side = &mut self.sides[who];
        let answer = side.clinic.member.post("documents", &body).await;
        if under.is_some_and(|under| under != who) {
            return refused(&answer, (400, "VAL_001", "storage_key"));
        }
        if side.live(Users, &owner).is_none() {
            return refused(&answer, (404, "RES_001", "user_id"));
        }
        prop_assert_eq!(answer.status, 201, "{}", answer.body);
        prop_assert!(answer.body["storage_key"].as_str().unwrap().starts_with(&side.clinic.id.to_string()));
        for (member, value) in body.as_object().unwrap() {
            prop_assert_eq!(&answer.body[member], value);
        }
        side.versions.push(answer.etag().to_owned());
        side.documents.push(Row::of(&answer));
        Ok(())
    }

    async fn list(
        &mut self,
        who: usize,
        kind: Kind,
        narrow: Option<usize>,
        owner: Option<&Pick>,
        limit: usize,
        cursor: Option<&Pick>,
    ) -> Result<(), TestCaseError> {
        let owner = owner.filter(|_| kind == Documents).map(|owner| self.id(Users, owner));
        let cursor = cursor.and_then(|pick| {
            let cursors = &self.sides[pick.of].cursors;
            (!cursors.is_empty()).then(|| pick.index.get(cursors).clone())
        });
        let (member, values) = if kind == Users { ("role", ROLES) } else { ("status", STATUSES) };
        let value = narrow.map(|at| values[at]);
        let filters =
            [value.map(|value| format!("{member}={value}")), owner.as_ref().map(|id| format!("user_id={id}"))];
        let filters: Vec<String> = filters.into_iter().flatten().collect();
        let list = if filters.is_empty() {
            name_of(kind).to_owned()
        } else {
            format!("{}?{}", name_of(kind), filters.join("&"))
        };

        let side = &mut self.sides[who];
        let answer = side.clinic.viewer.get(&page(&list, limit, &json!(cursor.as_ref().map(|cursor| &cursor.0)))).await;
        let mut expected: Vec<&Row> = side.rows(kind).iter().filter(|row| !row.deleted).collect();
        expected.retain(|row| value.is_none_or(|value| row.body[member] == value));
        expected.retain(|row| owner.as_ref().is_none_or(|owner| row.body["user_id"] == *owner));
        expected.retain(|row| cursor.as_ref().is_none_or(|cursor| row.place() < cursor.1));
        expected.sort_by_key(|row| std::cmp::Reverse(row.place()));
        let more = expected.len() > limit;
        expected.truncate(limit);
        let bodies: Vec<&Value> = expected.iter().map(|row| &row.body).collect();
        prop_assert_eq!(answer.status, 200, "{}", answer.body);
        prop_assert_eq!(answer.items().iter().collect::<Vec<_>>(), bodies, "{} after {:?}", list, cursor);
        prop_assert_eq!(answer.body["next_cursor"].is_string(), more);
        if let (Some(text), Some(last)) = (answer.body["next_cursor"].as_str(), expected.last()) {
            let next = (text.to_owned(), last.place());
            side.cursors.push(next);
        }
        Ok(())
    }

    /// What the audit log shows is the tenant's own chain, whoever is asked about.
    async fn log(&mut self, who: usize, owner: Option<&Pick>) -> Result<(), TestCaseError> {
        let owner = owner.map(|owner| self.id(Users, owner));
        let list = owner.map_or_else(|| "audit-logs".to_owned(), |id| format!("audit-logs?user_id={id}"));
        let answer = self.sides[who].clinic.admin.get(&page(&list, 200, &Value::Null)).await;
        prop_assert_eq!(answer.status, 200, "{}", answer.body);
        let own: Vec<i64> = answer.items().iter().map(|entry| entry["sequence"].as_i64().unwrap()).collect();
        if list.contains('?') {
            prop_assert!(own.is_empty(), "none of the callers is a user: {}", answer.body);
            return Ok(());
        }
        let newest = own.first().copied().unwrap_or_default();
        prop_assert!(own.iter().copied().eq((1..=newest).rev().take(200)), "a chain of one's own: {:?}", own);
        for entry in answer.items() {
            let made = ["CREATED", "UPDATED", "DELETED", "RESTORED"].contains(&entry["action"].as_str().unwrap());
            let id = entry["resource_id"].as_str().unwrap_or_default();
            let side = &self.sides[who];
            let known = side.find(Users, id).or(side.find(Documents, id)).is_some() || id == side.tenant.id();
            prop_assert!(!made || known, "a change of what is not this tenant's: {}", entry);
        }
        Ok(())
    }

    async fn change(
        &mut self,
        who: usize,
        kind: Kind,
        row: &Pick,
        version: Option<&Pick>,
        change: &Change,
    ) -> Result<(), TestCaseError> {
        let (id, version) = (self.id(kind, row), self.version(version));
        let body = match (change, kind) {
            (Change::Nothing, _) => json!({}),
            (Change::Other { name, .. }, Users) => json!({"email": email(*name, false)}),
            (Change::Other { owner, .. }, Documents) => json!({"user_id": self.id(Users, owner)}),
            (Change::State(at), Users) => json!({"role": ROLES[*at]}),
            (Change::State(at), Documents) => json!({"status": STATUSES[*at]}),
        };
        let side = &mut self.sides[who];
        let path = format!("{}/{id}", name_of(kind));
        let answer = side.clinic.admin.send("PATCH", &path, version.as_deref(), Some(&body)).await;
        if body["user_id"].as_str().is_some_and(|owner| side.live(Users, owner).is_none()) {
            return refused(&answer, (404, "RES_001", "user_id"));
        }
        let Some(row) = side.live(kind, &id) else { return refused(&answer, (404, "RES_001", "-")) };
        if kind == Users && body["role"].as_str().is_some_and(|role| role != "admin") && side.is_last_admin(&id) {
            return refused(&answer, (409, "RES_005", "role"));
        }
        if version.is_some_and(|version| version != row.etag) {
            return refused(&answer, (412, "RES_003", "-"));
        }
        if body["email"].as_str().is_some_and(|email| side.has_email(email, Some(&id))) {
            return refused(&answer, (409, "RES_002", "email"));
        }
        if body == json!({}) {
            return is(&answer, row);
        }
        side.changed(kind, &id, &answer, &body)
    }

    async fn delete(
        &mut self,
        who: usize,
        kind: Kind,
        row: &Pick,
        version: Option<&Pick>,
    ) -> Result<(), TestCaseError> {
        let (id, version) = (self.id(kind, row), self.version(version));
        let side = &mut self.sides[who];
        let answer =
            side.clinic.admin.send("DELETE", &format!("{}/{id}", name_of(kind)), version.as_deref(), None).await;
        if kind == Users && side.is_last_admin(&id) {
            return refused(&answer, (409, "RES_005", "-"));
        }
        let Some(row) = side.rows_mut(kind).iter_mut().find(|row| row.id() == id && !row.deleted) else {
            return refused(&answer, (404, "RES_001", "-"));
        };
        if version.is_some_and(|version| version != row.etag) {
            return refused(&answer, (412, "RES_003", "-"));
        }
        prop_assert_eq!((answer.status, &answer.body), (204, &Value::Null));
        row.deleted = true;
        Ok(())
    }

    async fn restore(&mut self, who: usize, kind: Kind, row: &Pick) -> Result<(), TestCaseError> {
        let id = self.id(kind, row);
        let side = &mut self.sides[who];
        let answer = side.clinic.admin.restore(&format!("{}/{id}", name_of(kind))).await;
        let Some(row) = side.find(kind, &id) else { return refused(&answer, (404, "RES_001", "-")) };
        if !row.deleted {
            return is(&answer, row);
        }
        if kind == Users && side.has_email(row.body["email"].as_str().unwrap(), Some(&id)) {
            return refused(&answer, (409, "RES_002", "email"));
        }
        side.changed(kind, &id, &answer, &json!({}))
    }

    async fn rename(&mut self, who: usize, version: Option<&Pick>, name: u8) -> Result<(), TestCaseError> {
        let version = self.version(version);
        let side = &mut self.sides[who];
        let body = json!({"name": format!("TestTenant {name} of {}", side.clinic.id)});
        let answer = side.clinic.admin.send("PATCH", "tenant", version.as_deref(), Some(&body)).await;
        if version.is_some_and(|version| version != side.tenant.etag) {
            return refused(&answer, (412, "RES_003", "-"));
        }
        prop_assert_eq!((answer.status, &answer.body["name"]), (200, &body["name"]), "{}", answer.body);
        prop_assert_eq!(&answer.body["id"], &side.tenant.body["id"]);
        side.tenant = Row::of(&answer);
        side.versions.push(side.tenant.etag.clone());
        Ok(())
    }
}

impl Side {
    /// Whether this is the one live user who is an admin. All were made without a name at the identity provider.
    fn is_last_admin(&self, id: &str) -> bool {
        let admins = self.rows(Users).iter().filter(|row| !row.deleted && row.body["role"] == "admin");
        admins.map(Row::id).eq([id])
    }

    /// The row is now what the answer says: what it was, with these members and a version of its own.
    fn changed(&mut self, kind: Kind, id: &str, answer: &Answer, changes: &Value) -> Result<(), TestCaseError> {
        let row = self.rows_mut(kind).iter_mut().find(|row| row.id() == id).unwrap();
        let mut expected = row.body.clone();
        expected.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        expected["updated_at"] = answer.body["updated_at"].clone();
        prop_assert_eq!((answer.status, &answer.body), (200, &expected));
        prop_assert_ne!(answer.etag(), &row.etag);
        *row = Row::of(answer);
        self.versions.push(answer.etag().to_owned());
        Ok(())
    }
}

fn email(name: u8, shout: bool) -> String {
    let email = format!("user-{name}@example.org");
    if shout { email.to_uppercase() } else { email }
}

fn is(answer: &Answer, row: &Row) -> Result<(), TestCaseError> {
    prop_assert_eq!((answer.status, &answer.body, answer.etag()), (200, &row.body, row.etag.as_str()));
    Ok(())
}

fn refused(answer: &Answer, expected: (u16, &str, &str)) -> Result<(), TestCaseError> {
    prop_assert_eq!(answer.refusal(), expected, "{}", answer.body);
    Ok(())
}

/// Plays games on one server, each of two tenants of its own, so that a game that goes wrong can be made smaller.
fn play(database: impl AsyncFnOnce() -> Option<Database>) {
    let runtime = Runtime::new().unwrap();
    let Some(database) = runtime.block_on(database()) else { return };
    let app = runtime.block_on(TestApp::start(database));
    let default = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { CASES };
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 400, max_shrink_time: 120_000, ..default };
    let games = prop::collection::vec((0..2_usize, ask()), 1..60);
    let played = TestRunner::new(config).run(&games, |game| {
        runtime.block_on(async {
            let mut table = Game::new(&app).await;
            for (who, ask) in &game {
                table.play(*who, ask).await?;
            }
            Ok(())
        })
    });
    match played {
        Ok(()) => {}
        Err(TestError::Fail(reason, game)) => panic!("{reason}\nafter {game:#?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

#[test]
fn interleaved_tenants_stay_apart_on_sqlite() {
    play(async || Some(Database::migrated_sqlite().await));
}

#[test]
fn interleaved_tenants_stay_apart_on_postgres() {
    play(Database::migrated_postgres);
}
