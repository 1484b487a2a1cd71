//! Where it listens, and how it finds others.

use crate::container::{Container, Run};
use crate::engine::{engine, succeed};
use crate::name_server::NameServer;
use crate::world::Identity;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use test_support::{Database, eventually, skip};

/// A name that nobody knows but who was told.
const NAME: &str = "bulkhead-contract.test";

/// A network of both address families, removed with this value.
struct Network {
    name: String,
}

impl Network {
    fn create() -> Self {
        // Of the range that everybody may take from (RFC 4193), by this process's id and the time.
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let (process, time) = (std::process::id() & 0xffff, since.subsec_micros() & 0xffff);
        let name = format!("bulkhead-contract-{process:x}-{time:x}");
        let subnet = format!("fd5b:b1c4:{process:x}:{time:x}::/64");
        succeed(&mut engine(&["network", "create", "--ipv6", "--subnet", &subnet, &name]));
        Self { name }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = engine(&["network", "rm", &self.name]).output();
    }
}

fn machine_has_ipv6() -> bool {
    let there = fs::read_to_string("/proc/net/if_inet6").is_ok_and(|addresses| !addresses.is_empty());
    if !there {
        skip("this machine has no IPv6: whether the image serves it");
    }
    there
}

/// Asks from within whether it lives at this address of its own.
fn lives_at(container: &Container, address: &str) -> bool {
    container.exec(&[("HOST", address)], &["healthcheck"]).status.success()
}

#[tokio::test]
async fn on_this_machines_network_it_answers_on_both_address_families() {
    let Some(database) = Database::postgres().await else { return };
    let mut container = Run::with(&database).start();
    container.ready().await;
    if machine_has_ipv6() {
        container.address.set_ip(Ipv6Addr::LOCALHOST.into());
        assert_eq!(container.get("/api/v1/health/live").await.expect("an answer on IPv6").0, 200);
    }
}

#[tokio::test]
async fn on_a_network_of_its_own_it_answers_on_both_address_families_and_a_published_port() {
    if !machine_has_ipv6() {
        return;
    }
    for (variable, port) in [("", "8000"), ("PORT", "9321")] {
        let network = Network::create();
        let run = Run::by_itself().option("--network", &network.name).option("--publish", format!("127.0.0.1::{port}"));
        let run = if variable.is_empty() { run } else { run.set(variable, port) };
        let mut container = run.start();
        let published = succeed(&mut engine(&["port", &container.id, &format!("{port}/tcp")]));
        container.address = published.trim().parse().unwrap();
        container.ready().await;

        let inspected = container.inspect();
        let own = inspected["NetworkSettings"]["Networks"][&network.name]["GlobalIPv6Address"].as_str().unwrap();
        for address in [&Ipv4Addr::LOCALHOST.to_string(), &Ipv6Addr::LOCALHOST.to_string(), own] {
            assert!(lives_at(&container, address), "{address} port {port}");
        }
    }
}

#[tokio::test]
async fn host_narrows_where_it_listens() {
    let container = Run::by_itself().set("HOST", "127.0.0.1").start();
    eventually("it lives", async || lives_at(&container, "127.0.0.1").then_some(())).await;
    for address in ["::1", "127.0.0.2"] {
        assert!(!lives_at(&container, address), "{address}");
    }
}

#[tokio::test]
async fn it_finds_its_database_and_its_provider_by_a_name_server() {
    let Some(names) = NameServer::start(NAME) else { return };
    let resolved = |run: Run| run.option("--dns", names.address.to_string());
    finds_others_by_name(resolved).await;
    assert!(names.asked() > 0);
}

#[tokio::test]
async fn it_finds_its_database_and_its_provider_by_the_hosts_file() {
    finds_others_by_name(|run: Run| run.option("--add-host", format!("{NAME}:127.0.0.1"))).await;
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_one_line_that_says_so() {
    let run = Run::confined().set("DATABASE_URL", format!("postgres://me@{NAME}/app?sslmode=verify-full"));
    let container = run.set("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "1").option("--network", "none").start();
    assert_eq!(container.ended().await, 1, "{}", container.log());
    let [line] = &container.errors()[..] else { panic!("not one line: {}", container.log()) };
    assert!(line.starts_with(&format!("DATABASE_URL: cannot use postgres://***@{NAME}:5432/app: ")), "{line}");
}

/// Ready it can be only by both: the database for its schema, the provider for its keys.
async fn finds_others_by_name(resolved: impl Fn(Run) -> Run) {
    let Some(database) = Database::postgres().await else { return };
    let url = database.url.replace("127.0.0.1", NAME).replace("localhost", NAME);
    assert!(url.contains(NAME), "the database is not on this machine");
    let identity = Identity::of(NAME);
    let run = identity
        .introduce_trusted(Run::on_this_machine().set("DATABASE_URL", url).set("DATABASE_ALLOW_UNVERIFIED", "true"));
    resolved(run).start().ready().await;
}
