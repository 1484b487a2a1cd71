//! What time it is: UTC, whatever TZ says, and without a time zone database.

use crate::world::World;
use reqwest::Client;
use serde_json::Value;
use test_support::eventually;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, UtcOffset};

/// How far from now what has just been written may be.
const JUST_NOW: Duration = Duration::minutes(2);

fn assert_just_now_in_utc(time: &Value) {
    let text = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    let time = OffsetDateTime::parse(text, &Rfc3339).unwrap();
    assert_eq!(time.offset(), UtcOffset::UTC, "{text}");
    assert!((OffsetDateTime::now_utc() - time).abs() < JUST_NOW, "{text}");
}

#[tokio::test]
async fn times_are_utc_whatever_the_time_zone() {
    // By a name, which needs a database of time zones, and by a rule, which needs none.
    for zone in ["Asia/Tokyo", "JST-9"] {
        let Some(world) = World::start(|run| run.set("TZ", zone)).await else { return };
        let client = Client::new();
        let get = async |path| {
            let answer = world.request(&client, path).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            answer.json::<Value>().await.unwrap()
        };
        let tenant = get("/api/v1/tenant").await;
        assert_just_now_in_utc(&tenant["created_at"]);
        let entry =
            eventually("the audit log has an entry", async || get("/api/v1/audit-logs").await["items"].get(0).cloned());
        assert_just_now_in_utc(&entry.await["created_at"]);
        for line in world.container.log().lines() {
            assert_just_now_in_utc(&serde_json::from_str::<Value>(line).unwrap()["timestamp"]);
        }
    }
}
