//! Through PgBouncer in transaction mode, where a connection to the database is another tenant's the next moment.

use crate::isolation::rows_of;
use crate::support::{Answer, TestApp, TestClient, at};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::HashSet;
use test_support::{Database, PgBouncer};

/// How often each caller asks for everything.
const TURNS: usize = 10;

/// A caller of one tenant, and what is that tenant's.
struct Visitor {
    caller: TestClient,
    tenant: Value,
    rows: HashSet<String>,
    document: Value,
}

impl Visitor {
    /// Asks for everything, and for the other's document; how often the answer was as it should be.
    async fn visit(&self, other: &Self) -> usize {
        let mut served = 0;
        for turn in 0..TURNS {
            for list in ["users", "documents"] {
                served += self.good(&self.caller.get(list).await, 200);
            }
            served += self.good(&self.caller.get("tenant").await, 200);
            served += self.good(&self.caller.get(&at("documents", &self.document)).await, 200);
            let changes = json!({"filename": format!("of {} in turn {turn}", self.tenant)});
            served += self.good(&self.caller.patch(&at("documents", &self.document), &changes).await, 200);
            let foreign = at("documents", &other.document);
            served += self.good(&self.caller.get(&foreign).await, 404);
            served += self.good(&self.caller.patch(&foreign, &changes).await, 404);
        }
        served
    }

    /// 1 for the answer that it should be, which shows this tenant's rows alone; 0 for an error of the server's.
    fn good(&self, answer: &Answer, status: u16) -> usize {
        let listed = answer.items().iter().chain([&answer.body]).filter_map(|row| row["id"].as_str());
        for id in listed {
            assert!(self.rows.contains(id), "{} shows another's: {}", self.tenant, answer.body);
        }
        usize::from(answer.status == status)
    }
}

#[tokio::test]
async fn tenants_sharing_connections_stay_apart() {
    let Some(database) = Database::postgres_of_our_own().await else { return };
    // Fewer connections than callers.
    let Some(pooler) = PgBouncer::start(&database, "transaction", 3).await else { return };
    let direct = database.url.clone();
    let app = TestApp::start(database).await;
    let server = app.server(&[("DATABASE_URL", &pooler.url), ("MIGRATION_DATABASE_URL", &direct)]).await;
    let mut clinics = Vec::new();
    for _ in 0..2 {
        let clinic = app.new_tenant().await;
        let owner = clinic.user("ada@example.org").await["id"].clone();
        let mut rows = vec![owner.clone(), json!(clinic.id)];
        let document = clinic.document(&owner).await;
        rows.push(document["id"].clone());
        for _ in 0..4 {
            rows.push(clinic.document(&owner).await["id"].clone());
        }
        let visitor = |at: usize| Visitor {
            caller: TestClient::new(&app, &server, &clinic.external_id, &format!("idp|{at}"), "member"),
            tenant: json!(clinic.id),
            rows: rows.iter().map(|id| id.as_str().unwrap().to_owned()).collect(),
            document: document.clone(),
        };
        clinics.push((0..4).map(visitor).collect::<Vec<_>>());
    }

    let pairs = clinics[0].iter().zip(&clinics[1]);
    let visits = pairs.flat_map(|(one, two)| [one.visit(two), two.visit(one)]);
    let answers: usize = join_all(visits).await.into_iter().sum();
    for visitors in &clinics {
        let tenant = &visitors[0].tenant;
        let rows = rows_of(&app.owner, serde_json::from_value(tenant.clone()).unwrap()).await;
        let other = if tenant == &clinics[0][0].tenant { &clinics[1] } else { &clinics[0] };
        assert_eq!(rows.len(), visitors[0].rows.len());
        assert!(!rows.iter().any(|row| row.contains(&format!("of {} in turn", other[0].tenant))), "{rows:?}");
    }
    // An older one mixes up prepared statements: requests get errors, and statements that were meant for others. That no
    // row is another's holds all the same.
    if pooler.version >= PgBouncer::WITH_PREPARED_STATEMENTS {
        assert_eq!(answers, 8 * TURNS * 7);
    }
}
