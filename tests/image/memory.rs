//! How much memory it needs.

use crate::world::World;
use futures_util::{StreamExt, stream};
use reqwest::Client;
use std::fs;
use std::path::Path;
use std::time::Duration;
use test_support::skip;

/// What it must do with, in bytes.
const LIMIT: u64 = 64 * 1024 * 1024;

const CONNECTIONS: usize = 32;
const REQUESTS: usize = 4000;

/// How long all of them may take: with too little memory a program is not always killed, but crawls.
const PATIENCE: Duration = Duration::from_mins(2);

/// The limit that the kernel holds the process to, where it does.
fn limit(process: &Path) -> Option<u64> {
    let groups = fs::read_to_string(process.join("cgroup")).unwrap();
    groups.lines().find_map(|line| {
        // Hierarchy, controllers, path: all controllers in one hierarchy, or one hierarchy for memory.
        let mut fields = line.splitn(3, ':').skip(1);
        let (root, file) = match fields.next()? {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        // A group is held to its parents' limits as well.
        let groups = Path::new(fields.next()?.trim_start_matches('/')).ancestors();
        groups
            .filter_map(|group| fs::read_to_string(Path::new(root).join(group).join(file)).ok()?.trim().parse().ok())
            .min()
    })
}

/// The most memory it has had, in bytes.
fn peak(process: &Path) -> u64 {
    let status = fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

// The number is what one wants to know of a run.
#[allow(clippy::print_stderr)]
#[tokio::test]
async fn it_serves_within_64_mib() {
    let limited = LIMIT.to_string();
    let world = World::start(|run| run.option("--memory", &limited).option("--memory-swap", &limited)).await;
    let Some(world) = world else { return };
    let client = Client::new();
    let paths = ["/api/v1/health/live", "/api/v1/tenant", "/api/v1/users", "/api/v1/documents"];
    let ask = async |path| world.request(&client, path).send().await.unwrap().status().as_u16();
    let answers = stream::iter(paths.into_iter().cycle().take(REQUESTS)).map(ask).buffer_unordered(CONNECTIONS);
    let statuses: Vec<u16> = tokio::time::timeout(PATIENCE, answers.collect()).await.expect("all are answered in time");
    let refused = statuses.iter().filter(|status| **status != 200).count();
    assert_eq!(refused, 0, "of {REQUESTS}: {}", world.container.log());
    world.container.ready().await;

    let process = world.container.process();
    let peak = peak(&process);
    eprintln!("peak: {} KiB resident after {REQUESTS} requests on {CONNECTIONS} connections", peak / 1024);
    assert!(peak < LIMIT, "{peak} bytes");
    assert_eq!(world.container.inspect()["State"]["OOMKilled"], false);
    if limit(&process) != Some(LIMIT) {
        skip("the engine enforces no memory limit here: measured instead");
    }
}
